"""
asyncpg's `Pool`.

A pool has a fixed number of slots (its holders), each with a connection or none. A checkout takes a slot from the
queue, connects if need be, and runs the pool's ``setup``: queue, connect and validation. The hold ends when the slot is
put back, after the connection was reset. What a caller holds is a slot here: connections carry no marks.

A pool can neither be held weakly nor carry marks; its queue can, and lives as long as the pool does.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.asyncpg_points import REASONS, Reset, TakeSlot, identify, parameters_of
from poolscope.adapters.base import Capability, PointAdapter
from poolscope.adapters.connections import ConnectionsById
from poolscope.adapters.leases import end_earlier, keep_handed_over, undo
from poolscope.adapters.marks import LEASES_KEY, LIBRARY_POOL_KEY
from poolscope.adapters.points import Call, Checkin, Checkout, Close, Connect, Created, Statement
from poolscope.adapters.stats import Stats
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.types import override

if TYPE_CHECKING:
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

_POOL: Final = "asyncpg.pool:Pool"
_SLOT: Final = "asyncpg.pool:PoolConnectionHolder"
_CONNECTION: Final = "asyncpg.connection:Connection"
_CURSOR: Final = "asyncpg.cursor:BaseCursor"
_PREPARED: Final = "asyncpg.prepared_stmt:PreparedStatement"

# The references to a proxy that only the library holds: the slot's, the connection's, and the counting itself.
_LIBRARY_REFERENCES: Final = 3


def _copy(_: LibraryObject, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, bool, None]:
    return f"COPY {args[0] if args else kwargs['table_name']} FROM STDIN", True, None


class AsyncpgAdapter(ConnectionsById, PointAdapter):
    """Hooks asyncpg's pools."""

    name, module, versions = "asyncpg", "asyncpg", ">=0.29,<0.33"
    pool_classes = (_POOL,)
    library_modules = ("asyncpg",)
    connect_arguments = ("_connect_args", "_connect_kwargs")
    # Before Python 3.11 asyncio had one of its own.
    timeout_errors = ("builtins:TimeoutError", "asyncio:TimeoutError")
    also_measures = Capability.ABANDONED
    has_anchors = True
    points = (
        Created(f"{_POOL}._initialize"),
        Checkout(f"{_POOL}._acquire"),
        TakeSlot(f"{_SLOT}.acquire"),
        Reset(f"{_SLOT}.release"),
        Checkin(f"{_SLOT}._release", of_connection=True),
        Connect(f"{_POOL}._get_new_connection", early=True),
        Close(f"{_CONNECTION}._cleanup", reasons=REASONS, outermost=True, other="invalidated"),
        # With arguments, it calls the next one, which is then part of it. Transactions begin and end by it.
        Statement(
            f"{_CONNECTION}.execute",
            of_connection=True,
            describe=lambda _, args, kwargs: (args[0] if args else kwargs["query"], False, args[1:] or None),
        ),
        Statement(f"{_CONNECTION}._execute", of_connection=True),
        *(
            Statement(f"{_CONNECTION}.{name}", of_connection=True, describe=lambda _, args, __: (args[0], True, None))
            for name in ("_executemany", "_copy_out", "_copy_in")
        ),
        Statement(f"{_CONNECTION}.copy_records_to_table", of_connection=True, describe=_copy),
        *(
            Statement(f"{_CURSOR}.{name}", describe=lambda cursor, _, __: (cursor._query, False, cursor._args))
            for name in ("_bind_exec", "_bind")
        ),
        Statement(
            f"{_PREPARED}._PreparedStatement__bind_execute", describe=lambda it, args, __: (it._query, False, args[0])
        ),
        *(
            Statement(
                f"{_PREPARED}.{name}", describe=lambda it, _, __: (it._query, True, None), optional=name == "fetchmany"
            )
            for name in ("executemany", "fetchmany")
        ),
        Call(f"{_CURSOR}._exec"),
    )

    def __init__(self) -> None:
        super().__init__()
        self._connections: weakref.WeakKeyDictionary[LibraryObject, Pool] = weakref.WeakKeyDictionary()

    # Pools

    @override
    def anchor(self, library_pool: LibraryObject) -> LibraryObject:
        return library_pool._queue

    @override
    def library_pool(self, anchor: LibraryObject) -> LibraryObject:
        return anchor.__dict__.get(LIBRARY_POOL_KEY)

    @override
    def identify(self, library_pool: LibraryObject) -> Identity:
        return identify(library_pool)

    @override
    def identify_by(self, library_pool: LibraryObject, connection: LibraryObject) -> Identity:
        return identify(library_pool, parameters_of(connection))

    @override
    def is_open(self, library_pool: LibraryObject) -> bool:
        return not library_pool._closed

    @override
    def stats(self, library_pool: LibraryObject) -> Stats:
        slots = list(library_pool._holders)
        in_use = sum(slot._in_use is not None for slot in slots)
        idle = sum(slot._in_use is None and slot.is_connected() for slot in slots)
        least, most = library_pool._minsize, library_pool._maxsize
        return Stats(limit=most, idle=idle, in_use=in_use, least_idle=least, most_idle=most)

    @override
    def held(self, library_pool: LibraryObject) -> list[LibraryObject]:
        return [slot for slot in library_pool._holders if slot._in_use is not None]

    @override
    def open_ones(self, library_pool: LibraryObject) -> list[LibraryObject]:
        return [slot for slot in library_pool._holders if slot.is_connected()]

    @override
    def loop_of(self, library_pool: LibraryObject) -> LibraryObject:
        return library_pool._loop

    @override
    def physical(self, connection: LibraryObject) -> LibraryObject:
        return connection._con

    @override
    def enter(self, library_pool: LibraryObject, connection: LibraryObject = None) -> Pool | None:
        if library_pool._queue is not None:
            marks = library_pool._queue.__dict__
            self._anchors.add(library_pool._queue)
            marks.setdefault(LEASES_KEY, {})
            # The pool's parts refer to it anyway: one reference more does not prolong its life.
            marks[LIBRARY_POOL_KEY] = library_pool
            if self.pool_registry is None:  # released meanwhile
                self._take_off(library_pool._queue)
                return None
        return super().enter(library_pool, connection)

    @override
    def entered(self, library_pool: LibraryObject, pool: Pool, held: list[LibraryObject]) -> None:
        queue = library_pool._queue
        weakref.finalize(queue, _end_all, queue.__dict__[LEASES_KEY]).atexit = False
        for slot in library_pool._holders:
            if slot._con is not None:
                self._connections[slot._con] = pool
        super().entered(library_pool, pool, held)

    @override
    def unheld(self, library_pool: LibraryObject) -> list[Lease]:
        """
        The leases whose connection no caller holds: it will never be returned.

        The pool itself keeps what it hands over alive, so the garbage collector never finds it; its references are
        counted instead (CPython only).
        """
        leases: dict[int, Lease] = library_pool._queue.__dict__[LEASES_KEY]
        found = []
        for slot in list(library_pool._holders):
            lease = leases.get(id(slot))
            if lease is not None and not lease.running and _is_unheld(slot):
                found.append(lease)
        return found

    @override
    def clears_connections(self, library_pool: LibraryObject) -> bool:  # noqa: ARG002
        return True  # its reset releases all locks and ends all subscriptions, unless the application has another

    @override
    def forget_pool(self, anchor: LibraryObject) -> None:
        anchor.__dict__.pop(LIBRARY_POOL_KEY, None)
        anchor.__dict__.pop(LEASES_KEY, {}).clear()

    @override
    def release(self) -> None:
        self._connections = weakref.WeakKeyDictionary()
        super().release()

    # Checkouts

    @override
    def failed(self, library_pool: LibraryObject, lease: Lease, error: BaseException, args: tuple[Any, ...]) -> None:
        lease.carrier = args[0] if args else None
        super().failed(library_pool, lease, error, args)
        lease.carrier = None
        keep_handed_over(library_pool._queue.__dict__.get(LEASES_KEY, {}), lease)

    @override
    def outcome(self, library_pool: LibraryObject, lease: Lease, error: BaseException) -> Outcome:
        """
        How a checkout ended that raised: its timeout is a plain TimeoutError. So is one of the connect or of ``setup``,
        which then ends before the checkout's own time is over.
        """
        outcome = super().outcome(library_pool, lease, error)
        timeout = lease.carrier
        if outcome is Outcome.TIMEOUT and (timeout is None or lease.age() < timeout * 0.99 - 0.001):
            return Outcome.ERROR
        return outcome

    # Slots, and their connections

    @override
    def tie(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:
        leases: dict[int, Lease] | None = library_pool._queue.__dict__.get(LEASES_KEY)
        if leases is not None:
            slot = id(connection)
            if slot in leases:
                earlier = leases.pop(slot, None)
                if earlier is not None:  # else another thread was faster
                    end_earlier(earlier)
            leases[slot] = lease
            physical = connection._con
            if physical is not None:
                protocol = physical._protocol
                if protocol is not None:
                    lease.backend_process_id = protocol.backend_pid

    @override
    def claim(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> bool:
        leases: dict[int, Lease] | None = library_pool._queue.__dict__.get(LEASES_KEY)
        return leases is not None and leases.setdefault(id(connection), lease) is lease

    @override
    def untie(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:  # noqa: ARG002 - a slot knows it
        if connection._in_use is None:
            return None
        leases: dict[int, Lease] | None = connection._pool._queue.__dict__.get(LEASES_KEY)
        return leases.pop(id(connection), None) if leases else None

    @override
    def give_back(self, library_pool: LibraryObject, connection: LibraryObject) -> LibraryObject:
        return library_pool.release(connection)

    @override
    def lost(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:  # noqa: ARG002
        leases: dict[int, Lease] = connection._pool._queue.__dict__.get(LEASES_KEY, {})
        return leases.get(id(connection))

    @override
    def lease_of(self, connection: LibraryObject) -> Lease | None:
        """
        The lease of a connection, of the proxy that a pool hands out, or of a slot. Hot.
        """
        proxy = getattr(connection, "_proxy", None)  # of a proxy, what its connection has
        if proxy is None:
            return None
        slot = proxy._holder
        leases: dict[int, Lease] | None = slot._pool._queue.__dict__.get(LEASES_KEY)
        return leases.get(id(slot)) if leases else None

    @override
    def connected(
        self, library_pool: LibraryObject, pool: Pool, connection: LibraryObject, lease: Lease | None
    ) -> None:
        self._connections[connection] = pool
        super().connected(library_pool, pool, connection, lease)

    @override
    def closing(self, hooked: LibraryObject, *args: LibraryObject) -> Pool | None:  # noqa: ARG002
        return self._connections.pop(hooked, None)

    @override
    def connection_of(self, hooked: LibraryObject) -> LibraryObject:
        return hooked._connection

    @override
    def in_transaction(self, connection: LibraryObject) -> bool:
        protocol = connection._protocol
        is_open: bool = protocol is not None and protocol.is_in_transaction()
        return is_open


def _is_unheld(slot: LibraryObject) -> bool:
    return slot._proxy is not None and sys.getrefcount(slot._proxy) <= _LIBRARY_REFERENCES


def _end_all(leases: dict[int, Lease]) -> None:
    # A pool was collected: whoever held a connection of it has dropped it. Nothing here may log or wait for a lock.
    while leases:
        _, lease = leases.popitem()
        try:
            lease.released(abandoned=True)
        except Exception:  # noqa: BLE001 - ours
            guard.caught_quietly("asyncpg.collected")
            undo(lease)


ADAPTER: Final = AsyncpgAdapter()
