"""Django: where a request begins and ends for us, under WSGI and ASGI, and with the upstream instrumentation."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import django
import httpx
import pytest
from django.conf import settings
from django.core.signals import request_finished
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import include, path, re_path
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.trace import SpanKind
from werkzeug.test import Client

from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.work_scope import current
from tests.support.telemetry import Telemetry, instrumented
from tests.support.units import Queries, figures, queries_by_unit
from tests.support.waitress import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

REPEATED = "select * from t where id = 1"
#: No request holds or waits for so long, however busy the machine is: what is found is what the test makes.
PATIENT = {"long_hold_threshold": 60, "exhaustion_threshold": 0}

#: What the views query; one test at a time.
run: Any = None


def users(request: Any, number: int) -> HttpResponse:
    """As many queries as it is asked for."""
    run(number)
    return HttpResponse("ok")


def repeat(request: Any, number: str) -> HttpResponse:
    """The same statement over and over."""
    run(int(number), REPEATED)
    return HttpResponse("ok")


def stream(request: Any, number: int) -> StreamingHttpResponse:
    """A query for each chunk."""

    def rows() -> Iterator[str]:
        for _ in range(number):
            run(1)
            yield "row\n"

    return StreamingHttpResponse(rows())


async def later(request: Any, number: int) -> HttpResponse:
    """A coroutine function."""
    run(number)
    return HttpResponse("ok")


async def astream(request: Any, number: int) -> StreamingHttpResponse:
    """A query for each chunk, asynchronously."""

    async def rows() -> AsyncIterator[str]:
        for _ in range(number):
            run(1)
            yield "row\n"

    return StreamingHttpResponse(rows())


def file(request: Any) -> FileResponse:
    """A file, which the server may send by itself."""
    run(2)
    return FileResponse(open(__file__, "rb"))  # noqa: PTH123 - the response closes it


def failing(request: Any) -> StreamingHttpResponse:
    """Fails with its second chunk."""

    def rows() -> Iterator[str]:
        run(1)
        yield "row\n"
        raise ArithmeticError

    return StreamingHttpResponse(rows())


def broken(request: Any) -> HttpResponse:
    """Fails after its queries."""
    run(2)
    raise ArithmeticError


urlpatterns = [
    path("shop/", include([path("users/<int:number>/", users), path("later/<int:number>/", later)])),
    re_path(r"^repeat/(?P<number>\d+)/$", repeat),
    path("stream/<int:number>/", stream),
    path("astream/<int:number>/", astream),
    path("file/", file),
    path("failing/", failing),
    path("broken/", broken),
]


@pytest.fixture(scope="module", autouse=True)
def configured() -> Iterator[None]:
    """Django, set up for this module's URLs; without a database."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="x", MIDDLEWARE=[])
        django.setup()
    from django.test.utils import override_settings

    with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=[]):
        yield


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(hold_spans=False, checkout_spans="never")


@pytest.fixture
def queries(telemetry: Telemetry) -> Iterator[Queries]:
    """A pool; the views use it."""
    global run  # noqa: PLW0603 - Django finds views by module
    run = Queries()
    yield run
    run = None


@pytest.fixture
def at_the_end(queries: Queries) -> Iterator[list[object]]:
    """What `request_finished` found to be the running unit of work; Django gives connections back there."""
    found: list[object] = []

    def finished(**_: Any) -> None:
        unit = current()
        found.append(unit and str(unit))
        queries(1)

    request_finished.connect(finished)
    yield found
    request_finished.disconnect(finished)


def wsgi_application() -> Any:
    """A handler, as `get_wsgi_application()` makes it."""
    from django.core.handlers.wsgi import WSGIHandler

    return WSGIHandler()


def asgi_application() -> Any:
    """A handler, as `get_asgi_application()` makes it."""
    from django.core.handlers.asgi import ASGIHandler

    return ASGIHandler()


def get(address: str) -> str:
    """One request through WSGI, read and closed."""
    return Client(wsgi_application()).get(address, buffered=True).text


def aget(*addresses: str) -> list[str]:
    """Requests through ASGI."""

    async def checkout() -> list[str]:
        transport = httpx.ASGITransport(asgi_application())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [(await client.get(address)).text for address in addresses]

    return asyncio.run(checkout())


def units(telemetry: Telemetry) -> dict[str, tuple[int, float]]:
    """Units of work and their queries so far."""
    return queries_by_unit(telemetry.collect())


def test_a_request_is_named_for_its_route(telemetry: Telemetry, queries: Queries) -> None:
    """Included URLs, regular expressions, and what matches none."""
    assert get("/shop/users/3/") == "ok"
    assert get("/shop/users/4/") == "ok"
    assert get("/repeat/2/") == "ok"
    get("/nobody/5/")
    assert units(telemetry) == {
        "http GET /shop/users/<int:number>/": (2, 7.0),
        r"http GET /^repeat/(?P<number>\d+)/$": (1, 2.0),
    }


