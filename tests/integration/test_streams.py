"""
Streamed responses: the whole body belongs to the unit of work; the span around it has what ran before it ended.

Upstream's instrumentations end their spans at different times: before the body (Flask, Django), with its last part
(ASGI, and with it Starlette and FastAPI), or when the server closes it (WSGI).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import django
import httpx
import pytest
from django.conf import settings
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as AsgiSpans
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiSpans
from opentelemetry.trace import SpanKind
from werkzeug.test import Client

from poolscope import semconv
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.pool_registry import open_pool_registries
from poolscope.frameworks import asgi, wsgi
from tests.support.telemetry import Telemetry
from tests.support.units import Queries, figures, queries_by_unit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

#: Queries of the view, of the body's parts together, and after them.
BEFORE, PARTS, AFTER = 2, 8, 1
REPEATED = "select * from t where id = 1"
#: No request holds or waits for so long, however busy the machine is: what is found is what the test makes.
PATIENT = {"long_hold_threshold": 60, "exhaustion_threshold": 0, "blocked_event_loop_threshold": 60}

#: What Django's views query; one test at a time.
run: Any = None


def parts(queries: Queries) -> Iterator[bytes]:
    """A body whose parts are queried for, one after the other."""
    for _ in range(PARTS):
        queries(1, REPEATED)
        yield b"row"
    queries(AFTER)


async def async_parts(queries: Queries) -> AsyncIterator[bytes]:
    """The same, asynchronously."""
    for _ in range(PARTS):
        queries(1, REPEATED)
        yield b"row"


# Applications, made anew: upstream's instrumentation puts classes of its own in the place of the frameworks'.


def with_flask(_: Telemetry) -> Any:
    """Flask, with a generator."""
    import flask

    app, queries = flask.Flask("streams"), Queries()

    @app.get("/stream")
    def stream() -> Any:
        queries(BEFORE)
        return flask.Response(parts(queries))

    return app


def view(_: Any) -> Any:
    """Django's, under WSGI."""
    from django.http import StreamingHttpResponse

    run(BEFORE)
    return StreamingHttpResponse(parts(run))


async def async_view(_: Any) -> Any:
    """Django's, under ASGI."""
    from django.http import StreamingHttpResponse

    run(BEFORE)

    async def body() -> AsyncIterator[bytes]:
        async for part in async_parts(run):
            yield part
        run(AFTER)

    return StreamingHttpResponse(body())


class Urls:
    """Django's configuration of addresses."""

    def __init__(self) -> None:
        from django.urls import path

        self.urlpatterns = [path("stream", view), path("astream", async_view)]


def with_django(_: Telemetry) -> Any:
    """Django, under WSGI."""
    from django.core.handlers.wsgi import WSGIHandler

    return WSGIHandler()


def with_django_under_asgi(_: Telemetry) -> Any:
    """Django, under ASGI."""
    from django.core.handlers.asgi import ASGIHandler

    return ASGIHandler()


def with_fastapi(_: Telemetry) -> Any:
    """FastAPI, with something to do afterwards."""
    import fastapi
    from fastapi.responses import StreamingResponse
    from starlette.background import BackgroundTask

    api, queries = fastapi.FastAPI(), Queries()

    @api.get("/stream")
    async def stream() -> Any:
        queries(BEFORE)
        return StreamingResponse(async_parts(queries), background=BackgroundTask(queries, AFTER))

    return api


def with_starlette(_: Telemetry) -> Any:
    """Starlette, the same."""
    import starlette.applications
    from starlette.background import BackgroundTask
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    queries = Queries()

    async def stream(_: Any) -> Any:
        queries(BEFORE)
        return StreamingResponse(async_parts(queries), background=BackgroundTask(queries, AFTER))

    return starlette.applications.Starlette(routes=[Route("/stream", stream)])


