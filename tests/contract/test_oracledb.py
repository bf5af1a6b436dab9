"""
python-oracledb's Python layer over a stand-in for its compiled core: Oracle Database is not at hand.
"""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.watched import at_rest, outcomes, watched

oracledb = pytest.importorskip("oracledb")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.watched import Watched

#: Whether the layer hands its operations to the core whole, as from 26 on.
NEWEST_LAYER = hasattr(oracledb.Connection.close, "__wrapped__")
EXHAUSTED = "DPY-4005: timed out waiting for the connection pool to return a connection"


class Core:
    """
    The core of a pool: it counts.
    """

    dsn = "db.example:1521/shop"
    min, max = 0, 2

    def __init__(self, is_async: bool = False) -> None:
        self.is_async = is_async
        self.busy: set[Any] = set()
        self.open = 0

    def take(self, connection: Any) -> None:
        if len(self.busy) >= self.max:
            raise oracledb.DatabaseError(EXHAUSTED)
        self.busy.add(connection)
        self.open = max(self.open, len(self.busy))

    def drop(self, connection: Any) -> None:
        self.busy.remove(connection)
        self.open -= 1

    def acquire(self, _: Any) -> Any:
        """
        As versions before 26 ask; the async kind awaits it.
        """
        connected = (AsyncConnected if self.is_async else Connected)()
        connected.pool = self
        if self.is_async:
            return connected.acquired(self)
        self.take(connected)
        return connected

    def close(self, force: bool = False) -> None:
        self.open = 0

    def get_busy_count(self) -> int:
        return len(self.busy)

    def get_open_count(self) -> int:
        return self.open


class Connected:
    """
    The core of a connection: it runs the Python layer's operations.
    """

    def __init__(self, is_async: bool = False) -> None:
        self.pool: Any = None
        self.open = False

    invoke_session_callback = False
    autocommit = False

    def create_cursor_impl(self, scrollable: bool = False) -> Statements:
        return Statements(self)

    def close(self, in_del: bool = False) -> Any:
        self.pool.busy.remove(self)

    def commit(self) -> Any:
        self.open = False

    rollback = commit

    def get_transaction_in_progress(self) -> bool:
        return self.open

    def prepare_connect_args(self, *_: Any) -> None:
        pass

    def process_sync_operation(self, owner: Any, name: str, args: Any, _: Any) -> None:
        if name == "connect":
            self.pool = args[1]._impl
            self.pool.take(self)
            owner._impl = self
        elif name == "close":
            owner._impl = None
            self.pool.busy.remove(self)
        elif name in {"commit", "rollback"}:
            self.open = False
        elif name in {"execute", "executemany", "callproc"}:
            self.open = True  # a statement opens a transaction

    async def process_async_operation(self, owner: Any, name: str, args: Any, kwargs: Any) -> Any:
        await asyncio.sleep(0)
        self.process_sync_operation(owner, name, args, kwargs)
        return owner


class AsyncConnected(Connected):
    """
    That of an async connection before 26.
    """

    async def acquired(self, pool: Core) -> AsyncConnected:
        await asyncio.sleep(0)
        pool.take(self)
        return self

    def close(self, in_del: bool = False) -> Any:
        super().close(in_del)
        return asyncio.sleep(0) if not in_del else None

    async def commit(self) -> None:
        super().commit()

    rollback = commit


class Statements:
    """
    The core of a cursor; before 26 it is that which runs the statements.
    """

    fetch_vars = None

    def __init__(self, connected: Connected) -> None:
        self._connected = connected

    def execute(self, *_: Any) -> Any:
        self._connected.open = True
        return asyncio.sleep(0) if isinstance(self._connected, AsyncConnected) else None

    executemany = execute

    def close(self, in_del: bool = False) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """
    Poolscope's eyes, and the stand-in.
    """
    from oracledb import connection

    if NEWEST_LAYER:
        monkeypatch.setattr(connection, "thin_impl", SimpleNamespace(ThinConnImpl=Connected))
    with watched("oracledb") as eyes:
        yield eyes


def pool_of(kind: type) -> Any:
    """
    A pool over the stand-in.
    """
    pool = kind.__new__(kind)
    is_async = "Async" in kind.__name__
    pool._impl = Core(is_async)
    pool._cache_name = pool.session_callback = None
    connection_type = oracledb.AsyncConnection if is_async else oracledb.Connection
    if NEWEST_LAYER:
        pool._connection_type = connection_type
    else:
        pool._set_connection_type(connection_type)
    pool.on_connect_callback = pool._operation_callback = pool._round_trip_callback = None
    return pool


