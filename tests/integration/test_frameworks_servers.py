"""Any WSGI and ASGI application, on the servers that are hooked: no framework, and no line of user code."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import gunicorn.app.base
import httpx
import pytest
import uvicorn
from flask import Flask
from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from examples.lab.processes import wait_until
from poolscope.frameworks.wsgi import Middleware
from tests.support.telemetry import Telemetry, instrumented
from tests.support.units import Queries, queries_by_unit
from tests.support.waitress import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(hold_spans=False, checkout_spans="never")


@pytest.fixture
def queries(telemetry: Telemetry) -> Queries:
    """A pool."""
    return Queries()


def wsgi_app(queries: Queries) -> Any:
    """An application of no framework, which streams."""

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        queries(2)
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(3):
            queries(1)
            yield b"row"

    return application


def asgi_app(queries: Queries) -> Any:
    """The same for ASGI."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        queries(5)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"rowrowrow"})

    return application


def on_waitress(application: Any) -> AbstractContextManager[int]:
    """The port."""
    return serving(application, threads=2)


class Quiet(WSGIRequestHandler):
    """Without a line for each request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Nothing."""


@contextmanager
def on_wsgiref(application: Any) -> Iterator[int]:
    """The port."""
    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(60)


@contextmanager
def on_uvicorn(application: Any) -> Iterator[int]:
    """The port."""
    config = uvicorn.Config(application, host="127.0.0.1", port=0, log_level="warning", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 60)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(60)


@pytest.mark.parametrize(
    ("server", "make"),
    [(on_waitress, wsgi_app), (on_wsgiref, wsgi_app), (on_uvicorn, asgi_app)],
    ids=["waitress", "wsgiref", "uvicorn"],
)
def test_any_application(
    telemetry: Telemetry, queries: Queries, server: Callable[[Any], Any], make: Callable[[Queries], Any]
) -> None:
    """Each request is one; its routes are unknown."""
    with server(make(queries)) as port:
        for _ in range(2):
            assert httpx.get(f"http://127.0.0.1:{port}/secret/path", timeout=60).text == "rowrowrow"
        wait_until(lambda: queries_by_unit(telemetry.collect()) == {"http GET <unmatched>": (2, 10.0)}, 60)


def test_a_framework_inside_is_part_of_it(telemetry: Telemetry, queries: Queries) -> None:
    """Middleware around it counts for the same request, which the framework names."""
    app = Flask("inner")

    @app.get("/users/<int:number>")
    def users(number: int) -> str:
        queries(number)
        return "ok"

    def middleware(environ: Any, start_response: Any) -> Any:
        queries(1)
        return app(environ, start_response)

    with on_waitress(middleware) as port:
        httpx.get(f"http://127.0.0.1:{port}/users/4", timeout=60)
        wait_until(lambda: queries_by_unit(telemetry.collect()) == {"http GET /users/<int:number>": (1, 5.0)}, 60)


@pytest.mark.parametrize(("kind", "wrapped"), [(SyncWorker, True), (ThreadWorker, True), (Worker, False)])
def test_gunicorns_workers(telemetry: Telemetry, kind: type[Worker], wrapped: bool) -> None:
    """Those that call the application by WSGI; one whose application may be ASGI is left alone."""

    class Application(gunicorn.app.base.BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            pass

        def load(self) -> Any:
            return wsgi_app(Queries())

    worker = kind.__new__(kind)
    worker.app = Application()
    worker.load_wsgi()
    assert isinstance(worker.wsgi, Middleware) is wrapped
