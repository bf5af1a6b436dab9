"""What a library's pool reports of itself, as the core reads it at collections."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from poolscope.core.failure import raised_by_a_signal
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Foreign, Stranded
    from poolscope.types import LibraryObject

_Said = TypeVar("_Said")


class Stats(NamedTuple):
    """
    A library's own account of a pool, in connections.

    Args:
        limit: The most that it may have open; None when there is no limit.
        idle: How many are open that no caller holds.
        in_use: How many callers hold; None when the library keeps no account of that.
        least_idle: The fewest idle ones that it keeps; None where it has no such limit.
        most_idle: The most idle ones that it keeps; None where it has no such limit.
        lost: How many it counts as open that no caller will ever return, and it never learns that; `limit` is without
            them.
    """

    limit: int | None = None
    idle: int = 0
    in_use: int | None = None
    least_idle: int | None = None
    most_idle: int | None = None
    lost: int = 0


class Reporter(Protocol):
    """The part of an adapter that reports of its library's pools."""

    @property
    def name(self) -> str:
        """The adapter's name."""

    def library_pool(self, anchor: LibraryObject) -> LibraryObject:
        """The pool of an anchor; None when it is no more."""

    def is_open(self, library_pool: LibraryObject) -> bool:
        """Whether the pool is still in use."""

    def stats(self, library_pool: LibraryObject) -> Stats:
        """The library's own account."""

    def held(self, library_pool: LibraryObject) -> Iterable[LibraryObject]:
        """The connections that callers hold by the library's own account."""

    def lost(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:
        """The lease of a connection."""

    def adopt(self, library_pool: LibraryObject, pool: Pool) -> None:
        """Adopt what callers hold without a lease."""

    def unheld(self, library_pool: LibraryObject) -> list[Lease]:
        """Leases whose connection no caller holds any more."""

    def stranded(self, library_pool: LibraryObject) -> list[Stranded]:
        """Open connections that belong to threads that have finished."""

    def opens_aside(self, library_pool: LibraryObject, system: str) -> Callable[[], LibraryObject] | None:
        """How to open a connection to its server beside the pool."""

    def clears_connections(self, library_pool: LibraryObject) -> bool:
        """Whether what statements left on a connection may end with its return."""

    def foreign(self, library_pool: LibraryObject, failed: Lease | None) -> Foreign | None:
        """How the pool belongs to another process or event loop than the one that uses it."""

    def is_suspicious(self, library_pool: LibraryObject) -> bool:
        """Whether a part of it belongs elsewhere."""


class StatsSource:
    """
    A `PoolSource` made of an adapter's `Stats`. It holds the pool weakly. An error of the adapter's is counted, and
    reads as an empty account.

    Args:
        adapter: Of the pool's library.
        anchor: The pool, or what stands for it.
    """

    def __init__(self, adapter: Reporter, anchor: LibraryObject) -> None:
        self.reference = weakref.ref(anchor)
        self.retired = False
        self._adapter = adapter

    def stats(self) -> Stats:
        """The library's own account; an empty one when the pool is no more."""
        return self._said("stats", self._adapter.stats, Stats())

    def alive(self) -> bool:
        """Whether the library's pool still exists and is in use."""
        return guard.run(f"{self._adapter.name}.is_open", self._is_open, default=True)

    def limit(self) -> int | None:
        """The most connections it may have open; None when there is no limit."""
        return self.stats().limit

    def idle_limits(self) -> tuple[int | None, int | None]:
        """The fewest and the most idle connections it keeps; None where it has no such limit."""
        stats = self.stats()
        return (stats.least_idle, stats.most_idle)

    def idle(self) -> int:
        """How many open connections it has that no caller holds."""
        return self.stats().idle

    def in_use(self) -> int | None:
        """How many connections callers hold by the library's own account; None when it keeps none."""
        return self.stats().in_use

    def held(self) -> list[Lease | None] | None:
        """
        The leases of the connections that callers hold by the library's own list; None in place of all where it keeps
        no list that agrees with its count.
        """

        def leases(library_pool: LibraryObject) -> list[Lease | None] | None:
            connections = list(self._adapter.held(library_pool))
            if len(connections) != self._adapter.stats(library_pool).in_use:
                return None
            return [self._adapter.lost(library_pool, connection) for connection in connections]

        return self._said("held", leases, None)

    def adopt(self, pool: Pool) -> None:
        """Give each connection that a caller holds without a lease one of this pool."""
        self._said("adopt", lambda library_pool: self._adapter.adopt(library_pool, pool), None)

    def held_ids(self) -> list[int]:
        """The ids of the connections that callers hold by the library's own account."""
        return self._said("held_ids", lambda library_pool: [id(one) for one in self._adapter.held(library_pool)], [])

    def lost(self) -> int:
        """How many connections the library counts as open that no caller will ever return."""
        return self.stats().lost

    def clears_connections(self) -> bool:
        """Whether what statements left on a connection may end with its return; so where that is not known."""
        return self._said("clears_connections", self._adapter.clears_connections, otherwise=True)

    def aside(self, system: str) -> Callable[[], LibraryObject] | None:
        """How to open a connection to its server beside it; None where that is not known."""
        return self._said("aside", lambda library_pool: self._adapter.opens_aside(library_pool, system), None)

    def unheld(self) -> list[Lease]:
        """The leases whose connection no caller holds, though the library keeps it alive."""
        return self._said("unheld", self._adapter.unheld, [])

    def stranded(self) -> list[Stranded]:
        """The open connections that belong to threads that have finished."""
        return self._said("stranded", self._adapter.stranded, [])

    def foreign(self, failed: Lease | None) -> Foreign | None:
        """How the library's pool belongs to another process or event loop than the one that uses it, or failed to."""
        return self._said("foreign", lambda library_pool: self._adapter.foreign(library_pool, failed), None)

    def is_suspicious(self) -> bool:
        """Whether a part of it belongs elsewhere. It may run inside a garbage collection."""
        try:
            library_pool = self._pool()
            return library_pool is not None and self._adapter.is_suspicious(library_pool)
        except Exception as error:
            if raised_by_a_signal(error):
                raise
            guard.caught_quietly(f"{self._adapter.name}.foreign")
            return False

    def _pool(self) -> LibraryObject:
        anchor = self.reference()
        return self._adapter.library_pool(anchor) if anchor is not None else None

    def _is_open(self) -> bool:
        library_pool = self._pool()
        return library_pool is not None and self._adapter.is_open(library_pool)

    def _said(self, about: str, say: Callable[[LibraryObject], _Said], otherwise: _Said) -> _Said:
        # What the adapter says; `otherwise` where it fails, or where the pool is no more.
        def said() -> _Said:
            library_pool = self._pool()
            return say(library_pool) if library_pool is not None else otherwise

        return guard.run(f"{self._adapter.name}.{about}", said, otherwise)
