"""What tells one pool from another, and the library's pool behind it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.types import LibraryObject

#: The name that the application gives the pools that it makes now; None to leave it to the library or the server.
POOL_NAME: Final[ContextVar[str | None]] = ContextVar("poolscope_pool_name", default=None)


@dataclass(frozen=True)
class Identity:
    """
    What distinguishes one pool from another.

    Args:
        name: The pool's name; unique in the process.
        system: The database, as the conventions name it, such as ``postgresql``.
        namespace: The database's name, where known.
        address: The server's host name or address, where known; or the path of its socket.
        port: The server's port, where known.
    """

    name: str
    system: str
    namespace: str | None = None
    address: str | None = None
    port: int | None = None


class Stranded(NamedTuple):
    """
    An open connection that no thread will use again, since it belongs to one that has finished.

    Args:
        backend_process_id: The server's process for it, where that is known.
        kept_by: What keeps it open, such as a setting with its value.
    """

    backend_process_id: int | None
    kept_by: str


class Foreign(NamedTuple):
    """
    How a library's pool belongs to another process or event loop than the one that uses it.

    Args:
        case: ``process`` or ``loop``.
        is_pool: Whether the pool itself was opened there, so that it makes no connections here; else connections of it.
        leases: Whoever uses it here: leases and pending checkouts.
        is_closed: Whether that event loop is closed.
    """

    case: str
    is_pool: bool
    leases: tuple[Lease, ...]
    is_closed: bool = False


class PoolSource(Protocol):
    """
    A library's pool behind a `Pool`; holds it weakly. Called at collection, from any thread: no lock of the library
    that a checkout holds while it waits, no I/O.
    """

    retired: bool

    def alive(self) -> bool:
        """Whether the library's pool still exists."""

    def limit(self) -> int | None:
        """The most connections it may have open; None when there is no limit."""

    def idle_limits(self) -> tuple[int | None, int | None]:
        """The fewest and the most idle connections it keeps; None where it has no such limit."""

    def idle(self) -> int:
        """How many open connections it has that are not checked out."""

    def in_use(self) -> int | None:
        """How many connections are checked out by the library's own count; None when it keeps none."""

    def held(self) -> list[Lease | None] | None:
        """
        The leases of the connections that callers hold by the library's own list, None for one without; None in place
        of all where the library keeps no list that agrees with its count.
        """

    def adopt(self, pool: Pool) -> None:
        """Give each connection that a caller holds without a lease one of this pool."""

    def held_ids(self) -> list[int]:
        """The ids of the connections that callers hold by the library's own account."""

    def aside(self, system: str) -> Callable[[], LibraryObject] | None:
        """How to open a connection to its server beside it; None where that is not known."""

    def unheld(self) -> list[Lease]:
        """Leases whose connection no code holds any more though the library keeps it alive."""

    def lost(self) -> int:
        """How many slots are lost: the library counts their connections as open, and no caller will return one."""

    def stranded(self) -> list[Stranded]:
        """Open connections that belong to threads that have finished."""

    def clears_connections(self) -> bool:
        """Whether what statements left on a connection may end with its return."""

    def foreign(self, failed: Lease | None) -> Foreign | None:
        """
        How it belongs to another process or event loop than the one that uses it, or failed to; None where that is not
        known.
        """

    def is_suspicious(self) -> bool:
        """Whether a part of it belongs elsewhere, in use or not. It may be called inside a garbage collection."""


def limit_of(sources: Iterable[PoolSource]) -> int | None:
    """
    The most connections that the library's pools behind one `Pool` may have open together, without those that are gone
    or whose place another one took; None when one of them has no limit, and when there is none.
    """
    limits = [source.limit() for source in sources if source.alive() and not source.retired]
    return None if not limits or None in limits else sum(limit for limit in limits if limit is not None)
