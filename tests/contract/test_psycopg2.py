"""What only psycopg2's pools do: connections and cursors made in C, of classes that the application may choose."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.adapters.registry import Registry, load
from poolscope.core.accounts import Accounts
from poolscope.core.guard import guard
from poolscope.core.pool_registry import PoolRegistry
from tests.support.watched import BOUNDS, at_rest, closures, watched

psycopg2 = pytest.importorskip("psycopg2")

from psycopg2 import extensions, extras, sql  # noqa: E402 - only where it is installed
from psycopg2.pool import SimpleConnectionPool, ThreadedConnectionPool  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.lab.postgres import Postgres
    from tests.support.watched import Watched


@pytest.fixture
def seen() -> Iterator[Watched]:
    """Poolscope's eyes."""
    with watched("psycopg2_pool") as eyes:
        yield eyes


class Audited(extensions.connection):  # type: ignore[misc] - it has no types
    """An application's own kind of connection."""

    commits = 0

    def commit(self) -> None:
        self.commits += 1
        super().commit()


def test_statements_and_phases(seen: Watched, database: Postgres) -> None:
    """
    Each way to send a statement counts one; idle in transaction is what lies between statements of an open transaction,
    and nothing once it has ended, by whichever way.
    """
    pool = ThreadedConnectionPool(1, 2, database.dsn)
    connection = pool.getconn()
    (lease,) = seen.only().leases
    with connection, connection.cursor() as cursor:
        cursor.execute("create temporary table t (n int)")
        assert (lease.queries, lease.phase) == (1, "idle_in_transaction")
        cursor.executemany("insert into t values (%s)", [(1,), (2,)])
        cursor.execute(sql.SQL("select {}").format(sql.Literal(1)))
        assert (lease.queries, lease.statement) == (3, "select 1")
        cursor.copy_expert("copy t from stdin", io.StringIO("3\n"))
        cursor.callproc("version")
        assert lease.queries == 5
    assert lease.phase == "idle"
    with connection.cursor("named") as cursor:
        cursor.execute("select n from t order by n")
        assert cursor.fetchall() == [(1,), (2,), (3,)]
    assert (lease.queries, lease.phase) == (6, "idle_in_transaction")
    connection.rollback()
    assert lease.phase == "idle"
    connection.autocommit = True
    connection.cursor().execute("select 1")
    assert (lease.queries, lease.phase) == (7, "idle")
    pool.putconn(connection)
    assert lease.closed is None
    uses = seen.only().holds.read()
    assert min(uses.phases.values()) > 0
    at_rest(seen.only())
    held = pool.getconn()
    (kept,) = seen.only().leases
    pool.closeall()
    assert held.closed
    assert (kept.closed, seen.only().leases) == ("disposed", set())
    assert closures(seen.only()) == {"disposed": 1}


def test_fetches_of_a_named_cursor_are_calls(seen: Watched, database: Postgres) -> None:
    """
    The server works in the fetches of a named cursor, whichever way they are asked for; no statement more, and the rows
    are the same. A cursor without a name has all rows, and its fetches are none.
    """
    ways: dict[str, Callable[[Any], list[Any]]] = {
        "all": lambda cursor: cursor.fetchall(),
        "many": lambda cursor: cursor.fetchmany(2) + cursor.fetchmany(2),
        "one": lambda cursor: [cursor.fetchone(), cursor.fetchone(), cursor.fetchone()],
        "next": list,
        "block": list,
    }
    pool = ThreadedConnectionPool(1, 1, database.dsn)
    connection = pool.getconn()
    (lease,) = seen.only().leases
    for name, fetch in ways.items():
        with connection.cursor(name, cursor_factory=extras.DictCursor if name == "one" else None) as cursor:
            cursor.itersize = 2 if name == "block" else 2000
            cursor.execute("select n from generate_series(1, 3) n, pg_sleep(0.02 * n)")
            before = lease.query_time
            assert [row[0] for row in fetch(cursor)] == [1, 2, 3]
            assert lease.query_time - before > 0.03
        assert lease.phase == "idle_in_transaction"
    assert lease.queries == len(ways)
    with connection.cursor() as cursor:
        cursor.execute("select n from generate_series(1, 3) n")
        before = lease.query_time
        assert cursor.fetchall() == [(1,), (2,), (3,)]
        assert lease.query_time == before
    pool.putconn(connection)
    pool.closeall()


