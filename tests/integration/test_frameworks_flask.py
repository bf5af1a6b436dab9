"""
Flask: where a request begins and ends for us, on waitress and without a server, and with the
upstream instrumentation.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import flask
import httpx
import pytest
from flask import Flask, stream_with_context
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.trace import SpanKind
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.work_scope import current
from tests.support.telemetry import Telemetry, instrumented
from tests.support.units import Queries, figures, queries_by_unit
from tests.support.waitress import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPEATED = "select * from t where id = 1"
#: No request holds or waits for so long, however busy the machine is: what is found is what the test makes.
PATIENT = {"long_hold_threshold": 60, "exhaustion_threshold": 0}


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(hold_spans=False, checkout_spans="never")


def make_app(queries: Queries, flask_class: type[Flask] = Flask) -> Flask:
    """An application whose routes run as many queries as the request says."""
    app = flask_class("shop")

    @app.get("/users/<int:number>")
    def users(number: int) -> str:
        queries(number)
        return "ok"

    @app.get("/repeat/<int:number>")
    def repeat(number: int) -> str:
        queries(number, REPEATED)
        return "ok"

    @app.get("/stream/<int:number>")
    def stream(number: int) -> Any:
        def rows() -> Iterator[str]:
            for _ in range(number):
                queries(1)
                yield "row\n"
                # A moment in which the server can see that the client reads no more.
                time.sleep(0.01)

        return stream_with_context(rows())

    @app.get("/closing/<int:number>")
    def closing(number: int) -> Any:
        response = flask.Response("ok")
        response.call_on_close(lambda: queries(number))
        return response

    @app.get("/fails")
    def fails() -> str:
        queries(2)
        raise RuntimeError("theirs")

    @app.teardown_request
    def teardown(_: BaseException | None) -> None:
        if flask.request.args.get("teardown"):
            queries(10)

    return app


@pytest.fixture
def queries(telemetry: Telemetry) -> Queries:
    """A pool."""
    return Queries()


@pytest.fixture
def app(queries: Queries) -> Flask:
    """The application."""
    return make_app(queries)


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """Serves a WSGI application on waitress; returns its address."""
    with ExitStack() as stack:
        yield lambda application: f"http://127.0.0.1:{stack.enter_context(serving(application, threads=4))}"


def get(app: Any, path: str) -> Any:
    """One request without a server; what comes back is read and closed, as servers do."""
    return Client(app).get(path, buffered=True)


def units(telemetry: Telemetry) -> dict[str, tuple[int, float]]:
    """Units of work and their queries so far."""
    return queries_by_unit(telemetry.collect())


def test_a_request_is_named_for_its_rule(telemetry: Telemetry, app: Flask) -> None:
    """Different paths of one rule are one name; what matches no rule is named so, whatever the path."""
    for path in ("/users/3", "/users/4", "/users/7?teardown=1"):
        assert get(app, path).text == "ok"
    assert units(telemetry) == {"http GET /users/<int:number>": (3, 24.0)}


def test_what_matches_no_route_is_named_so(telemetry: Telemetry, queries: Queries, app: Flask) -> None:
    """Neither raw paths nor made-up methods become names."""
    app.before_request(lambda: queries(1))
    client = Client(app)
    for number in range(5):
        client.get(f"/nobody/{number}", buffered=True)
        client.open("/nobody", method=f"BREW{number}", buffered=True)
    client.post("/users/3", buffered=True)
    assert units(telemetry) == {
        "http GET <unmatched>": (5, 5.0),
        "http _OTHER <unmatched>": (5, 5.0),
        "http POST <unmatched>": (1, 1.0),
    }


def test_a_streamed_response_is_part_of_the_request(
    telemetry: Telemetry, queries: Queries, app: Flask, serve: Callable[[Any], str]
) -> None:
    """Each chunk's queries belong to it, on a real server too, and nothing between the chunks does."""
    address = serve(app)
    assert httpx.get(f"{address}/stream/5", timeout=60).text == "row\n" * 5
    assert httpx.get(f"{address}/stream/3", timeout=60).text == "row\n" * 3
    wait_until(lambda: units(telemetry) == {"http GET /stream/<int:number>": (2, 8.0)}, 60)


