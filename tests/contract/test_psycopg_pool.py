"""What only psycopg's pools do: rejections, checks, resizing, slots that are lost, statements."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import threading
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import LOOPBACK, free_port, wait_until
from poolscope.adapters.psycopg_pool import ADAPTER
from tests.support.watched import at_rest, closures, outcomes, watched

psycopg = pytest.importorskip("psycopg")
psycopg_pool = pytest.importorskip("psycopg_pool")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres
    from poolscope.core.lease import Lease
    from tests.support.watched import Watched

TIMEOUT = "psycopg_pool.PoolTimeout"
REJECTED = "psycopg_pool.TooManyRequests"
DEADLINE = 60.0
#: Seconds that an answer is kept back.
LATE = 0.05


@pytest.fixture
def seen() -> Iterator[Watched]:
    """Poolscope's eyes."""
    with watched("psycopg_pool") as eyes:
        yield eyes


def opened(where: Postgres, **options: Any) -> Any:
    """A pool of up to two connections, filled."""
    pool = psycopg_pool.ConnectionPool(
        where.dsn, **{"min_size": 2, "max_size": 2, "name": "p", "open": False, **options}
    )
    pool.open(wait=True, timeout=DEADLINE)
    return pool


def test_pending_is_right_after_timeouts_where_the_library_is_not(seen: Watched, database: Postgres) -> None:
    """Asks that timed out wait no more; the library's own account of waiting clients keeps them."""
    with opened(database, min_size=1, max_size=1) as pool:
        held = pool.getconn()
        for _ in range(3):
            with pytest.raises(psycopg_pool.PoolTimeout):
                pool.getconn(timeout=0.02)
        ours = seen.pool("p")
        assert pool.get_stats()["requests_waiting"] == 3
        assert len(ours.pending) == 0
        assert ours.timeouts.read() == 3
        assert outcomes(ours) == {"": 1, TIMEOUT: 3}
        pool.putconn(held)
        at_rest(ours)


def test_a_checkout_beyond_max_waiting_is_a_rejection_and_no_timeout(seen: Watched, database: Postgres) -> None:
    """With as many waiting as may wait, the next ask fails at once: one failed wait, no timeout."""
    with opened(database, min_size=1, max_size=1, max_waiting=1) as pool:
        held = pool.getconn()
        waiter = threading.Thread(target=lambda: pool.putconn(pool.getconn(timeout=DEADLINE)))
        waiter.start()
        ours = seen.pool("p")
        wait_until(lambda: len(ours.pending) == 1 and pool.get_stats().get("requests_waiting") == 1, DEADLINE)
        with pytest.raises(psycopg_pool.TooManyRequests):
            pool.getconn(timeout=DEADLINE)
        pool.putconn(held)
        waiter.join(DEADLINE)
        assert outcomes(ours) == {"": 2, REJECTED: 1}
        assert ours.timeouts.read() == 0
        at_rest(ours)


def test_a_server_that_is_away_is_a_timeout_of_the_pool_and_an_error_of_the_null_pool(seen: Watched) -> None:
    """
    A pool that cannot connect lets its callers time out, as it says itself; a null pool connects for its caller, whose
    ask fails with the connect's error and is no pool timeout.
    """
    nowhere = f"host={LOOPBACK} port={free_port()}"
    with psycopg_pool.ConnectionPool(nowhere, min_size=1, name="p", open=True) as pool:
        with pytest.raises(psycopg_pool.PoolTimeout):
            pool.getconn(timeout=0.05)
        assert outcomes(seen.pool("p")) == {TIMEOUT: 1}
        at_rest(seen.pool("p"))
    with psycopg_pool.NullConnectionPool(nowhere, name="n", open=True) as pool:
        with pytest.raises(psycopg.OperationalError):
            pool.getconn(timeout=DEADLINE)
        assert outcomes(seen.pool("n")) == {"psycopg.OperationalError": 1}
        assert seen.pool("n").timeouts.read() == 0
        assert seen.pool("n").wait_phase_times()["connect"] > 0
        at_rest(seen.pool("n"))


