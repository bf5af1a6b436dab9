"""What only asyncpg's pool does: slots, timeouts of two kinds, resets, proxies without a holder."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import wrapt

from examples.lab.processes import LOOPBACK, free_port
from poolscope.core.execution import stack_of_task
from poolscope.core.origin import Origins
from poolscope.detectors.leak import new_leaks
from tests.support.watched import at_rest, closures, outcomes, watched

asyncpg = pytest.importorskip("asyncpg")

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from examples.lab.postgres import Postgres
    from poolscope.core.pool import Pool
    from tests.support.watched import Watched

DEADLINE = 60.0
TIMEOUTS = {"TimeoutError", "asyncio.exceptions.TimeoutError"}
CANCELLED = "asyncio.exceptions.CancelledError"


@pytest.fixture
def seen() -> Iterator[Watched]:
    """Poolscope's eyes."""
    with watched("asyncpg") as eyes:
        yield eyes


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine, with a deadline."""
    return asyncio.run(asyncio.wait_for(coroutine, 1.5 * DEADLINE))


async def until(predicate: Any) -> None:
    """Give way to other tasks until something is true."""
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while not predicate():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.002)


def test_a_timeout_of_the_pool_and_one_of_the_connect(seen: Watched, database: Postgres) -> None:
    """
    An acquire that reaches its own timeout is a pool timeout; a connect that takes too long is an error of the connect,
    though both raise the same. A server that is away is an error with its name.
    """

    async def scenario() -> None:
        pool = await asyncpg.create_pool(database.dsn, min_size=1, max_size=1)
        ours = seen.only()
        held = await pool.acquire()
        with pytest.raises(asyncio.TimeoutError):
            await pool.acquire(timeout=0.05)
        assert ours.timeouts.read() == 1
        await pool.release(held)
        at_rest(ours)
        await pool.close()

        async def too_slow(*_: Any, **__: Any) -> Any:
            raise asyncio.TimeoutError

        if "connect" in asyncpg.pool.Pool.__init__.__code__.co_varnames:  # from 0.30 on
            pool = await asyncpg.create_pool(database.dsn, min_size=0, connect=too_slow)
            with pytest.raises(asyncio.TimeoutError):
                await pool.acquire(timeout=DEADLINE)
            assert ours.timeouts.read() == 1
            assert set(outcomes(ours)) - TIMEOUTS == {""}
            pool.terminate()
        nowhere = await asyncpg.create_pool(host=LOOPBACK, port=free_port(), user="u", database="d", min_size=0)
        with pytest.raises(OSError, match="onnect"):
            await nowhere.acquire()
        (name,) = [name for name in seen.pool_registry.pools if name.endswith("/d")]
        assert outcomes(seen.pool(name)) == {"ConnectionRefusedError": 1}
        assert seen.pool(name).wait_phase_times()["connect"] > 0
        at_rest(seen.pool(name))
        nowhere.terminate()

    run(scenario())


def test_a_proxy_without_a_holder_is_found(seen: Watched, database: Postgres) -> None:
    """
    The pool keeps a dropped proxy alive and in use for ever: it is found by its references. One that is held, in a
    variable or by a running statement, is not.
    """

    async def scenario() -> None:
        pool = await asyncpg.create_pool(database.dsn, min_size=1, max_size=2)
        ours = seen.only()
        (source,) = ours.sources
        held = await pool.acquire()
        await _drop(pool)
        gc.collect()
        assert len(ours.leases) == 2
        (lost,) = source.unheld()
        assert lost in ours.leases
        assert new_leaks(ours, 0) == [lost]
        assert (lost.leak, ours.leaks["abandoned"].read()) == ("abandoned", 1)
        running = asyncio.create_task(held.fetchval("select pg_sleep(0.2)"))
        await asyncio.sleep(0)
        assert source.unheld() == [lost]
        await running
        (other,) = ours.leases - {lost}
        await pool.release(held)
        assert (other.ended_at is None, other.closed) == (False, None)
        used_up = await pool.acquire()
        (third,) = ours.leases - {lost}
        used_up._holder._max_queries = 1
        await pool.release(used_up)
        assert (third.ended_at is None, third.closed) == (False, None), "it was returned, and closed then"
        cut = await pool.acquire()
        (fourth,) = ours.leases - {lost}
        cut.terminate()
        assert fourth.closed == "closed"
        pool.terminate()
        assert ours.leases == set()
        assert lost.closed == "disposed"

    run(scenario())


async def _drop(pool: Any) -> None:
    proxy = await pool.acquire()
    await proxy.execute("select 1")


def test_a_pool_that_is_dropped_with_leases_ends_them(seen: Watched, database: Postgres) -> None:
    """When the pool itself is collected its proxies have no holder: their leases end as abandoned."""

    async def scenario() -> Pool:
        pool = await asyncpg.create_pool(database.dsn, min_size=1, max_size=2, max_inactive_connection_lifetime=0)
        await _drop(pool)
        connections = [holder._con for holder in pool._holders if holder._con is not None]
        ours = seen.only()
        assert len(ours.leases) == 1
        for connection in connections:
            connection._transport.abort()
        return ours

    ours = run(scenario())
    gc.collect()
    assert ours.leases == set()


def test_why_connections_are_closed(seen: Watched, database: Postgres) -> None:
    """
    Expired, used up, broken by the server, failed in setup or reset, terminated: each closure has its reason, and all
    that were made are closed in the end.
    """

    async def scenario() -> None:
        fail = {"setup": False, "reset": False}

        async def setup(_: Any) -> None:
            if fail["setup"]:
                raise RuntimeError("setup")

        pool = await asyncpg.create_pool(database.dsn, min_size=1, max_size=1, max_queries=1000, setup=setup)
        ours = seen.only()
        await pool.expire_connections()
        await pool.release(await pool.acquire())
        await until(lambda: closures(ours) == {"recycled": 1})
        held = await pool.acquire()
        await asyncio.get_running_loop().run_in_executor(None, _kill_all, database)
        await until(lambda: held._con is None or held._con.is_closed())
        await pool.release(held)
        assert ours.leases == set()
        assert closures(ours) == {"recycled": 1, "invalidated": 1}
        fail["setup"] = True
        with pytest.raises(RuntimeError, match="setup"):
            await pool.acquire()
        assert closures(ours)["failed_validation"] == 1
        fail["setup"] = False
        held = await pool.acquire()
        await pool.release(held)
        await pool.release(held)  # a second time: nothing
        held = await pool.acquire()
        pool.terminate()
        assert ours.leases == set()
        assert closures(ours)["disposed"] == 1
        assert ours.creates.read().count == sum(closures(ours).values())
        at_rest(ours)

    run(scenario())


def _kill_all(where: Postgres) -> None:
    with where.connect() as admin:
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid()"
        )


def test_statements_and_phases(seen: Watched, database: Postgres) -> None:
    """
    Each way to send a statement counts one; BEGIN, COMMIT, further fetches and the reset count none, but are time spent
    in the database.
    """

    async def scenario() -> None:
        pool = await asyncpg.create_pool(database.dsn, min_size=1, max_size=1)
        ours = seen.only()
        async with pool.acquire() as connection:
            (lease,) = ours.leases
            await connection.execute("create temporary table t (n int)")
            await connection.execute("insert into t values ($1)", 1)
            await connection.executemany("insert into t values ($1)", [(2,), (3,)])
            assert await connection.fetchval("select count(*) from t") == 3
            await connection.copy_records_to_table("t", records=[(4,)])
            assert (lease.queries, lease.phase) == (5, "idle")
            prepared = await connection.prepare("select n from t where n = $1")
            assert await prepared.fetchval(2) == 2
            assert lease.queries == 6
            async with connection.transaction():
                assert lease.phase == "idle_in_transaction"
                cursor = await connection.cursor("select n from t order by n")
                assert [row["n"] for row in await cursor.fetch(2)] == [1, 2]
                assert [row["n"] for row in await cursor.fetch(2)] == [3, 4]
                rows = [row["n"] async for row in connection.cursor("select n from t order by n", prefetch=2)]
                assert rows == [1, 2, 3, 4]
            assert (lease.queries, lease.phase) == (8, "idle")
            assert lease.backend_process_id == connection.get_server_pid()
        assert lease.queries == 8
        at_rest(ours)
        assert await pool.fetchval("select 1") == 1
        await pool.close()

    run(scenario())


def test_hand_over_races(seen: Watched, database: Postgres) -> None:
    """
    300 checkouts of each kind, cancelled or timed out at about the time that they are served: whatever wins, every
    checkout ends once, and what is checked out by our account is so by the pool's own.
    """

    async def scenario() -> None:
        chance = random.Random(2)
        for timeout in (None, 0.0005):
            pool = await asyncpg.create_pool(database.dsn, min_size=1, max_size=1)
            ours = seen.only()
            (source,) = ours.live_sources()
            for _ in range(300):
                held = await pool.acquire()
                task = asyncio.create_task(_use(pool, timeout))
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                giving = asyncio.create_task(pool.release(held))
                for _ in range(chance.randrange(8)):
                    await asyncio.sleep(0)
                if timeout is None:
                    task.cancel()
                await asyncio.gather(giving, task, return_exceptions=True)
                assert len(ours.leases) == source.in_use()
                await until(lambda leases=ours.leases: not leases)  # a release goes on when its caller was cancelled
            await pool.release(await pool.acquire())
            at_rest(ours)
            assert ours.waits.read().count == ours.holds.read().count
            assert set(outcomes(ours)) <= {"", CANCELLED, *TIMEOUTS}
            await pool.close()

    run(scenario())


async def _use(pool: Any, timeout: float | None) -> None:
    async with pool.acquire(timeout=timeout):
        await asyncio.sleep(0)


def test_a_statement_that_runs_stands_in_the_application(seen: Watched, database: Postgres) -> None:
    """
    Asyncpg's compiled frames, which have paths from nowhere, are a library's: a task that waits for the server stands
    in the line of the application that runs the statement.
    """

    async def scenario() -> None:
        pool = await asyncpg.create_pool(database.dsn, min_size=1, max_size=1)
        running = asyncio.create_task(_sleep(await pool.acquire()))
        (lease,) = seen.only().leases
        await until(lambda: lease.running)
        await asyncio.sleep(0)
        stack = stack_of_task(weakref.ref(running), 20)
        assert Origins().trim(stack)[0][0] is _sleep.__code__
        pool.terminate()
        await asyncio.gather(running, return_exceptions=True)
        at_rest(seen.only())

    run(scenario())


async def _sleep(connection: Any) -> None:
    await connection.execute("select pg_sleep(60)")


def _coroutine_wrapper(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
    async def call() -> Any:
        return await wrapped(*args, **kwargs)

    return call()


def _plain_wrapper(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
    def call() -> Any:
        return wrapped(*args, **kwargs)

    return call()


def test_another_librarys_wrappers_hide_no_reason(database: Postgres) -> None:
    """
    Where another library wraps what closes connections, outside and inside of our hooks, each
    closure has its reason.
    """
    holder, connection = asyncpg.pool.PoolConnectionHolder, asyncpg.connection.Connection
    with contextlib.ExitStack() as wrapped, watched("asyncpg") as seen:
        for owner, name in ((holder, "acquire"), (holder, "release"), (connection, "close")):
            wrapped.enter_context(_wrapped(owner, name, _coroutine_wrapper))
        for owner, name in ((connection, "terminate"), (connection, "_cleanup")):
            wrapped.enter_context(_wrapped(owner, name, _plain_wrapper))

        async def scenario() -> None:
            pool = await asyncpg.create_pool(database.dsn, min_size=0, max_size=1, connection_class=Failing)
            ours = seen.only()
            held = await pool.acquire()
            Failing.fails = True
            with pytest.raises(RuntimeError, match="reset"):
                await pool.release(held)
            Failing.fails = False
            assert closures(ours) == {"reset_failed": 1}
            await (await pool.acquire()).close()
            assert closures(ours) == {"reset_failed": 1, "closed": 1}
            await pool.acquire()
            pool.terminate()
            assert closures(ours) == {"reset_failed": 1, "closed": 1, "disposed": 1}
            at_rest(ours)

        run(scenario())


class Failing(asyncpg.Connection):  # type: ignore[misc]
    """One that can be made to fail when it is reset."""

    fails = False

    async def reset(self, **options: Any) -> None:
        """Fail, if so."""
        if self.fails:
            raise RuntimeError("reset")
        await super().reset(**options)


@contextlib.contextmanager
def _wrapped(owner: type, name: str, wrapper: Any) -> Iterator[None]:
    original = vars(owner)[name]
    setattr(owner, name, wrapt.FunctionWrapper(original, wrapper))
    try:
        yield
    finally:
        setattr(owner, name, original)