@pytest.mark.parametrize("factory", [extras.RealDictCursor, extras.DictCursor, extras.NamedTupleCursor])
def test_cursors_of_other_classes_are_what_they_were(seen: Watched, database: Postgres, factory: Any) -> None:
    """
    A cursor of the class that the application asks for is one, gives what that gives, and its statements count; the
    same where the pool or the connection is given the class.
    """
    pool = ThreadedConnectionPool(1, 2, database.dsn)
    connection = pool.getconn()
    (lease,) = seen.only().leases
    bare = psycopg2.connect(database.dsn)
    with bare.cursor(cursor_factory=factory) as expected, connection.cursor(cursor_factory=factory) as cursor:
        assert isinstance(cursor, factory)
        assert type(cursor).__qualname__ == factory.__qualname__
        expected.execute("select 1 as one, 2 as two")
        cursor.execute("select 1 as one, 2 as two")
        assert cursor.fetchall() == expected.fetchall()
    bare.close()
    assert lease.queries == 1
    connection.cursor_factory = factory
    with connection.cursor() as cursor:
        assert isinstance(cursor, factory)
        cursor.execute("select 1 as one")
    assert lease.queries == 2
    pool.putconn(connection)
    pool.closeall()


@pytest.mark.parametrize("by_place", [False, True])
def test_connections_of_other_classes_are_what_they_were(seen: Watched, database: Postgres, by_place: bool) -> None:
    """An application's own class of connections keeps its methods and its place in front of ours."""
    if by_place:
        pool = SimpleConnectionPool(1, 1, database.dsn, Audited)
    else:
        pool = SimpleConnectionPool(1, 1, database.dsn, connection_factory=Audited)
    connection = pool.getconn()
    (lease,) = seen.only().leases
    assert isinstance(connection, Audited)
    connection.cursor().execute("select 1")
    assert (lease.queries, lease.phase) == (1, "idle_in_transaction")
    connection.commit()
    assert (connection.commits, lease.phase) == (1, "idle")
    pool.putconn(connection)
    pool.closeall()


def test_dictionaries_by_the_connection(seen: Watched, database: Postgres) -> None:
    """psycopg2's own connections that make other cursors still make them."""
    pool = ThreadedConnectionPool(1, 1, database.dsn, connection_factory=extras.RealDictConnection)
    connection = pool.getconn()
    with connection.cursor() as cursor:
        cursor.execute("select 1 as one")
        assert dict(cursor.fetchone()) == {"one": 1}
    (lease,) = seen.only().leases
    assert lease.queries == 1
    pool.putconn(connection)
    pool.closeall()


def test_a_connection_without_a_holder_is_found(seen: Watched, database: Postgres) -> None:
    """
    The pool keeps a dropped connection for ever: it is found by its references. One that is held by a variable, by a
    container or by nothing but its cursor is not.
    """
    pool = ThreadedConnectionPool(0, 4, database.dsn)
    held = pool.getconn()
    container = [pool.getconn()]
    cursor = pool.getconn().cursor()
    ours = seen.only()
    (source,) = ours.live_sources()
    assert source.unheld() == []  # type: ignore[attr-defined]
    known = ours.leases.copy()
    pool.getconn().cursor().execute("select 1")
    (lost,) = ours.leases - known
    assert source.unheld() == [lost]  # type: ignore[attr-defined]
    pool.putconn(cursor.connection)
    del cursor
    pool.putconn(container.pop())
    pool.putconn(held)
    del held
    assert source.unheld() == [lost]  # type: ignore[attr-defined]
    pool.closeall()
    at_rest(ours)


def test_what_ends_a_transaction(seen: Watched, database: Postgres) -> None:
    """
    A transaction is open until it is ended, by commit and rollback, by the methods of two-phase commit, by the reset of
    the connection, or by a block of the connection.
    """
    pool = ThreadedConnectionPool(1, 1, database.dsn)
    connection = pool.getconn()
    (lease,) = seen.only().leases

    def prepared() -> None:
        connection.tpc_begin(connection.xid(1, "global", "branch"))

    def block() -> None:
        with connection:
            pass

    starts_and_ends = (
        (connection.rollback, connection.commit),
        (connection.rollback, connection.rollback),
        (prepared, connection.tpc_commit),
        (prepared, connection.tpc_rollback),
        (connection.rollback, connection.reset),
        (connection.rollback, block),
    )
    for start, end in starts_and_ends:
        start()
        connection.cursor().execute("select 1")
        assert lease.phase == "idle_in_transaction", end
        end()
        assert lease.phase == "idle", end
    assert lease.queries == len(starts_and_ends)
    pool.putconn(connection)
    pool.closeall()


