"""Cancellation at every place where an async checkout, query or checkin suspends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import logging
import types
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab import mariadb
from poolscope import semconv
from poolscope.core.guard import guard
from poolscope.core.pool_identity import POOL_NAME
from tests.contract.drivers.base import DEADLINE
from tests.contract.drivers.mysql import server
from tests.contract.drivers.sqlalchemy import AsyncQueuePoolAiosqlite, AsyncQueuePoolAsyncpg, AsyncQueuePoolPsycopg
from tests.support.skips import require

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from tests.support.telemetry import Telemetry

KINDS = (AsyncQueuePoolAiosqlite, AsyncQueuePoolAsyncpg, AsyncQueuePoolPsycopg)
#: No checkout, query and checkin together suspend more often.
MOST_STEPS = 150


@types.coroutine
def cancelled_at(coroutine: Coroutine[Any, Any, Any], step: int) -> Generator[Any, Any, bool]:
    """
    Run a coroutine and cancel its task when it gives way for the n-th time.

    Args:
        coroutine: What to run.
        step: n, from 1.

    Returns:
        Whether it came to its end before.
    """
    taken = 0
    send: Any = lambda: coroutine.send(None)  # noqa: E731
    while True:
        try:
            future = send()
        except StopIteration:
            return taken < step
        taken += 1
        if taken == step:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            value = yield future
        except BaseException as error:
            send = lambda error=error: coroutine.throw(error)  # noqa: E731
        else:
            send = lambda value=value: coroutine.send(value)  # noqa: E731


async def leave_alone(engine: Any) -> None:
    """One checkout, query and checkin."""
    from sqlalchemy import text

    async with engine.connect() as connection:
        await connection.execute(text("select 1"))


@pytest.mark.parametrize("kind", KINDS, ids=[kind.label for kind in KINDS])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_cancelled_at_every_step(
    telemetry: Telemetry, kind: Any, warm: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """
    Wherever a task is cancelled on its way through the pool, nothing stays in use, each checkout is one point, each
    lease is one point, and our account is the pool's; with a connection to be made and with one that is there.
    """
    import sqlalchemy
    from sqlalchemy import exc
    from sqlalchemy.ext.asyncio import create_async_engine

    driver = kind()
    require(driver.missing() is None, str(driver.missing()), "make env (and make matrix for other versions)")
    where: Postgres | None = request.getfixturevalue("database") if kind.on_postgres else None
    url = where.url(kind.scheme.partition("+")[2]) if where else f"{kind.scheme}:///{tmp_path / 'cancel.db'}"

    async def run() -> int:
        limits = {"poolclass": kind.pool_class, "pool_size": 1, "max_overflow": 0, "pool_timeout": DEADLINE}
        engine = create_async_engine(url, pool_logging_name=driver.pool, **limits)
        ended = False
        step = 0
        while not ended:
            step += 1
            assert step < MOST_STEPS
            if warm:
                await leave_alone(engine)
            else:
                await engine.dispose()
            try:
                ended = await asyncio.get_running_loop().create_task(_as_coroutine(leave_alone(engine), step))
            except asyncio.CancelledError:
                pass
            except exc.DBAPIError:
                pass  # a driver may turn it into an error of its own
            await asyncio.sleep(0)
            gc.collect()
            await asyncio.sleep(0)
            collected = telemetry.collect()
            waits, uses = (
                collected.counts(semconv.WAIT_TIME, driver.pool),
                collected.counts(semconv.USE_TIME, driver.pool),
            )
            used, drift = collected.used(driver.pool), collected.value(semconv.DRIFT, driver.pool)
            lost = engine.pool.checkedout()  # type: ignore[attr-defined]
            if lost and sqlalchemy.__version__.startswith("1.4"):
                # Its own loss, with the hooks or without: cancelled in the rollback of a checkin it never comes back.
                assert (used, drift) == (lost, 0)
                return step
            assert (used, drift, lost) == (0, 0, 0), (step, waits, uses)
            assert uses.get("", 0) == waits.get("", 0), step
            assert sum(waits.values()) == step * (2 if warm else 1)
        await engine.dispose()
        return step

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exc.SAWarning)
        warnings.simplefilter("ignore", ResourceWarning)
        steps = asyncio.run(run())
        gc.collect()
    assert steps > 2, "nothing gave way: the test tests nothing"


async def _as_coroutine(coroutine: Coroutine[Any, Any, Any], step: int) -> bool:
    return await cancelled_at(coroutine, step)


# The libraries' own pools -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """
    A library's pool of one connection, which is made when it is asked for.

    Args:
        label: What the test is called.
        needs: The library.
        make: Makes a pool of that name.
        use: One checkout, query and checkin; at the gate it waits, where there is one.
        close: Closes it.
        careful: Whether it checks what it hands over.
    """

    label: str
    needs: str
    make: Callable[[Postgres, str], Awaitable[Any]]
    use: Callable[..., Coroutine[Any, Any, None]]
    close: Callable[[Any], Awaitable[None]]
    careful: bool = False

    def missing(self) -> str | None:
        """What is not there that it needs."""
        if importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} missing"
        if self.careful and not _keeps_what_it_checks():
            return "this psycopg_pool loses a connection whose check is cancelled"
        return mariadb.missing() if self.needs == "aiomysql" else None


def psycopg_kind(pool_class: str, *, careful: bool = False) -> Kind:
    """A pool of psycopg's; a careful one checks what it hands over and resets what comes back."""

    async def make(where: Postgres, name: str) -> Any:
        import psycopg_pool

        kind = getattr(psycopg_pool, pool_class)
        options = {"check": kind.check_connection, "reset": _reset} if careful else {}
        pool = kind(where.dsn, min_size=0, max_size=1, timeout=DEADLINE, name=name, open=False, **options)
        await pool.open()
        return pool

    async def use(pool: Any, gate: asyncio.Event | None = None) -> None:
        async with pool.connection() as connection:
            await connection.execute("select 1")
            await _passed(gate)

    async def close(pool: Any) -> None:
        await pool.close()

    return Kind(f"{pool_class}{'-careful' if careful else ''}", "psycopg_pool", make, use, close, careful)


