"""
psycopg2's pools: `SimpleConnectionPool` and `ThreadedConnectionPool`.

They never wait: a checkout beyond the limit is turned away. Their connections are made in C and carry no marks. What
they do while they are held is seen of those made under poolscope (`psycopg2_calls`).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final

from poolscope.adapters import libpq
from poolscope.adapters.base import Capability, PointAdapter
from poolscope.adapters.connections import ConnectionsById
from poolscope.adapters.connects import limit_changed
from poolscope.adapters.leases import recover_return
from poolscope.adapters.marks import LEASES_KEY
from poolscope.adapters.points import Checkin, Checkout, Connect, Created, Sweep
from poolscope.adapters.psycopg2_calls import Derived, connection_classes, mark, unwatch, watch
from poolscope.adapters.stats import Stats
from poolscope.core.guard import guard
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.adapters.points.brackets import After, Before
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.types import LibraryObject

    Arguments = tuple[Any, ...]

# The references to a connection that only its pool holds: the pool's, and the counting itself. No variable may
# hold it meanwhile: from Python 3.14 on, what that adds to the count depends on the code around it.
_LIBRARY_REFERENCES: Final = 2

_POOLS: Final = ("SimpleConnectionPool", "ThreadedConnectionPool")


def _is_new(library_pool: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> bool:
    # A key that has a connection gets it again: that is no checkout.
    return not (args or kwargs) or (args[0] if args else kwargs.get("key")) not in library_pool._used


class Return(Checkin):
    """
    A connection is returned: the pool keeps it, or closes it; or it cannot be reset, and the pool
    counts it as held.
    """

    measures: ClassVar[Capability] = Capability.USE | Capability.CLOSE

    @override
    def make(self, adapter: PointAdapter, original: Callable[..., Any]) -> Callable[..., Any]:
        component, untie, lost = f"{adapter.name}.checkin", adapter.untie, adapter.lost

        def putconn(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            connection: LibraryObject
            lease = was_closed = connection = None
            try:
                connection = args[0] if args else kwargs.get("conn")
                was_closed = getattr(connection, "closed", None)
                lease = untie(self_, connection)
                if lease is not None:
                    lease.released()
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_return(
                    component, lease, lambda: lost(self_, connection), lambda: original(self_, *args, **kwargs)
                )
            try:
                result = original(self_, *args, **kwargs)
            except BaseException:
                guard.run(component, lambda: _settle(adapter, self_, connection, None), None)
                raise
            if lease is None or connection.closed:
                is_wanted = any(args[2:]) or kwargs.get("close")
                reason = "invalidated" if was_closed else "closed" if is_wanted else "overflow"
                guard.run(component, lambda: _settle(adapter, self_, connection, reason), None)
            return result

        return putconn


def _settle(adapter: PointAdapter, library_pool: LibraryObject, connection: LibraryObject, reason: str | None) -> None:
    # After a return: with a reason, if the connection is closed; without one, if the return failed.
    pool = adapter.pool_of(library_pool)
    if pool is None or library_pool.closed:
        return
    if reason is not None:
        library_pool.__dict__[LEASES_KEY].pop(id(connection), None)
        if connection.closed:
            pool.closed(reason)
    elif id(connection) in library_pool._rused:
        library_pool.__dict__[LEASES_KEY][id(connection)] = None  # the pool counts it, though no caller holds it
    limit_changed(pool)


class CloseAll(Sweep):
    """A pool closes its connections, also those that callers hold."""

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:
        before, after = super().hooks(adapter)

        def counted(library_pool: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> LibraryObject:
            count = 0 if library_pool.closed else len(library_pool._pool) + len(library_pool._used)
            return library_pool, count, before(library_pool, args, kwargs)

        def swept(state: LibraryObject, result: LibraryObject, error: BaseException | None) -> None:
            library_pool, count, begun = state
            after(begun, result, error)
            pool = adapter.pool_of(library_pool)
            if pool is not None:
                for _ in range(count):
                    pool.closed("disposed")

        return counted, swept


class Psycopg2PoolAdapter(ConnectionsById, PointAdapter):
    """Hooks psycopg2's pools."""

    name, module, versions = "psycopg2", "psycopg2.pool", ">=2.9,<3"
    pool_classes = ("AbstractConnectionPool",)
    library_modules = ("psycopg2",)
    connect_arguments = ("_args", "_kwargs")
    points = (
        Created("AbstractConnectionPool.__init__"),
        *(Checkout(f"{pool}.getconn", when=_is_new) for pool in _POOLS),
        *(Return(f"{pool}.putconn") for pool in _POOLS),
        *(CloseAll(f"{pool}.closeall") for pool in _POOLS),
        Connect("AbstractConnectionPool._connect", early=True),
    )
    rejection_errors = ("PoolError",)
    also_measures = Capability.HOLD_PHASES  # by the classes of connections and cursors

    _classes: Derived

    @override
    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        self._classes = connection_classes(self)
        super().hook(module, patcher, pool_registry)

    @override
    def identify(self, library_pool: LibraryObject) -> Identity:
        dsn = library_pool._args[0] if library_pool._args else library_pool._kwargs.get("dsn")
        connections = [*library_pool._pool, *library_pool._used.values()][:1]
        return libpq.identify(
            [library_pool._kwargs, libpq.parse(dsn), *(libpq.parameters_of(one) for one in connections)]
        )

    @override
    def identify_by(self, library_pool: LibraryObject, connection: LibraryObject) -> Identity:  # noqa: ARG002
        return libpq.identify([libpq.parameters_of(connection)])

    @override
    def give_back(self, library_pool: LibraryObject, connection: LibraryObject) -> LibraryObject:
        return library_pool.putconn(connection)

    @override
    def backend_process_id(self, connection: LibraryObject) -> int:
        return int(connection.info.backend_pid)

    @override
    def stats(self, library_pool: LibraryObject) -> Stats:
        lost = list(library_pool.__dict__.get(LEASES_KEY, {}).values()).count(None)
        return Stats(
            limit=library_pool.maxconn - lost,
            idle=len(library_pool._pool),
            in_use=len(library_pool._used) - lost,
            most_idle=library_pool.minconn,  # it starts with so many, and keeps as many
            lost=lost,
        )

    @override
    def held(self, library_pool: LibraryObject) -> list[LibraryObject]:
        return [] if library_pool.closed else list(library_pool._used.values())

    @override
    def open_ones(self, library_pool: LibraryObject) -> list[LibraryObject]:
        return [] if library_pool.closed else [*library_pool._pool, *library_pool._used.values()]

    @override
    def is_open(self, library_pool: LibraryObject) -> bool:
        return not library_pool.closed  # it cannot be opened again

    @override
    def rejected(self, library_pool: LibraryObject, error: BaseException) -> bool:
        # One exception stands for an exhausted pool and for a closed one.
        return super().rejected(library_pool, error) and not library_pool.closed

    @override
    def unheld(self, library_pool: LibraryObject) -> list[Lease]:
        used, found = library_pool._used, []
        for key in list(used):
            lease = self.lost(library_pool, used.get(key))
            if lease is not None and sys.getrefcount(used.get(key)) <= _LIBRARY_REFERENCES:
                found.append(lease)
        return found

    @override
    def connects_for(self, hooked: LibraryObject) -> LibraryObject:
        # Also while nothing listens yet: it says of which class the connection is to be.
        self._anchors.add(hooked)
        watch(hooked, self._classes)
        if self.pool_registry is None:  # released meanwhile
            self._take_off(hooked)
        return hooked

    @override
    def connection_of(self, hooked: LibraryObject) -> LibraryObject:
        return getattr(hooked, "connection", hooked)

    @override
    def in_transaction(self, connection: LibraryObject) -> bool:
        return libpq.is_in_transaction(connection.get_transaction_status())

    @override
    def lease_of(self, connection: LibraryObject) -> Lease | None:
        marks = getattr(connection, "__dict__", None)
        leases: dict[int, Lease] | None = marks.get(LEASES_KEY) if type(marks) is dict else None
        return leases.get(id(connection)) if leases else None

    @override
    def connected(
        self, library_pool: LibraryObject, pool: Pool, connection: LibraryObject, lease: Lease | None
    ) -> None:
        mark(library_pool, connection)
        if self.pool_registry is None:  # released meanwhile
            getattr(connection, "__dict__", {}).pop(LEASES_KEY, None)
        super().connected(library_pool, pool, connection, lease)

    @override
    def entered(self, library_pool: LibraryObject, pool: Pool, held: list[LibraryObject]) -> None:
        mark(library_pool, *library_pool._pool, *library_pool._used.values())
        super().entered(library_pool, pool, held)

    @override
    def forget_pool(self, anchor: LibraryObject) -> None:
        super().forget_pool(anchor)
        unwatch(anchor)


ADAPTER: Final = Psycopg2PoolAdapter()
