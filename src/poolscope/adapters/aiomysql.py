"""
aiomysql's `Pool`.

Connections are made one after the other, under the pool's condition, by whoever asks when none is free; nothing but
the caller's own timeout ends a wait. The pool keeps a reference to what it lent: a connection that is dropped is never
found.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.aiomysql_calls import CallHooks
from poolscope.adapters.base import Capability
from poolscope.adapters.calls import driver_lease
from poolscope.adapters.common import (
    ASK,
    DRIVER_KEY,
    LEASE_FINDERS,
    Adapter,
    WeakSource,
    being_imported,
    connect_begins,
    connect_ends,
    connect_fails,
    existing,
    first_of,
    identity,
    learn,
)
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.lease import Lease
    from poolscope.core.ledger import Ledger
    from poolscope.core.pool import Identity, Pool
    from poolscope.patching import Patcher

#: The pool that the running code makes a connection for.
_FILLING: Final[ContextVar[Any]] = ContextVar("poolscope_aiomysql_filling", default=None)

_POOL: Final = ("_acquire", "_fill_free_pool", "release", "terminate", "__init__")

#: Under this key a connection's ``__dict__`` holds our `Pool`, until it is closed.
POOL_KEY: Final = "_poolscope_pool"

# The method that closes a connection -> why; of those that are not here the application is one.
_REASONS: Final = {
    "clear": "disposed",
    "terminate": "disposed",
    "wait_closed": "disposed",
    "_read_packet": "invalidated",
    "_read_bytes": "invalidated",
    "_close_on_cancel": "invalidated",
    "__del__": "abandoned",
}

# The references to a connection that nobody but its pool holds: the pool's, the list's, and the counting itself. No
# variable may hold it meanwhile: from Python 3.14 on, what that adds to the count depends on the code around it.
_LIBRARY_REFERENCES: Final = 3


class AiomysqlAdapter(Adapter):
    """
    Hooks aiomysql's pool.
    """

    name = "aiomysql"
    module = "aiomysql"
    versions = ">=0.2,<0.4"
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
    )

    def hook(self, module: ModuleType, patcher: Patcher, ledger: Ledger) -> None:
        """
        See `PoolAdapter.hook`.
        """
        from aiomysql import connection, pool  # noqa: PLC0415 - the library is imported only where it is in use

        patcher.require(pool.Pool, _POOL)
        patcher.require(pool, ("connect",))
        patcher.require(connection.Connection, ("close", "ensure_closed"))
        calls = CallHooks()
        calls.check(patcher)
        self._ledger = ledger
        patcher.wrap(pool.Pool, "__init__", self._made)
        patcher.replace(pool.Pool, "_acquire", self._make_acquire)
        patcher.replace(pool.Pool, "release", self._make_release)
        patcher.replace(pool.Pool, "terminate", self._make_terminate)
        patcher.replace(pool.Pool, "_fill_free_pool", _make_fill)
        patcher.replace(pool, "connect", self._make_connect)
        calls.hook(patcher)
        patcher.replace(connection.Connection, "close", _make_close)
        LEASE_FINDERS[self.name] = driver_lease
        if not being_imported(module):
            for found in existing((pool.Pool,)):
                if not found.closed:
                    self.know(found)

    def release(self) -> None:
        """
        See `PoolAdapter.release`.
        """
        LEASE_FINDERS.pop(self.name, None)
        super().release()

    def identify(self, pool: Any) -> Identity:  # noqa: ANN401
        """
        See `Adapter.identify`.
        """
        given = [pool._conn_kwargs]
        # A file of options tells the rest; what it says, the first connection knows.
        otherwise = None if first_of(given, "read_default_file") else "localhost"
        return identity(
            "mysql",
            namespace=first_of(given, "db", "database"),
            address=first_of(given, "unix_socket") or first_of(given, "host") or otherwise,
            port=first_of(given, "port"),
        )

    def source(self, pool: Any) -> AiomysqlSource:  # noqa: ANN401
        """
        See `Adapter.source`.
        """
        return AiomysqlSource(pool)

    def held(self, pool: Any) -> list[Any]:  # noqa: ANN401
        """
        See `Adapter.held`.
        """
        return list(pool._used)

    def entered(self, pool: Any, tracked: Pool, held: list[Any]) -> None:  # noqa: ANN401
        """
        See `Adapter.entered`.
        """
        for connection in held:
            connection.__dict__[DRIVER_KEY] = tracked.adopt(tracked.now())
        for connection in (*pool._used, *pool._free):
            connection.__dict__[POOL_KEY] = tracked

    def forget(self, anchor: Any) -> None:  # noqa: ANN401
        """
        See `Adapter.forget`.
        """
        for connection in (*anchor._used, *anchor._free):
            connection.__dict__.pop(DRIVER_KEY, None)
            connection.__dict__.pop(POOL_KEY, None)

    def _made(self, wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        result = wrapped(*args, **kwargs)
        self.made(pool)
        return result

    # The hot path ---------------------------------------------------------------------------------------------------

    def _make_acquire(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter, ask = self, self.ask

        async def _acquire(self: Any) -> Any:  # noqa: ANN401
            lease = ask(self, self.__dict__)
            if lease is None:
                return await original(self)
            outer = ASK.get()
            ASK.set(lease)
            try:
                connection = await original(self)
            except BaseException as error:
                adapter.failed(lease, error)
                raise
            finally:
                ASK.set(outer)
            try:
                lease.grant()
                connection.__dict__[DRIVER_KEY] = lease
            except Exception:  # noqa: BLE001 - ours
                guard.caught("aiomysql.acquire")
            return connection

        return _acquire

    def _make_release(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def release(self: Any, conn: Any) -> Any:  # noqa: ANN401
            if conn in self._used:
                _end(conn)
            return original(self, conn)

        return release

    def _make_terminate(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def terminate(self: Any) -> Any:  # noqa: ANN401
            lent = list(self._used)
            result = original(self)
            for connection in lent:
                _end(connection)
            return result

        return terminate

    def _make_connect(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def connect(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            pool = _FILLING.get()
            tracked = adapter.tracked(pool) if pool is not None else None
            if tracked is None:
                return original(*args, **kwargs)
            return _timed(tracked, original(*args, **kwargs))

        return connect


class AiomysqlSource(WeakSource):
    """
    One aiomysql pool, held weakly.
    """

    def alive(self) -> bool:
        """
        See `PoolSource.alive`. A closed pool cannot be opened again.
        """
        pool = self.reference()
        return pool is not None and not pool.closed

    def limit(self) -> int | None:
        """
        See `PoolSource.limit`.
        """
        pool = self.reference()
        return pool.maxsize if pool is not None else None

    def idle_limits(self) -> tuple[int | None, int | None]:
        """
        See `PoolSource.idle_limits`.
        """
        pool = self.reference()
        return (pool.minsize, pool.maxsize) if pool is not None else (None, None)

    def idle(self) -> int:
        """
        See `PoolSource.idle`.
        """
        pool = self.reference()
        return pool.freesize if pool is not None else 0

    def in_use(self) -> int | None:
        """
        See `PoolSource.in_use`.
        """
        pool = self.reference()
        return len(pool._used) if pool is not None else None

    def unheld(self) -> list[Lease]:
        """
        The leases whose connection nobody holds (CPython only).
        """
        pool = self.reference()
        used = list(pool._used) if pool is not None else []
        found = []
        for place in range(len(used)):
            lease = driver_lease(used[place])
            if lease is not None and sys.getrefcount(used[place]) <= _LIBRARY_REFERENCES:
                found.append(lease)
        return found


def _make_fill(original: Callable[..., Any]) -> Callable[..., Any]:
    async def _fill_free_pool(self: Any, override_min: bool) -> Any:  # noqa: ANN401
        outer = _FILLING.get()
        _FILLING.set(self)
        try:
            return await original(self, override_min)
        finally:
            _FILLING.set(outer)

    return _fill_free_pool


async def _timed(tracked: Pool, connecting: Any) -> Any:  # noqa: ANN401
    lease, began = connect_begins(tracked)
    try:
        connection = await connecting
    except BaseException as error:
        connect_fails(tracked, lease, began, error)
        raise
    connect_ends(tracked, lease, began)
    connection.__dict__[POOL_KEY] = tracked
    learn(tracked, "aiomysql.learn", lambda: _told_by(connection))
    return connection


def _told_by(connection: Any) -> Identity:  # noqa: ANN401
    where = connection.unix_socket or connection.host
    return identity("mysql", namespace=connection.db, address=where, port=connection.port)


def _make_close(original: Callable[..., Any]) -> Callable[..., Any]:
    def close(self: Any) -> Any:  # noqa: ANN401
        tracked = self.__dict__.pop(POOL_KEY, None)
        if tracked is not None:
            tracked.closed(guard.run("aiomysql.close", lambda: _reason(self), "closed"))
        return original(self)

    return close


def _reason(connection: Any) -> str:  # noqa: ANN401
    # The frames: this function, the lambda, the guard, the hook.
    caller: Any = sys._getframe(4)
    if caller.f_code.co_name == "ensure_closed":
        caller = caller.f_back
    name = caller.f_code.co_name
    if name == "_fill_free_pool":
        reader = connection._reader
        lost = reader.at_eof() or reader.exception() or getattr(reader, "eof_received", False)
        return "invalidated" if lost else "recycled"
    if name == "release":
        return "disposed" if caller.f_locals["self"]._closing else "in_transaction"
    return _REASONS.get(name, "closed")


def _end(connection: Any) -> None:  # noqa: ANN401
    try:
        lease = connection.__dict__.pop(DRIVER_KEY, None)
        if lease is not None:
            lease.end()
    except Exception:  # noqa: BLE001
        guard.caught("aiomysql.release")


ADAPTER: Final = AiomysqlAdapter()
