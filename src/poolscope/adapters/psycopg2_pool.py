"""
psycopg2's pools: `SimpleConnectionPool` and `ThreadedConnectionPool`.

They never wait: an ask beyond the limit is turned away. Their connections are made in C and carry no marks, so leases
are kept by the connection's id, for as long as the pool itself refers to the connection. What they do while they are
out is seen of those made under poolscope (`psycopg2_calls`).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters import libpq
from poolscope.adapters.base import Capability
from poolscope.adapters.calls import driver_lease
from poolscope.adapters.common import (
    ASK,
    LEASE_FINDERS,
    Adapter,
    WeakSource,
    being_imported,
    connect_begins,
    connect_ends,
    connect_fails,
    existing,
    limit_changed,
)
from poolscope.adapters.marks import LEASES_KEY, WATCHED_KEY
from poolscope.adapters.psycopg2_calls import Classes, mark, unwatch, watch
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

# The references to a connection that nobody but its pool holds: the pool's, and the counting itself. No variable may
# hold it meanwhile: from Python 3.14 on, what that adds to the count depends on the code around it.
_LIBRARY_REFERENCES: Final = 2

_POOL: Final = ("getconn", "putconn", "closeall")


class Psycopg2PoolAdapter(Adapter):
    """
    Hooks psycopg2's pools.
    """

    name = "psycopg2"
    module = "psycopg2.pool"
    versions = ">=2.9,<3"
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
        Put the hooks in.
        """
        pools = (module.SimpleConnectionPool, module.ThreadedConnectionPool)
        for pool in pools:
            patcher.require(pool, _POOL)
        patcher.require(module.AbstractConnectionPool, ("__init__", "_connect"))
        self._ledger = ledger
        self._classes = Classes()
        self._pool_error: type[Exception] = module.PoolError
        for pool in pools:
            patcher.replace(pool, "getconn", self._make_getconn)
            patcher.replace(pool, "putconn", self._make_putconn)
            patcher.replace(pool, "closeall", self._make_closeall)
        patcher.replace(module.AbstractConnectionPool, "_connect", self._make_connect)
        patcher.wrap(module.AbstractConnectionPool, "__init__", self._made)
        LEASE_FINDERS[self.name] = driver_lease
        if not being_imported(module):
            for found in existing((module.AbstractConnectionPool,)):
                if not found.closed:
                    self.know(found)

    @override
    def release(self) -> None:
        LEASE_FINDERS.pop(self.name, None)
        super().release()

    @override
    def identify(self, pool: LibraryObject) -> Identity:
        return identify(pool)

    @override
    def source(self, pool: LibraryObject) -> Psycopg2Source:
        pool.__dict__.setdefault(LEASES_KEY, {})
        return Psycopg2Source(pool)

    @override
    def held(self, pool: LibraryObject) -> list[LibraryObject]:
        return list(pool._used.values())

    @override
    def entered(self, pool: LibraryObject, tracked: Pool, held: list[LibraryObject]) -> None:
        leases = pool.__dict__[LEASES_KEY]
        for connection in held:
            if id(connection) not in leases:
                leases[id(connection)] = tracked.adopt(tracked.now())

    @override
    def forget(self, anchor: LibraryObject) -> None:
        anchor.__dict__.pop(LEASES_KEY, None)
        unwatch(anchor)

    def watch(self, pool: LibraryObject) -> None:
        """
        Let a pool make connections whose calls are seen, also while nobody listens yet.
        """
        if self._ledger is not None and WATCHED_KEY not in pool.__dict__:
            self._pools.add(pool)
            watch(pool, self._classes)

    def outcome(self, lease: Lease, error: BaseException) -> Outcome:
        """
        See `Adapter.outcome`. One exception stands for an exhausted pool and for a closed one.
        """
        if isinstance(error, self._pool_error) and "exhausted" in str(error):
            return Outcome.REJECTED
        return super().outcome(lease, error)

    def _made(
        self, wrapped: Callable[..., LibraryObject], pool: LibraryObject, args: LibraryObject, kwargs: LibraryObject
    ) -> LibraryObject:
        result = wrapped(*args, **kwargs)
        self.made(pool)
        return result

    # The hot path ---------------------------------------------------------------------------------------------------

    def _make_getconn(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter, ask = self, self.ask

        def getconn(self: LibraryObject, key: LibraryObject = None) -> LibraryObject:
            # A key that has a connection gets it again: that is no new lease.
            lease = ask(self, self.__dict__) if key is None or key not in self._used else None
            if lease is None:
                return original(self, key)
            outer = ASK.get()
            ASK.set(lease)
            try:
                connection = original(self, key)
            except BaseException as error:
                adapter.failed(lease, error)
                raise
            finally:
                ASK.set(outer)
            try:
                lease.grant()
                leases = self.__dict__.get(LEASES_KEY)
                if leases is not None:  # else poolscope has gone meanwhile
                    earlier = leases.get(id(connection))
                    leases[id(connection)] = lease
                    mark(connection, lease)
                    if earlier is not None:  # adopted while it was being given back, which was not seen
                        earlier.end()
            except Exception:  # noqa: BLE001 - ours
                guard.caught("psycopg2.getconn")
            return connection

        return getconn

    def _make_putconn(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def putconn(
            self: LibraryObject, conn: LibraryObject = None, key: LibraryObject = None, close: bool = False
        ) -> LibraryObject:
            tracked = adapter.tracked(self)
            leases = self.__dict__.get(LEASES_KEY)
            if tracked is None or leases is None or id(conn) not in self._rused:
                return original(self, conn, key, close)
            was_closed = conn.closed
            lease = leases.pop(id(conn), None)
            if lease is not None:
                lease.end()
                mark(conn, None)
            try:
                result = original(self, conn, key, close)
            except BaseException:
                if id(conn) in self._rused:  # its rollback failed: the library counts it as out from now on
                    limit_changed(tracked)
                raise
            if conn.closed:
                tracked.closed("invalidated" if was_closed else "closed" if close else "overflow")
            if lease is None:
                limit_changed(tracked)  # given back at last
            return result

        return putconn

    def _make_closeall(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def closeall(self: LibraryObject) -> LibraryObject:
            tracked = adapter.tracked(self)
            count = len(self._pool) + len(self._used)
            result = original(self)
            if tracked is not None:
                for _ in range(count):
                    tracked.closed("disposed")
                leases = self.__dict__.get(LEASES_KEY, {})
                while leases:
                    leases.popitem()[1].end()
            return result

        return closeall

    def _make_connect(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def _connect(self: LibraryObject, key: LibraryObject = None) -> LibraryObject:
            guard.run("psycopg2.watch", lambda: adapter.watch(self), None)
            tracked = adapter.tracked(self)
            if tracked is None:
                return adapter.connected_early(original, self, key)
            lease, began = connect_begins(tracked)
            try:
                connection = original(self, key)
            except BaseException as error:
                connect_fails(tracked, lease, began, error)
                raise
            connect_ends(tracked, lease, began)
            libpq.learn_from(tracked, connection)
            if lease is not None:
                lease.backend_process_id = guard.run("psycopg2.backend", lambda: int(connection.info.backend_pid), None)
            return connection

        return _connect

    def connected_early(
        self, original: Callable[..., LibraryObject], pool: LibraryObject, key: LibraryObject
    ) -> LibraryObject:
        """
        A connect of a pool that is not known, as while it is being made: its connection tells what it is.
        """
        ledger = self._ledger
        if ledger is None:
            return original(pool, key)
        began = ledger.now()
        connection = original(pool, key)
        tracked = self.know(pool)
        if tracked is not None:
            connect_ends(tracked, None, began)
        return connection


class Psycopg2Source(WeakSource):
    """
    One psycopg2 pool, held weakly.
    """

    def alive(self) -> bool:
        """
        See `PoolSource.alive`. A closed pool cannot be opened again.
        """
        pool = self.reference()
        return pool is not None and not pool.closed

    def limit(self) -> int | None:
        """
        See `PoolSource.limit`: without the slots whose connections came back but could not be reset.
        """
        pool = self.reference()
        return int(pool.maxconn) - self._lost(pool) if pool is not None else None

    def idle_limits(self) -> tuple[int | None, int | None]:
        """
        See `PoolSource.idle_limits`: it starts with so many connections and keeps as many.
        """
        pool = self.reference()
        return (None, pool.minconn) if pool is not None else (None, None)

    @override
    def idle(self) -> int:
        pool = self.reference()
        return len(pool._pool) if pool is not None else 0

    @override
    def in_use(self) -> int | None:
        pool = self.reference()
        return len(pool._used) - self._lost(pool) if pool is not None else None

    def unheld(self) -> list[Lease]:
        """
        The leases whose connection nobody holds: the pool keeps it, and will never get it back (CPython only).
        """
        pool = self.reference()
        if pool is None:
            return []
        leases = pool.__dict__.get(LEASES_KEY, {})
        found = []
        for key in list(pool._used):
            lease = leases.get(id(pool._used.get(key)))
            if lease is not None and sys.getrefcount(pool._used.get(key)) <= _LIBRARY_REFERENCES:
                found.append(lease)
        return found

    @staticmethod
    def _lost(pool: LibraryObject) -> int:
        leases = pool.__dict__.get(LEASES_KEY)
        return sum(1 for one in list(pool._rused) if one not in leases) if leases is not None else 0


def identify(pool: LibraryObject) -> Identity:
    """
    What a pool is, from its connect arguments, else from a connection that it has.
    """
    dsn = pool._args[0] if pool._args else pool._kwargs.get("dsn")
    connections = [*pool._pool, *pool._used.values()][:1]
    return libpq.identify([pool._kwargs, libpq.parse(dsn), *(libpq.told_by(one) for one in connections)])


ADAPTER: Final = Psycopg2PoolAdapter()
