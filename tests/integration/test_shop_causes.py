"""
Routes of the shop that need more than one request to show their cause: it is found through the route, by its line, and
through the repaired twin nothing is.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import httpx
import psycopg
import pytest
from sqlalchemy import Connection, Engine, NullPool, create_engine, event

from examples.lab.processes import wait_until
from examples.shop import fastapi_app, flask_app
from examples.shop.news import CHANNEL
from examples.shop.seed import seed
from examples.shop.settings import Settings
from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import FAN_OUT, NESTED_CHECKOUT, THREAD_STARVATION
from poolscope.core.catalogue.kept import LISTENER_HOLD
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP
from poolscope.core.catalogue.pools import POOL_PER_REQUEST
from tests.support.loops import wait_for_heartbeats
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from fastapi import FastAPI

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding

    Visit = Callable[[httpx.AsyncClient], Awaitable[Any]]

ROLE = "archivist"
FEW_THREADS = 6
LISTENED, BLOCKED = 0.3, 0.25  # seconds
# Nothing takes so long, however busy the machine is: what is found is what the test makes.
PATIENT = {
    "long_hold_threshold": 60,
    "exhaustion_threshold": 0,
    "blocked_event_loop_threshold": 60,
    "finding_interval": 0,
}


@pytest.fixture
def telemetry(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(**PATIENT)


@pytest.fixture(scope="module")
def filled(database: Postgres) -> Postgres:
    """The database with the shop's rows."""
    engine = create_engine(database.url("psycopg"), poolclass=NullPool)
    seed(engine)
    engine.dispose()
    return database


def settings(filled: Postgres, **more: Any) -> Settings:
    """Those of a shop with a small pool."""
    return Settings(filled.dsn, **{"pool_size": 3, "max_overflow": 0, "pool_timeout": 1.0, "slow_seconds": 1.2, **more})


def visited(app: FastAPI, visit: Visit) -> Any:
    """What customers of the FastAPI shop get, in an event loop of its own."""

    async def run() -> Any:
        anyio.to_thread.current_default_thread_limiter().total_tokens = FEW_THREADS
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop", timeout=60) as client:
            try:
                return await visit(client)
            finally:
                await app.state.engine.dispose()
                if hasattr(app.state, "synchronous_engine"):
                    app.state.synchronous_engine.dispose()

    return asyncio.run(run())


def answers(app: FastAPI, path: str, customers: int = 1) -> list[httpx.Response]:
    """What customers get who come at the same time."""
    return visited(app, lambda client: asyncio.gather(*(client.get(path) for _ in range(customers))))  # type: ignore[no-any-return]


def only(found: list[Finding], telemetry: Telemetry, identity: str, unit: str) -> Finding:
    """The first finding; all are of one kind and of one unit of work."""
    telemetry.instrumentor.flush()
    assert {(one.id, str(one.unit)) for one in found} == {(identity, unit)}
    return found[0]


def nothing(found: list[Finding], telemetry: Telemetry) -> bool:
    """Whether nothing has been found."""
    telemetry.instrumentor.flush()
    return found == []


def test_six_questions_at_once(telemetry: Telemetry, found: list[Finding], filled: Postgres) -> None:
    """One request fills the pool and waits for itself. One question for all has the same answer."""
    (repaired,) = answers(fastapi_app.create_app(settings(filled)), "/fixed/reports/overview")
    (broken,) = answers(fastapi_app.create_app(settings(filled, pool_size=6, slow_seconds=0)), "/reports/overview")
    assert broken.json() == repaired.json()
    assert nothing(found, telemetry)
    (refused,) = answers(fastapi_app.create_app(settings(filled)), "/reports/overview")
    assert refused.status_code == 503
    finding = only(found, telemetry, POOL_EXHAUSTED, "http GET /reports/overview")
    assert finding.evidence["cause"] == FAN_OUT
    assert "asks for 6 connections at once at ask" in finding.summary


