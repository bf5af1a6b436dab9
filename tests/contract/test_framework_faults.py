"""
An error of ours in the unit of work never reaches the application, whatever framework calls it; nor
is the unit left.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from poolscope.core import lazy_jobs, work, work_scope
from poolscope.core.guard import guard
from poolscope.core.lazy_jobs import LazyJob, LazyJobScope
from poolscope.core.pool_registry import open_pool_registries
from poolscope.core.work import CURRENT_UNIT, UnitOfWork, Units, Usage
from poolscope.core.work_scope import WorkScope
from poolscope.frameworks import asgi, naming, wsgi
from tests.support.telemetry import Telemetry
from tests.support.units import Queries, queries_by_unit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

#: What hooks call. Each is a guard around the work, which is done elsewhere: `_enter`, `_leave` and what they call.
GUARDS: Final = {
    *("begin", "enter", "leave", "read", "end", "end_in_collection"),
    *("take", "_begun", "returns", "inside", "inside_async", "finish", "reset"),
}

#: Names of requests are made of what a server knows already.
OF_REQUESTS: Final = {"unmatched", "matched"}

#: What every job that no framework knows passes.
OF_JOBS: Final = {
    *("LazyJob.__init__", "LazyJob._unit_for", "LazyJobScope.__init__", "LazyJobScope._enter", "LazyJobScope._leave"),
    *("Units.begin_job", "Units.end"),
}

#: What every request passes: a law that does not reach it proves nothing.
ALWAYS: Final = {"WorkScope._enter", "WorkScope._leave", "WorkScope.__init__", "Units.begin", "Units.end"}

PARTS: Final = 3


class OursError(Exception):
    """An error in poolscope."""


class Place(NamedTuple):
    """
    A function of ours.

    Args:
        owner: The class, or the module.
        name: Its name.
    """

    owner: Any
    name: str

    @property
    def label(self) -> str:
        """What a failure is recognised by."""
        return f"{self.owner.__name__}.{self.name}" if inspect.isclass(self.owner) else self.name


def _places() -> list[Place]:
    methods = [
        Place(owner, name)
        for owner in (WorkScope, LazyJob, LazyJobScope, Units, UnitOfWork, Usage)
        for name, value in vars(owner).items()
        if inspect.isfunction(value) and not (owner in {WorkScope, LazyJob, LazyJobScope} and name in GUARDS)
    ]
    functions = [
        Place(module, name)
        for module in (work, work_scope, lazy_jobs, naming)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name not in {*GUARDS, *OF_REQUESTS}
    ]
    return methods + functions


def _strike(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    # Wherever it was imported to.
    original = vars(place.owner)[place.name]
    strikes: list[str] = []

    @functools.wraps(original)
    def fails(*_: Any, **__: Any) -> Any:
        strikes.append(place.label)
        raise OursError(place.label)

    monkeypatch.setattr(place.owner, place.name, fails)
    for module in [one for name, one in sys.modules.items() if name.startswith("poolscope.")]:
        for name, value in list(vars(module).items()):
            if value is original:
                monkeypatch.setattr(module, name, fails)
    return strikes


class Shop:
    """What the applications do: queries, where the test counts them, and answers."""

    def __init__(self) -> None:
        self.query: Callable[[int], None] = lambda _: None

    def answer(self) -> str:
        """A value."""
        self.query(2)
        return "ok"

    def parts(self) -> Iterator[str]:
        """A value in parts."""
        for number in range(PARTS):
            self.query(1)
            yield str(number)

    async def parts_later(self) -> AsyncIterator[str]:
        """The same, asynchronously."""
        for part in self.parts():
            yield part

    def breaks(self) -> str:
        """An error of the application's."""
        self.query(1)
        raise ArithmeticError


SHOP: Final = Shop()


def _wsgi() -> list[object]:
    from werkzeug.test import Client

    def application(environ: Any, start_response: Any) -> Any:
        what = environ["PATH_INFO"]
        if what == "/broken":
            SHOP.breaks()
        start_response("200 OK", [("Content-Type", "text/plain")])
        if what == "/parts":
            return (part.encode() for part in SHOP.parts())
        with ThreadPoolExecutor(1) as others:
            return [others.submit(SHOP.answer).result().encode()]

    client = Client(wsgi.Middleware(application, open_pool_registries[-1]) if open_pool_registries else application)
    told = [_told(lambda path=path: _read(client, path)) for path in ("/", "/parts", "/broken")]
    response = client.get("/parts", buffered=False)
    told += [next(iter(response.response)), response.close()]
    # As tests do, which leave it open.
    return [*told, client.get("/parts").status, client.get("/parts").text]


