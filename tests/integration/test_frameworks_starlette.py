"""Starlette and FastAPI: where a request begins and ends for us, and with the upstream instrumentation."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from flask import Flask
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.pool_registry import open_pool_registries
from poolscope.core.work_scope import current
from poolscope.frameworks.asgi import Middleware
from tests.support.telemetry import Telemetry, instrumented
from tests.support.units import Queries, figures, queries_by_unit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

REPEATED = "select * from t where id = 1"
#: No request holds or waits for so long, however busy the machine is: what is found is what the test makes.
PATIENT = {"long_hold_threshold": 60, "exhaustion_threshold": 0, "blocked_event_loop_threshold": 60}


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(hold_spans=False, checkout_spans="never")


@pytest.fixture
def queries(telemetry: Telemetry) -> Queries:
    """A pool."""
    return Queries()


def make_api(queries: Queries) -> FastAPI:
    """An application whose routes run as many queries as the request says."""
    api = FastAPI()
    router = APIRouter()

    @router.get("/users/{number}")
    async def users(number: int) -> str:
        queries(number)
        await asyncio.to_thread(queries, 10)
        return "ok"

    @router.get("/sync/{number}")
    def sync(number: int) -> str:
        queries(number)
        return "ok"

    @api.get("/fails")
    async def fails() -> str:
        queries(2)
        raise RuntimeError("theirs")

    @api.websocket("/ws/{room}")
    async def talk(socket: WebSocket, room: str) -> None:
        await socket.accept()
        queries(1)
        async for text in socket.iter_text():
            queries(int(text))
            await socket.send_text("ok")

    api.include_router(router, prefix="/shop")
    add_what_ends_late(api, queries)
    return api


def add_what_ends_late(api: FastAPI, queries: Queries) -> None:
    """Routes that query after they answered."""

    def session(number: int) -> Iterator[None]:
        queries(1)
        yield
        queries(1)

    @api.get("/depends/{number}", dependencies=[Depends(session)])
    async def depends(number: int) -> str:
        queries(number)
        return "ok"

    @api.get("/background/{number}")
    async def background(number: int, tasks: BackgroundTasks) -> str:
        tasks.add_task(queries, number)
        return "ok"

    @api.get("/stream/{number}")
    async def stream(number: int) -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            for _ in range(number):
                queries(1)
                yield "row\n"

        return StreamingResponse(rows())


@pytest.fixture
def api(queries: Queries) -> FastAPI:
    """The application."""
    return make_api(queries)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The application on uvicorn; its address."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 60)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


def get(app: Any, *paths: str) -> list[str]:
    """Requests in the same event loop, without a server; what was answered."""

    async def checkout() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return [(await client.get(path)).text for path in paths]

    return asyncio.run(checkout())


def units(telemetry: Telemetry) -> dict[str, tuple[int, float]]:
    """Units of work and their queries so far."""
    return queries_by_unit(telemetry.collect())


def test_a_request_is_named_for_its_route(telemetry: Telemetry, api: FastAPI) -> None:
    """
    The prefix of an included router is part of the name; paths of one route are one name; what runs in another thread
    through `to_thread`, or because the route is no coroutine function, belongs to it.
    """
    get(api, "/shop/users/3", "/shop/users/4", "/shop/sync/5")
    assert units(telemetry) == {"http GET /shop/users/{number}": (2, 27.0), "http GET /shop/sync/{number}": (1, 5.0)}


def test_what_matches_no_route_is_named_so(telemetry: Telemetry, queries: Queries, api: FastAPI) -> None:
    """Raw paths never become names."""

    @api.middleware("http")
    async def count(request: Any, call_next: Any) -> Any:
        queries(1)
        return await call_next(request)

    get(api, "/nobody/1", "/nobody/2")
    assert units(telemetry) == {"http GET <unmatched>": (2, 2.0)}


@pytest.mark.parametrize(
    ("path", "name", "number"),
    [
        ("/background/6", "GET /background/{number}", 6.0),
        ("/depends/3", "GET /depends/{number}", 5.0),
        ("/stream/4", "GET /stream/{number}", 4.0),
    ],
)
def test_what_runs_after_the_answer_belongs_to_the_request(
    telemetry: Telemetry, api: FastAPI, path: str, name: str, number: float
) -> None:
    """Background tasks, dependencies with `yield` and streamed bodies, on a real server."""
    with served(api) as address:
        assert httpx.get(f"{address}{path}", timeout=60).status_code == 200
        wait_until(lambda: units(telemetry) == {f"http {name}": (1, number)}, 60)


def test_an_error_ends_the_request(telemetry: Telemetry, api: FastAPI) -> None:
    """It passes on as it is."""
    with pytest.raises(RuntimeError, match="theirs"):
        get(api, "/fails")
    assert units(telemetry) == {"http GET /fails": (1, 2.0)}


def test_a_mounted_application_is_part_of_the_outer_request(
    telemetry: Telemetry, queries: Queries, api: FastAPI
) -> None:
    """
    One unit of work, the outermost, named for the innermost route with the mounts before it; through middleware that
    runs the application in a task of its own.
    """

    class Through(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            queries(1)
            return await call_next(request)

    inner = Starlette(routes=[Mount("/v{version:int}", app=api)])
    inner.add_middleware(Through)
    outer = Starlette(routes=[Mount("/api", app=inner)])
    outer.add_middleware(Through)
    get(outer, "/api/v2/shop/users/3", "/api/v2/nobody")
    assert units(telemetry) == {
        "http GET /api/v{version:int}/shop/users/{number}": (1, 15.0),
        "http GET /api/v{version:int}/{path}": (1, 2.0),
    }


@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")
def test_a_mounted_wsgi_application_is_part_of_the_outer_request(telemetry: Telemetry, queries: Queries) -> None:
    """Flask inside Starlette names the request."""
    from a2wsgi import WSGIMiddleware

    app = Flask("inner")

    @app.get("/users/<int:number>")
    def users(number: int) -> str:
        queries(number)
        return "ok"

    outer = Starlette(routes=[Mount("/old", app=WSGIMiddleware(app))])
    assert get(outer, "/old/users/3") == ["ok"]
    assert units(telemetry) == {"http GET /old/users/<int:number>": (1, 3.0)}


def test_a_request_to_another_application_in_the_process_is_one_of_its_own(
    telemetry: Telemetry, queries: Queries, api: FastAPI
) -> None:
    """
    It has a scope of its own, as any request over the network; also when the context is inherited, as from the request
    before on the same connection of some servers.
    """

    async def call(_: Any) -> PlainTextResponse:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            await client.get("/shop/users/1")
        queries(1)
        return PlainTextResponse("ok")

    get(Starlette(routes=[Route("/call", call)]), "/call")
    assert units(telemetry) == {"http GET /shop/users/{number}": (1, 11.0), "http GET /call": (1, 1.0)}


def test_each_message_of_a_websocket_is_one(telemetry: Telemetry, api: FastAPI) -> None:
    """So a chat of a day is no request of a day, and a query per message no N+1."""
    asyncio.run(talk(api, "2", "7"))
    assert units(telemetry) == {"http WEBSOCKET /ws/{room}": (3, 10.0)}


def test_messages_across_which_a_connection_is_held_are_one(telemetry: Telemetry, queries: Queries) -> None:
    """What is held while waiting for a message is not left behind."""
    api = FastAPI()

    @api.websocket("/ws")
    async def hold(socket: WebSocket) -> None:
        await socket.accept()
        lease = queries.pool.checkout()
        lease.acquired()
        async for _ in socket.iter_text():
            await socket.send_text("ok")
        lease.released()

    asyncio.run(talk(api, "1", "2", path="/ws"))
    [point] = telemetry.collect().points(semconv.UNIT_CONNECTIONS)
    assert (point.count, point.sum) == (1, 1)


async def talk(app: Any, *texts: str, path: str = "/ws/blue") -> None:
    """A websocket client without a network."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "root_path": "",
    }
    running = asyncio.create_task(app(scope, to_app.get, from_app.put))
    await to_app.put({"type": "websocket.connect"})
    assert (await from_app.get())["type"] == "websocket.accept"
    for text in texts:
        await to_app.put({"type": "websocket.receive", "text": text})
        assert (await from_app.get())["text"] == "ok"
    await to_app.put({"type": "websocket.disconnect", "code": 1000})
    await running
    assert current() is None