def test_functions_in_c_take_them(seen: Watched, database: Postgres) -> None:
    """What psycopg2 does in C with connections and cursors, it does with ours."""
    pool = ThreadedConnectionPool(1, 1, database.dsn)
    connection = pool.getconn()
    extras.register_uuid(conn_or_curs=connection)
    extensions.register_type(extensions.UNICODE, connection)
    extras.register_default_json(connection)
    assert extensions.quote_ident("a b", connection) == '"a b"'
    assert sql.SQL("select {}").format(sql.Identifier("a")).as_string(connection) == 'select "a"'
    extras.execute_values(connection.cursor(), "select * from (values %s) t", [(1,), (2,)])
    assert isinstance(connection, extensions.connection)
    assert repr(connection).startswith("<connection object at")
    with pytest.raises(psycopg2.errors.SyntaxError):
        connection.cursor().execute("nonsense")
    (lease,) = seen.only().leases
    assert (lease.queries, lease.phase) == (2, "idle_in_transaction")
    pool.putconn(connection)
    pool.closeall()


def test_a_pool_goes_back_to_its_own_classes(database: Postgres) -> None:
    """Uninstrumented, a pool makes connections of the class that it always made, and those that it has go on."""
    pool_registry = PoolRegistry(BOUNDS)
    registry = Registry(pool_registry, adapters=load(("psycopg2_pool",)))
    registry.start()
    pool = ThreadedConnectionPool(1, 2, database.dsn)
    first = pool.getconn()
    registry.stop()
    second = pool.getconn()
    assert type(second) is extensions.connection
    for connection in (first, second):
        connection.cursor().execute("select 1")
        connection.commit()
        pool.putconn(connection)
    assert pool._args == (database.dsn,)
    assert pool._kwargs == {}
    pool.closeall()


def test_a_connection_that_cannot_be_reset_keeps_its_slot(seen: Watched, database: Postgres) -> None:
    """
    A connection whose rollback fails at its return has no holder, though the pool counts it: the limit shrinks by
    it, until it is returned after all. A key that has it gets it again, and that is no checkout.
    """

    class Stubborn(extensions.connection):  # type: ignore[misc] - it has no types
        fails = True

        def rollback(self) -> None:
            if self.fails:
                raise psycopg2.InterfaceError
            super().rollback()

    pool = ThreadedConnectionPool(1, 2, database.dsn, connection_factory=Stubborn)
    ours = seen.only()
    (source,) = ours.live_sources()
    connection = pool.getconn("key")
    connection.cursor().execute("select 1")
    with pytest.raises(psycopg2.InterfaceError):
        pool.putconn(connection)
    assert (ours.limit, source.limit(), source.in_use(), len(ours.leases)) == (1, 1, 0, 0)
    assert pool.getconn(key="key") is pool.getconn("key") is connection
    assert ours.leases == set()
    connection.fails = False
    pool.putconn(connection)
    assert (ours.limit, source.limit(), source.in_use(), source.idle()) == (2, 2, 0, 1)
    assert closures(ours) == {}
    assert ours.holds.read().count == 1
    pool.closeall()


def test_why_connections_are_closed(seen: Watched, database: Postgres) -> None:
    """
    Beyond the idle ones that the pool keeps, on the caller's wish, closed by its caller, with the pool: each closure
    has its reason, and every connection that was made is closed in the end.
    """
    pool = ThreadedConnectionPool(1, 3, database.dsn)
    ours = seen.only()
    first, second = pool.getconn(), pool.getconn()
    pool.putconn(first)
    pool.putconn(second)
    assert closures(ours) == {"overflow": 1}
    pool.putconn(pool.getconn(), None, True)
    pool.putconn(conn=pool.getconn(), close=True)
    assert closures(ours) == {"overflow": 1, "closed": 2}
    connection = pool.getconn()
    connection.close()
    pool.putconn(connection)
    assert closures(ours)["invalidated"] == 1
    kept = pool.getconn()
    pool.putconn(pool.getconn())
    with pytest.raises(psycopg2.pool.PoolError):
        pool.putconn(psycopg2.connect(database.dsn))
    pool.closeall()
    with pytest.raises(psycopg2.pool.PoolError):
        pool.putconn(kept)
    with pytest.raises(psycopg2.pool.PoolError):
        pool.closeall()
    assert closures(ours)["disposed"] == 2
    assert ours.creates.read().count == sum(closures(ours).values())
    at_rest(ours)


