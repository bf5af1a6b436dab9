"""
What stands for a connection here: its record, which outlives it.

A record has its lease as an attribute. To look into its ``__dict__`` would cost five times as much, here and, once it
has one, for the library too.
"""

from __future__ import annotations

import time
import weakref
from itertools import islice
from typing import TYPE_CHECKING, Final

from poolscope.adapters.leases import lease_below
from poolscope.adapters.marks import BACKEND_KEY, KEY, RECORDS_KEY
from poolscope.adapters.points.brackets import library_frames
from poolscope.adapters.pools import Pools
from poolscope.core.failure import raised_by_a_signal
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.types import LibraryObject

# Drivers on libpq, whose connections have an ``info``.
_LIBPQ: Final = ("psycopg", "psycopg2")
# Drivers whose connections work in the event loop only that they were made in.
_LOOP_BOUND: Final = frozenset({"asyncpg", "aiomysql", "asyncmy"})


class RecordConnections(Pools):
    """The part of the adapter that is about records."""

    @override
    def lease_of(self, connection: LibraryObject) -> Lease | None:
        lease: Lease | None = connection.__dict__.get(KEY)
        return lease

    @override
    def tie(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:  # noqa: ARG002
        connection._poolscope = lease
        if connection.fairy_ref is None:  # it was returned meanwhile, which was not seen
            connection._poolscope = None
            lease.released()

    @override
    def claim(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> bool:  # noqa: ARG002
        connection._poolscope = connection._poolscope or lease  # no other thread runs meanwhile: nothing is called
        is_claimed = connection._poolscope is lease
        self._unless_released(connection)
        return is_claimed and connection.fairy_ref is not None  # else it was returned meanwhile, which was not seen

    @override
    def connects_for(self, hooked: LibraryObject) -> LibraryObject:
        """
        A record's pool. The record becomes known, also where its pool is not yet: its marks may be read from now on.
        """
        library_pool = hooked._ConnectionRecord__pool
        self._anchors.add(library_pool)
        self._marked.add(hooked)
        library_pool.__dict__.setdefault(RECORDS_KEY, weakref.WeakSet()).add(hooked)
        hooked.__dict__.setdefault(KEY, None)
        hooked.__dict__[BACKEND_KEY] = None
        self._unless_released(hooked)
        return library_pool

    def _unless_released(self, record: LibraryObject) -> None:
        if self.pool_registry is None:  # meanwhile
            self._take_off(record._ConnectionRecord__pool)
            self.forget_connection(record)

    def take_back(self, record: LibraryObject, lease: Lease) -> None:
        """
        A hook has failed, or the session has ended in the midst of it: what it has put on a record is taken off.

        Args:
            record: The record.
            lease: The one that it has by then, if it has one.
        """
        if record.__dict__.get(KEY) is lease:
            record._poolscope = None
        self._marked.add(record)
        self._unless_released(record)

    @override
    def connects_in(self, hooked: LibraryObject, pool: Pool) -> Lease | None:
        # It is in the record's hands when a pre-ping failed, and among those who wait before that.
        return self.lease_of(hooked) or pool.waiter()

    @override
    def connected(self, library_pool: LibraryObject, pool: Pool, connection: LibraryObject, *_: LibraryObject) -> None:  # noqa: ARG002
        connection.__dict__[BACKEND_KEY] = self.backend_process_id(connection)
        self._unless_released(connection)
        below = lease_below(connection.driver_connection)
        if below is not None:
            # Weakly: that lease may outlive the record, and through it the record would keep the connection.
            reference = weakref.ref(connection)
            below.above = lambda: getattr(reference(), KEY, None)

    @override
    def backend_process_id(self, connection: LibraryObject) -> int | None:
        # Only drivers that are known to have it are asked: another one may answer any attribute, and notice (a mock, a
        # proxy that counts). ``__class__``, not type(): a proxy around a connection, as tracing libraries make, gives
        # that of the connection.
        try:
            driver = connection.driver_connection
            libraries = {kind.__module__.partition(".")[0] for kind in driver.__class__.__mro__}
            if "asyncpg" in libraries:
                return int(driver.get_server_pid())
            if not libraries.isdisjoint(_LIBPQ):
                return int(driver.info.backend_pid)
        except Exception as error:
            if raised_by_a_signal(error):
                raise  # any other: no process id is no loss
        return None

    @override
    def physical(self, connection: LibraryObject) -> LibraryObject:
        return connection.driver_connection

    @override
    def loop_of_connection(self, connection: LibraryObject) -> LibraryObject:
        driver = connection.driver_connection
        is_bound = type(driver).__module__.partition(".")[0] in _LOOP_BOUND
        return getattr(driver, "_loop", None) if is_bound else None

    @override
    def closing(self, hooked: LibraryObject, *args: LibraryObject) -> Pool | None:  # noqa: ARG002
        return self.pool_of(hooked._ConnectionRecord__pool)

    @override
    def forget_connection(self, connection: LibraryObject) -> None:
        connection.__dict__.pop(KEY, None)
        connection.__dict__.pop(BACKEND_KEY, None)


def records_of(library_pool: LibraryObject) -> list[LibraryObject]:
    """The records of a pool's connections. The library keeps a list of them up to 2.0 only."""
    known = library_pool.__dict__.get(RECORDS_KEY)
    references = known.data.copy() if known is not None else ()  # at one go: another thread may add to it
    return [record for reference in references if (record := reference()) is not None]


def _why_replaced(frame: FrameType) -> str:
    record = frame.f_locals["self"]
    longest = record._ConnectionRecord__pool._recycle
    return "recycled" if longest > -1 and time.time() - record.starttime > longest else "invalidated"


def _why_invalidated(frame: FrameType) -> str:
    lease: Lease | None = frame.f_locals["self"].__dict__.get(KEY)
    if lease is not None and lease.acquired_at is None:
        return "failed_validation"
    names = [one.f_code.co_name for one in islice(library_frames(("sqlalchemy.pool",)), 2)]
    return "reset_failed" if names[1:] == ["_finalize_fairy"] else "invalidated"


def _why_not_kept(frame: FrameType) -> str:
    return "overflow" if hasattr(frame.f_locals["self"], "_overflow") else "not_pooled"


#: Why a connection is closed, by who closes it: the library passes no reason along.
REASONS: Final[dict[str, str | Callable[[FrameType], str]]] = {
    "get_connection": _why_replaced,
    "invalidate": _why_invalidated,
    "_do_return_conn": _why_not_kept,
    "_cleanup": "closed",
    "dispose": "disposed",
}
