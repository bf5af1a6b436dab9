"""A stand-in for python-oracledb's compiled core, below its Python layer: Oracle Database is not at hand."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

oracledb = pytest.importorskip("oracledb")

if TYPE_CHECKING:
    from collections.abc import Callable

#: Whether the layer hands its operations to the core whole, as from 26 on.
NEWEST_LAYER = hasattr(oracledb.Connection.close, "__wrapped__")
EXHAUSTED = "DPY-4005: timed out waiting for the connection pool to return a connection"


class Core:
    """The core of a pool: it counts."""

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
        """As versions before 26 ask; the async kind awaits it."""
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
    """The core of a connection: it runs the Python layer's operations."""

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
    """That of an async connection before 26."""

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
    """The core of a cursor; before 26 it is that which runs the statements."""

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


def install(replace: Callable[[Any, str, Any], None]) -> None:
    """
    Put the stand-in for the core of connections in its place.

    Args:
        replace: Sets an attribute of an object, for as long as it is wanted.
    """
    from oracledb import connection

    if NEWEST_LAYER:
        replace(connection, "thin_impl", SimpleNamespace(ThinConnImpl=Connected))


def pool_of(kind: type) -> Any:
    """A pool over the stand-in."""
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