def test_between_the_chunks_the_servers_code_is_outside(telemetry: Telemetry, queries: Queries, app: Flask) -> None:
    """Two streams read in turn by one thread do not get into one another's."""
    first = Client(app).get("/stream/3").iter_encoded()
    second = Client(app).get("/stream/5").iter_encoded()
    for stream in (first, second, first, second, first):
        next(stream)
        assert current() is None
    assert units(telemetry) == {}


def test_a_stream_that_the_client_leaves_is_over(
    telemetry: Telemetry, queries: Queries, app: Flask, serve: Callable[[Any], str]
) -> None:
    """The server closes what it does not read on, and the unit of work with it."""
    address = serve(app)
    with httpx.stream("GET", f"{address}/stream/100000", timeout=60) as response:
        next(response.iter_text())
    wait_until(lambda: list(units(telemetry)) == ["http GET /stream/<int:number>"], 60)


def test_what_runs_at_close_is_part_of_the_request(
    telemetry: Telemetry, app: Flask, serve: Callable[[Any], str]
) -> None:
    """Callbacks of `call_on_close` run after the last byte."""
    address = serve(app)
    httpx.get(f"{address}/closing/6", timeout=60)
    wait_until(lambda: units(telemetry) == {"http GET /closing/<int:number>": (1, 6.0)}, 60)


def test_a_test_client_that_closes_nothing_loses_no_request(telemetry: Telemetry, queries: Queries, app: Flask) -> None:
    """As tests are written: without `buffered=True`, looking at the status alone, at the text, or at a part."""
    client = app.test_client()
    assert client.get("/users/3").status_code == 200
    assert client.get("/users/4").text == "ok"
    assert units(telemetry) == {"http GET /users/<int:number>": (2, 7.0)}
    kept = client.get("/users/5")
    read = client.get("/stream/2")
    assert read.text == "row\n" * 2
    part = client.get("/stream/9")
    assert part.status_code == 200
    del part
    assert units(telemetry) == {
        "http GET /users/<int:number>": (3, 12.0),
        "http GET /stream/<int:number>": (2, 3.0),
    }
    kept.close()
    read.close()
    assert sum(count for count, _ in units(telemetry).values()) == 5
    assert current() is None


def test_an_error_ends_the_request(telemetry: Telemetry, app: Flask) -> None:
    """An error that Flask answers, and one that it passes on: the same one."""
    assert get(app, "/fails").status_code == 500
    app.testing = True
    with pytest.raises(RuntimeError, match="theirs"):
        get(app, "/fails")
    assert units(telemetry) == {"http GET /fails": (2, 4.0)}
    assert current() is None


def test_a_mounted_application_is_part_of_the_outer_request(telemetry: Telemetry, queries: Queries) -> None:
    """One unit of work, the outermost; the innermost rule that matched names it."""
    inner = make_app(queries)
    outer = Flask("outer")

    @outer.get("/through/<path:path>")
    def through(path: str) -> str:
        queries(1)
        return str(get(inner, f"/{path}").text)

    assert get(outer, "/through/users/4").text == "ok"
    assert units(telemetry) == {"http GET /users/<int:number>": (1, 5.0)}
    mounted = DispatcherMiddleware(Flask("root"), {"/shop": inner})
    assert get(mounted, "/shop/users/3").text == "ok"
    assert units(telemetry) == {"http GET /users/<int:number>": (2, 8.0)}


def test_the_response_is_what_it_is_without_us(telemetry: Telemetry, app: Flask) -> None:
    """Bodies with a length keep it, a file keeps the server's class for it, and lists stay lists."""
    from poolscope.core.pool_registry import open_pool_registries
    from poolscope.frameworks.wsgi import Middleware

    class FileWrapper:
        def __init__(self) -> None:
            self.closed = False

        def __iter__(self) -> Iterator[bytes]:
            yield b"file"

        def close(self) -> None:
            self.closed = True

    class Sized:
        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[bytes]:
            yield b"x"

    whole, sized, file = [b"whole"], Sized(), FileWrapper()
    bodies = iter([whole, sized, file])
    application = Middleware(lambda environ, start_response: next(bodies), open_pool_registries[-1])
    environ = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": FileWrapper}
    assert application(environ, None) is whole
    body = application(environ, None)
    assert (len(body), list(body)) == (1, [b"x"])
    body.close()
    assert application(environ, None) is file
    file.close()
    assert file.closed
    assert current() is None