def test_tasks_that_check_out_while_their_request_holds(
    telemetry: Telemetry, found: list[Finding], filled: Postgres
) -> None:
    """It is found at the first request, long before it deadlocks."""
    patient = settings(filled, pool_timeout=60)
    (repaired,) = answers(fastapi_app.create_app(patient), "/fixed/account/7")
    assert nothing(found, telemetry)
    (broken,) = answers(fastapi_app.create_app(patient), "/account/7")
    assert broken.json() == repaired.json() == {"name": "user 7", "orders": 100, "posts": 10}
    finding = only(found, telemetry, NESTED_CHECKOUT, "http GET /account/{user_id}")
    assert finding.origin is not None
    assert finding.origin[0].co_name == "ask"


def test_worker_threads_that_wait_for_connections(telemetry: Telemetry, found: list[Finding], filled: Postgres) -> None:
    """All worker threads wait for a connection, and who has one waits for a thread, until a wait times out."""
    patient = fastapi_app.create_app(settings(filled, pool_timeout=60))
    repaired = answers(patient, "/fixed/invoices/7", 3 * FEW_THREADS)
    assert {one.text for one in repaired} == {'{"invoices":100}'}
    assert nothing(found, telemetry)
    app = fastapi_app.create_app(settings(filled, pool_timeout=60))

    async def visit(client: httpx.AsyncClient) -> set[int]:
        threads = anyio.to_thread.current_default_thread_limiter()

        def all_wait() -> bool:
            pool: Any = app.state.synchronous_engine.pool
            waiting = len(pool._pool.not_empty._waiters), threads.statistics().tasks_waiting
            return waiting == (FEW_THREADS, 2 * FEW_THREADS)

        requests = [asyncio.create_task(client.get("/invoices/7")) for _ in range(3 * FEW_THREADS)]
        await asyncio.to_thread(wait_until, lambda: hasattr(app.state, "synchronous_engine"), 60, "the engine")
        await asyncio.to_thread(wait_until, all_wait, 60, "all to wait")
        # One thread more, whose request alone is impatient: no other leaves before the picture is taken.
        app.state.synchronous_engine.pool._timeout = 0.3
        threads.total_tokens += 1
        await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
        app.state.synchronous_engine.pool._timeout = 60
        threads.total_tokens = 3 * FEW_THREADS
        return {(await one).status_code for one in requests}

    assert visited(app, visit) == {200, 503}
    finding = only(found, telemetry, POOL_EXHAUSTED, "http GET /invoices/{user_id}")
    assert finding.evidence["cause"] == THREAD_STARVATION
    assert f"{FEW_THREADS + 1} of {FEW_THREADS + 1} worker threads run open_session" in finding.summary


class Payments:
    """
    A provider that thinks.

    Args:
        think: Returns when it has thought for long enough.
    """

    def __init__(self, think: Callable[[], None]) -> None:
        self._think = think

    def charge(self, cents: int) -> str:
        """Charge a card."""
        self._think()
        return f"r{cents}"

    async def charge_async(self, cents: int) -> str:
        """Charge a card, and let others go on."""
        return await asyncio.to_thread(self.charge, cents)