def with_wsgi(telemetry: Telemetry) -> Any:
    """No framework, under WSGI; upstream's middleware inside of ours."""
    queries = Queries()

    def application(_: Any, start_response: Any) -> Iterator[bytes]:
        queries(BEFORE)
        start_response("200 OK", [])
        yield from parts(queries)

    return wsgi.Middleware(WsgiSpans(application, tracer_provider=telemetry.tracer_provider), open_pool_registries[-1])


def with_asgi(telemetry: Telemetry) -> Any:
    """No framework, under ASGI; upstream's middleware around ours."""
    queries = Queries()

    async def application(_: Any, __: Any, send: Any) -> None:
        queries(BEFORE)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for part in async_parts(queries):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        queries(AFTER)

    return AsgiSpans(asgi.Middleware(application, open_pool_registries[-1]), tracer_provider=telemetry.tracer_provider)


def get(app: Any) -> bytes:
    """A request through WSGI, read and closed."""
    return Client(app).get("/stream", buffered=True).data


def aget(app: Any, path: str = "/stream") -> bytes:
    """A request through ASGI."""

    async def checkout() -> bytes:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return (await client.get(path)).content

    return asyncio.run(checkout())


def aget_of_django(app: Any) -> bytes:
    """The asynchronous view."""
    return aget(app, "/astream")


@pytest.fixture(scope="module", autouse=True)
def configured() -> Iterator[None]:
    """Django, set up for this module's addresses; without a database."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="x", MIDDLEWARE=[])
        django.setup()
    from django.test.utils import override_settings

    with override_settings(ROOT_URLCONF=Urls(), ALLOWED_HOSTS=["*"], MIDDLEWARE=[]):
        yield


@pytest.mark.parametrize("upstream_first", [True, False], ids=["upstream_first", "we_first"])
@pytest.mark.parametrize(
    ("make", "upstream", "checkout", "on_span"),
    [
        pytest.param(with_flask, FlaskInstrumentor, get, BEFORE, id="flask"),
        pytest.param(with_django, DjangoInstrumentor, get, BEFORE, id="django"),
        pytest.param(with_django_under_asgi, DjangoInstrumentor, aget_of_django, BEFORE, id="django-asgi"),
        pytest.param(with_fastapi, FastAPIInstrumentor, aget, BEFORE + PARTS, id="fastapi"),
        pytest.param(with_starlette, StarletteInstrumentor, aget, BEFORE + PARTS, id="starlette"),
        pytest.param(with_asgi, None, aget, BEFORE + PARTS, id="asgi"),
        pytest.param(with_wsgi, None, get, BEFORE + PARTS + AFTER, id="wsgi"),
    ],
)
def test_a_stream_is_part_of_the_request_and_on_its_span_as_far_as_that_goes(
    make: Callable[[Telemetry], Any],
    upstream: Any,
    checkout: Callable[[Any], bytes],
    on_span: int,
    *,
    upstream_first: bool,
) -> None:
    """
    The unit of work ends after the last part and what comes after it. Its span has the figures of the moment at which
    it ends, and the finding that the parts made, where they came before that.
    """
    global run  # noqa: PLW0603 - Django finds views by module
    telemetry = Telemetry(hold_spans=False, checkout_spans="never", **PATIENT)
    theirs = upstream() if upstream is not None else None

    def start_upstream() -> None:
        if theirs is not None:
            theirs.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)

    for start in (start_upstream, telemetry.start) if upstream_first else (telemetry.start, start_upstream):
        start()
    try:
        run = Queries() if upstream is DjangoInstrumentor else None
        assert checkout(make(telemetry)) == b"row" * PARTS
    finally:
        if theirs is not None:
            theirs.uninstrument()
        units = queries_by_unit(telemetry.collect())
        spans = telemetry.spans()
        telemetry.shutdown()
    ((_, counted),) = units.items()
    assert counted == (1, BEFORE + PARTS + AFTER)
    (span,) = (figures(span) for span in spans if span.kind is SpanKind.SERVER)
    assert span[semconv.UNIT_OF_WORK_QUERIES] == on_span
    assert span.get(semconv.FINDINGS) == ((N_PLUS_ONE,) if on_span > BEFORE else None)
