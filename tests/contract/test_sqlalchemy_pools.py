"""What only SQLAlchemy's pools do: overflow, recycling, pre-pings, listeners that raise, engines in every order."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy import event, exc, pool
from sqlalchemy.pool import base

from poolscope import semconv
from poolscope.adapters.registry import Registry, State, load
from poolscope.core.calls import KEY
from poolscope.core.pool_registry import PoolRegistry
from poolscope.hooks.patching import active_patches
from tests.contract.drivers.sqlalchemy import VERSION, AsyncQueuePoolAsyncpg, QueuePoolPsycopg, QueuePoolSqlite
from tests.contract.subject import Subject
from tests.support.skips import require
from tests.support.watched import BOUNDS, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.core.lease import Lease
    from tests.contract.drivers.base import Handle
    from tests.contract.drivers.sqlalchemy import SqlAlchemyDriver
    from tests.support.telemetry import Telemetry


@pytest.fixture
def make(telemetry: Telemetry, tmp_path: Path) -> Iterator[Callable[..., Subject]]:
    """Makes subjects on SQLite."""
    drivers: list[SqlAlchemyDriver] = []

    def make_one(**options: Any) -> Subject:
        driver = QueuePoolSqlite()
        driver.start(None, tmp_path, **{"size": 2, "timeout": 0.05, **options})
        drivers.append(driver)
        return Subject(driver, telemetry)

    yield make_one
    for driver in drivers:
        driver.stop()


@pytest.fixture(params=[QueuePoolPsycopg, AsyncQueuePoolAsyncpg], ids=["psycopg", "asyncpg"])
def on_server(
    request: pytest.FixtureRequest, telemetry: Telemetry, database: Postgres, tmp_path: Path
) -> Iterator[Callable[..., Subject]]:
    """Makes a subject on PostgreSQL, sync and async."""
    driver: SqlAlchemyDriver = request.param()
    require(driver.missing() is None, str(driver.missing()), "make env (and make matrix for other versions)")

    def make_one(**options: Any) -> Subject:
        driver.start(database, tmp_path, **{"size": 2, "timeout": 0.05, **options})
        return Subject(driver, telemetry)

    yield make_one
    driver.stop()


def closures(subject: Subject) -> dict[str, int]:
    """How many physical connections left the pool, by reason."""
    points = subject.check().points(semconv.CLOSURES, subject.driver.pool)
    return {str(point.attributes[semconv.CLOSE_REASON]): point.value for point in points}


def break_backends(database: Postgres) -> None:
    """The server cuts everybody else off."""
    with database.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_overflow_connections_count_and_are_closed(make: Callable[..., Subject]) -> None:
    """The limit includes the overflow; what comes back beyond the pool's size is closed, as overflow."""
    subject = make(size=1, max_overflow=2)
    handles = [subject.acquire() for _ in range(3)]
    collected = subject.check()
    assert collected.value(semconv.CONNECTION_MAX, subject.driver.pool) == 3
    assert collected.value(semconv.CONNECTION_IDLE_MAX, subject.driver.pool) == 1
    with pytest.raises(exc.TimeoutError):
        subject.acquire()
    for handle in handles:
        subject.release(handle)
    assert closures(subject) == {"overflow": 2}
    assert subject.check_at_rest().idle(subject.driver.pool) == 1


def test_a_pool_without_limit_has_none(make: Callable[..., Subject]) -> None:
    """With unlimited overflow no limit and no saturation is exported, and everything else is exact."""
    subject = make(size=1, max_overflow=-1)
    handles = [subject.acquire() for _ in range(5)]
    collected = subject.check()
    assert collected.value(semconv.CONNECTION_MAX, subject.driver.pool) is None
    assert collected.value(semconv.SATURATION_TIME, subject.driver.pool) is None
    for handle in handles:
        subject.release(handle)
    subject.check_at_rest()


def test_a_pool_without_a_size_has_no_limit(make: Callable[..., Subject]) -> None:
    """SQLAlchemy's `pool_size=0` means no limit at all: none is exported, however many are checked out."""
    require(VERSION >= (2, 0), "a size of 0 is a limit of 0 in SQLAlchemy 1.4", "make env")
    subject = make(size=0)
    handles = [subject.acquire() for _ in range(4)]
    collected = subject.telemetry.collect()
    assert collected.used(subject.driver.pool) == 4
    assert collected.value(semconv.CONNECTION_MAX, subject.driver.pool) is None
    assert collected.value(semconv.CONNECTION_IDLE_MAX, subject.driver.pool) is None
    for handle in handles:
        subject.release(handle)
    assert subject.telemetry.collect().used(subject.driver.pool) == 0


