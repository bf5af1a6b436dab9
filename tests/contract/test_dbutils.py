"""What only DBUtils' pool does: connections that replace the driver's, caches with a size, shared connections."""

from __future__ import annotations

import contextlib
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.watched import at_rest, closures, watched

psycopg2 = pytest.importorskip("psycopg2")
pooled_db = pytest.importorskip("dbutils.pooled_db")
persistent_db = pytest.importorskip("dbutils.persistent_db")
steady_db = pytest.importorskip("dbutils.steady_db")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres
    from tests.support.watched import Watched


@pytest.fixture
def seen() -> Iterator[Watched]:
    """Poolscope's eyes."""
    with watched("dbutils") as eyes:
        yield eyes


def pool_of(where: Postgres, **options: Any) -> Any:
    """A pool over psycopg2."""
    return pooled_db.PooledDB(psycopg2, dsn=where.dsn, **{"maxconnections": 2, **options})


def run(connection: Any, statement: str = "select 1") -> None:
    """Run a statement on a cursor of its own."""
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()


def all_are_accounted_for(ours: Any, pool: Any) -> bool:
    """Whether every connection that was made is there or closed."""
    there = len(pool._idle_cache) + len(ours.leases)
    return bool(ours.creates.read().count == there + sum(closures(ours).values()))