@pytest.mark.parametrize("reach", [True, False])
def test_threads_belong_to_the_request_that_starts_them(reach: bool) -> None:
    """
    Nothing of a thread or an executor's job is lost: it is the request's, or a job of its own if the setting says so.
    `uninstrument()` takes the hooks out again.
    """
    before = (threading.Thread.start, ThreadPoolExecutor.submit)
    telemetry = Telemetry(hold_spans=False, propagate_to_threads=reach)
    telemetry.start()
    queries = Queries()
    app = Flask("shop")

    @app.get("/threads")
    def threads() -> str:
        run_in_threads(queries)
        return "ok"

    get(app, "/threads")
    collected = telemetry.collect()
    request, jobs = ((1, 7.0), {}) if reach else ((1, 1.0), {"job Queries": (2, 6.0)})
    assert queries_by_unit(collected) == {"http GET /threads": request, **jobs}
    assert collected.value(semconv.UNATTRIBUTED, "shop") == 0
    run_in_threads(queries)
    outside = units(telemetry)
    assert outside["http GET /threads"] == request
    assert outside["job Queries"] == ((2, 6.0) if reach else (4, 12.0))
    telemetry.shutdown()
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == before


def test_what_a_request_leaves_running_is_a_job_once_it_is_over(telemetry: Telemetry, queries: Queries) -> None:
    """A thread that a request starts goes on as a job of its own when the request has ended."""
    app, over, threads = Flask("shop"), threading.Event(), []

    def background() -> None:
        queries(1)
        over.wait(60)
        queries(2)

    @app.get("/starts")
    def starts() -> str:
        threads.append(threading.Thread(target=background))
        threads[0].start()
        wait_until(lambda: queries.pool.holds.read().count == 1, 60)
        return "ok"

    get(app, "/starts")
    over.set()
    threads[0].join(60)
    name = f"{test_what_a_request_leaves_running_is_a_job_once_it_is_over.__name__}.<locals>.background"
    assert units(telemetry) == {"http GET /starts": (1, 1.0), f"job {name}": (1, 2.0)}


def run_in_threads(queries: Queries) -> None:
    """One query here, two in a thread, four in an executor."""
    queries(1)
    thread = threading.Thread(target=queries, args=(2,))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(queries, 4).result()


def test_a_disabled_boundary_is_left_alone() -> None:
    """Its requests are in the pool's figures only."""
    before = Flask.__call__
    telemetry = Telemetry(disabled_frameworks="flask")
    telemetry.start()
    assert Flask.__call__ is before
    queries = Queries()
    get(make_app(queries), "/users/3")
    assert units(telemetry) == {}
    assert telemetry.instrumentor.framework_statuses()["flask"].state.value == "disabled"
    telemetry.shutdown()


@pytest.mark.parametrize("upstream_first", [True, False])
def test_the_server_span_of_the_upstream_instrumentation_has_the_figures(upstream_first: bool) -> None:
    """
    Whoever starts first; and the findings are there before the span ends. It ends before a body is streamed: what that
    queries is in the metrics only.
    """
    telemetry = Telemetry(hold_spans=False, checkout_spans="never", **PATIENT)
    upstream = FlaskInstrumentor()

    def start_upstream() -> None:
        upstream.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)

    for start in (start_upstream, telemetry.start) if upstream_first else (telemetry.start, start_upstream):
        start()
    try:
        app = make_app(Queries(), flask.Flask)
        get(app, "/users/3")
        get(app, "/repeat/8")
        get(app, "/stream/2")
    finally:
        upstream.uninstrument()
        spans = telemetry.spans()
        telemetry.shutdown()
    servers = {span.name: figures(span) for span in spans if span.kind is SpanKind.SERVER}
    assert {name: found[semconv.UNIT_OF_WORK_QUERIES] for name, found in servers.items()} == {
        "GET /users/<int:number>": 3,
        "GET /repeat/<int:number>": 8,
        "GET /stream/<int:number>": 0,
    }
    assert {name: found.get(semconv.FINDINGS) for name, found in servers.items()} == {
        "GET /users/<int:number>": None,
        "GET /repeat/<int:number>": (N_PLUS_ONE,),
        "GET /stream/<int:number>": None,
    }