def test_the_lifespan_is_no_unit_of_work(telemetry: Telemetry, queries: Queries) -> None:
    """What an application does at start belongs to no request."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        queries(5)
        yield

    app = Starlette(lifespan=lifespan)

    async def run() -> None:
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(messages)

        async def send(_: Any) -> None:
            pass

        await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    asyncio.run(run())
    assert units(telemetry) == {}


def test_any_asgi_application_through_the_middleware(telemetry: Telemetry, queries: Queries) -> None:
    """The routes of an application of no known framework are unknown."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        queries(3)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    assert get(Middleware(app, open_pool_registries[-1]), "/secret/path") == ["ok"]
    assert units(telemetry) == {"http GET <unmatched>": (1, 3.0)}


@pytest.mark.parametrize("upstream_first", [True, False])
@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
def test_the_server_span_of_the_upstream_instrumentation_has_the_figures(kind: str, upstream_first: bool) -> None:
    """Whoever starts first; and the findings are there before the span ends."""
    telemetry = Telemetry(hold_spans=False, checkout_spans="never", **PATIENT)
    upstream: Any = FastAPIInstrumentor() if kind == "fastapi" else StarletteInstrumentor()

    def start_upstream() -> None:
        upstream.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)

    for start in (start_upstream, telemetry.start) if upstream_first else (telemetry.start, start_upstream):
        start()
    try:
        queries = Queries()
        get(made_anew(kind, queries), "/repeat/3", "/repeat/8")
    finally:
        upstream.uninstrument()
        spans = telemetry.spans()
        telemetry.shutdown()
    servers = [figures(span) for span in spans if span.kind is SpanKind.SERVER]
    assert [found[semconv.UNIT_OF_WORK_QUERIES] for found in servers] == [3, 8]
    assert [found.get(semconv.FINDINGS) for found in servers] == [None, (N_PLUS_ONE,)]


def made_anew(kind: str, queries: Queries) -> Any:
    """An application of the class that is there after upstream replaced it."""
    import fastapi
    import starlette.applications

    if kind == "fastapi":
        api = fastapi.FastAPI()

        @api.get("/repeat/{number}")
        async def repeat(number: int) -> str:
            queries(number, REPEATED)
            return "ok"

        return api

    async def endpoint(request: Any) -> PlainTextResponse:
        queries(request.path_params["number"], REPEATED)
        return PlainTextResponse("ok")

    return starlette.applications.Starlette(routes=[Route("/repeat/{number:int}", endpoint)])