@pytest.fixture
def watching_the_loop(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, which finds short blocks."""
    yield from instrumented(**{**PATIENT, "blocked_event_loop_threshold": BLOCKED})


def test_a_payment_that_blocks_the_event_loop(
    watching_the_loop: Telemetry, found: list[Finding], filled: Postgres
) -> None:
    """It is found while it lasts, by the line that blocks. Where it is awaited, the loop goes on."""
    app = fastapi_app.create_app(settings(filled))

    async def refund(client: httpx.AsyncClient, path: str) -> Any:
        assert (await client.get("/users/7")).status_code == 200
        return (await client.post(path)).json()

    app.state.payments = Payments(lambda: wait_for_heartbeats(watching_the_loop))
    repaired = visited(app, lambda client: refund(client, "/fixed/refund/9"))
    assert nothing(found, watching_the_loop)
    app = fastapi_app.create_app(settings(filled))

    def until_it_is_found() -> None:
        wait_until(lambda: bool(found), 60, "the block to be found")

    app.state.payments = Payments(until_it_is_found)
    assert visited(app, lambda client: refund(client, "/refund/9")) == repaired == {"receipt": "r-1999"}
    finding = only(found, watching_the_loop, BLOCKED_EVENT_LOOP, "None")
    assert any(line.endswith("in refund") for line in finding.evidence["stack"])  # type: ignore[union-attr]


@pytest.fixture
def impatient_of_leaks(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, for which a hold is soon too long."""
    yield from instrumented(**{**PATIENT, "leak_threshold": LISTENED})


def test_customers_who_wait_for_news(impatient_of_leaks: Telemetry, found: list[Finding], filled: Postgres) -> None:
    """Each holds a connection of the pool; with one listener for the process none does."""
    app = fastapi_app.create_app(settings(filled))

    def wait(path: str, is_time: Callable[[], bool]) -> Any:
        async def visit(client: httpx.AsyncClient) -> Any:
            waiting = asyncio.gather(client.get(path), client.get(path))
            await asyncio.to_thread(wait_until, is_time, 60, "both to wait")
            async with await psycopg.AsyncConnection.connect(filled.dsn, autocommit=True) as publisher:
                while not waiting.done():  # who waits may not listen yet
                    await publisher.execute("select pg_notify(%s, 'sale')", [CHANNEL])
                    await asyncio.wait([waiting], timeout=0.02)
            return [one.json() for one in await waiting]

        return visited(app, visit)

    def both_wait_without_a_connection() -> bool:
        return len(app.state.news._waiting) == 2 and impatient_of_leaks.leases() == []

    repaired = wait("/fixed/news", both_wait_without_a_connection)
    assert nothing(found, impatient_of_leaks)
    assert wait("/news", lambda: len(found) > 1) == repaired == 2 * [{"news": "sale"}]
    finding = only(found, impatient_of_leaks, LISTENER_HOLD, "http GET /news")
    assert finding.origin is not None
    assert finding.origin[0].co_name == "next_news"


@pytest.fixture
def engines() -> Iterator[set[Engine]]:
    """All that connect, so that none is collected before the server has counted it; disposed of in the end."""
    engines: set[Engine] = set()

    def connects(connection: Connection) -> None:
        engines.add(connection.engine)

    event.listen(Engine, "engine_connect", connects)
    yield engines
    event.remove(Engine, "engine_connect", connects)
    for engine in engines:
        engine.dispose()


@pytest.mark.usefixtures("engines")
def test_an_engine_for_each_request(telemetry: Telemetry, found: list[Finding], filled: Postgres) -> None:
    """It is found before the server refuses; the refusal then says that there are several pools."""
    with filled.connect() as connection:
        connection.execute(f"drop role if exists {ROLE}")
        connection.execute(f"create role {ROLE} login password '{ROLE}' connection limit 6")
        connection.execute(f"grant select on orders to {ROLE}")
    app = flask_app.create_app(settings(replace(filled, user=ROLE, password=ROLE)))
    shop = app.test_client()
    repaired = [shop.get("/fixed/archive/7") for _ in range(7)]
    assert {one.text for one in repaired} == {'{"orders":100}\n'}
    assert nothing(found, telemetry)
    app.extensions["engine"].dispose()
    assert {shop.get("/archive/7").text for _ in range(6)} == {one.text for one in repaired}
    finding = only(found, telemetry, POOL_PER_REQUEST, "http GET /archive/<int:user_id>")
    assert finding.origin is not None
    assert finding.origin[0].co_name == "archive"
    found.clear()
    assert shop.get("/archive/7").status_code == 500
    telemetry.stop()  # reports what is counted for a second time a moment after the refusal
    refused = next(one for one in found if one.id == TOO_MANY_CONNECTIONS)
    assert str(refused.unit) == "http GET /archive/<int:user_id>"
    assert "make one pool for the process" in refused.fix