def test_a_dropped_connection_is_a_leak_and_its_slot_is_gone(seen: Watched, database: Postgres) -> None:
    """
    The library never learns of a connection that was dropped: ours ends as abandoned, the limit shrinks by the slot
    that is lost, and the pool counts as full when the rest is checked out. A connection that comes back costs nothing.
    """
    with opened(database) as pool:
        ours = seen.pool("p")
        pool.putconn(pool.getconn())
        assert (ours.limit, ours.lost()) == (2, 0)
        lease_of_dropped = _take_and_drop(pool, ours)
        assert lease_of_dropped.abandoned
        assert (len(ours.leases), ours.limit, ours.lost()) == (0, 1, 1)
        assert closures(ours) == {"abandoned": 1}
        held = pool.getconn()
        assert ours.full_since
        with pytest.raises(psycopg_pool.PoolTimeout):
            pool.getconn(timeout=0.02)
        pool.putconn(held)
        at_rest(ours)


def _take_and_drop(pool: Any, ours: Any) -> Any:
    connection = pool.getconn()
    (lease,) = ours.leases
    del connection
    # One collection does nothing while another thread, as the pool's own, is at it.
    wait_until(lambda: gc.collect() >= 0 and lease.abandoned, DEADLINE, "the dropped connection to be collected")
    return lease


