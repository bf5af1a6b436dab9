"""No query is attributed to a wrong unit of work, however many run at once."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from flask import Flask
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from werkzeug.test import Client

from poolscope import semconv
from tests.support.telemetry import Telemetry
from tests.support.units import queries_by_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from examples.lab.postgres import Postgres

REQUESTS = 1_000
THREADS = 200
POOL = 20


@pytest.fixture(params=[0.0, 1.0], ids=["nothing_sampled", "everything_sampled"])
def telemetry(request: pytest.FixtureRequest) -> Iterator[Telemetry]:
    """Poolscope, on; with every request in a SERVER span, sampled or not."""
    telemetry = Telemetry(max_units=REQUESTS + THREADS)
    telemetry.tracer_provider = TracerProvider(
        sampler=sampling.TraceIdRatioBased(request.param), shutdown_on_exit=False
    )
    telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(telemetry.exporter))
    telemetry.tracer = telemetry.tracer_provider.get_tracer("tests")
    telemetry.start()
    yield telemetry
    telemetry.shutdown()


def queries_of(number: int) -> int:
    """How many queries the request of that number runs; neighbours run different numbers."""
    return number * 7 % 5 + 1


def expected(requests: int) -> dict[str, tuple[int, float]]:
    """One point of one request in the series of each, with its own number of queries."""
    return {f"http GET /request/{number}": (1, float(queries_of(number))) for number in range(requests)}


def spans_match(telemetry: Telemetry, requests: int) -> bool:
    """Whether every SERVER span that was sampled, all or none, has the figures of its own request."""
    spans = [span for span in telemetry.exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
    found = {span.name: (span.attributes or {}).get(semconv.UNIT_OF_WORK_QUERIES) for span in spans}
    sampled = range(requests if telemetry.tracer_provider.sampler.rate else 0)  # type: ignore[attr-defined]
    return len(spans) == len(sampled) and found == {f"GET /request/{number}": queries_of(number) for number in sampled}


@pytest.mark.stateful
def test_a_thousand_requests_in_one_event_loop(telemetry: Telemetry, database: Postgres) -> None:
    """
    Each runs a known number of queries, half of them in tasks and threads of its own, interleaved with all the others;
    each point of the histogram is the one it should be, with the sampler at 0 % and at 100 %.
    """
    engine = create_async_engine(
        database.url("asyncpg"), pool_size=POOL, max_overflow=0, pool_timeout=110, pool_logging_name="many"
    )

    async def run(number: int) -> None:
        async with engine.connect() as connection:
            for place in range(number):
                await connection.execute(text(f"select {place} as column_{place}"))

    def make_endpoint(number: int) -> Any:
        async def endpoint(_: Any) -> PlainTextResponse:
            with telemetry.tracer.start_as_current_span(f"GET /request/{number}", kind=SpanKind.SERVER):
                total = queries_of(number)
                await run(total // 2)
                await asyncio.gather(*(asyncio.create_task(run(1)) for _ in range(total - total // 2)))
            return PlainTextResponse("ok")

        return endpoint

    app = Starlette(routes=[Route(f"/request/{number}", make_endpoint(number)) for number in range(REQUESTS)])

    async def checkout_all() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=110) as client:
            answers = await asyncio.gather(*(client.get(f"/request/{number}") for number in range(REQUESTS)))
        assert {answer.status_code for answer in answers} == {200}
        await engine.dispose()

    asyncio.run(checkout_all())
    collected = telemetry.collect()
    assert queries_by_unit(collected) == expected(REQUESTS)
    assert collected.total(semconv.UNIT_QUERIES) == sum(map(queries_of, range(REQUESTS)))
    assert spans_match(telemetry, REQUESTS)


def streaming(telemetry: Telemetry, engine: Engine) -> Flask:
    """An application with a route for each thread; its queries, and three more while the answer is streamed."""
    app = Flask("many")

    def run(number: int) -> None:
        with engine.connect() as connection:
            for place in range(number):
                connection.execute(text(f"select {place} as column_{place}"))

    def rows() -> Iterator[str]:
        for _ in range(3):
            run(1)
            yield "row"

    def add(number: int) -> None:
        @app.get(f"/request/{number}", endpoint=str(number))
        def answer() -> Any:
            with telemetry.tracer.start_as_current_span(f"GET /request/{number}", kind=SpanKind.SERVER):
                run(queries_of(number))
            return rows()

    for number in range(THREADS):
        add(number)
    return app


@pytest.mark.stateful
def test_two_hundred_threads(telemetry: Telemetry, database: Postgres) -> None:
    """The same of threads that all start at once and stream their answers."""
    engine = create_engine(
        database.url("psycopg"), pool_size=POOL, max_overflow=0, pool_timeout=110, pool_logging_name="many"
    )
    app = streaming(telemetry, engine)
    start = threading.Barrier(THREADS)
    answers: list[str] = []

    def checkout(number: int) -> None:
        start.wait(60)
        answers.append(Client(app).get(f"/request/{number}", buffered=True).text)

    threads = [threading.Thread(target=checkout, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(110)
    engine.dispose()
    assert answers == ["rowrowrow"] * THREADS
    assert queries_by_unit(telemetry.collect()) == {
        name: (count, total + 3) for name, (count, total) in expected(THREADS).items()
    }
    assert spans_match(telemetry, THREADS)
