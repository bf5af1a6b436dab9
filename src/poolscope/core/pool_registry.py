"""The pool registry: all pools of the process, by name."""

from __future__ import annotations

import logging
import os
import weakref
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from poolscope.core import clock
from poolscope.core.accounts import Accounts
from poolscope.core.calls import KEY
from poolscope.core.dormancy import Dormancy
from poolscope.core.finding import FindingCounts
from poolscope.core.guard import SessionEndedError, guard
from poolscope.core.histogram import Distribution
from poolscope.core.listener import NullListener
from poolscope.core.log_lines import log_lines
from poolscope.core.pool import Pool
from poolscope.core.pool_identity import Identity, limit_of
from poolscope.core.work import Units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from poolscope.core.event_loops import EventLoops
    from poolscope.core.histogram import Trace
    from poolscope.core.listener import PoolListener
    from poolscope.core.origin import Origins, PackedStack
    from poolscope.core.pool_identity import PoolSource
    from poolscope.core.work import UnitOfWork
    from poolscope.types import LibraryObject

_logger: Final = logging.getLogger("poolscope")

#: The name of the pool that those beyond the allowed number share.
OVERFLOW: Final = "overflow"

#: The registries in use, the newest last: each between one `instrument()` and its `uninstrument()`.
open_pool_registries: Final[list[PoolRegistry]] = []

_pool_registries: Final[weakref.WeakSet[PoolRegistry]] = weakref.WeakSet()


class _Entry(NamedTuple):
    """
    What a registration is to change, and what must not have changed until then.

    Args:
        pool: The pool to join: a new one, or one that is known.
        identity: What it is from then on.
        pools_before: All pools as they were.
        pools: All pools from then on.
        sources_before: The pool's sources as they were.
        sources: Its sources from then on.
        limit: The most connections that these may have open; None when there is no limit.
    """

    pool: Pool
    identity: Identity
    pools_before: dict[str, Pool]
    pools: dict[str, Pool]
    sources_before: list[PoolSource]
    sources: list[PoolSource]
    limit: int | None