def _asgi() -> list[object]:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"] + SHOP.answer()})
            return
        if scope["path"] == "/broken":
            SHOP.breaks()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for part in SHOP.parts_later():
            await send({"type": "http.response.body", "body": part.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": SHOP.answer().encode()})

    hello = [{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": str(one)} for one in range(2)]]
    in_middleware = asgi.Middleware(application, open_pool_registries[-1]) if open_pool_registries else application
    return _talk(in_middleware, [*hello, {"type": "websocket.disconnect"}], paths=("/", "/broken"), websocket="/")


def _flask() -> list[object]:
    import flask

    app = flask.Flask("shop")
    app.add_url_rule("/", "answer", SHOP.answer)
    app.add_url_rule("/parts", "parts", lambda: flask.Response(SHOP.parts()))
    app.add_url_rule("/broken", "broken", SHOP.breaks)
    app.testing = True
    client = app.test_client()
    paths = ("/", "/parts", "/none", "/broken")
    told = [_told(lambda path=path: _read(client, path)) for path in paths]
    return [*told, client.get("/").status, client.get("/parts").text]


def _fastapi() -> list[object]:
    import fastapi
    from fastapi.responses import StreamingResponse
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    async def mounted(_: Any) -> PlainTextResponse:
        return PlainTextResponse(SHOP.answer())

    app = fastapi.FastAPI(routes=[Mount("/under", routes=[Route("/here", mounted)])])
    app.get("/")(SHOP.answer)
    app.get("/parts")(lambda: StreamingResponse(SHOP.parts_later()))
    app.get("/broken")(SHOP.breaks)

    @app.websocket("/talk")
    async def talk(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        for _ in range(2):
            await websocket.send_text(await websocket.receive_text() + SHOP.answer())

    hello = [{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": str(one)} for one in range(2)]]
    return _talk(app, hello, paths=("/", "/parts", "/none", "/under/here", "/broken"), websocket="/talk")


def _talk(
    application: Any, messages: list[Any], *, paths: tuple[str, ...], websocket: str | None = None
) -> list[object]:
    # What a server sees of an ASGI application.
    async def call(scope: dict[str, Any], waiting: list[Any]) -> object:
        sent: list[Any] = []

        async def receive() -> Any:
            # No client disconnects: the frameworks would cancel what runs, sooner or later.
            return waiting.pop(0) if waiting else await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            sent.append({key: one for key, one in message.items() if key != "headers"})

        where = {"headers": [], "query_string": b"", "scheme": "http", "root_path": "", "client": None}
        try:
            await application({"asgi": {"version": "3.0"}, "http_version": "1.1", **where, **scope}, receive, send)
        except ArithmeticError:
            sent.append("ArithmeticError")
        return sent

    async def calls() -> list[object]:
        http = [
            await call(
                {"type": "http", "method": "GET", "path": path, "raw_path": path.encode()},
                [{"type": "http.request", "body": b"", "more_body": False}],
            )
            for path in paths
        ]
        if websocket is None:
            return http
        return [*http, await call({"type": "websocket", "path": websocket, "subprotocols": []}, [*messages])]

    return asyncio.run(calls())


def _django() -> list[object]:
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(SECRET_KEY="x", MIDDLEWARE=[])
        django.setup()
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import AsyncClient, Client
    from django.test.utils import override_settings
    from werkzeug.test import Client as Server

    def read(response: Any) -> object:
        return response.status_code, b"".join(response) if response.streaming else response.content

    async def read_later(path: str) -> object:
        response = await AsyncClient().get(path)
        parts = [part async for part in response] if response.streaming else [response.content]
        return response.status_code, b"".join(parts)

    with override_settings(ROOT_URLCONF=_Urls, ALLOWED_HOSTS=["*"], MIDDLEWARE=[], DEBUG_PROPAGATE_EXCEPTIONS=True):
        server = Server(WSGIHandler())
        told: list[object] = []
        for path in ("/answer", "/parts", "/none", "/broken"):
            told.append(_told(lambda path=path: read(Client().get(path))))
            told.append(_told(lambda path=path: _read(server, path)))
        told.extend(_told(lambda path=path: asyncio.run(read_later(path))) for path in ("/answer", "/later", "/broken"))
        part_read = Client().get("/parts")
        told.append(next(iter(part_read)))
        part_read.close()
        told.extend(_talk(ASGIHandler(), [], paths=("/answer", "/later")))
    return told


class _Urls:
    @staticmethod
    def _patterns() -> list[Any]:
        from django.http import HttpResponse, StreamingHttpResponse
        from django.urls import path

        return [
            path("answer", lambda _: HttpResponse(SHOP.answer())),
            path("parts", lambda _: StreamingHttpResponse(SHOP.parts())),
            path("later", lambda _: StreamingHttpResponse(SHOP.parts_later())),
            path("broken", lambda _: HttpResponse(SHOP.breaks())),
        ]


def _jobs() -> list[object]:
    # An executor's jobs, one of which returns what a connection may be in; threads, one of a class of its own.
    told: list[object] = []

    class Thread(threading.Thread):
        def run(self) -> None:
            told.append(_told(SHOP.answer))

    with ThreadPoolExecutor(1) as others:
        for function in (SHOP.answer, SHOP.breaks, lambda: list(SHOP.parts())):
            told.append(_told(others.submit(function).result))  # noqa: PERF401 - one after the other
        told.append(list(others.map(lambda _: SHOP.answer(), range(2))))
    for thread in (Thread(), threading.Thread(target=lambda: told.append(_told(SHOP.breaks)))):
        thread.start()
        thread.join()
    return told


def _celery() -> list[object]:
    import celery

    app = celery.Celery("shop", set_as_current=False)
    app.conf.task_always_eager = True

    @app.task(lazy=False)
    def answer() -> str:
        return SHOP.answer()

    @app.task(lazy=False)
    def broken() -> str:
        return SHOP.breaks()

    @app.task(lazy=False)
    def outer() -> object:
        return answer.delay().get(disable_sync_subtasks=False)

    return [_told(lambda task=task: task.apply().get(disable_sync_subtasks=False)) for task in (answer, broken, outer)]


def _read(client: Any, path: str) -> str:
    with client.get(path) as response:  # as servers do: it is closed
        return str(response.status + response.text)


def _told(function: Callable[[], object]) -> object:
    try:
        return function()
    except ArithmeticError as error:
        return type(error).__name__


FRAMEWORKS: Final[dict[str, tuple[Callable[[], list[object]], str]]] = {
    "wsgi": (_wsgi, "werkzeug"),
    "asgi": (_asgi, "asyncio"),
    "flask": (_flask, "flask"),
    "fastapi": (_fastapi, "fastapi"),
    "django": (_django, "werkzeug"),
    "celery": (_celery, "celery"),
    "jobs": (_jobs, "threading"),
}


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, switched on by the test."""
    one = Telemetry()
    yield one
    one.shutdown()
    guard.reset()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_error_in_the_unit_of_work_never_reaches_the_application(
    framework: str, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whichever function of the unit of work raises whenever it is called: requests and tasks end as they do without
    poolscope. The error is counted; no unit of work is left in the thread; and once the error is gone, the next request
    is a unit of work of its own.
    """
    requests, needs = FRAMEWORKS[framework]
    pytest.importorskip(needs)
    if framework == "django":
        monkeypatch.setattr(_Urls, "urlpatterns", _Urls._patterns(), raising=False)
    monkeypatch.setattr(SHOP, "query", lambda _: None)
    before = requests()
    telemetry.start()
    monkeypatch.setattr(SHOP, "query", _guarded(Queries()))
    assert requests() == before
    expected = {name: count for name, (count, _) in queries_by_unit(telemetry.collect()).items()}
    assert expected
    failures, reached = [], set()
    for place in _places():
        counted = sum(guard.counts().values())
        with monkeypatch.context() as patched:
            strikes = _strike(place, patched)
            seen = requests()
        reached.update(strikes)
        if seen != before:
            failures.append(f"{place.label}: the application saw {seen} in place of {before}")
        if strikes and sum(guard.counts().values()) == counted:
            failures.append(f"{place.label} was not counted")
        unit = CURRENT_UNIT.get()
        if unit is not None and not unit.ended:
            failures.append(f"{place.label} left a unit of work")
            CURRENT_UNIT.set(None)
    assert failures == []
    assert reached >= (OF_JOBS if framework == "jobs" else ALWAYS)
    healthy = {name: count for name, (count, _) in queries_by_unit(telemetry.collect()).items()}
    assert requests() == before
    after = {name: count for name, (count, _) in queries_by_unit(telemetry.collect()).items()}
    assert {name: after[name] - healthy[name] for name in expected} == expected


def _guarded(query: Callable[[int], None]) -> Callable[[int], None]:
    # As the adapters' hooks do: of a checkout that fails with us the application knows nothing.
    return lambda number: guard.run("test.query", functools.partial(query, number), None)