def test_resize_drain_and_the_killed_are_followed(
    seen: Watched, database: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The limit follows `resize`; `drain` and connections that the server killed, leased or idle, end as closures, and
    every connection that was made is either there or closed.
    """
    caplog.set_level(logging.CRITICAL, "psycopg.pool")  # log records refer to the connections that they name
    with opened(database) as pool:
        ours = seen.pool("p")
        pool.resize(1, 3)
        assert ours.limit == 3
        leased = pool.getconn()
        _kill_all(database)
        wait_until(partial(_is_broken, leased), DEADLINE, "the leased connection to break")
        pool.putconn(leased)
        assert len(ours.leases) == 0
        del leased
        pool.check()
        wait_until(lambda: pool.get_stats()["pool_available"] >= 1, DEADLINE, "a new connection")
        if hasattr(pool, "drain"):  # from 3.3 on
            pool.drain()
        pool.putconn(pool.getconn(timeout=DEADLINE))
        wait_until(lambda: _all_accounted_for(pool, ours), DEADLINE, "all connections to be accounted for")
        assert closures(ours)["invalidated"] >= 1
        at_rest(ours)
    # Not all are closed: 3.2.0 may put one that was being made into the pool when that is closed, and leave it there.
    wait_until(lambda: _all_accounted_for(pool, ours), DEADLINE, "all to be closed")
    assert closures(ours)["disposed"] >= 1


@pytest.mark.parametrize("deep", [False, True], ids=["around the closing", "around who closes"])
def test_why_a_connection_is_closed_is_found_through_a_foreign_wrapper(
    seen: Watched, database: Postgres, monkeypatch: pytest.MonkeyPatch, deep: bool
) -> None:
    """
    Another library may have wrapped what the pool closes a connection by, or what calls that: the
    reason is the same.
    """
    closes = hasattr(psycopg_pool.ConnectionPool, "_close_connection")
    owner, name = (psycopg_pool.ConnectionPool, "_close_connection") if closes else (psycopg.Connection, "close")
    if deep:
        owner, name = psycopg_pool.ConnectionPool, "_maybe_close_connection"
    with opened(database) as pool, psycopg_pool.NullConnectionPool(database.dsn, name="n", open=True) as null_pool:
        for kind in {owner, psycopg_pool.NullConnectionPool} if deep else {owner}:
            _wrap_twice(kind, name, monkeypatch)
        null_pool.putconn(null_pool.getconn(timeout=DEADLINE))
        assert closures(seen.pool("n")) == {"not_pooled": 1}
        out = pool.getconn(timeout=DEADLINE)
        pool.close()
        assert closures(seen.pool("p")) == {"disposed": 1}
        pool.putconn(out)
        assert closures(seen.pool("p")) == {"disposed": 2}


def _wrap_twice(kind: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(kind, name)

    def outer(self: Any, *args: Any) -> Any:
        return inner(self, *args)

    def inner(self: Any, *args: Any) -> Any:
        return original(self, *args)

    monkeypatch.setattr(kind, name, outer)


def test_a_connection_that_the_application_closes_is_no_close_of_the_pool(
    seen: Watched, database: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool finds it broken when it is returned, and drops it: it counts once, when it is gone."""
    caplog.set_level(logging.CRITICAL, "psycopg.pool")  # log records refer to the connections that they name
    with opened(database, min_size=1, max_size=1) as pool:
        ours = seen.pool("p")
        connection = pool.getconn()
        connection.close()
        pool.putconn(connection)
        assert closures(ours) == {}
        del connection
        wait_until(lambda: gc.collect() >= 0 and closures(ours) != {}, DEADLINE, "the connection to be collected")
        assert closures(ours) == {"invalidated": 1}
        pool.putconn(pool.getconn(timeout=DEADLINE))
        at_rest(ours)


def test_a_stream_is_time_in_the_database_but_for_what_the_application_does_with_a_row(
    seen: Watched, database: Postgres
) -> None:
    """
    While a row is with the application the connection idles in its transaction; one that is broken off, by leaving the
    loop or by an error, leaves nothing running. Async streams do the same.
    """
    rows = "select n from generate_series(1, 3) n"

    async def scenario() -> None:
        async with psycopg_pool.AsyncConnectionPool(database.dsn, min_size=1, max_size=1, name="a", open=False) as pool:
            async with pool.connection(timeout=DEADLINE) as connection:
                (lease,) = seen.pool("a").leases
                stream = connection.cursor().stream(rows)
                assert await anext(stream) == (1,)
                assert lease.phase == "idle_in_transaction"
                assert [row async for row in stream] == [(2,), (3,)]
                stream = connection.cursor().stream(rows)
                await anext(stream)
                await stream.aclose()
                assert (lease.queries, lease.phase) == (2, "idle_in_transaction")
            at_rest(seen.pool("a"))

    with opened(database) as pool, pool.connection() as connection:
        (lease,) = seen.pool("p").leases
        stream = connection.cursor().stream(rows)
        assert next(stream) == (1,)
        assert lease.phase == "idle_in_transaction"
        assert list(stream) == [(2,), (3,)]
        stream = connection.cursor().stream(rows)
        next(stream)
        stream.close()
        with pytest.raises(psycopg.errors.DivisionByZero):
            list(connection.cursor().stream("select 1 / 0"))
        assert (lease.queries, lease.phase) == (3, "idle_in_transaction")
    at_rest(seen.pool("p"))
    asyncio.run(scenario())


def test_statements_of_tasks_that_share_a_connection_all_count(seen: Watched, database: Postgres) -> None:
    """
    Tasks that share a connection take turns on it: each statement counts, and what ran last leaves
    the connection idle.
    """

    async def scenario() -> None:
        pool = psycopg_pool.AsyncConnectionPool(
            database.dsn, min_size=1, max_size=1, name="a", open=False, kwargs={"autocommit": True}
        )
        await pool.open(wait=True)
        async with pool.connection() as connection:
            (lease,) = seen.pool("a").leases
            await asyncio.gather(*(connection.execute("select pg_sleep(0.01)") for _ in range(3)))
            assert (lease.queries, lease.phase) == (3, "idle")
            assert lease.query_time >= 0.03
        at_rest(seen.pool("a"))
        await pool.close()

    asyncio.run(scenario())


def _all_accounted_for(pool: Any, ours: Any) -> bool:
    gc.collect()
    there = len(pool._pool) + len(ours.leases)
    return bool(ours.creates.read().count == there + sum(closures(ours).values()))


def _is_broken(connection: Any) -> bool:
    try:
        connection.execute("select 1")
    except psycopg.OperationalError:
        return True
    return False


def _kill_all(where: Postgres) -> None:
    with where.connect() as admin:
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid()"
        )