def test_the_request_ends_after_request_finished(
    telemetry: Telemetry, queries: Queries, at_the_end: list[object]
) -> None:
    """Whole, streamed and as a file; on a real server, which closes them."""
    with serving(wsgi_application(), threads=2) as port:
        for number, address in enumerate(("shop/users/3/", "stream/4/", "file/"), 1):
            assert httpx.get(f"http://127.0.0.1:{port}/{address}", timeout=60).status_code == 200
            # The last byte leaves before the request has finished.
            wait_until(lambda number=number: len(units(telemetry)) == number, 60)
    assert units(telemetry) == {
        "http GET /shop/users/<int:number>/": (1, 4.0),
        "http GET /stream/<int:number>/": (1, 5.0),
        "http GET /file/": (1, 3.0),
    }
    assert at_the_end == [name for name in units(telemetry)]  # noqa: C416 - in that order


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
def test_under_asgi(telemetry: Telemetry, queries: Queries, at_the_end: list[object]) -> None:
    """Synchronous views run in another thread, asynchronous ones in the event loop; both belong to the request."""
    assert aget("/shop/users/3/", "/shop/later/4/", "/astream/5/") == ["ok", "ok", "row\n" * 5]
    assert units(telemetry) == {
        "http GET /shop/users/<int:number>/": (1, 4.0),
        "http GET /shop/later/<int:number>/": (1, 5.0),
        "http GET /astream/<int:number>/": (1, 6.0),
    }
    assert at_the_end == list(units(telemetry))


def client_get(address: str) -> bytes:
    """One request through Django's test client, read to its end."""
    from django.test import Client as TestClient

    response = TestClient().get(address)
    return b"".join(response.streaming_content) if response.streaming else response.content  # type: ignore[attr-defined,no-any-return]


def client_aget(address: str) -> bytes:
    """The same through its asynchronous one."""
    from django.test import AsyncClient

    async def checkout() -> bytes:
        response = await AsyncClient().get(address)
        if not response.streaming:
            return response.content
        content: Any = response.streaming_content  # type: ignore[attr-defined]
        return b"".join([chunk async for chunk in content] if response.is_async else content)  # type: ignore[attr-defined]

    return asyncio.run(checkout())


@pytest.mark.parametrize("checkout", [client_get, client_aget], ids=["client", "async client"])
def test_djangos_test_clients(
    telemetry: Telemetry, queries: Queries, at_the_end: list[object], checkout: Callable[[str], bytes]
) -> None:
    """
    Each request is one unit of work, from its start until after `request_finished`, streamed or not; a test's own
    queries between the chunks, and after, belong to none.
    """
    assert checkout("/shop/users/3/") == b"ok"
    assert checkout("/shop/later/4/") == b"ok"
    assert checkout("/astream/5/" if checkout is client_aget else "/stream/5/") == b"row\n" * 5
    assert checkout("/file/").startswith(b'"""')
    queries(7)
    assert current() is None
    stream_name = "astream" if checkout is client_aget else "stream"
    assert units(telemetry) == {
        "http GET /shop/users/<int:number>/": (1, 4.0),
        "http GET /shop/later/<int:number>/": (1, 5.0),
        f"http GET /{stream_name}/<int:number>/": (1, 6.0),
        "http GET /file/": (1, 3.0),
    }
    assert at_the_end == list(units(telemetry))


def test_a_streamed_response_of_the_test_client(
    telemetry: Telemetry, queries: Queries, at_the_end: list[object]
) -> None:
    """What the test does between two chunks is not the request's; closed before its end, or failing, it is over."""
    from django.test import Client as TestClient

    response: Any = TestClient().get("/stream/5/")
    chunks = iter(response.streaming_content)
    next(chunks)
    queries(10)
    next(chunks)
    assert current() is None
    assert units(telemetry) == {}
    response.close()
    ends = len(at_the_end)  # Django sends `request_finished` twice here
    assert at_the_end == ["http GET /stream/<int:number>/"] * ends
    response.close()
    assert at_the_end[ends:] == [None]
    assert units(telemetry) == {"http GET /stream/<int:number>/": (1, 2.0 + ends)}

    dropped: Any = TestClient().get("/stream/5/")
    next(iter(dropped.streaming_content))
    del dropped
    gc.collect()  # a test response of Django's is part of a cycle
    assert units(telemetry)["http GET /stream/<int:number>/"][0] == 2

    failing: Any = TestClient().get("/failing/")
    with pytest.raises(ArithmeticError):
        list(failing.streaming_content)
    with pytest.raises(ArithmeticError):
        TestClient().get("/broken/")
    assert units(telemetry)["http GET /failing/"] == (1, 2.0)
    assert units(telemetry)["http GET /broken/"] == (1, 3.0)


@pytest.mark.parametrize("upstream_first", [True, False])
@pytest.mark.parametrize(
    "checkout", [get, aget, client_get, client_aget], ids=["wsgi", "asgi", "client", "async client"]
)
def test_the_server_span_of_the_upstream_instrumentation_has_the_figures(checkout: Any, upstream_first: bool) -> None:
    """Whoever starts first; and the findings are there before the span ends."""
    global run  # noqa: PLW0603
    telemetry = Telemetry(hold_spans=False, checkout_spans="never", **PATIENT)
    upstream = DjangoInstrumentor()

    def start_upstream() -> None:
        upstream.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)

    for start in (start_upstream, telemetry.start) if upstream_first else (telemetry.start, start_upstream):
        start()
    try:
        run = Queries()
        checkout("/repeat/3/")
        checkout("/repeat/8/")
    finally:
        upstream.uninstrument()
        spans = telemetry.spans()
        telemetry.shutdown()
    servers = [figures(span) for span in spans if span.kind is SpanKind.SERVER]
    assert [found[semconv.UNIT_OF_WORK_QUERIES] for found in servers] == [3, 8]
    assert [found.get(semconv.FINDINGS) for found in servers] == [None, (N_PLUS_ONE,)]