class PoolRegistry(Dormancy):
    """
    Keeps the pools and gives each a name of its own.

    A name belongs to a pool while one of its sources lives. Afterwards the next pool that would have the name continues
    its series, so an engine that is made anew again and again does not make new series.

    Args:
        bounds: Upper bounds of duration histograms, in seconds.
        most_pools: How many names there may be; further pools share `OVERFLOW`.
        origins: Captures where the application checks out; None to capture nothing.
        ambient: Returns the recorded span around the running code, `UNRECORDED`, `SUPPRESSED` or None.
        listener: Receives the leases that matter.
        slow_wait: The wait from which it is reported to the listener, in seconds.
        count_bounds: Upper bounds of histograms of counts.
        most_units: How many names of units of work there may be.
        repetition_threshold: How often a unit of work may run one shape of statement from one line.
        now: The clock.
        long_hold: The hold from which it is reported to the listener, in seconds.
        on_diagnose: Adds the ids of what is known about a unit of work to its findings.
        event_loops: The event loops that pools are used in; None to know nothing of any.
        flush: Makes telemetry of everything known so far and sends it; for processes that end without notice.
    """

    def __init__(
        self,
        bounds: Sequence[float],
        *,
        most_pools: int = 200,
        origins: Origins | None = None,
        ambient: Callable[[], Any] | None = None,
        listener: PoolListener | None = None,
        slow_wait: float = 0.001,
        count_bounds: Sequence[float] = (),
        most_units: int = 500,
        repetition_threshold: int = 5,
        now: clock.Clock = clock.monotonic,
        long_hold: float = float("inf"),
        on_diagnose: Callable[[UnitOfWork], None] | None = None,
        event_loops: EventLoops | None = None,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(now)
        self.pools: dict[str, Pool] = {}
        self.listener: PoolListener = listener or NullListener()
        self.long_hold = long_hold
        #: How many findings there were in its pools.
        self.findings = FindingCounts()
        self.flush = flush
        self.event_loops = event_loops
        #: Makes telemetry of everything known so far; for processes that skip the exit handlers.
        self.last_run: Callable[[], None] = lambda: None
        #: The kind of histogram that new pools keep.
        self.distribution: type[Distribution[Trace]] = Distribution
        self.units = Units(
            bounds,
            count_bounds,
            most_names=most_units,
            threshold=repetition_threshold,
            now=now,
            on_diagnose=on_diagnose,
        )
        self.began_at = clock.to_unix_nanoseconds(now(), now)
        self._bounds = tuple(bounds)
        self._most_pools = most_pools
        self._origins = origins
        self._ambient = ambient
        self._slow_wait = slow_wait
        # Held for the stores of one registration, and never while anything is called: the garbage collector might run
        # then, and a finaliser or a logging handler wait for a thread that waits for this lock.
        self._changing = RLock()
        self._ticked_at = now()
        self._accounts = Accounts()
        _pool_registries.add(self)

    def register(self, identity: Identity, source: PoolSource, *, continues: Pool | None = None) -> Pool:
        """Enter a library's pool that no other thread can enter at the same time; `enter` is for all others."""
        return self.enter({}, identity, source, continues=continues)[0]

    def enter(
        self,
        marks: dict[str, Any],
        identity: Identity,
        source: PoolSource,
        *,
        continues: Pool | None = None,
        shared: bool = False,
    ) -> tuple[Pool, bool]:
        """
        Enter a library's pool, once, however many threads try at the same time.

        Args:
            marks: The ``__dict__`` of the library's pool: it holds our pool under `KEY` from here on.
            identity: What it is, with the name it should have; it gets ``#2`` and so on when a live pool has that name.
            source: The library's pool.
            continues: The pool it takes the place of, as after SQLAlchemy's ``Engine.dispose()``.
            shared: Whether several callers may hold one of its connections at once.

        Returns:
            Our pool for it; and whether this call entered it. If not, another thread was first: its pool
            is returned, and `source` is not part of it.

        Raises:
            SessionEndedError: The session has ended.
        """
        entry = self._entry(identity, source, continues)
        while (entered := self._change(marks, entry, shared=shared)) is None:
            if self.ended:
                raise SessionEndedError
            entry = self._entry(identity, source, continues)  # another thread added a pool meanwhile: look anew
        if not entered:
            known: Pool = marks[KEY]
            return known, False
        for earlier in entry.sources_before if continues is not None else ():
            earlier.retired = True
        entry.pool.refresh_limit()
        if OVERFLOW in entry.pools and OVERFLOW not in entry.pools_before:
            log_lines.write(
                _logger,
                logging.WARNING,
                "more than %d connection pools: further ones share the series of one named %r; see POOLSCOPE_MAX_POOLS",
                self._most_pools,
                OVERFLOW,
            )
        return entry.pool, True

    def called_from(self, frame: FrameType | None) -> PackedStack:
        """The application's frames from one on, for `CALLED_FROM`; empty where there are none."""
        return self._origins.of_application(frame) if self._origins is not None else ()

    def place_of(self, function: LibraryObject) -> PackedStack:
        """Where a function of the application begins, for `CALLED_FROM`; empty for a library's."""
        return self._origins.of_function(function) if self._origins is not None else ()

    def is_of_application(self, file: str) -> bool:
        """Whether a file is the application's, and no library's."""
        return self._origins is not None and self._origins.is_of_application(file)

    def end(self) -> None:
        """
        The session ends: hooks pass calls on from now on, no pool is entered any more, and no lease begins or ends.
        What a hook does that runs already is undone by itself, or by `release` of its adapter afterwards.
        """
        self.has_listeners = lambda: False
        with self._changing:
            self.ended = True
        self.sleep()
        for pool in tuple(self.pools.values()):
            pool.end()

    def tick(self) -> None:
        """
        From the background thread: end requests whose response is left open; once a second, have the pools store their
        peaks, and set right what an interrupt left wrong in their accounts.
        """
        if self.units.unclosed:
            self.units.end_unclosed()
        now = self.now()
        if now - self._ticked_at >= 1.0:
            self._ticked_at = now
            for pool in tuple(self.pools.values()):
                pool.tick(now)
                self._accounts.look(pool, now)

    def loop_closed(self) -> None:
        """An event loop was closed, perhaps by the garbage collector: what was opened in it is foreign from now on."""
        for pool in tuple(self.pools.values()):
            if pool.has_foreign():
                pool.suspect()

    def forget_leases(self) -> None:
        """In a child process after a fork: start anew at nothing."""
        self._changing = RLock()
        self.began_at = clock.to_unix_nanoseconds(self.now(), self.now)
        self._check_listeners_at = self.now()
        self._looking.clear()
        self.units.forget()
        if self.event_loops is not None:
            self.event_loops.forget()
        for pool in self.pools.values():
            pool.forget_leases()

    def _entry(self, identity: Identity, source: PoolSource, continues: Pool | None) -> _Entry:
        pools = self.pools
        if continues is not None:
            before = continues.sources
            sources = [*_alive(before), source]
            return _Entry(continues, continues.identity, pools, pools, before, sources, limit_of([source]))
        name, number = identity.name, 1
        while name in pools:
            known, before = pools[name], pools[name].sources
            if all(earlier.retired for earlier in _alive(before)):
                sources = [*_alive(before), source]
                return _Entry(known, replace(identity, name=name), pools, pools, before, sources, limit_of(sources))
            number += 1
            name = f"{identity.name}#{number}"
        if len(pools) < self._most_pools:
            identity = replace(identity, name=name)
        elif OVERFLOW in pools:
            known, before = pools[OVERFLOW], pools[OVERFLOW].sources
            sources = [*_alive(before), source]
            return _Entry(known, known.identity, pools, pools, before, sources, limit_of(sources))
        else:
            identity = Identity(OVERFLOW, identity.system)
        made = self._make(identity)
        # A new dict, so that whoever iterates over the old one is not disturbed.
        after = {**pools, identity.name: made}
        return _Entry(made, identity, pools, after, made.sources, [source], limit_of([source]))

    def _change(self, marks: dict[str, Any], entry: _Entry, *, shared: bool) -> bool | None:
        pool, identity, pools_before, pools, sources_before, sources, limit = entry
        entered = None
        with self._changing:
            if KEY in marks:
                entered = False
            elif not self.ended and self.pools is pools_before and pool.sources is sources_before:
                self.pools = pools
                pool.identity = identity
                pool.sources = sources
                pool.limit = limit
                pool.shared = shared
                marks[KEY] = pool
                entered = True
        return entered

    def _make(self, identity: Identity) -> Pool:
        pool = Pool(
            identity,
            self._bounds,
            origins=self._origins,
            ambient=self._ambient,
            slow_wait=self._slow_wait,
            now=self.now,
            distribution=self.distribution,
        )
        pool.listener = self.listener
        pool.event_loops = self.event_loops
        pool.long_hold = self.long_hold
        return pool


def _alive(sources: list[PoolSource]) -> list[PoolSource]:
    return [source for source in sources if source.alive()]


def _after_fork() -> None:
    guard.reset()
    for pool_registry in list(_pool_registries):
        pool_registry.forget_leases()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