def test_a_pool_that_is_closed_with_connections_out(seen: Watched, database: Postgres) -> None:
    """
    What is out of a closed pool is in use until it comes back, and by the library's account too; a pool of the same
    name that takes its place goes on under that name, with its own limit. Then nothing is left of the closed one.
    """
    first = opened(database)
    out = first.getconn()
    first.close()
    ours = seen.pool("p")
    assert (len(ours.leases), sum(source.in_use() or 0 for source in ours.live_sources())) == (1, 1)
    with opened(database, min_size=1, max_size=1) as second, second.connection():
        assert list(seen.pool_registry.pools) == ["p"]
        assert ours.limit == 1
        assert (len(ours.leases), sum(source.in_use() or 0 for source in ours.live_sources())) == (2, 2)
        first.putconn(out)
        assert (len(ours.leases), sum(source.in_use() or 0 for source in ours.live_sources())) == (1, 1)
        assert len(ours.live_sources()) == 1
    at_rest(ours)


def test_a_connect_belongs_to_the_checkout_that_gets_the_new_connection(seen: Watched, database: Postgres) -> None:
    """
    Of two checkouts that wait while the only connection is made, one gets it new and has waited for the connect; the
    other gets it used, and has waited in the queue.
    """
    begun, connecting = threading.Event(), threading.Event()

    class Slow(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, *args: Any, **kwargs: Any) -> Any:
            begun.set()
            assert connecting.wait(DEADLINE)
            return super().connect(*args, **kwargs)

    with psycopg_pool.ConnectionPool(
        database.dsn, min_size=1, max_size=1, name="p", open=True, connection_class=Slow
    ) as pool:
        ours = seen.pool("p")
        checkouts = [threading.Thread(target=lambda: pool.putconn(pool.getconn(timeout=DEADLINE))) for _ in range(2)]
        for checkout in checkouts:
            checkout.start()
        wait_until(lambda: len(ours.pending) == 2, DEADLINE, "both to ask")
        assert begun.wait(DEADLINE)
        asked = ours.now()
        wait_until(lambda: ours.now() > asked + 0.2, DEADLINE, "time to pass")
        connecting.set()
        for checkout in checkouts:
            checkout.join(DEADLINE)
        queued, connected, *_ = ours.wait_phase_times().values()
        assert connected >= 0.2
        assert queued >= 0.2
        at_rest(ours)


def test_a_failed_check_is_validation_and_no_lease(seen: Watched, database: Postgres) -> None:
    """
    While a connection is checked it is in use; one that fails goes back, and its check counts as validation. A check
    that passes leaves nothing else.
    """
    fail = [True]

    def check(connection: Any) -> None:
        assert len(ours.leases) == 1
        if fail.pop() if fail else False:
            connection.close()
            connection.execute("select 1")

    with opened(database, check=check) as pool:
        ours = seen.pool("p")
        connection = pool.getconn(timeout=DEADLINE)
        assert len(ours.leases) == 1
        pool.putconn(connection)
        assert outcomes(ours) == {"": 1}
        assert ours.wait_phase_times()["validate"] > 0
        at_rest(ours)


def test_giving_back_to_a_wrong_pool_or_twice_changes_nothing(seen: Watched, database: Postgres) -> None:
    """The library refuses both: the lease stays out after the one, and has ended once after the other."""
    with opened(database) as pool, opened(database, name="other") as other:
        connection = pool.getconn()
        with pytest.raises(ValueError, match="can't return"):
            other.putconn(connection)
        assert len(seen.pool("p").leases) == 1
        pool.putconn(connection)
        with pytest.raises(ValueError, match="can't return"):
            pool.putconn(connection)
        assert seen.pool("p").holds.read().count == 1
        at_rest(seen.pool("p"))


def test_statements_and_phases(seen: Watched, database: Postgres) -> None:
    """
    Each execute, executemany and stream is one statement, however it is called; idle in transaction is what lies
    between statements of an open transaction, and nothing once it has ended.
    """
    with opened(database) as pool, pool.connection() as connection:
        (lease,) = seen.pool("p").leases
        connection.execute("create temporary table t (n int)")
        assert lease.phase == "idle_in_transaction"
        with connection.cursor() as cursor:
            cursor.executemany("insert into t values (%s)", [(n,) for n in range(3)])
            assert list(cursor.stream("select n from t order by n")) == [(0,), (1,), (2,)]
        with connection.cursor("named") as cursor:
            assert len(cursor.execute("select n from t").fetchall()) == 3
        connection.commit()
        assert (lease.queries, lease.phase) == (4, "idle")
        with connection.transaction():
            connection.execute(psycopg.sql.SQL("select {}").format(psycopg.sql.Literal(1)))
        assert (lease.queries, lease.phase) == (5, "idle")
        assert lease.statement == "select 1"
        assert lease.backend_process_id == connection.info.backend_pid
    at_rest(seen.pool("p"))


