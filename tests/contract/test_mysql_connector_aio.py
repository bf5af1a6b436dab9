"""
What only mysql-connector's asyncio pool does: checkout and return are awaited, and can be
cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest

import poolscope
from tests.contract.drivers.mysql import ConnectorAio, server
from tests.contract.test_cancellation import cancelled_at
from tests.support.skips import require
from tests.support.watched import at_rest, closures, outcomes, watched

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from tests.support.watched import Watched

# The library leaves sockets of connections that the server or a cancellation ended to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

#: No checkout, query and checkin together suspend more often.
MOST_STEPS = 60


@pytest.fixture
def place() -> dict[str, Any]:
    """How to connect to the MariaDB."""
    require(
        ConnectorAio.missing() is None, str(ConnectorAio.missing()), "make env (and make matrix for other versions)"
    )
    return {**server().arguments(), "database": server().database, "ssl_disabled": True}


@pytest.fixture
def seen(place: dict[str, Any]) -> Iterator[Watched]:
    """Poolscope's eyes."""
    assert place
    with watched("mysql_connector_aio") as eyes:
        yield eyes
    gc.collect()  # those sockets, while their warnings are expected


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, with a deadline."""
    asyncio.run(asyncio.wait_for(coroutine, 60))


async def pool_of(place: dict[str, Any], size: int = 1, **options: Any) -> Any:
    """A pool, connected."""
    from mysql.connector.aio.pooling import MySQLConnectionPool

    pool = MySQLConnectionPool(pool_size=size, **{"pool_name": "p", **options}, **place)
    await pool.initialize_pool()
    return pool


def test_statements_and_phases(seen: Watched, place: dict[str, Any]) -> None:
    """
    Each execute, executemany and callproc is one statement, by cursors of each kind; idle in transaction is what lies
    between statements of an open transaction. The reset at the return is none of it.
    """

    async def scenario() -> None:
        pool = await pool_of(place)
        async with await pool.get_connection() as connection:
            (lease,) = seen.only().leases
            cursor = await connection.cursor(dictionary=True)
            await cursor.execute("create temporary table t (n int)")
            await connection.start_transaction()
            await cursor.executemany("insert into t values (%s)", [(1,), (2,)])
            assert (lease.queries, lease.phase) == (2, "idle_in_transaction")
            await cursor.execute("select n from t where n = %s", (1,))
            assert await cursor.fetchall() == [{"n": 1}]
            assert lease.statement == "select n from t where n = %s"
            await connection.commit()
            assert (lease.queries, lease.phase) == (3, "idle")
            prepared = await connection.cursor(prepared=True)
            await prepared.execute("select n from t where n = ?", (2,))
            assert await prepared.fetchall() == [(2,)]
            await connection.rollback()
            assert (lease.queries, lease.phase) == (4, "idle")
            await prepared.close()
            await cursor.close()
        ours = seen.only()
        uses = ours.holds.read()
        assert min(uses.phases.values()) > 0
        at_rest(ours)
        assert await pool.close_pool() == 1
        assert closures(ours) == {"disposed": 1}
        assert ours.creates.read().count == 1

    run(scenario())


def test_it_validates_and_connects_anew(seen: Watched, place: dict[str, Any]) -> None:
    """
    The ping at a checkout is validation; a connection that the server ended, and one whose configuration has changed,
    are closed and made anew in the checkout's connect phase. One that cannot be made anew goes back: an error, and no
    slot lost.
    """
    from mysql.connector import errors

    async def scenario() -> None:
        pool = await pool_of(place)
        ours = seen.only()
        connection = await pool.get_connection()
        assert ours.wait_phase_times()["connect"] == 0
        assert ours.wait_phase_times()["validate"] > 0
        cursor = await connection.cursor()
        with contextlib.suppress(errors.Error):
            await cursor.execute("kill connection_id()")
        await connection.close()
        await (await pool.get_connection()).close()
        assert closures(ours) == {"invalidated": 1}
        assert ours.wait_phase_times()["connect"] > 0
        await pool.set_config(**place)
        await (await pool.get_connection()).close()
        assert closures(ours) == {"invalidated": 1, "recycled": 1}
        assert ours.creates.read().count == 3
        with pytest.raises(errors.PoolError):
            await asyncio.gather(pool.get_connection(), pool.get_connection())
        assert outcomes(ours)["mysql.connector.errors.PoolError"] == 1
        assert ours.timeouts.read() == 0
        del connection
        gc.collect()
        await pool.close_pool()

    run(scenario())


def test_a_pool_without_a_name(seen: Watched, place: dict[str, Any]) -> None:
    """
    It is called after its server and database, and not as the library calls it, with its user; else what the block
    that makes it says.
    """

    async def scenario() -> None:
        unnamed = await pool_of(place, pool_name=None)
        assert place["user"] in unnamed.pool_name
        with poolscope.pool_name("orders"):
            orders = await pool_of(place)
        assert list(seen.pool_registry.pools) == [f"{place['host']}:{place['port']}/{place['database']}", "orders"]
        await unnamed.close_pool()
        await orders.close_pool()

    run(scenario())


async def use(pool: Any) -> None:
    """One checkout, query and checkin."""
    async with await pool.get_connection() as connection:
        cursor = await connection.cursor()
        await cursor.execute("select 1")
        await cursor.fetchall()


@pytest.mark.parametrize("broken", [False, True], ids=["warm", "broken"])
def test_cancelled_at_every_step(seen: Watched, place: dict[str, Any], broken: bool) -> None:
    """
    Wherever a task is cancelled, nothing stays in use and each checkout is one point. A connection that a checkout had
    taken out is lost to the pool then, and the limit shrinks by it until it is made up for; in the end every connection
    that was made is closed or lost, and counted as one of both.
    """

    async def scenario() -> None:
        pool = await pool_of(place)
        ours = seen.only()
        ended, step, lost = False, 0, 0
        while not ended:
            step += 1
            assert step < MOST_STEPS
            if broken:
                (connection,) = pool._cnx_queue._queue
                await connection.close()
            task = asyncio.create_task(_as_coroutine(use(pool), step))
            with contextlib.suppress(asyncio.CancelledError):
                ended = await task
            at_rest(ours)
            assert sum(outcomes(ours).values()) == step
            assert ours.waits.read().count == ours.holds.read().count
            assert ours.limit == pool._cnx_queue.qsize()
            if ours.limit == 0:
                lost += 1
                await pool.add_connection()
                assert ours.limit == 1
        await pool.close_pool()
        assert ours.creates.read().count == sum(closures(ours).values())
        assert lost > 0, "no ask was cancelled with a connection taken out: the test tests nothing"

    run(scenario())


async def _as_coroutine(coroutine: Coroutine[Any, Any, Any], step: int) -> bool:
    return await cancelled_at(coroutine, step)