DESCRIPTOR = "(DESCRIPTION=(ADDRESS=(PROTOCOL=tcp)(HOST=db.example)(PORT=1522))(CONNECT_DATA=(SERVICE_NAME=shop)))"
STANDBY = DESCRIPTOR.replace("(ADDRESS=", "(ADDRESS=(PROTOCOL=tcp)(HOST=standby.example)(PORT=1522))(ADDRESS=")


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("db.example:1522/shop", ("db.example:1522/shop", "db.example", 1522, "shop")),
        ("//db.example/shop", ("db.example:1521/shop", "db.example", 1521, "shop")),
        ("tcps://db.example:1522/shop?wallet_location=/secret", ("db.example:1522/shop", "db.example", 1522, "shop")),
        ("db.example:1522/shop:dedicated/one", ("db.example:1522/shop", "db.example", 1522, "shop")),
        ("[::1]:1522/shop", ("[::1]:1522/shop", "[::1]", 1522, "shop")),
        ("someone/pass/word@db.example:1522/shop", ("db.example:1522/shop", "db.example", 1522, "shop")),
        ("someone/pass@word@db.example/shop", ("db.example:1521/shop", "db.example", 1521, "shop")),
        (DESCRIPTOR, ("db.example:1522/shop", "db.example", 1522, "shop")),
        (STANDBY, ("standby.example,db.example:1522/shop", "standby.example,db.example", 1522, "shop")),
        ("alias", ("oracle.db", None, None, None)),
    ],
)
def test_the_server_of_a_connect_string(seen: Watched, dsn: str, expected: tuple[object, ...]) -> None:
    """
    Server, port and service are read of it, in each of its forms; of a login and of parameters nothing is.
    """
    pool = pool_of(oracledb.ConnectionPool)
    pool._impl.dsn = dsn
    pool.acquire().close()
    told = seen.only().identity
    assert (told.name, told.address, told.port, told.namespace) == expected


def test_leases_and_timeouts(seen: Watched) -> None:
    """
    An acquire is a lease until close, drop or collection; an exhausted pool is a timeout; used is the core's own count.
    """
    pool = pool_of(oracledb.ConnectionPool)
    first, second = pool.acquire(), pool.acquire()
    ours = seen.only()
    assert (ours.identity.address, ours.identity.port, ours.identity.namespace) == ("db.example", 1521, "shop")
    assert (len(ours.leases), ours.limit, ours.sources[0].in_use()) == (2, 2, 2)
    with pytest.raises(oracledb.DatabaseError, match="DPY-4005"):
        pool.acquire()
    assert (ours.timeouts.read(), outcomes(ours)) == (1, {"": 2, "oracledb.exceptions.DatabaseError": 1})
    first.close()
    pool.drop(second)
    at_rest(ours)
    dropped = pool.acquire()
    (lease,) = ours.leases
    del dropped
    gc.collect()
    assert lease.abandoned
    at_rest(ours)


def test_async_leases(seen: Watched) -> None:
    """
    The wait of an async ask begins when it is awaited, and one that fails is a failed wait.
    """

    async def scenario() -> None:
        pool = pool_of(oracledb.AsyncConnectionPool)
        asked = pool.acquire()
        assert seen.ledger.pools == {}
        async with asked:
            ours = seen.only()
            assert len(ours.leases) == 1
            async with pool.acquire():
                assert len(ours.leases) == 2
                with pytest.raises(oracledb.DatabaseError):
                    await pool.acquire()
        assert outcomes(ours) == {"": 2, "oracledb.exceptions.DatabaseError": 1}
        assert ours.timeouts.read() == 1
        at_rest(ours)

    asyncio.run(scenario())


def test_statements_and_phases(seen: Watched) -> None:
    """
    Each way to send a statement counts one; what lies between statements of an open transaction is idle in transaction,
    and nothing once it has ended.
    """
    pool = pool_of(oracledb.ConnectionPool)
    with pool.acquire() as connection:
        (lease,) = seen.only().leases
        with connection.cursor() as cursor:
            cursor.execute("select 1 from dual where :n = 1", [1])
            assert (lease.queries, lease.phase) == (1, "idle_in_transaction")
            assert lease.statement == "select 1 from dual where :n = 1"
            cursor.executemany("insert into t values (:n)", [(1,), (2,)])
            cursor.callproc("p")
            assert lease.queries == 3
        connection.commit()
        assert (lease.queries, lease.phase) == (3, "idle")
    uses = seen.only().uses.read()
    assert uses.first > 0
    assert uses.second > 0
    at_rest(seen.only())


def test_async_statements_and_phases(seen: Watched) -> None:
    """
    The same for an async connection.
    """

    async def scenario() -> None:
        async with oracledb_async() as connection:
            (lease,) = seen.only().leases
            with connection.cursor() as cursor:
                await cursor.execute("select 1 from dual")
            assert (lease.queries, lease.phase) == (1, "idle_in_transaction")
            await connection.rollback()
            assert (lease.queries, lease.phase) == (1, "idle")
        at_rest(seen.only())

    def oracledb_async() -> Any:
        return pool_of(oracledb.AsyncConnectionPool).acquire()

    asyncio.run(scenario())