@pytest.fixture
def wrapped() -> Iterator[None]:
    """
    Another library's wrapper around each method of DBUtils by which a connection is returned, closed or made; it was
    there before poolscope.
    """

    def around(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return original(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, *names in (
            (pooled_db.PooledDB, "cache", "unshare", "close", "steady_connection"),
            (pooled_db.PooledDedicatedDBConnection, "close", "__del__"),
            (pooled_db.PooledSharedDBConnection, "close", "__del__"),
            (steady_db.SteadyDBConnection, "close", "_close", "_create", "_store", "_cursor", "_ping_check", "__del__"),
        ):
            for name in names:
                patch.setattr(owner, name, around(vars(owner)[name]))
        yield


def test_statements_and_phases(seen: Watched, database: Postgres) -> None:
    """
    Each execute, executemany and callproc is one statement; idle in transaction is what lies between statements of an
    open transaction, and nothing once it has ended.
    """
    pool = pool_of(database)
    connection = pool.connection()
    (lease,) = seen.only().leases
    cursor = connection.cursor()
    cursor.execute("create temporary table t (n int)")
    assert (lease.queries, lease.phase) == (1, "idle_in_transaction")
    cursor.executemany("insert into t values (%s)", [(1,), (2,)])
    cursor.callproc("version")
    assert (lease.queries, lease.statement) == (3, "CALL version")
    cursor.close()
    connection.commit()
    assert lease.phase == "idle"
    connection.begin()
    run(connection)
    connection.rollback()
    assert (lease.queries, lease.phase) == (4, "idle")
    connection.close()
    uses = seen.only().holds.read()
    assert min(uses.phases.values()) > 0
    at_rest(seen.only())
    assert all_are_accounted_for(seen.only(), pool)
    pool.close()
    assert closures(seen.only()) == {"disposed": 1}


def test_a_persistent_connection_below_the_pool_is_not_counted(seen: Watched, database: Postgres) -> None:
    """
    Steady connections are also what DBUtils' `PersistentDB` makes: one that a pool's creator takes from there is no
    connection of the pool's, but what it makes of it is; also while the pool is being made.
    """
    below = persistent_db.PersistentDB(psycopg2, dsn=database.dsn)
    pool = pooled_db.PooledDB(below.steady_connection, mincached=1, failures=(psycopg2.Error,))
    ours = seen.only()
    assert ours.creates.read().count == 1
    first, second = pool.connection(), pool.connection()
    assert ours.creates.read().count == 2
    first.close()
    second.close()
    pool.close()
    assert closures(ours) == {"disposed": 2}
    at_rest(ours)


def test_two_threads_replace_a_shared_connection(seen: Watched, database: Postgres) -> None:
    """
    Two callers of one shared connection, which the server has ended, may each make a new one at the same time: both are
    connections that were made.
    """
    together = threading.Barrier(1)

    def connect() -> Any:
        connection = psycopg2.connect(database.dsn)
        together.wait(60)
        return connection

    connect.threadsafety = psycopg2.threadsafety  # type: ignore[attr-defined]
    pool = pooled_db.PooledDB(connect, maxshared=1, maxconnections=1, failures=(psycopg2.Error,))
    first, second = pool.connection(), pool.connection()
    ours = seen.only()
    assert (len(ours.leases), ours.creates.read().count) == (2, 1)
    with contextlib.suppress(psycopg2.Error):
        first._con._con.cursor().execute("select pg_terminate_backend(pg_backend_pid())")
    together = threading.Barrier(2)
    threads = [threading.Thread(target=one.cursor) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ours.creates.read().count == 3
    first.close()
    second.close()
    at_rest(ours)
    pool.close()


def test_a_cursor_that_outlives_its_lease_counts_for_no_lease(seen: Watched, database: Postgres) -> None:
    """What a method that was looked up during a lease does after it counts for no lease, also not for the next one."""
    pool = pool_of(database, maxconnections=1)
    connection = pool.connection()
    (first,) = seen.only().leases
    execute = connection.cursor().execute
    connection.close()
    again = pool.connection()
    (second,) = seen.only().leases
    execute("select 1")
    assert (first.queries, second.queries) == (0, 0)
    again.close()
    at_rest(seen.only())
    pool.close()


@pytest.mark.parametrize("shared", [0, 1, 2], ids=["dedicated", "shared by both", "shareable"])
def test_what_is_dropped_is_known_as_abandoned(wrapped: None, seen: Watched, database: Postgres, shared: int) -> None:
    """
    A connection that is dropped, and one that a block ends with, return alike; only the first is abandoned. Wrappers in
    between change nothing, nor does it when the connection is shared.
    """
    pool = pool_of(database, maxshared=shared)
    kept, dropped = pool.connection(), pool.connection()
    held, lost = sorted(seen.only().leases, key=lambda lease: lease.requested_at)
    del dropped
    gc.collect()
    assert (lost.abandoned, lost in seen.only().leases) == (True, False)
    assert (held.abandoned, held in seen.only().leases) == (False, True)
    with kept:
        pass
    del kept
    gc.collect()
    assert held.abandoned is False
    at_rest(seen.only())
    pool.close()


def test_whose_share_is_returned(seen: Watched, database: Postgres) -> None:
    """Of those who share a connection, the one who returns it holds it no more."""
    pool = pool_of(database, maxshared=1, maxconnections=1)
    first = pool.connection()
    (lease,) = seen.only().leases
    second = pool.connection()
    first.close()
    (left,) = seen.only().leases
    assert left is not lease
    second.close()
    at_rest(seen.only())
    pool.close()


def test_why_connections_are_closed_behind_wrappers(wrapped: None, seen: Watched, database: Postgres) -> None:
    """The reasons are the same with another library's wrappers around each method on the way."""
    test_why_connections_are_closed(seen, database)


def test_why_connections_are_closed(seen: Watched, database: Postgres) -> None:
    """
    Beyond the cache, used up, killed by the server: each closure has its reason, and every connection that was made is
    there or closed.
    """
    pool = pool_of(database, mincached=1, maxcached=1, maxusage=3)
    ours = seen.only()
    assert all_are_accounted_for(ours, pool)
    first, second = pool.connection(), pool.connection()
    first.close()
    second.close()
    assert closures(ours) == {"overflow": 1}
    connection = pool.connection()
    for _ in range(4):
        run(connection)
    assert closures(ours) == {"overflow": 1, "recycled": 1}
    with database.connect() as admin:
        admin.execute("select pg_terminate_backend(%s, 60000)", [connection._con._con.info.backend_pid])
    run(connection)
    assert closures(ours) == {"overflow": 1, "recycled": 1, "invalidated": 1}
    assert all_are_accounted_for(ours, pool)
    connection.close()
    pool.close()
    assert closures(ours) == {"overflow": 1, "recycled": 1, "invalidated": 1, "disposed": 1}
    assert ours.creates.read().count == 4
    at_rest(ours)


def test_shared_connections_send_statements_for_no_lease(seen: Watched, database: Postgres) -> None:
    """A shared connection is one lease for each caller, and none of them is said to have sent a statement."""
    pool = pool_of(database, maxshared=1, maxconnections=1)
    first, second = pool.connection(), pool.connection()
    ours = seen.only()
    assert len(ours.leases) == 2
    run(first)
    assert sorted(lease.queries for lease in ours.leases) == [0, 0]
    first.close()
    second.close()
    at_rest(ours)
    pool.close()