def test_a_pipeline_is_time_in_the_database_and_idle_when_it_is_over(seen: Watched, database: Postgres) -> None:
    """
    What a pipeline waits for at its end is a call to the server. On a connection in autocommit nothing is open then; in
    a transaction it is idle in transaction until that ends.
    """
    for autocommit, after in ((True, "idle"), (False, "idle_in_transaction")):
        with opened(database, kwargs={"autocommit": autocommit}) as pool, pool.connection() as connection:
            (lease,) = seen.pool("p").leases
            with connection.pipeline() as pipeline:
                with _answered_late(database, connection, lease) as before:
                    pipeline.sync()
                assert lease.query_time - before >= LATE
                holding = contextlib.ExitStack()
                before = holding.enter_context(_answered_late(database, connection, lease))
            holding.close()
            assert lease.query_time - before >= LATE
            assert (lease.queries, lease.phase) == (2, after)
            connection.rollback()
            assert lease.phase == "idle"


@contextlib.contextmanager
def _answered_late(where: Postgres, connection: Any, lease: Lease) -> Iterator[float]:
    """
    Send a statement that the server answers no sooner than `LATE` after a thread has begun to wait for the answer.

    Yields:
        The time in the database until then.
    """

    def let_go() -> None:
        wait_until(lambda: lease.phase == "query", DEADLINE, "the wait for the answer")
        waits = lease.pool.now()
        wait_until(lambda: lease.pool.now() >= waits + LATE, DEADLINE, "time to pass")
        other.execute("select pg_advisory_unlock(1)")

    with where.connect() as other:
        other.execute("select pg_advisory_lock(1)")
        connection.execute("select pg_advisory_lock(1), pg_advisory_unlock(1)")
        thread = threading.Thread(target=let_go)
        before = lease.query_time
        thread.start()
        yield before
        thread.join(DEADLINE)


def test_two_phase_commit_ends_a_transaction(seen: Watched, database: Postgres) -> None:
    """
    A transaction that was begun and ended by two-phase commit's methods is not open any more;
    before its end it is.
    """
    with opened(database) as pool, pool.connection() as connection:
        (lease,) = seen.pool("p").leases
        for end in (connection.tpc_commit, connection.tpc_rollback):
            connection.tpc_begin("a transaction")
            connection.execute("select 1")
            assert lease.phase == "idle_in_transaction"
            end()
            assert lease.phase == "idle"


def test_copy_and_fetches_of_a_server_side_cursor(seen: Watched, database: Postgres) -> None:
    """
    COPY is one statement, and its transaction stays open after it; what a server-side cursor fetches is time in the
    database and no statement. A copy that the application breaks off raises what it raised.
    """
    with opened(database) as pool, pool.connection() as connection:
        (lease,) = seen.pool("p").leases
        with connection.cursor().copy("copy (select 1) to stdout") as copy:
            assert lease.phase == "query"
            assert list(copy.rows()) == [("1",)]
        assert (lease.queries, lease.statement) == (1, "copy (select 1) to stdout")
        assert lease.phase == "idle_in_transaction"
        with connection.cursor("named") as cursor:
            cursor.execute("select n, pg_sleep(0.02) from generate_series(1, 3) n")
            before = lease.query_time
            assert [row[0] for row in cursor] == [1, 2, 3]
        assert lease.query_time - before > 0.05
        assert (lease.queries, lease.phase) == (2, "idle_in_transaction")
        with (
            pytest.raises(RuntimeError, match="broken off"),
            connection.cursor().copy("copy (select 1) to stdout") as copy,
        ):
            raise RuntimeError("broken off")
    at_rest(seen.pool("p"))


