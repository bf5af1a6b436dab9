"""
The pools of one library: how they become known, and what the library reports of them.

Here and in the adapters, ``library_pool`` is the library's pool and ``pool`` is ours.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

from poolscope.adapters.adoption import adopt_again, adopt_held
from poolscope.adapters.aside import opener
from poolscope.adapters.connections import Connections
from poolscope.adapters.foreign import HOOKED, foreign, is_suspicious
from poolscope.adapters.identity import error_name, login_of, named, remember_name
from poolscope.adapters.leases import recover
from poolscope.adapters.marks import KEY, living
from poolscope.adapters.refusals import refusal_of
from poolscope.adapters.stats import StatsSource
from poolscope.core.guard import SessionEndedError, guard
from poolscope.core.lease import Outcome
from poolscope.core.making import Making

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.adapters.stats import Stats
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Foreign, Identity, PoolSource, Stranded
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.types import LibraryObject


class Pools(Connections):
    """
    The part of an adapter that is about pools.

    A library's pool becomes known when it is made, or first used. From then on the ``__dict__`` of its anchor holds
    its `Pool` under `KEY`.
    """

    #: Whether `anchor` is another object than the pool.
    has_anchors = False
    #: Whether `poolscope.pool_name` names its pools; else what the library calls them goes before that.
    nameable = True
    #: The attributes of a pool that hold what its connections are made with.
    connect_arguments: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.pool_registry: PoolRegistry | None = None
        # What has marks of ours: entered before it is marked, so that `release` misses none.
        self._anchors: weakref.WeakSet[LibraryObject] = weakref.WeakSet()
        self._marked: weakref.WeakSet[LibraryObject] = weakref.WeakSet()
        #: Exceptions that are the pool's own timeout, and those by which it turns a checkout away without a wait.
        self.timeouts: tuple[type[BaseException], ...] = ()
        self.rejections: tuple[type[BaseException], ...] = ()
        HOOKED.add(self)

    # What each adapter says of its library

    def identify(self, library_pool: LibraryObject) -> Identity:
        """What a pool is, by the arguments that it was made with. No connection of it was checked out yet."""
        raise NotImplementedError

    def stats(self, library_pool: LibraryObject) -> Stats:
        """
        The library's own account of a pool. Called at collections, from any thread: no lock of the library that a
        checkout holds while it waits, no I/O.
        """
        raise NotImplementedError

    # What it may say besides

    def held(self, library_pool: LibraryObject) -> Iterable[LibraryObject]:  # noqa: ARG002 - not every library knows
        """The connections that callers hold by the library's own account."""
        return ()

    def idle(self, library_pool: LibraryObject) -> Iterable[LibraryObject]:  # noqa: ARG002
        """The open connections that no caller holds."""
        return ()

    def is_open(self, library_pool: LibraryObject) -> bool:  # noqa: ARG002
        """Whether a pool can be used, now or once it is opened again."""
        return True

    def unheld(self, library_pool: LibraryObject) -> list[Lease]:  # noqa: ARG002
        """Leases whose connection no caller holds any more, though the library keeps it alive."""
        return []

    def stranded(self, library_pool: LibraryObject) -> list[Stranded]:  # noqa: ARG002
        """The open connections, held by no caller, that belong to threads that have finished."""
        return []

    def clears_connections(self, library_pool: LibraryObject) -> bool:  # noqa: ARG002
        """
        Whether what statements left on a connection, as a lock of PostgreSQL's `pg_advisory_lock`, may end with its
        return: the library resets the whole connection, or the application has it do so.
        """
        return False

    def open_ones(self, library_pool: LibraryObject) -> Iterable[LibraryObject]:
        """All open connections, as far as the library knows them."""
        return (*self.held(library_pool), *self.idle(library_pool))

    def users(self, library_pool: LibraryObject) -> Iterable[tuple[LibraryObject, Lease | None]]:
        """The connections that callers hold, each with its lease."""
        return [(connection, self.lost(library_pool, connection)) for connection in self.held(library_pool)]

    def is_stopped(self, library_pool: LibraryObject) -> bool:  # noqa: ARG002
        """Whether a pool is open, and the threads that make its connections do not run in this process."""
        return False

    def loop_of(self, library_pool: LibraryObject) -> LibraryObject:  # noqa: ARG002
        """The event loop that a pool was opened in, where it works in no other one."""
        return None

    def is_shared(self, library_pool: LibraryObject) -> bool:  # noqa: ARG002
        """Whether several callers may hold one of its connections at once."""
        return False

    def continues(self, library_pool: LibraryObject) -> Pool | None:  # noqa: ARG002
        """The pool whose place it takes, if it does."""
        return None

    def keeps(self, library_pool: LibraryObject) -> bool:  # noqa: ARG002
        """Whether a pool keeps connections for the next caller, as its name says."""
        return True

    def connects_with(self, library_pool: LibraryObject) -> LibraryObject:
        """What its connections are made with: mappings, sequences and texts; they may hold secrets."""
        return [getattr(library_pool, name, None) for name in self.connect_arguments]

    def opens_aside(self, library_pool: LibraryObject, system: str) -> Callable[[], LibraryObject] | None:
        """How to open a connection to its server beside it, for the server probe; None where that is not known."""
        return opener(system, self.connects_with(library_pool))

    def anchor(self, library_pool: LibraryObject) -> LibraryObject:
        """
        The object whose ``__dict__`` holds our marks of a pool; it can be held weakly and lives as long as the pool.
        None where the pool is not ready for use.
        """
        return library_pool

    def library_pool(self, anchor: LibraryObject) -> LibraryObject:
        """The pool of an anchor; None when it is no more."""
        return anchor

    def rejected(self, library_pool: LibraryObject, error: BaseException) -> bool:  # noqa: ARG002
        """Whether a checkout that raised was turned away without a wait."""
        return isinstance(error, self.rejections)

    def outcome(self, library_pool: LibraryObject, lease: Lease, error: BaseException) -> Outcome:
        """How a checkout ended that raised: a timeout of the connect is an error, not one of the pool."""
        if not lease.connect_failed:
            if self.rejected(library_pool, error):
                return Outcome.REJECTED
            if isinstance(error, self.timeouts):
                return Outcome.TIMEOUT
        return Outcome.ERROR if isinstance(error, Exception) else Outcome.CANCELLED

    # What follows from it

    def foreign(self, library_pool: LibraryObject, failed: Lease | None) -> Foreign | None:
        """How a pool belongs to another process or event loop than the one that uses it, or failed to."""
        return foreign(self, library_pool, failed)

    def is_suspicious(self, library_pool: LibraryObject) -> bool:
        """Whether a part of a pool belongs elsewhere, in use or not."""
        return is_suspicious(self, library_pool)

    @property
    def anchors(self) -> weakref.WeakSet[LibraryObject]:
        """The anchors of all pools that have marks of ours."""
        return self._anchors

    def pool_of(self, library_pool: LibraryObject) -> Pool | None:
        """Our `Pool` of a library's pool, if it is known."""
        anchor = self.anchor(library_pool) if self.pool_registry is not None and library_pool is not None else None
        return anchor.__dict__.get(KEY) if anchor is not None else None

    def made(self, library_pool: LibraryObject) -> Pool | None:
        """A pool was made. One that cannot be used yet becomes known later. Cold."""
        self.remember_name(library_pool)
        return self.know(library_pool) if self.is_open(library_pool) else None

    def note_making(self, library_pool: LibraryObject) -> None:
        """
        The application has just made a pool: the running code is the place. Cold.

        Args:
            library_pool: What was made.
        """
        pool_registry, anchor = self.pool_registry, self.anchor(library_pool)
        if pool_registry is None or pool_registry.still_dormant() or anchor is None or not self.keeps(library_pool):
            return
        what, login = self._named(anchor, self.identify(library_pool)), login_of(self.connects_with(library_pool))
        pool_registry.listener.made(Making.now(pool_registry, sys._getframe(1), what, login, self.source(anchor)))

    def remember_name(self, library_pool: LibraryObject) -> None:
        """A pool was made, which becomes known later: keep the name that the application gives it. Cold."""
        guard.run(f"{self.name}.made", lambda: remember_name(self.anchor(library_pool)), None)

    def know(self, library_pool: LibraryObject, connection: LibraryObject = None) -> Pool | None:
        """
        A pool was seen that is not known yet. Cold.

        Args:
            library_pool: The pool.
            connection: The first connection that was made for it, if that is how it was seen.
        """
        pool_registry = self.pool_registry
        if pool_registry is None or pool_registry.still_dormant():
            return None
        return guard.run(f"{self.name}.know", lambda: self.enter(library_pool, connection), None)

    def enter(self, library_pool: LibraryObject, connection: LibraryObject = None) -> Pool | None:
        """
        Enter a pool into the registry of pools, once. Cold.

        The library is asked, and its connections are adopted, while no lock of ours is held: it may log, take locks of
        its own and make garbage. If several threads enter one pool at once, one wins, and what the others have found
        out is dropped.

        Args:
            library_pool: The pool.
            connection: A connection of it: it names the server where `identify` does not find that.

        Raises:
            SessionEndedError: Poolscope was stopped meanwhile.
        """
        pool_registry, anchor = self.pool_registry, self.anchor(library_pool)
        if pool_registry is None or anchor is None:
            return None
        known: Pool | None = anchor.__dict__.get(KEY)
        if known is not None:
            return known
        self._anchors.add(anchor)  # first: whatever marks are put on it by now, `release` takes off
        try:
            pool = self._enter(pool_registry, anchor, library_pool, connection)
        except Exception as error:
            if pool_registry.ended:  # then marks are missing that it has just put on
                raise SessionEndedError from error
            raise
        finally:
            if self.pool_registry is None:  # released meanwhile
                self._take_off(anchor)
        return pool

    def _enter(
        self, pool_registry: PoolRegistry, anchor: LibraryObject, library_pool: LibraryObject, connection: LibraryObject
    ) -> Pool:
        what, source, held = self.identify(library_pool), self.source(anchor), list(self.held(library_pool))
        if what.address is None and connection is not None:
            what = self.identify_by(library_pool, connection) or what
        what = self._named(anchor, what)
        continues, shared = self.continues(library_pool), self.is_shared(library_pool)
        self.prepare(anchor)
        pool, first = pool_registry.enter(anchor.__dict__, what, source, continues=continues, shared=shared)
        if first:
            self.entered(library_pool, pool, held)
            if pool.has_foreign():
                pool.suspect()
        return pool

    def _named(self, anchor: LibraryObject, what: Identity) -> Identity:
        return named(anchor, what) if self.nameable else what

    def source(self, anchor: LibraryObject) -> PoolSource:
        """What reports of a pool at collections."""
        return StatsSource(self, anchor)

    def entered(self, library_pool: LibraryObject, pool: Pool, held: list[LibraryObject]) -> None:
        """
        A pool was entered, and other threads may use it by now: adopt what callers held before, and nothing that has a
        lease already.

        Args:
            library_pool: The library's pool.
            pool: Ours.
            held: What `held` returned before anybody could see `pool`.
        """
        for connection in list(self.idle(library_pool)):
            self.belongs(connection, pool)
        adopt_held(self, library_pool, pool, held)

    def adopt(self, library_pool: LibraryObject, pool: Pool) -> None:
        """
        Give connections that callers hold a lease, but for those that have one.

        Args:
            library_pool: The library's pool.
            pool: Ours.
        """
        adopt_again(self, library_pool, pool)

    def failed(self, library_pool: LibraryObject, lease: Lease, error: BaseException, args: tuple[Any, ...]) -> None:  # noqa: ARG002
        """
        A checkout ended in an exception. Cold.

        Args:
            library_pool: The pool.
            lease: The checkout.
            error: What it raised.
            args: What it was called with, for a timeout that the caller gives.
        """
        try:
            lease.failed(self._ending(library_pool, lease, error), error_name(error))
        except BaseException:  # noqa: BLE001 - ours
            recover(f"{self.name}.failed", lease)

    def _ending(self, library_pool: LibraryObject, lease: Lease, error: BaseException) -> Outcome:
        # What `outcome` says; of an error that is none of the pool's, what it was.
        outcome = self.outcome(library_pool, lease, error)
        if outcome is not Outcome.ERROR:
            return outcome
        known = lease.refusal is not None
        refusal = None if known else guard.run(f"{self.name}.refusal", lambda: refusal_of(error), None)
        if refusal is not None:  # a library whose connects have no hook, or another error than the connect's
            lease.pool.refused(*refusal, lease)
        if lease.refusal is not None:
            return Outcome.SERVER_REFUSED
        if lease.connect_failed:
            return Outcome.CONNECT_FAILED
        return outcome if self.is_open(library_pool) else Outcome.POOL_CLOSED

    def forget(self, anchor: LibraryObject) -> None:
        """Take every mark of ours off a pool and its connections, but for `KEY` of the anchor itself."""
        library_pool = self.library_pool(anchor)
        if library_pool is not None:
            for connection in (*self.held(library_pool), *self.idle(library_pool)):
                self.forget_connection(connection)
        self.forget_pool(anchor)

    def release(self) -> None:
        """After the patches were reverted: take every mark of ours off the library's objects."""
        self.pool_registry = None  # first: who puts on a mark from now on sees that, and takes it off
        for anchor in living(self._anchors):
            self._take_off(anchor)
        for connection in living(self._marked):
            guard.run(f"{self.name}.forget", lambda one=connection: self.forget_connection(one), None)  # type: ignore[misc]
            self._marked.discard(connection)

    def _take_off(self, anchor: LibraryObject) -> None:
        guard.run(f"{self.name}.forget", lambda: self.forget(anchor), None)
        anchor.__dict__.pop(KEY, None)
        self._anchors.discard(anchor)
