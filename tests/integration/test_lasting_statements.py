"""What statements leave on real connections, with the code of the findings' pages: locks, and subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg_pool
import pytest
from sqlalchemy import NullPool, create_engine, event, text

from examples.lab.processes import wait_until
from poolscope.core.catalogue.kept import LISTENER_HOLD, SESSION_LOCK_LEAK
from tests.support.pages import blocks
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding

PATIENCE = 60


@pytest.fixture
def telemetry(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, on; what listens is found at its end, however short it was."""
    yield from instrumented(exhaustion_threshold=0, long_hold_threshold=0.001, leak_threshold=0, finding_interval=0)


def locks_in(found: list[Finding]) -> list[Finding]:
    """The findings about locks."""
    return [one for one in found if one.id == SESSION_LOCK_LEAK]


def locks_at(connection: Any) -> int:
    """How many advisory locks the server knows."""
    return int(connection.execute(text("select count(*) from pg_locks where locktype = 'advisory'")).scalar())


def fails(_: object) -> None:
    """The work that the lock is for."""
    raise ZeroDivisionError


def test_a_lock_that_goes_back_into_the_pool(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """
    The code of the page leaves its lock, as the server says, and is found; the repaired code, a pool that closes what
    is returned, and an application that clears it are not.
    """
    missing, elsewhere, transaction, block = blocks("session_lock_leak", text=text)
    engines = [create_engine(database.url("psycopg"), pool_logging_name=name) for name in ("bad", "two", "ok", "clear")]
    closing = create_engine(database.url("psycopg"), poolclass=NullPool)
    bad, two, ok, clear = engines
    event.listen(clear, "reset", lambda connection, *_: connection.execute("select pg_advisory_unlock_all()"))
    with contextlib.suppress(ZeroDivisionError):
        block["nightly_in_steps"](ok, [lambda connection: connection.execute(text("select 1")), fails])
    with ok.connect() as other:
        for engine, function, left in (
            (ok, transaction["nightly"], 0),
            (closing, missing["nightly"], 0),
            (clear, missing["nightly"], 0),
            (bad, missing["nightly"], 1),
        ):
            with contextlib.suppress(ZeroDivisionError):
                function(engine, fails)
            # A server needs a moment to notice that a connection was closed.
            wait_until(lambda: locks_at(other) == left, PATIENCE, "the server to have the lock, or not")  # noqa: B023 - run at once
    with two.connect() as first:  # so that the second block gets another connection
        elsewhere["nightly_in_two_blocks"](two, lambda _: first.close())

    wait_until(lambda: len(locks_in(found)) >= 2, PATIENCE, "both locks to be reported")
    assert sorted(one.pool.name for one in locks_in(found) if one.pool is not None) == ["bad", "two"]
    (one,) = [one for one in locks_in(found) if "after another checkout" in one.summary]
    assert "in nightly_in_two_blocks" in str(one.evidence["unlocked_at"])
    for engine in engines:
        engine.dispose()


def test_a_stream_that_listens_on_the_pool(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """The page's code holds a connection for it; the repaired code hears the same without one."""
    bad, repaired, expected = blocks("listener_hold")

    def listens() -> bool:
        return any(lease.listens and lease.excuse is None for lease in telemetry.leases())

    async def notify() -> None:
        connection = await asyncpg.connect(database.dsn)
        await connection.execute("notify news, 'hello'")
        await connection.close()

    async def scenario() -> None:
        pool = await asyncpg.create_pool(database.dsn, min_size=1, max_size=2)
        try:
            await listen_on(pool)
        finally:
            pool.terminate()

    async def listen_on(pool: Any) -> None:
        await expected["listen_on_the_pool"](pool, "news", lambda *_: None)
        stream = bad["events"](pool, "news")
        heard = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(wait_until, listens, PATIENCE, "the stream to listen")
        await notify()
        assert await heard == "hello"
        await stream.aclose()
        listener = await repaired["listen"](database.dsn, "news")
        stream = repaired["events"]()
        heard = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await notify()
        assert await heard == "hello"
        await stream.aclose()
        await listener.close()

    asyncio.run(scenario())
    telemetry.instrumentor.flush()
    assert [one.id for one in found] == [LISTENER_HOLD]
    assert found[0].origin is not None
    assert found[0].origin[0].co_name == "events"


def test_a_pool_of_psycopg_keeps_the_lock(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """A pool of the driver's own, with the lock in a statement with parameters; what a `with` block unlocks is none."""
    with psycopg_pool.ConnectionPool(database.dsn, min_size=1, max_size=1, name="own") as pool:
        with pool.connection() as connection:
            connection.execute("select pg_advisory_lock(%s)", [7])
            connection.execute("select pg_advisory_unlock(%s)", [7])
        with pool.connection() as connection:
            connection.execute("select pg_advisory_lock(%s)", [7])
        wait_until(lambda: locks_in(found), PATIENCE, "the lock to be reported")
    (one,) = locks_in(found)
    assert one.evidence["statement"] == "select pg_advisory_lock(?)"
    assert one.evidence["backend_process_id"]