def test_the_same_calls_of_async_connections(seen: Watched, database: Postgres) -> None:
    """
    Pipelines, COPY, two-phase commit and server-side cursors of async connections are seen like
    those of the others.
    """

    async def scenario() -> None:
        pool = psycopg_pool.AsyncConnectionPool(
            database.dsn, min_size=1, max_size=1, name="a", open=False, kwargs={"autocommit": True}
        )
        await pool.open(wait=True)
        async with pool.connection() as connection:
            (lease,) = seen.pool("a").leases
            async with connection.pipeline():
                await connection.execute("select 1")
            assert (lease.queries, lease.phase) == (1, "idle")
            async with connection.cursor().copy("copy (select 1) to stdout") as copy:
                assert lease.phase == "query"
                assert [row async for row in copy.rows()] == [("1",)]
            assert (lease.queries, lease.phase) == (2, "idle")
            await connection.set_autocommit(False)
            await connection.tpc_begin("a transaction")
            async with connection.cursor("named") as cursor:
                await cursor.execute("select pg_sleep(0.05)")
                before = lease.query_time
                await cursor.fetchall()
            assert lease.query_time - before > 0.03
            assert (lease.queries, lease.phase) == (3, "idle_in_transaction")
            await connection.tpc_rollback()
            assert lease.phase == "idle"
        at_rest(seen.pool("a"))
        await pool.close()

    asyncio.run(scenario())


def test_hand_over_races(seen: Watched, database: Postgres) -> None:
    """
    300 checkouts, each cancelled at about the time that it is served: whatever wins, every checkout ends once and
    nothing stays out.
    """

    async def race() -> None:
        pool = psycopg_pool.AsyncConnectionPool(database.dsn, min_size=1, max_size=1, name="a", open=False)
        await pool.open(wait=True)
        ours = seen.pool("a")
        chance = random.Random(1)
        for _ in range(300):
            held = await pool.getconn()
            task = asyncio.create_task(_use(pool))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            giving = asyncio.create_task(pool.putconn(held))
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(giving, task, return_exceptions=True)
            assert len(ours.leases) <= 1
        await pool.putconn(await pool.getconn(timeout=DEADLINE))
        at_rest(ours)
        assert ours.waits.read().count == ours.holds.read().count
        assert ours.limit == 1
        await pool.close()

    asyncio.run(race())


async def _use(pool: Any) -> None:
    async with pool.connection():
        await asyncio.sleep(0)


def test_a_return_that_began_before_poolscope_ends_with_the_next_lease(
    database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A connection that is being returned while poolscope starts counts as in use, for its return is not seen; handed over
    again, it is one lease, and none when it is back.
    """
    inside, go = threading.Event(), threading.Event()
    original = psycopg_pool.ConnectionPool._putconn

    def slow(self: Any, *args: Any, **kwargs: Any) -> Any:
        inside.set()
        assert go.wait(DEADLINE)
        return original(self, *args, **kwargs)

    with opened(database, min_size=1, max_size=1) as pool:
        connection = pool.getconn()
        with monkeypatch.context() as patch:
            patch.setattr(psycopg_pool.ConnectionPool, "_putconn", slow)
            returning = threading.Thread(target=pool.putconn, args=(connection,))
            returning.start()
            assert inside.wait(DEADLINE)
        with watched("psycopg_pool") as seen:
            ours = seen.pool("p")
            (adopted,) = ours.leases
            go.set()
            returning.join(DEADLINE)
            again = pool.getconn(timeout=DEADLINE)
            assert again is connection
            assert len(ours.leases - {adopted}) == len(ours.leases) == 1
            pool.putconn(again)
            at_rest(ours)


def test_ended_workers_are_recognised_without_a_lock() -> None:
    """Whether workers have ended is looked up of daemons, as its library makes them, within a collection too."""

    class Worker:
        """A thread that has ended; looking that up of one that is no daemon would take a lock of `threading`."""

        def __init__(self, *, daemon: bool) -> None:
            self.daemon = daemon
            self.asked = 0

        def is_alive(self) -> bool:
            self.asked += 1
            return False

    def stopped(*workers: Worker) -> bool:
        return ADAPTER.is_stopped(SimpleNamespace(_closed=False, _workers=list(workers)))

    other = Worker(daemon=False)
    assert not stopped(other)
    assert stopped(Worker(daemon=True))
    assert other.asked == 0