def _keeps_what_it_checks() -> bool:
    import psycopg_pool

    return hasattr(psycopg_pool.AsyncConnectionPool, "_getconn_with_check_loop")


def _closes_all() -> bool:
    # psycopg_pool 3.2.0 may put one that was being made into the pool when that is closed, and leave it there.
    import psycopg_pool

    return hasattr(psycopg_pool.AsyncConnectionPool, "_close_connection")


async def _passed(gate: asyncio.Event | None) -> None:
    if gate is not None:
        await gate.wait()


async def _reset(connection: Any) -> None:
    await connection.execute("select 2")
    await connection.rollback()


def asyncpg_kind(*, timeout: float | None) -> Kind:
    """A pool of asyncpg's; with a timeout a checkout runs in a task of its own."""

    async def make(where: Postgres, name: str) -> Any:
        import asyncpg

        token = POOL_NAME.set(name)
        try:
            return await asyncpg.create_pool(where.dsn, min_size=0, max_size=1)
        finally:
            POOL_NAME.reset(token)

    async def use(pool: Any, gate: asyncio.Event | None = None) -> None:
        async with pool.acquire(timeout=timeout) as connection:
            await connection.execute("select 1")
            await _passed(gate)

    async def close(pool: Any) -> None:
        pool.terminate()

    return Kind(f"asyncpg{'' if timeout is None else '-timeout'}", "asyncpg", make, use, close)


def aiomysql_kind() -> Kind:
    """A pool of aiomysql's."""

    async def make(_: Postgres, name: str) -> Any:
        import aiomysql

        place = server()
        token = POOL_NAME.set(name)
        try:
            return await aiomysql.create_pool(minsize=0, maxsize=1, db=place.database, **place.arguments())
        finally:
            POOL_NAME.reset(token)

    async def use(pool: Any, gate: asyncio.Event | None = None) -> None:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("select 1")
            await _passed(gate)

    async def close(pool: Any) -> None:
        pool.terminate()
        await pool.wait_closed()

    return Kind("aiomysql", "aiomysql", make, use, close)