def test_a_pool_that_was_in_use_before_has_its_limit(database: Postgres) -> None:
    """What is held when poolscope comes is held within the pool's own limit, and returned like any other."""
    pool = ThreadedConnectionPool(1, 2, database.dsn)
    connection = pool.getconn()
    with watched("psycopg2_pool") as seen:
        ours = seen.only()
        assert (ours.limit, len(ours.leases), len(ours.full_since)) == (2, 1, 0)
        pool.putconn(connection)
        at_rest(ours)
    pool.closeall()


def _slow_to_roll_back() -> tuple[type[Any], threading.Event, threading.Event]:
    # A kind of connection; when it is in its rollback; and what lets it go on.
    inside, go = threading.Event(), threading.Event()

    class Slow(extensions.connection):  # type: ignore[misc] - it has no types
        def rollback(self) -> None:
            inside.set()
            assert go.wait(60)
            super().rollback()

    return Slow, inside, go


def test_a_return_that_began_before_poolscope_ends_with_the_next_lease(database: Postgres) -> None:
    """
    A connection that is being returned while poolscope starts counts as in use, for its return is not seen; handed over
    again, it is one lease, and none when it is back.
    """
    slow, inside, go = _slow_to_roll_back()
    pool = ThreadedConnectionPool(1, 2, database.dsn, connection_factory=slow)
    connection = pool.getconn()
    connection.cursor().execute("select 1")
    returning = threading.Thread(target=pool.putconn, args=(connection,))
    returning.start()
    assert inside.wait(60)
    with watched("psycopg2_pool") as seen:
        (adopted,) = seen.only().leases
        go.set()
        returning.join(60)
        again = pool.getconn()
        assert again is connection
        assert len(seen.only().leases - {adopted}) == len(seen.only().leases) == 1
        pool.putconn(again)
        at_rest(seen.only())
    pool.closeall()


def test_a_return_that_takes_the_library_long_leaves_nothing_in_use(database: Postgres) -> None:
    """
    While the library still lists what is being returned, for so long that the account is set right meanwhile, it
    counts as in use; and no longer than that.
    """
    slow, inside, go = _slow_to_roll_back()
    pool = ThreadedConnectionPool(1, 2, database.dsn, connection_factory=slow)
    with watched("psycopg2_pool") as seen:
        connection = pool.getconn()
        connection.cursor().execute("select 1")
        returning = threading.Thread(target=pool.putconn, args=(connection,))
        returning.start()
        assert inside.wait(60)
        assert seen.only().used() == 0
        looks = Accounts()
        for seconds in range(3):
            looks.look(seen.only(), float(seconds))
        assert seen.only().used() == 1
        go.set()
        returning.join(60)
        assert seen.only().used() == 0
        at_rest(seen.only())
    pool.closeall()


def test_a_checkout_while_poolscope_goes_has_its_connection(
    database: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Uninstrumented in the middle of a checkout, nothing of ours fails and nothing stays on the pool."""
    inside, go = threading.Event(), threading.Event()

    class Slow(extensions.connection):  # type: ignore[misc] - it has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            inside.set()
            assert go.wait(60)
            super().__init__(*args, **kwargs)

    handed_over: list[Any] = []
    with watched("psycopg2_pool"):
        pool = ThreadedConnectionPool(0, 1, database.dsn, connection_factory=Slow)
        pending = threading.Thread(target=lambda: handed_over.append(pool.getconn()))
        pending.start()
        assert inside.wait(60)
    go.set()
    pending.join(60)
    assert guard.counts() == {}
    assert caplog.records == []
    assert [key for key in vars(pool) if "poolscope" in key] == []
    pool.putconn(*handed_over)
    pool.closeall()
