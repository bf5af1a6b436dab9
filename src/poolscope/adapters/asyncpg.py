"""
asyncpg's `Pool`.

A pool has a fixed number of slots (holders), each with a connection or none. An ask takes a slot from the queue,
connects if need be, and runs the pool's ``setup``: queue, connect and validation. The lease ends when the slot goes
back, after the connection was reset.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.asyncpg_calls import CallHooks
from poolscope.adapters.asyncpg_source import (
    AsyncpgSource,
    close_reason,
    identify,
    tell_server,
    watch_death,
)
from poolscope.adapters.base import Capability
from poolscope.adapters.common import (
    ASK,
    LEASE_FINDERS,
    Adapter,
    being_imported,
    connect_begins,
    connect_ends,
    connect_fails,
    existing,
    learn,
)
from poolscope.adapters.marks import LEASES_KEY, LIBRARY_POOL_KEY, SERVER_KEY
from poolscope.core.calls import KEY
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.core.types import LibraryObject, override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.core.pool_registry import Ledger
    from poolscope.hooks.patching import Patcher

# Before Python 3.11 asyncio had one of its own.
_TIMEOUTS: Final = (TimeoutError, asyncio.TimeoutError)

_POOL: Final = ("_acquire", "_get_new_connection", "_initialize")
_HOLDER: Final = ("acquire", "release", "_release")


class AsyncpgAdapter(Adapter):
    """
    Hooks asyncpg's pools.
    """

    name = "asyncpg"
    module = "asyncpg"
    versions = ">=0.29,<0.33"
    capabilities = (
        Capability.WAIT
        | Capability.WAIT_PHASES
        | Capability.USE
        | Capability.USE_PHASES
        | Capability.LIMIT
        | Capability.IDLE
        | Capability.CREATE
        | Capability.CLOSE
        | Capability.TIMEOUT
        | Capability.DRIFT
        | Capability.ABANDONED
    )

    def __init__(self) -> None:
        super().__init__()
        self._connections: weakref.WeakKeyDictionary[Any, tuple[Pool, weakref.ref[Any]]] = weakref.WeakKeyDictionary()

    def hook(self, module: ModuleType, patcher: Patcher, ledger: Ledger) -> None:
        """
        Put the hooks in.
        """
        from asyncpg import connection, pool  # noqa: PLC0415 - the library is imported only where it is in use

        patcher.require(pool.Pool, _POOL)
        patcher.require(pool.PoolConnectionHolder, _HOLDER)
        patcher.require(connection.Connection, ("_cleanup",))
        calls = CallHooks(lease_of)
        calls.check(patcher)
        self._ledger = ledger
        patcher.replace(pool.Pool, "_acquire", self._make_acquire)
        patcher.replace(pool.PoolConnectionHolder, "acquire", self._make_holder_acquire)
        patcher.replace(pool.PoolConnectionHolder, "release", self._make_holder_release)
        patcher.replace(pool.PoolConnectionHolder, "_release", self._make_release)
        patcher.replace(pool.Pool, "_get_new_connection", self._make_connect)
        patcher.replace(pool.Pool, "_initialize", self._make_initialize)
        patcher.replace(connection.Connection, "_cleanup", self._make_cleanup)
        calls.hook(patcher)
        LEASE_FINDERS[self.name] = lease_of
        if not being_imported(module):
            for found in existing((pool.Pool,)):
                if found._queue is not None and not found._closed:
                    self.know(found)

    @override
    def release(self) -> None:
        LEASE_FINDERS.pop(self.name, None)
        self._connections = weakref.WeakKeyDictionary()
        super().release()

    @override
    def anchor(self, pool: LibraryObject) -> LibraryObject:
        return pool._queue

    @override
    def identify(self, pool: LibraryObject) -> Identity:
        return identify(pool)

    @override
    def source(self, pool: LibraryObject) -> AsyncpgSource:
        marks = pool._queue.__dict__
        # The pool's parts refer to it anyway: one reference more does not prolong its life.
        marks[LIBRARY_POOL_KEY] = pool
        marks.setdefault(LEASES_KEY, {})
        return AsyncpgSource(pool._queue)

    @override
    def entered(self, pool: LibraryObject, tracked: Pool, held: list[LibraryObject]) -> None:  # noqa: ARG002 - one thread only
        leases = pool._queue.__dict__[LEASES_KEY]
        for holder in pool._holders:
            if holder._in_use is not None:
                leases[id(holder)] = tracked.adopt(tracked.now())
            if holder._con is not None:
                self._connections[holder._con] = (tracked, weakref.ref(pool._queue))
        watch_death(pool._queue, leases)

    @override
    def forget(self, anchor: LibraryObject) -> None:
        anchor.__dict__.get(LEASES_KEY, {}).clear()
        for key in (LIBRARY_POOL_KEY, LEASES_KEY, SERVER_KEY):
            anchor.__dict__.pop(key, None)

    def outcome(self, lease: Lease, error: BaseException) -> Outcome:
        """
        See `Adapter.outcome`. The timeout of an acquire is a plain TimeoutError; so is one of the connect, which then
        ends before the ask's own time is over.
        """
        timeout = lease.carrier
        if not lease.connect_failed and isinstance(error, _TIMEOUTS) and timeout is not None:
            return Outcome.TIMEOUT if lease.age() >= timeout * 0.99 - 0.001 else Outcome.ERROR
        return super().outcome(lease, error)

    # The hot path ---------------------------------------------------------------------------------------------------

    def _make_acquire(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter, ask = self, self.ask

        async def _acquire(self: LibraryObject, timeout: float | None) -> LibraryObject:
            lease = ask(self, self._queue.__dict__) if self._queue is not None else None
            if lease is None:
                return await original(self, timeout)
            outer = ASK.get()
            ASK.set(lease)
            try:
                proxy = await original(self, timeout)
            except BaseException as error:
                adapter.acquire_failed(self, lease, error, timeout)
                raise
            finally:
                ASK.set(outer)
            try:
                lease.grant()
            except Exception:  # noqa: BLE001 - ours
                guard.caught("asyncpg.grant")
            return proxy

        return _acquire

    def acquire_failed(self, pool: LibraryObject, lease: Lease, error: BaseException, timeout: float | None) -> None:
        """
        An ask failed; should the pool have lent the connection all the same, nobody has it: it counts as held.
        """
        lease.carrier = timeout
        self.failed(lease, error)
        lease.carrier = None
        leases: dict[int, Lease] = pool._queue.__dict__.get(LEASES_KEY, {})
        for key, held in list(leases.items()):
            if held is lease:
                leases[key] = lost = lease.pool.adopt(lease.pool.now())
                lost.trail, lost.unit = lease.trail, lease.unit

    def _make_holder_acquire(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def acquire(self: LibraryObject) -> LibraryObject:
            lease = ASK.get()
            marks = self._pool._queue.__dict__
            if lease is None or lease.got_at is not None or marks.get(KEY) is not lease.pool:
                return await original(self)
            lease.got()
            proxy = await original(self)
            try:
                lease.backend_process_id = self._con._protocol.backend_pid
                marks[LEASES_KEY][id(self)] = lease
            except Exception:  # noqa: BLE001 - ours
                guard.caught("asyncpg.acquire")
            return proxy

        return acquire

    def _make_holder_release(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def release(self: LibraryObject, timeout: float | None) -> LibraryObject:
            leases = self._pool._queue.__dict__.get(LEASES_KEY)
            lease = leases.get(id(self)) if leases else None
            if lease is not None:
                # The reset is a call to the server, and no statement of the application's: while one runs, further ones
                # are part of it.
                lease.call_begins()
            return await original(self, timeout)

        return release

    def _make_release(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _release(self: LibraryObject) -> LibraryObject:
            if self._in_use is not None:
                try:
                    leases = self._pool._queue.__dict__.get(LEASES_KEY)
                    lease = leases.pop(id(self), None) if leases else None
                    if lease is not None:
                        lease.end()
                except Exception:  # noqa: BLE001 - ours
                    guard.caught("asyncpg.release")
            return original(self)

        return _release

    # Physical connections: cold -------------------------------------------------------------------------------------

    def _make_initialize(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        async def _initialize(self: LibraryObject) -> LibraryObject:
            result = await original(self)
            if self._queue is not None:
                adapter.made(self)
            return result

        return _initialize

    def _make_connect(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        async def _get_new_connection(self: LibraryObject) -> LibraryObject:
            ledger = adapter._ledger
            if ledger is None:
                return await original(self)
            tracked = adapter.tracked(self)
            lease, began = connect_begins(tracked) if tracked is not None else (None, ledger.now())
            try:
                connection = await original(self)
            except BaseException as error:
                if tracked is not None:
                    connect_fails(tracked, lease, began, error)
                raise
            guard.run("asyncpg.connect", lambda: adapter.connected(self, connection, lease, began), None)
            return connection

        return _get_new_connection

    def connected(self, pool: LibraryObject, connection: LibraryObject, lease: Lease | None, began: float) -> None:
        """
        A connection was made.
        """
        tell_server(pool._queue, connection)
        tracked = self.tracked(pool) or self.know(pool)
        if tracked is not None:
            learn(tracked, "asyncpg.learn", lambda: identify(pool))
            connect_ends(tracked, lease, began)
            self._connections[connection] = (tracked, weakref.ref(pool._queue))

    def _make_cleanup(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def _cleanup(self: LibraryObject) -> LibraryObject:
            known = adapter._connections.pop(self, None)
            if known is not None:
                tracked, queue = known
                tracked.closed(guard.run("asyncpg.close", lambda: close_reason(self, queue()), "closed"))
            return original(self)

        return _cleanup


def lease_of(connection: LibraryObject) -> Lease | None:
    """
    The lease of a connection or of the proxy that a pool hands out.
    """
    holder = getattr(connection, "_holder", None)
    if holder is None:
        proxy = getattr(connection, "_proxy", None)
        if proxy is None:
            return None
        holder = proxy._holder
    leases = holder._pool._queue.__dict__.get(LEASES_KEY)
    return leases.get(id(holder)) if leases else None


ADAPTER: Final = AsyncpgAdapter()
