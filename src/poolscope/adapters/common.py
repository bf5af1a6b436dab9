"""
The base of the adapters that are written by hand, and the names that they import from here.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.connects import PENDING_CHECKOUT, connect_begins, connect_ends, connect_fails, limit_changed
from poolscope.adapters.existing import being_imported, existing
from poolscope.adapters.identity import (
    NAMERS,
    NAMES,
    database_file,
    error_name,
    first_of,
    identity,
    is_torn,
    learn,
    name_by_framework,
    named,
    remember_name,
    whole,
)
from poolscope.adapters.leases import LEASE_FINDERS, lease_below
from poolscope.adapters.marks import DRIVER_KEY, KEY
from poolscope.adapters.statements import begin_statement, text_of
from poolscope.adapters.stats import WeakSource
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome

if TYPE_CHECKING:
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity, PoolSource
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.types import LibraryObject


class Adapter:
    """
    The base of the adapters that mark a library's pools in their ``__dict__``.

    A library's pool becomes known when it is first asked, or earlier where an adapter sees it made. From then on
    the ``__dict__`` of its anchor holds its `Pool`.
    """

    #: The adapter's name, which its sites of guarded errors start with.
    name: str
    #: Exceptions that are the pool's own timeout, and those by which it turns an ask away without a wait.
    timeouts: tuple[type[BaseException], ...] = ()
    rejections: tuple[type[BaseException], ...] = ()
    #: Whether `poolscope.pool_name` names its pools; else what the library calls them goes before that.
    nameable = True

    def __init__(self) -> None:
        self._pool_registry: PoolRegistry | None = None
        self._pools: weakref.WeakSet[Any] = weakref.WeakSet()

    # To be said by each adapter

    def identify(self, pool: LibraryObject) -> Identity:
        """
        What a library's pool is.
        """
        raise NotImplementedError

    def source(self, pool: LibraryObject) -> PoolSource:
        """
        What tells of a library's pool at collections.
        """
        raise NotImplementedError

    def held(self, pool: LibraryObject) -> list[LibraryObject]:  # noqa: ARG002 - not every library knows
        """
        What callers hold, by the library's own account.
        """
        return []

    def entered(self, pool: LibraryObject, tracked: Pool, held: list[LibraryObject]) -> None:
        """
        A pool was entered, and other threads may use it by now: adopt what they held before, and nothing that has our
        mark already.

        Args:
            pool: The library's pool.
            tracked: Ours.
            held: What `held` returned before anybody could see `tracked`.
        """

    def forget(self, anchor: LibraryObject) -> None:
        """
        Take every mark of ours off a pool and its connections, but for ``KEY`` of the anchor itself.
        """

    def anchor(self, pool: LibraryObject) -> LibraryObject:
        """
        The object whose ``__dict__`` holds our marks of a pool; it can be held weakly and lives as long as the pool.
        """
        return pool

    # What they share

    def checkout(self, pool: LibraryObject, marks: dict[str, LibraryObject]) -> Lease | None:
        """
        Somebody asks a library's pool.

        Args:
            pool: The library's pool.
            marks: The ``__dict__`` of its anchor.

        Returns:
            The ask; None when it is not to be watched: nobody listens, or poolscope failed.
        """
        pool_registry = self._pool_registry
        if pool_registry is None or (pool_registry.dormant and pool_registry.still_dormant()):
            return None
        try:
            tracked = marks.get(KEY) or self.enter(pool)
            return tracked.checkout(None, 3) if tracked is not None else None  # past this and the hook that called
        except Exception:  # noqa: BLE001 - ours; the check-out goes on without us
            guard.caught(f"{self.name}.checkout")
            return None

    def know(self, pool: LibraryObject) -> Pool | None:
        """
        A pool was seen that nobody has asked yet. Cold.
        """
        pool_registry = self._pool_registry
        if pool_registry is None or pool_registry.still_dormant():
            return None
        return guard.run(f"{self.name}.know", lambda: self.enter(pool), None)

    def made(self, pool: LibraryObject) -> Pool | None:
        """
        A pool was made. Cold.
        """
        guard.run(f"{self.name}.made", lambda: remember_name(self.anchor(pool)), None)
        return self.know(pool)

    def enter(self, pool: LibraryObject) -> Pool | None:
        """
        Enter a pool into the ledger, once. Cold.

        The library is asked, and its connections are adopted, while no lock of ours is held: it may log, take locks of
        its own and make garbage. If several threads enter one pool at once, one wins, and what the others have found
        out is dropped.
        """
        pool_registry, anchor = self._pool_registry, self.anchor(pool)
        if pool_registry is None:
            return None
        known: Pool | None = anchor.__dict__.get(KEY)
        if known is not None:
            return known
        what, source, held = self.identify(pool), self.source(pool), self.held(pool)
        self._pools.add(anchor)
        tracked, first = pool_registry.enter(anchor.__dict__, named(anchor, what) if self.nameable else what, source)
        if first:
            self.entered(pool, tracked, held)
        return tracked

    def tracked(self, pool: LibraryObject) -> Pool | None:
        """
        Our `Pool` of a library's pool, if it is entered.
        """
        return self.anchor(pool).__dict__.get(KEY) if self._pool_registry is not None else None

    def failed(self, lease: Lease, error: BaseException) -> None:
        """
        An ask ended in an exception. Cold.
        """
        try:
            lease.failed(self.outcome(lease, error), error_name(error))
        except Exception:  # noqa: BLE001
            guard.caught(f"{self.name}.failed")

    def outcome(self, lease: Lease, error: BaseException) -> Outcome:
        """
        How an ask ended that raised: a timeout of the connect is an error, not one of the pool.
        """
        if lease.connect_failed:
            return Outcome.ERROR if isinstance(error, Exception) else Outcome.CANCELLED
        if isinstance(error, self.rejections):
            return Outcome.REJECTED
        if isinstance(error, self.timeouts):
            return Outcome.TIMEOUT
        return Outcome.ERROR if isinstance(error, Exception) else Outcome.CANCELLED

    def release(self) -> None:
        """
        See `PoolAdapter.release`.
        """
        self._pool_registry = None
        for anchor in list(self._pools):
            self.forget(anchor)
            anchor.__dict__.pop(KEY, None)
        self._pools = weakref.WeakSet()


__all__: Final = [
    "DRIVER_KEY",
    "LEASE_FINDERS",
    "NAMERS",
    "NAMES",
    "PENDING_CHECKOUT",
    "Adapter",
    "WeakSource",
    "begin_statement",
    "being_imported",
    "connect_begins",
    "connect_ends",
    "connect_fails",
    "database_file",
    "error_name",
    "existing",
    "first_of",
    "identity",
    "is_torn",
    "learn",
    "lease_below",
    "limit_changed",
    "name_by_framework",
    "named",
    "remember_name",
    "text_of",
    "whole",
]
