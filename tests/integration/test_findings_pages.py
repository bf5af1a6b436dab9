"""The code of the findings' pages, run: the cause of the page for the bad code, and not for the repaired code."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg_pool
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

import poolscope
from examples.lab.processes import wait_until
from poolscope.core.catalogue.exhaustion import MIXED, POOL_EXHAUSTED, UNKNOWN
from poolscope.core.catalogue.holds import FAN_OUT, IDLE_IN_TRANSACTION, LONG_HOLD, THREAD_STARVATION
from poolscope.core.catalogue.leaks import LEAK
from tests.support.pages import blocks, run_block
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding

# Seconds that a checkout waits where it cannot succeed, and where it must.
SHORT, LONG = 0.3, 60.0


@pytest.fixture
def telemetry(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, on; what is exhausted fails."""
    yield from instrumented(exhaustion_threshold=0, long_hold_threshold=0.05, finding_interval=0)


def causes(telemetry: Telemetry, found: list[Finding]) -> set[object]:
    """Why pools were exhausted."""
    telemetry.instrumentor.flush()
    return {one.evidence["cause"] for one in found if one.id == POOL_EXHAUSTED}


def psycopgs(database: Postgres, size: int) -> psycopg_pool.ConnectionPool:
    """A pool of that many connections."""
    return psycopg_pool.ConnectionPool(database.dsn, min_size=size, max_size=size, name="shop", open=True)


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
def test_a_leak_and_a_payment_are_mixed(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """Two connections are lost by carts and two wait for the payment; repaired, a request beside them has its own."""
    with database.connect() as connection:
        connection.execute("create table if not exists orders (id int primary key, status text)")
        connection.execute("insert into orders values (1, 'new'), (2, 'new')")

    def visit(shop: dict[str, Any], timeout: float) -> int:
        charging, charged = threading.Barrier(3), threading.Event()

        def charge(_: int) -> None:
            charging.wait(LONG)
            assert charged.wait(LONG)

        with psycopgs(database, 4) as pool, ThreadPoolExecutor(2) as threads:
            for _ in range(2):
                with poolscope.unit_of_work("GET /cart", kind="http"):
                    assert shop["cart"](pool, None) == []
            payments = [threads.submit(shop["pay"], pool, charge, order) for order in (1, 2)]
            charging.wait(LONG)
            try:
                with poolscope.unit_of_work("GET /users", kind="http"), pool.connection(timeout) as connection:
                    return connection.execute("select 7").fetchone()[0]  # type: ignore[no-any-return, index]
            finally:
                charged.set()
                assert [payment.result(LONG) for payment in payments] == [None, None]

    bad, repaired = blocks(MIXED)
    assert visit(repaired, LONG) == 7
    telemetry.instrumentor.flush()
    assert not {POOL_EXHAUSTED, LEAK} & {one.id for one in found}
    with pytest.raises(psycopg_pool.PoolTimeout):
        visit(bad, SHORT)
    assert causes(telemetry, found) == {MIXED}
    finding = next(one for one in found if one.id == POOL_EXHAUSTED)
    assert finding.evidence["shares"] == [f"{LEAK} 50%", f"{IDLE_IN_TRANSACTION} 50%"]


def test_what_was_checked_out_before_poolscope_is_unknown(found: list[Finding], database: Postgres) -> None:
    """Whoever waits is not taken for the holder. Started in time, poolscope knows who holds them, and since when."""
    late, early = blocks(UNKNOWN)
    for function, cause in ((late["late"], UNKNOWN), (early["early"], LONG_HOLD)):
        telemetry = Telemetry(exhaustion_threshold=0, finding_interval=0)
        function.__globals__["PoolscopeInstrumentor"] = lambda: SimpleNamespace(instrument=telemetry.start)  # noqa: B023 - called at once
        with psycopgs(database, 10) as pool, ThreadPoolExecutor(1) as another:

            def work(connections: list[psycopg.Connection]) -> None:
                gone = threading.Event()  # to wait for the job itself would be a nested checkout
                request = another.submit(pool.getconn, SHORT)
                request.add_done_callback(lambda _: gone.set())
                assert gone.wait(LONG)
                assert isinstance(request.exception(), psycopg_pool.PoolTimeout)
                for connection in connections:
                    pool.putconn(connection)

            pool.wait(LONG)
            function(pool, work)
        assert causes(telemetry, found) == {cause}
        telemetry.shutdown()
        found.clear()


def test_a_dependency_that_starves_the_worker_threads(
    telemetry: Telemetry, found: list[Finding], database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of eight requests have their connections and no thread; within one function, each gets both in turn."""
    anyio = pytest.importorskip("anyio")
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")

    def visit(number: int, *, starves: bool) -> list[int]:
        engine = sqlalchemy.create_engine(database.url("psycopg"), pool_size=2, max_overflow=0, pool_timeout=LONG)
        pool: Any = engine.pool
        monkeypatch.setitem(sys.modules, "shop.db", SimpleNamespace(Session=sessionmaker(engine)))
        app = run_block(THREAD_STARVATION, number)["app"]

        async def at_once() -> list[int]:
            threads = anyio.to_thread.current_default_thread_limiter()
            threads.total_tokens = 4

            def all_wait() -> bool:
                return len(pool._pool.not_empty._waiters) == 4 and threads.statistics().tasks_waiting == 4

            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop") as client:
                requests = [asyncio.create_task(client.get("/me")) for _ in range(8)]
                if starves:
                    # Who has a thread waits for the pool, and who has a connection for a thread, behind two others.
                    await asyncio.to_thread(wait_until, all_wait, LONG, "all to wait")
                    pool._timeout = SHORT
                    with pytest.raises(sqlalchemy.exc.TimeoutError):
                        await asyncio.to_thread(engine.connect)
                    pool._timeout = LONG
                    threads.total_tokens = 40
                return [(await request).status_code for request in requests]

        try:
            return asyncio.run(at_once())
        finally:
            engine.dispose()

    assert visit(1, starves=False) == [200] * 8
    assert causes(telemetry, found) == set()
    assert visit(0, starves=True) == [200] * 8
    assert causes(telemetry, found) == {THREAD_STARVATION}
    finding = next(one for one in found if one.id == POOL_EXHAUSTED)
    assert "4 of 4 worker threads run session, which waits for this pool" in finding.summary


def test_parts_of_a_request_that_run_at_once_fan_out(
    telemetry: Telemetry, found: list[Finding], database: Postgres
) -> None:
    """Nine parts fill a pool of four, and another request gets none; one query for all leaves it three."""
    pytest.importorskip("asyncpg")
    with database.connect() as connection:
        connection.execute("create table if not exists notes (span_id int)")
        connection.execute("insert into notes values (1), (1), (2)")

    def a_query_runs() -> bool:
        return any(lease.running for lease in telemetry.leases())

    async def visit(summaries: Any, timeout: float) -> Any:
        engine = create_async_engine(database.url("asyncpg"), pool_size=4, max_overflow=0, pool_timeout=timeout)
        with psycopg.connect(database.dsn) as lock, poolscope.unit_of_work("POST /graphql", kind="http"):
            lock.execute("lock table notes in access exclusive mode")
            parts = asyncio.ensure_future(summaries(async_sessionmaker(engine), list(range(9))))
            await asyncio.to_thread(wait_until, a_query_runs, LONG, "a query to run")
            try:
                with poolscope.unit_of_work("GET /users", kind="http"):
                    async with engine.connect() as connection:
                        await connection.execute(sqlalchemy.text("select 1"))
            finally:
                lock.rollback()
                rest = asyncio.all_tasks() - {asyncio.current_task()}
                await asyncio.gather(parts, *rest, return_exceptions=True)
                await engine.dispose()
        return await parts

    bad, repaired = blocks(FAN_OUT)
    assert asyncio.run(visit(repaired["summaries"], LONG)) == {1: 2, 2: 1}
    assert causes(telemetry, found) == set()
    with pytest.raises(sqlalchemy.exc.TimeoutError):
        asyncio.run(visit(bad["summaries"], SHORT))
    assert causes(telemetry, found) == {FAN_OUT}
    finding = next(one for one in found if one.id == POOL_EXHAUSTED)
    assert "http POST /graphql, asks for 9 connections at once at summaries" in finding.summary