def test_recycled_connections_are_replaced(make: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection past its age is closed as recycled and made anew, inside the wait, as its connect phase."""
    subject = make(pool_recycle=3600)
    subject.release(subject.acquire())
    later = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: later)
    subject.release(subject.acquire())
    collected = subject.check_at_rest()
    assert closures(subject) == {"recycled": 1}
    assert collected.counts(semconv.CREATE_TIME, subject.driver.pool) == {"": 2}
    connecting = collected.total(semconv.WAIT_PHASE_TIME, subject.driver.pool, WAIT_PHASE="connect")
    assert connecting == pytest.approx(collected.total(semconv.CREATE_TIME, subject.driver.pool))


@pytest.mark.parametrize("fails", [False, True])
def test_a_checkout_is_known_to_connect_while_it_does(make: Callable[..., Subject], *, fails: bool) -> None:
    """It distinguishes a wait for the database from one for the pool."""
    subject = make()
    engine = subject.driver.engine  # type: ignore[attr-defined]
    checkouts: list[tuple[Lease, bool]] = []

    def connects(*_: Any) -> None:
        (checkout,) = engine.pool.__dict__[KEY].pending
        checkouts.append((checkout, checkout.connecting))
        if fails:
            raise LookupError("do_connect")

    event.listen(engine, "do_connect", connects)
    if fails:
        with pytest.raises(LookupError):
            subject.acquire()
    else:
        subject.release(subject.acquire())
    ((checkout, connecting),) = checkouts
    assert (connecting, checkout.connecting) == (True, False)


@pytest.mark.parametrize("moment", ["checkout", "checkin", "connect", "reset", "first_connect"])
def test_listeners_that_raise(make: Callable[..., Subject], moment: str) -> None:
    """
    Whatever a listener of the application's raises, ask, lease and connection are each counted as
    what they became.
    """
    subject = make()
    engine = subject.driver.engine  # type: ignore[attr-defined]
    broken = True
    lost: list[Any] = []

    def raise_once(*args: Any, **kwargs: Any) -> None:
        nonlocal broken
        if broken:
            broken = False
            lost.append(args[0])
            raise LookupError(moment)

    event.listen(engine, moment, raise_once)
    handle: Handle | None = None
    try:
        handle = subject.acquire()
        subject.release(handle)
    except LookupError:
        assert moment != "reset"
    if handle is not None and handle.connection.dbapi_connection is not None:
        subject.driver.release(handle)
    assert not broken, f"{moment} was never called"
    subject.check()
    subject.release(subject.acquire())
    subject.check_at_rest()
    for connection in lost:  # SQLAlchemy forgets some of them unclosed, of which Python 3.13 warns
        connection.close()


def test_a_listener_that_refuses_the_connection(make: Callable[..., Subject]) -> None:
    """
    DisconnectionError at checkout sends the pool for another connection: still one checkout and one lease; refused for
    good it is one failed checkout. A second listener in the row makes no difference.
    """
    subject = make()
    engine = subject.driver.engine  # type: ignore[attr-defined]
    refusals = 1

    def refuse(*args: Any, **kwargs: Any) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise exc.DisconnectionError("not this one")

    event.listen(engine, "checkout", lambda *args: None)
    event.listen(engine, "checkout", refuse)
    subject.release(subject.acquire())
    subject.check_at_rest()
    refusals = 10
    with pytest.raises(exc.InvalidRequestError):
        subject.acquire()
    refusals = 0
    subject.check_at_rest()
    subject.release(subject.acquire())
    subject.check_at_rest()


def test_a_creator_that_fails(make: Callable[..., Subject]) -> None:
    """
    A connect that fails is one failed ask with the application's error, not a timeout, even if it
    is a TimeoutError.
    """
    subject = make()
    engine = subject.driver.engine  # type: ignore[attr-defined]
    original = engine.pool._creator
    for error in (ValueError("no"), TimeoutError("not in time"), exc.TimeoutError("theirs")):

        def fail(*args: Any, error: Exception = error, **kwargs: Any) -> None:
            raise error

        engine.pool._creator = fail
        with pytest.raises(type(error)):
            subject.driver.acquire()
    engine.pool._creator = original
    collected = subject.telemetry.collect()
    assert sum(collected.counts(semconv.WAIT_TIME, subject.driver.pool).values()) == 3
    assert collected.value(semconv.TIMEOUTS, subject.driver.pool) == 0
    assert collected.used(subject.driver.pool) == 0
    assert collected.value(semconv.DRIFT, subject.driver.pool) == 0


def test_pre_ping_is_validation(on_server: Callable[..., Subject]) -> None:
    """A ping that succeeds is the validation phase of the wait."""
    subject = on_server(pool_pre_ping=True)
    subject.release(subject.acquire())
    before = subject.check_at_rest().total(semconv.WAIT_PHASE_TIME, subject.driver.pool, WAIT_PHASE="validate")
    subject.release(subject.acquire())
    after = subject.check_at_rest().total(semconv.WAIT_PHASE_TIME, subject.driver.pool, WAIT_PHASE="validate")
    assert after > before


def test_a_failing_pre_ping(on_server: Callable[..., Subject], database: Postgres) -> None:
    """
    When the server killed the backends, a ping finds out: the connection fails its validation, another one is made,
    and all that is one ask and one lease.
    """
    subject = on_server(pool_pre_ping=True)
    handles = [subject.acquire(), subject.acquire()]
    for handle in handles:
        subject.release(handle)
    break_backends(database)
    handle = subject.acquire()
    collected = subject.check()
    assert closures(subject)["failed_validation"] == 1
    assert collected.counts(semconv.CREATE_TIME, subject.driver.pool) == {"": 3}
    assert subject.driver.query(handle) == (1,)
    subject.release(handle)
    subject.check_at_rest()


def test_a_server_that_cuts_connections_in_use(on_server: Callable[..., Subject], database: Postgres) -> None:
    """Cut off while held, a connection stays in use until the caller returns it; what comes then is exact."""
    subject = on_server()
    handle = subject.acquire()
    subject.driver.query(handle)
    break_backends(database)
    # The last is asyncpg's, where the server's farewell is read and the end of the connection is not yet.
    with pytest.raises(Exception, match=r"(?i)terminat|closed|connection|another operation .* in progress"):
        subject.driver.query(handle)
    subject.check()
    subject.invalidate(handle)
    subject.check()
    subject.driver.release(handle)
    subject.release(subject.acquire())
    subject.check_at_rest()


def test_a_return_whose_reset_fails(on_server: Callable[..., Subject], database: Postgres) -> None:
    """
    A rollback on a dead connection invalidates it: the lease ends once, and the connection is
    closed as reset failed.
    """
    subject = on_server()
    handle = subject.acquire()
    subject.driver.query(handle)
    break_backends(database)
    subject.release(handle)
    subject.release(subject.acquire())
    collected = subject.check_at_rest()
    assert closures(subject) == {"reset_failed": 1}
    assert collected.counts(semconv.CREATE_TIME, subject.driver.pool) == {"": 2}


def test_a_statement_that_finds_the_server_gone(make: Callable[..., Subject], database: Postgres) -> None:
    """
    SQLAlchemy invalidates the connection and disposes of the pool by itself; figures stay exact
    under the same name.
    """
    driver = QueuePoolPsycopg()
    require(driver.missing() is None, str(driver.missing()), "make env (and make matrix for other versions)")
    telemetry = make().telemetry
    engine = sqlalchemy.create_engine(database.url("psycopg"), pool_logging_name=driver.pool)
    with engine.connect() as other, engine.connect() as connection:
        connection.execute(sqlalchemy.text("select 1"))
        break_backends(database)
        with pytest.raises(exc.DBAPIError):
            connection.execute(sqlalchemy.text("select 1"))
        assert telemetry.collect().used(driver.pool) == 1
        connection.rollback()
        connection.execute(sqlalchemy.text("select 1"))
        assert telemetry.collect().used(driver.pool) == 2
        other.invalidate()
    collected = telemetry.collect()
    assert collected.used(driver.pool) == collected.value(semconv.DRIFT, driver.pool) == 0
    assert (
        collected.counts(semconv.USE_TIME, driver.pool) == collected.counts(semconv.WAIT_TIME, driver.pool) == {"": 3}
    )
    engine.dispose()


@pytest.mark.parametrize("way", ["first", "all", "rows", "many", "nothing"])
def test_fetches_of_a_server_side_cursor_are_calls(database: Postgres, way: str) -> None:
    """
    The database works in the fetches of a result that is streamed, the first one, with which the result is made, among
    them: that is its time, in whichever way rows are fetched, and no statement more. Of a result that is not streamed
    there are none.
    """
    engine = sqlalchemy.create_engine(database.url("psycopg2"))
    with watched("sqlalchemy") as seen, engine.connect() as connection:
        (lease,) = seen.only().leases
        options = {} if way == "nothing" else {"stream_results": True, "max_row_buffer": 2}
        query = sqlalchemy.text("select n, pg_sleep(0.02) from generate_series(1, 4) n")
        result = connection.execution_options(**options).execute(query)
        before = lease.query_time
        if way == "first":
            assert before > 0.02
            rows = result.fetchall()
        elif way == "many":
            rows = [row for chunk in result.partitions(3) for row in chunk]
        else:
            rows = result.fetchall() if way != "rows" else list(result)
        assert [row[0] for row in rows] == [1, 2, 3, 4]
        assert (lease.query_time - before > 0.05) is (way != "nothing")
        assert (lease.queries, lease.phase) == (1, "idle_in_transaction")
    engine.dispose()


def test_several_engines_on_one_url_are_several_pools(telemetry: Telemetry, tmp_path: Path) -> None:
    """Pools that would have the same name get numbers, and each is exact for itself."""
    url = f"sqlite:///{tmp_path / 'same.db'}"
    limits = {"poolclass": pool.QueuePool, "max_overflow": 0}
    engines = [sqlalchemy.create_engine(url, pool_size=size, **limits) for size in (1, 2, 3)]
    name = "sqlite/same.db"
    held = [engine.connect() for engine in engines[1:]]
    collected = telemetry.collect()
    pools = (name, f"{name}#2", f"{name}#3")
    assert [collected.used(each) for each in pools] == [0, 1, 1]
    assert [collected.value(semconv.CONNECTION_MAX, each) for each in pools] == [1, 2, 3]
    for connection in held:
        connection.close()
    for engine in engines:
        engine.dispose()


def test_the_peak_of_a_shared_connection_is_one(telemetry: Telemetry, tmp_path: Path) -> None:
    """A StaticPool hands one connection to several callers at once: in use is one, now and at the peak."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    engine = sqlalchemy.create_engine(url, poolclass=pool.StaticPool, pool_logging_name="shared")
    with engine.connect(), engine.connect():
        assert telemetry.collect().used("shared") == 1
    collected = telemetry.collect()
    assert collected.used("shared") == 0
    assert collected.value(semconv.USED_PEAK, "shared") == collected.value(semconv.CONNECTION_MAX, "shared") == 1
    engine.dispose()


def test_a_pool_without_an_engine_is_a_pool(telemetry: Telemetry) -> None:
    """Pools made by hand are watched from their first checkout."""
    import sqlite3

    own = pool.QueuePool(lambda: sqlite3.connect(":memory:"), pool_size=1, logging_name="by-hand")
    connection = own.connect()
    assert telemetry.collect().used("by-hand") == 1
    connection.close()
    assert telemetry.collect().used("by-hand") == 0
    own.dispose()


def test_a_session_and_a_transaction(telemetry: Telemetry, tmp_path: Path) -> None:
    """The ORM's sessions and nested blocks check out once, and their phases show the transaction."""
    from sqlalchemy.orm import Session

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'orm.db'}", pool_logging_name="orm")
    with Session(engine) as session, session.begin():
        session.execute(sqlalchemy.text("select 1"))
        with session.begin_nested():
            session.execute(sqlalchemy.text("select 2"))
        assert telemetry.collect().used("orm") == 1
    collected = telemetry.collect()
    assert collected.counts(semconv.USE_TIME, "orm") == {"": 1}
    for phase in ("query", "idle_in_transaction", "idle"):
        assert collected.total(semconv.HOLD_PHASE_TIME, "orm", HOLD_PHASE=phase) > 0
    engine.dispose()


def test_a_version_that_is_too_old_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Before 1.4.24 a record's connection goes by another name: the library is refused, and nothing of
    it is patched.
    """
    monkeypatch.delattr(base._ConnectionRecord, "dbapi_connection")
    registry = Registry(PoolRegistry(BOUNDS), adapters=load(["sqlalchemy"]))
    registry.start()
    try:
        status = registry.statuses["sqlalchemy"]
        assert (status.state, status.reason) == (State.REFUSED, "_ConnectionRecord has no dbapi_connection")
        assert active_patches() == ()
    finally:
        registry.stop()
