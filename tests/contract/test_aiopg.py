"""What only aiopg's pool does: psycopg2's connections in asyncio, closed by whichever layer notices first."""

from __future__ import annotations

import asyncio
import functools
import gc
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from poolscope.core.pool_identity import POOL_NAME
from tests.support.watched import at_rest, closures, outcomes, watched

aiopg = pytest.importorskip("aiopg")

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from examples.lab.postgres import Postgres
    from tests.support.watched import Watched


@pytest.fixture
def seen() -> Iterator[Watched]:
    """Poolscope's eyes."""
    with watched("aiopg", "psycopg2_pool") as eyes:
        yield eyes


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it in an event loop of its own."""
    asyncio.run(asyncio.wait_for(scenario(), 60))


async def close(pool: Any) -> None:
    """Close a pool with whatever it has."""
    pool.terminate()
    await pool.wait_closed()


async def end_by_server(database: Postgres, connection: Any) -> None:
    """Let the server end a connection."""

    def end() -> None:
        other = psycopg2.connect(database.dsn)
        other.autocommit = True
        other.cursor().execute("select pg_terminate_backend(%s, 10000)", (connection.raw.get_backend_pid(),))
        other.close()

    await asyncio.get_running_loop().run_in_executor(None, end)


def test_statements_and_phases(seen: Watched, database: Postgres) -> None:
    """
    Each statement of a cursor counts one, and the transaction's own do not; what lies between statements of an open
    transaction is idle in transaction.
    """

    async def scenario() -> None:
        pool = await aiopg.create_pool(database.dsn, minsize=0, maxsize=1)
        async with pool.acquire() as connection:
            (lease,) = seen.only().leases
            assert (lease.queries, lease.backend_process_id) == (0, connection.raw.get_backend_pid())
            async with connection.cursor() as cursor:
                async with cursor.begin():
                    await cursor.execute("select %s", (1,))
                    assert await cursor.fetchone() == (1,)
                    assert (lease.queries, lease.statement) == (1, "select %s")
                    assert lease.phase == "idle_in_transaction"
                await cursor.callproc("version")
            assert (lease.queries, lease.phase) == (2, "idle")
        uses = seen.only().holds.read()
        assert min(uses.phases.values()) > 0
        at_rest(seen.only())
        await close(pool)

    run(scenario)


def test_why_connections_are_closed(seen: Watched, database: Postgres) -> None:
    """
    Recycled, ended by the server while held and while idle, returned inside a transaction, closed by its caller,
    cleared, terminated: each closure has its reason, and every connection that was made is closed in the end.
    """

    async def scenario() -> None:
        pool = await aiopg.create_pool(database.dsn, minsize=1, maxsize=1)
        ours = seen.only()
        connection = await pool.acquire()
        pool._recycle = 0
        connection._last_usage -= 1
        await pool.release(connection)
        await pool.release(await pool.acquire())
        assert closures(ours) == {"recycled": 1}
        pool._recycle = -1
        connection = await pool.acquire()
        await (await connection.cursor()).execute("begin")
        with pytest.warns(ResourceWarning, match="Invalid transaction status"):
            await pool.release(connection)
        assert closures(ours)["in_transaction"] == 1
        connection = await pool.acquire()
        await end_by_server(database, connection)
        with pytest.raises(psycopg2.Error):
            await (await connection.cursor()).execute("select 1")
        assert closures(ours)["invalidated"] == 1
        await pool.release(connection)
        connection = await pool.acquire()
        await pool.release(connection)
        await end_by_server(database, connection)
        await pool.release(await pool.acquire())
        assert closures(ours)["invalidated"] == 2
        connection = await pool.acquire()
        await connection.close()
        await connection.close()
        await pool.release(connection)
        assert closures(ours)["closed"] == 1
        await pool.release(await pool.acquire())
        await pool.clear()
        assert closures(ours)["disposed"] == 1
        await pool.acquire()
        await close(pool)
        assert closures(ours)["disposed"] == 2
        assert ours.creates.read().count == sum(closures(ours).values())
        at_rest(ours)

    run(scenario)


def test_connections_of_no_pool_are_left_alone(seen: Watched, database: Postgres) -> None:
    """
    A connection that the application makes itself belongs to no pool; those of a pool are its own, also where another
    library wraps what makes them.
    """

    async def scenario() -> None:
        pool = await aiopg.create_pool(database.dsn, minsize=0, maxsize=2)
        async with aiopg.connect(database.dsn) as alone, alone.cursor() as cursor:
            await cursor.execute("select 1")
        assert seen.only().creates.read().count == 0
        original = aiopg.connection.Connection._connect

        @functools.wraps(original)
        async def wrapper(connection: Any) -> Any:
            return await original(connection)

        aiopg.connection.Connection._connect = wrapper
        try:
            await pool.release(await pool.acquire())
        finally:
            aiopg.connection.Connection._connect = original
        assert seen.only().creates.read().count == 1
        await close(pool)
        assert closures(seen.only()) == {"disposed": 1}

    run(scenario)


def test_how_a_checkout_fails(seen: Watched, database: Postgres) -> None:
    """
    The pool's timeout is one; a caller's own is a cancellation; a server that is not there is an error, and so is a
    pool that is closed.
    """

    async def scenario() -> None:
        pool = await aiopg.create_pool(database.dsn, minsize=1, maxsize=1)
        ours = seen.only()
        held = await pool.acquire()
        pool._timeout = 0.01
        with pytest.raises(asyncio.TimeoutError):
            await pool.acquire()
        pool._timeout = 60
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pool.acquire(), 0.01)
        await pool.release(held)
        await pool.clear()
        pool._dsn = "host=127.0.0.1 port=1"
        with pytest.raises(psycopg2.OperationalError):
            await pool.acquire()
        await close(pool)
        with pytest.raises(RuntimeError):
            await pool.acquire()
        timeout = asyncio.TimeoutError
        name = timeout.__name__ if timeout is TimeoutError else f"{timeout.__module__}.{timeout.__name__}"
        assert outcomes(ours) == {
            "": 1,
            name: 1,
            "asyncio.exceptions.CancelledError": 1,
            "psycopg2.OperationalError": 1,
            "RuntimeError": 1,
        }
        at_rest(ours)

    run(scenario)


def test_a_connection_without_a_holder_is_found(seen: Watched, database: Postgres) -> None:
    """
    The pool keeps a dropped connection for ever: it is found by its references, once its cursors, which are cycles, are
    collected. One that is held by a variable, or by nothing but its cursor, is not.
    """

    async def scenario() -> None:
        pool = await aiopg.create_pool(database.dsn, minsize=0, maxsize=3)
        ours = seen.only()
        (source,) = ours.live_sources()
        held = await pool.acquire()
        cursor = await (await pool.acquire()).cursor()
        assert source.unheld() == []  # type: ignore[attr-defined]
        known = ours.leases.copy()
        await pool.acquire()
        gc.collect()
        (lost,) = ours.leases - known
        assert source.unheld() == [lost]  # type: ignore[attr-defined]
        await pool.release(cursor.connection)
        await pool.release(held)
        await close(pool)
        at_rest(ours)

    run(scenario)


@pytest.mark.parametrize("unlimited", [False, True])
def test_who_it_is(seen: Watched, database: Postgres, unlimited: bool) -> None:
    """
    A pool is named after its server and database, by its arguments or its string, unless the application names it; a
    size of 0 is no limit.
    """

    async def scenario() -> None:
        place = {"host": database.host, "port": database.port, "dbname": database.database}
        login = {"user": database.user, "password": database.password}
        if unlimited:
            with_name = POOL_NAME.set("orders")
            pool = await aiopg.create_pool(database.dsn, minsize=0, maxsize=0)
            POOL_NAME.reset(with_name)
        else:
            pool = await aiopg.create_pool(minsize=0, maxsize=2, **place, **login)
        ours = seen.only()
        identity = ours.identity
        assert (identity.system, identity.namespace) == ("postgresql", database.database)
        assert (identity.address, identity.port) == (database.host, database.port)
        assert (ours.limit, identity.name == "orders") == ((None, True) if unlimited else (2, False))
        await close(pool)

    run(scenario)
