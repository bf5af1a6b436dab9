"""
DBUtils' `PooledDB`, over any DB-API driver.

A connection that is dropped comes back when it is collected. A shared connection is one lease for each caller.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters import libpq
from poolscope.adapters.base import Capability
from poolscope.adapters.common import (
    ASK,
    Adapter,
    WeakSource,
    being_imported,
    connect_begins,
    connect_ends,
    connect_fails,
    database_file,
    existing,
    first_of,
    identity,
    learn,
)
from poolscope.adapters.dbutils_calls import CallHooks, Made
from poolscope.core.calls import KEY
from poolscope.core.guard import guard
from poolscope.core.types import LibraryObject, override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.core.pool_registry import Ledger
    from poolscope.hooks.patching import Patcher

#: Set while a pool is being made, when it lends to itself: what it connects, with the seconds that each took.
_WARMING: Final[ContextVar[list[tuple[Any, float]] | None]] = ContextVar("poolscope_dbutils_warming", default=None)

_POOL: Final = ("__init__", "connection", "cache", "unshare", "steady_connection")

# Drivers by the module that makes connections -> the database, as the semantic conventions name it.
_SYSTEMS: Final = {
    "psycopg2": "postgresql",
    "psycopg": "postgresql",
    "pg8000": "postgresql",
    "pymysql": "mysql",
    "MySQLdb": "mysql",
    "mysql": "mysql",
    "oracledb": "oracle.db",
    "sqlite3": "sqlite",
    "pymssql": "microsoft.sql_server",
    "pyodbc": "other_sql",
}


class DbutilsAdapter(Adapter):
    """
    Hooks DBUtils' pool.
    """

    name = "dbutils"
    module = "dbutils.pooled_db"
    versions = ">=3.0,<4"
    capabilities = (
        Capability.WAIT
        | Capability.WAIT_PHASES
        | Capability.USE
        | Capability.USE_PHASES
        | Capability.LIMIT
        | Capability.IDLE
        | Capability.CREATE
        | Capability.CLOSE
        | Capability.DRIFT
        | Capability.ABANDONED
    )

    def hook(self, module: ModuleType, patcher: Patcher, ledger: Ledger) -> None:
        """
        Put the hooks in.
        """
        from dbutils import steady_db  # noqa: PLC0415 - the library is imported only where it is in use

        patcher.require(module.PooledDB, _POOL)
        self._calls = calls = CallHooks(steady_db)
        calls.check(patcher)
        self._ledger = ledger
        self.rejections = (getattr(module, "TooManyConnectionsError", None) or module.TooManyConnections,)
        patcher.wrap(module.PooledDB, "__init__", self._made)
        patcher.replace(module.PooledDB, "connection", self._make_connection)
        patcher.replace(module.PooledDB, "cache", _make_cache)
        patcher.replace(module.PooledDB, "unshare", _make_unshare)
        patcher.replace(module.PooledDB, "steady_connection", self._make_connect)
        calls.hook(patcher)
        if not being_imported(module):
            for found in existing((module.PooledDB,)):
                self.know(found)

    @override
    def identify(self, pool: LibraryObject) -> Identity:
        return _identify(pool, [_told_by(steady) for steady in pool._idle_cache[:1]])

    @override
    def source(self, pool: LibraryObject) -> DbutilsSource:
        return DbutilsSource(pool)

    def entered(self, pool: LibraryObject, tracked: Pool, held: list[LibraryObject]) -> None:  # noqa: ARG002
        """
        See `Adapter.entered`. What is out, the pool does not tell.
        """
        for steady in list(pool._idle_cache):
            self._calls.made.setdefault(steady, Made(tracked))

    @override
    def forget(self, anchor: LibraryObject) -> None:
        tracked: Pool | None = anchor.__dict__.get(KEY)
        for lease in tracked.leases.copy() if tracked is not None else ():
            marked, lease.carrier = lease.carrier, None
            if marked is not None:
                marked.__dict__.pop(KEY, None)

    @override
    def release(self) -> None:
        super().release()
        self._calls.made.clear()

    def _made(
        self, wrapped: Callable[..., LibraryObject], pool: LibraryObject, args: LibraryObject, kwargs: LibraryObject
    ) -> LibraryObject:
        connected: list[tuple[Any, float]] = []
        token = _WARMING.set(connected)
        try:
            result = wrapped(*args, **kwargs)
        finally:
            _WARMING.reset(token)
        tracked = self.made(pool)
        if tracked is not None:
            for steady, seconds in connected:
                tracked.created(seconds)
                self._calls.made[steady] = Made(tracked)
        return result

    def _make_connection(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter, ask = self, self.ask

        def connection(self: LibraryObject, shareable: bool = True) -> LibraryObject:
            lease = ask(self, self.__dict__) if _WARMING.get() is None else None
            if lease is None:
                return original(self, shareable)
            outer = ASK.get()
            ASK.set(lease)
            try:
                lent = original(self, shareable)
            except BaseException as error:
                adapter.failed(lease, error)
                raise
            finally:
                ASK.set(outer)
            try:
                lease.grant()
                # The steady connection, or what several callers share; the proxy that they get is new each time.
                marked = getattr(lent, "_shared_con", None) or lent._con
                marked.__dict__.setdefault(KEY, []).append(lease)
                lease.carrier = marked
            except Exception:  # noqa: BLE001 - ours
                guard.caught("dbutils.connection")
            return lent

        return connection

    def _make_connect(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def steady_connection(self: LibraryObject) -> LibraryObject:
            tracked = adapter.tracked(self)
            if tracked is None:
                return adapter.connected_early(original, self)
            lease, began = connect_begins(tracked)
            try:
                connection = original(self)
            except BaseException as error:
                connect_fails(tracked, lease, began, error)
                raise
            connect_ends(tracked, lease, began)
            learn(tracked, "dbutils.learn", lambda: _identify(self, [_told_by(connection)]))
            adapter._calls.made[connection] = Made(tracked)
            return connection

        return steady_connection

    def connected_early(self, original: Callable[..., LibraryObject], pool: LibraryObject) -> LibraryObject:
        """
        A connect of a pool that is not known: it may be one that is being made.
        """
        ledger, connected = self._ledger, _WARMING.get()
        if ledger is None or connected is None:
            return original(pool)
        began = ledger.now()
        steady = original(pool)
        connected.append((steady, ledger.now() - began))
        return steady


class DbutilsSource(WeakSource):
    """
    One `PooledDB`, held weakly.
    """

    @override
    def limit(self) -> int | None:
        pool = self.reference()
        return pool._maxconnections or None if pool is not None and not pool._maxshared else None

    @override
    def idle_limits(self) -> tuple[int | None, int | None]:
        pool = self.reference()
        return (None, pool._maxcached or None) if pool is not None else (None, None)

    @override
    def idle(self) -> int:
        pool = self.reference()
        return len(pool._idle_cache) if pool is not None else 0

    def in_use(self) -> int | None:
        """
        See `PoolSource.in_use`. Of shared connections it does not count the callers.
        """
        pool = self.reference()
        return int(pool._connections) if pool is not None and not pool._maxshared else None


def _identify(pool: LibraryObject, told: list[dict[str, LibraryObject]]) -> Identity:
    creator = pool._creator
    module = getattr(creator, "__name__", "") if not callable(creator) else getattr(creator, "__module__", "")
    system = _SYSTEMS.get(str(module).partition(".")[0], "other_sql")
    first = pool._args[0] if pool._args else None
    given = [pool._kwargs]
    if system == "postgresql":
        given.append(libpq.parse(first_of(given, "dsn", "conninfo") or first))
    given += told
    namespace = first_of(given, "dbname", "database", "db")
    if system == "sqlite":
        namespace = database_file(namespace or (str(first) if first else None))
    return identity(
        system, namespace=namespace, address=first_of(given, "host", "unix_socket"), port=first_of(given, "port")
    )


def _told_by(steady: LibraryObject) -> dict[str, LibraryObject]:
    # psycopg's and psycopg2's connections know their server; others are not asked.
    connection = steady._con
    return libpq.told_by(connection) if type(connection).__module__.startswith("psycopg") else {}


def _make_cache(original: Callable[..., Any]) -> Callable[..., Any]:
    def cache(self: LibraryObject, con: LibraryObject) -> LibraryObject:
        _end(con)
        return original(self, con)

    return cache


def _make_unshare(original: Callable[..., Any]) -> Callable[..., Any]:
    def unshare(self: LibraryObject, con: LibraryObject) -> LibraryObject:
        _end(con)
        return original(self, con)

    return unshare


def _end(marked: LibraryObject) -> None:
    try:
        leases = marked.__dict__.get(KEY)
        if leases:
            # The frames: this function, the hook, the proxy's close(), and __del__ when nobody called that.
            caller = sys._getframe(3)
            lease = leases.pop()
            lease.carrier = None
            lease.end(abandoned=caller.f_code.co_name == "__del__")
        if leases is not None and not leases:
            del marked.__dict__[KEY]
    except Exception:  # noqa: BLE001 - ours
        guard.caught("dbutils.cache")


ADAPTER: Final = DbutilsAdapter()
