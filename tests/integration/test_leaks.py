"""
Leaks of real pools, as applications make them: by garbage, by threads that end, by tasks that are cancelled, by
requests that are over. Each with its repaired twin, which is no leak.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import create_engine, text

import poolscope
from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.core.catalogue.leaks import LEAK
from poolscope.detectors import leak
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding

PATIENCE = 60


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    """Poolscope, on; every finding is reported."""
    gc.collect()  # the engines of other tests
    # A thread or task outside of any unit of work has five seconds to return what it left; here they are not needed.
    monkeypatch.setattr(leak, "OWNER_GRACE", 0.0)
    telemetry = Telemetry(finding_interval=0, long_hold_threshold=60, exhaustion_threshold=0)
    telemetry.start()
    yield telemetry
    telemetry.shutdown()


@pytest.fixture
def engine(telemetry: Telemetry, database: Postgres) -> Iterator[Engine]:
    """SQLAlchemy's pool, under poolscope."""
    made = create_engine(database.url("psycopg"), pool_size=8, pool_logging_name="leaks")
    yield made
    made.dispose()


def told(found: list[Finding]) -> list[tuple[str, str, bool]]:
    """How each leak is known, where it was checked out, and whether it is over."""
    assert {finding.id for finding in found} <= {LEAK}
    return [
        (str(one.evidence["leak_kind"]), one.origin[0].co_name if one.origin else "", one.resolved) for one in found
    ]


def test_garbage(telemetry: Telemetry, engine: Engine, found: list[Finding]) -> None:
    """A connection in a cycle of garbage is abandoned when the collector comes; one in a `with` block is not."""

    def forgets() -> None:
        cycle: list[Any] = [engine.connect()]
        cycle[0].execute(text("select 1"))
        cycle.append(cycle)

    def returns() -> None:
        with engine.connect() as connection:
            cycle: list[Any] = [connection.execute(text("select 1")).scalar()]
            cycle.append(cycle)

    gc.collect()
    gc.disable()
    try:
        forgets()
        returns()
        telemetry.instrumentor.flush()
        assert told(found) == []
        assert telemetry.collect().used("leaks") == 1
    finally:
        gc.enable()

    def collected_and_reported() -> bool:
        gc.collect()  # does nothing while another thread is at it
        telemetry.instrumentor.flush()
        return bool(told(found))

    wait_until(collected_and_reported, PATIENCE, "the leak to be reported")
    assert told(found) == [("abandoned", "forgets", False)]
    collected = telemetry.collect()
    assert (collected.used("leaks"), collected.value(semconv.LEAKS, "leaks", LEAK_KIND="abandoned")) == (0, 1)


def test_a_thread_that_ends(telemetry: Telemetry, engine: Engine, found: list[Finding]) -> None:
    """With a connection of its own still checked out. Reported while it is held, and again when it comes back."""
    kept: list[Any] = []

    def forgets() -> None:
        kept.append(engine.connect())
        kept[-1].execute(text("select 1"))

    def returns() -> None:
        with engine.connect() as connection:
            connection.execute(text("select 1"))

    for target in (forgets, returns):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join(60)
    wait_until(lambda: told(found), PATIENCE, "the leak to be reported")
    assert told(found) == [("owner_finished", "forgets", False)]
    assert telemetry.collect().used("leaks") == 1
    assert found[0].evidence["backend_process_id"]
    assert "although the job that checked it out has finished" in found[0].summary
    kept[-1].close()
    telemetry.instrumentor.flush()
    assert told(found)[1:] == [("owner_finished", "forgets", True)]


def test_a_request_that_is_over(telemetry: Telemetry, engine: Engine, found: list[Finding]) -> None:
    """Its session kept for later."""
    kept: list[Any] = []

    def forgets() -> None:
        kept.append(engine.connect())

    def returns() -> None:
        engine.connect().close()

    for name, work in (("GET /cart", forgets), ("GET /fixed/cart", returns)):
        with poolscope.unit_of_work(name, kind="http"):
            work()
    wait_until(lambda: told(found), PATIENCE, "the leak to be reported")
    assert told(found) == [("owner_finished", "forgets", False)]
    assert str(found[0].unit) == "http GET /cart"
    kept[-1].close()
    telemetry.instrumentor.flush()


def test_a_task_that_is_cancelled(telemetry: Telemetry, database: Postgres, found: list[Finding]) -> None:
    """Between the checkout and the `try`; in an `async with` the same cancellation is no leak."""
    kept: list[Any] = []

    async def main() -> None:
        pool = await asyncpg.create_pool(database.dsn, min_size=2, max_size=2)
        there = asyncio.Event()

        async def forgets() -> None:
            connection = await pool.acquire()
            kept.append(connection)
            await connection.execute("select 1")
            there.set()
            await asyncio.Event().wait()

        async def returns() -> None:
            async with pool.acquire() as connection:
                await connection.execute("select 1")
                there.set()
                await asyncio.Event().wait()

        for work in (forgets, returns):
            there.clear()
            task = asyncio.create_task(work())
            await there.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.to_thread(wait_until, lambda: told(found), PATIENCE, "the leak to be reported")
        assert told(found) == [("owner_finished", "forgets", False)]
        await pool.release(kept.pop())
        telemetry.instrumentor.flush()
        assert told(found)[1:] == [("owner_finished", "forgets", True)]
        await pool.close()

    asyncio.run(main())