def aiopg_kind() -> Kind:
    """A pool of aiopg's."""

    async def make(database: Postgres, name: str) -> Any:
        import aiopg

        token = POOL_NAME.set(name)
        try:
            return await aiopg.create_pool(database.dsn, minsize=0, maxsize=1)
        finally:
            POOL_NAME.reset(token)

    async def use(pool: Any, gate: asyncio.Event | None = None) -> None:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("select 1")
            await _passed(gate)

    async def close(pool: Any) -> None:
        pool.terminate()
        await pool.wait_closed()

    return Kind("aiopg", "aiopg", make, use, close)


NATIVE = (
    psycopg_kind("AsyncConnectionPool"),
    psycopg_kind("AsyncConnectionPool", careful=True),
    psycopg_kind("AsyncNullConnectionPool"),
    asyncpg_kind(timeout=None),
    asyncpg_kind(timeout=DEADLINE),
    aiomysql_kind(),
    aiopg_kind(),
)


async def held(telemetry: Telemetry, pool: str, use: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a use of the pool and wait until it has the connection."""
    task = asyncio.create_task(use)
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while True:
        await asyncio.sleep(0.002)
        if telemetry.collect().used(pool) == 1:
            return task
        assert asyncio.get_running_loop().time() < deadline


async def at_rest(telemetry: Telemetry, pool: str, step: int) -> dict[str, int]:
    """
    Wait until nothing is in use and nothing drifts: a library may end a return after its caller was cancelled.

    Returns:
        The waits so far by outcome, as many of them granted as there are uses.
    """
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while True:
        await asyncio.sleep(0.002)
        gc.collect()
        collected = telemetry.collect()
        seen = [
            collected.used(pool),
            collected.value(semconv.DRIFT, pool),
            collected.value(semconv.PENDING_REQUESTS, pool),
        ]
        if not any(seen):
            break
        assert asyncio.get_running_loop().time() < deadline, (step, seen)
    waits, uses = collected.counts(semconv.WAIT_TIME, pool), collected.counts(semconv.USE_TIME, pool)
    assert uses.get("", 0) == waits.get("", 0), (step, waits, uses)
    return waits


async def all_closed(telemetry: Telemetry, pool: str, step: int) -> None:
    """Wait until every connection that was made is closed, and no more of them than were made."""
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while True:
        gc.collect()
        collected = telemetry.collect()
        made = sum(collected.counts(semconv.CREATE_TIME, pool).values())
        closed = collected.total(semconv.CLOSURES, pool)
        if closed == made:
            return
        assert closed < made, (step, made, closed)
        assert asyncio.get_running_loop().time() < deadline, (step, made, closed)
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("kind", NATIVE, ids=[kind.label for kind in NATIVE])
@pytest.mark.parametrize("state", ["cold", "warm", "full"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_librarys_own_pool_cancelled_at_every_step(
    telemetry: Telemetry, kind: Kind, state: str, database: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The same for the pools of the drivers themselves, each step on a pool of its own; also with the only connection out,
    to be handed over to the checkout. A connect that was cancelled made no connection.
    """
    require(kind.missing() is None, str(kind.missing()), "make env (and make matrix for other versions)")
    caplog.set_level(logging.CRITICAL)  # log records keep the connections that they name
    name = f"cancelled-{kind.label}-{state}"

    async def run() -> int:
        ended, step, checkouts = False, 0, 0
        while not ended:
            step += 1
            assert step < MOST_STEPS
            pool = await kind.make(database, name)
            gate = asyncio.Event()
            if state == "warm":
                await kind.use(pool)
            holder = await held(telemetry, name, kind.use(pool, gate)) if state == "full" else None
            task = asyncio.create_task(_as_coroutine(kind.use(pool), step))
            await asyncio.sleep(0)
            gate.set()
            with contextlib.suppress(asyncio.CancelledError):
                ended = await task
            if holder is not None:
                await holder
            checkouts += 1 if state == "cold" else 2
            waits = await at_rest(telemetry, name, step)
            assert sum(waits.values()) == checkouts, (step, waits)
            await kind.close(pool)
            if kind.needs != "psycopg_pool" or _closes_all():
                await all_closed(telemetry, name, step)
        return step

    assert asyncio.run(run()) > 1, "nothing gave way: the test tests nothing"
    assert sum(guard.counts().values()) == 0, guard.counts()
