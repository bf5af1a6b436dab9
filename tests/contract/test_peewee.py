"""peewee's pools, beyond the laws that hold for every pool."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.guard import guard
from tests.support.watched import at_rest, closures, outcomes, watched

peewee = pytest.importorskip("peewee")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from tests.support.watched import Watched


@pytest.fixture
def seen() -> Iterator[Watched]:
    """Poolscope's eyes on peewee."""
    with watched("peewee") as eyes:
        yield eyes


def sqlite_pool(folder: Path, **options: Any) -> Any:
    """A pool over a file."""
    from playhouse.pool import PooledSqliteDatabase

    return PooledSqliteDatabase(str(folder / "shop.db"), **options)


def test_a_statement_that_connects_first_is_counted(seen: Watched, tmp_path: Path) -> None:
    """
    Where a statement, or the beginning of a transaction, checks out a connection itself, its time begins with the
    connection, and it is counted like any other.
    """
    database = sqlite_pool(tmp_path)
    database.execute_sql("create table items (n int)")
    (lease,) = seen.only().leases
    assert (lease.queries, lease.statement, lease.running) == (1, "create table items (n int)", False)
    assert lease.query_time > 0
    database.close()
    database.begin()
    (lease,) = seen.only().leases
    assert (lease.queries, lease.phase) == (0, "idle_in_transaction")
    database.rollback()
    assert lease.phase == "idle"
    database.close()
    at_rest(seen.only())


def test_a_statement_whose_connect_fails_leaves_nothing_behind(seen: Watched, tmp_path: Path) -> None:
    """The checkout is a failed one, and the next statement is counted for its own connection."""
    database = sqlite_pool(tmp_path / "absent")
    with pytest.raises(peewee.OperationalError):
        database.execute_sql("select 1")
    assert outcomes(seen.only()) == {"peewee.OperationalError": 1}
    (tmp_path / "absent").mkdir()
    database.execute_sql("select 1")
    (lease,) = seen.only().leases
    assert lease.queries == 1
    database.close()
    at_rest(seen.only())


def test_phases_on_postgresql(seen: Watched, database: Postgres) -> None:
    """What lies between statements of an open transaction is idle in transaction, by the driver's own account."""
    from playhouse.pool import PooledPostgresqlDatabase

    pool = PooledPostgresqlDatabase(database.dsn.replace("postgres://", "postgresql://"))
    with pool.connection_context():
        (lease,) = seen.only().leases
        with pool.atomic():
            pool.execute_sql("select 1")
            assert (lease.queries, lease.phase) == (1, "idle_in_transaction")
        assert (lease.queries, lease.phase) == (1, "idle")
    ours = seen.only()
    assert (ours.identity.system, ours.identity.namespace) == ("postgresql", database.database)
    at_rest(ours)
    pool.close_all()


def test_why_connections_are_closed(seen: Watched, tmp_path: Path) -> None:
    """Each way to close a connection has its reason, and every closure is counted once."""
    database = sqlite_pool(tmp_path, stale_timeout=300)

    def use() -> None:
        database.connect()
        database.close()

    use()
    database.close_idle()
    ours = seen.only()
    assert closures(ours) == {"disposed": 1}
    database.connect()
    database.manual_close()
    assert closures(ours) == {"disposed": 1, "invalidated": 1}
    use()
    database._stale_timeout = -1  # whatever is in the pool is too old
    database.connect()
    assert closures(ours) == {"disposed": 1, "invalidated": 1, "recycled": 1}
    database.close()
    assert closures(ours) == {"disposed": 1, "invalidated": 1, "recycled": 2}
    database._stale_timeout = None
    database.connect()
    database._state.conn.close()  # the application, behind peewee's back
    database.close()
    database.connect()
    made = ours.creates.read().count
    database.close_all()
    assert sum(closures(ours).values()) == made
    assert ours.idle() == 0
    at_rest(ours)


def test_close_all_ends_the_leases_of_other_threads(seen: Watched, tmp_path: Path) -> None:
    """It closes what other threads hold: their leases end with it, and their own return ends nothing more."""
    database = sqlite_pool(tmp_path, check_same_thread=False)
    has_it, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        database.connect()
        has_it.set()
        may_go.wait(60)
        database.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert has_it.wait(60)
    assert len(seen.only().leases) == 1
    database.close_all()
    at_rest(seen.only())
    may_go.set()
    thread.join(60)
    assert seen.only().holds.read().count == 1


def test_a_connection_that_is_closed_by_hand_is_in_use_no_more_than_the_pool_says(
    seen: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool takes it out at first, and may make another one at once: one connection too many is never in use."""
    database = sqlite_pool(tmp_path, max_connections=1)
    database.connect()
    found: list[tuple[int, int]] = []
    close = database.close

    def closes() -> None:
        found.append((seen.only().used(), len(database._in_use)))
        close()

    monkeypatch.setattr(database, "close", closes)
    database.manual_close()
    assert found == [(0, 0)]
    at_rest(seen.only())


def test_a_connection_that_cannot_be_set_up_stays_with_its_thread(
    seen: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the checkout raises after the handover, peewee counts the connection as in use, and so does poolscope."""
    database = sqlite_pool(tmp_path)

    def fails(_: object) -> None:
        raise sqlite3.OperationalError

    monkeypatch.setattr(database, "_initialize_connection", fails)
    with pytest.raises(peewee.OperationalError):
        database.connect()
    ours = seen.only()
    assert len(ours.leases) == len(database._in_use) == 1
    assert outcomes(ours) == {"peewee.OperationalError": 1}
    database.close()
    at_rest(ours)


def test_a_pool_whose_database_is_named_later(seen: Watched, tmp_path: Path) -> None:
    """It becomes known when it is first used, with the limit that it has by then."""
    from playhouse.pool import PooledSqliteDatabase

    database = PooledSqliteDatabase(None)
    with pytest.raises(peewee.InterfaceError):
        database.connect()
    assert seen.pool_registry.pools == {}
    database.init(str(tmp_path / "later.db"), max_connections=3)
    database.connect()
    database.close()
    ours = seen.only()
    assert (ours.identity.namespace, ours.limit) == ("later.db", 3)
    database.init(str(tmp_path / "later.db"), max_connections=4)
    assert ours.limit == 4
    database.close_all()
    assert guard.counts() == {}


def test_a_database_without_a_pool_is_left_alone(seen: Watched, tmp_path: Path) -> None:
    """Its statements pass through the hooked methods, and nothing is counted."""
    database = peewee.SqliteDatabase(str(tmp_path / "plain.db"))
    assert database.execute_sql("select 1").fetchone() == (1,)
    with database.atomic():
        database.execute_sql("select 2")
    database.close()
    assert seen.pool_registry.pools == {}
