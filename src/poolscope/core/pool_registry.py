"""
The ledger: all pools of the process, by name.
"""

from __future__ import annotations

import logging
import os
import weakref
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from poolscope.core import clock
from poolscope.core.aggregate import Distribution
from poolscope.core.guard import guard
from poolscope.core.listener import NullObserver
from poolscope.core.pool import Identity, Pool
from poolscope.core.work import Units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from poolscope.core.aggregate import Trace
    from poolscope.core.listener import PoolObserver
    from poolscope.core.origin import Origins, Trail
    from poolscope.core.pool import PoolSource
    from poolscope.core.work import UnitOfWork

_logger: Final = logging.getLogger("poolscope")

#: The name of the pool that those beyond the allowed number share.
OVERFLOW: Final = "overflow"

#: The ledgers that are in use, the newest last: between one `instrument()` and its `uninstrument()`.
open_ledgers: Final[list[Ledger]] = []

_ledgers: Final[weakref.WeakSet[Ledger]] = weakref.WeakSet()


class Ledger:
    """
    Keeps the pools and gives each a name of its own.

    A name belongs to a pool while one of its sources lives. Afterwards the next pool that would have the name continues
    its series, so an engine that is made anew again and again does not make new series.

    Args:
        bounds: Upper bounds of duration histograms, in seconds.
        most_pools: How many names there may be; further pools share `OVERFLOW`.
        origins: Captures where the application asks; None to capture nothing.
        ambient: Returns the recorded span around the running code, `UNRECORDED`, `SUPPRESSED` or None.
        observer: Is told of leases that matter.
        slow_wait: The wait from which it is told, in seconds.
        count_bounds: Upper bounds of histograms of counts.
        most_units: How many names of units of work there may be.
        repetition_threshold: How often a unit of work may run one shape of statement from one line.
        now: The clock.
        long_hold: The hold from which the observer is told, in seconds.
        on_judge: Adds the ids of what is known about a unit of work to its findings.
        flush: Makes telemetry of everything known so far and sends it; for processes that end without notice.
    """

    def __init__(
        self,
        bounds: Sequence[float],
        *,
        most_pools: int = 200,
        origins: Origins | None = None,
        ambient: Callable[[], Any] | None = None,
        observer: PoolObserver | None = None,
        slow_wait: float = 0.001,
        count_bounds: Sequence[float] = (),
        most_units: int = 500,
        repetition_threshold: int = 5,
        now: clock.Clock = clock.monotonic,
        long_hold: float = float("inf"),
        on_judge: Callable[[UnitOfWork], None] | None = None,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self.pools: dict[str, Pool] = {}
        self.observer: PoolObserver = observer or NullObserver()
        #: While nothing listens to what we measure, adapters pass calls on and do nothing else.
        self.asleep = False
        #: Asked now and then while asleep: whether somebody listens by now.
        self.somebody_listens: Callable[[], bool] = lambda: False
        self.long_hold = long_hold
        self.flush = flush
        #: The kind of histogram that new pools keep.
        self.distribution: type[Distribution[Trace]] = Distribution
        self.units = Units(
            bounds,
            count_bounds,
            most_names=most_units,
            threshold=repetition_threshold,
            now=now,
            on_judge=on_judge,
        )
        self.began_at = clock.to_unix_nanoseconds(now(), now)
        self.now = now
        self._bounds = tuple(bounds)
        self._most_pools = most_pools
        self._origins = origins
        self._ambient = ambient
        self._slow_wait = slow_wait
        #: Held while pools are added; never while a library is called.
        self.changing = RLock()
        self._turned_at = now()
        self._ask_again_at = now()
        _ledgers.add(self)

    def register(self, identity: Identity, source: PoolSource, *, continues: Pool | None = None) -> Pool:
        """
        Enter a library's pool.

        Args:
            identity: What it is, with the name it should have; it gets ``#2`` and so on when a live pool has that name.
            source: The library's pool.
            continues: The pool it takes the place of, as after SQLAlchemy's ``Engine.dispose()``.

        Returns:
            The pool to ask on its behalf.
        """
        with self.changing:
            pool = continues or self._named(identity)
            for earlier in pool.sources if continues else ():
                earlier.retired = True
            pool.sources = [*pool.live_sources(), source]
            pool.refresh_limit()
            return pool

    def asked_from(self, frame: FrameType | None) -> Trail:
        """
        The application's frames from one on, for `ASKED_FROM`; empty where there are none.
        """
        return self._origins.of_application(frame) if self._origins is not None else ()

    def still_asleep(self) -> bool:
        """
        Whether nobody listens yet; asks anew at most once a second.
        """
        now = self.now()
        if self.asleep and now >= self._ask_again_at:
            self._ask_again_at = now + 1.0
            self.asleep = not guard.run("ledger.wake", self.somebody_listens, default=False)
        return self.asleep

    def ask_again(self) -> None:
        """
        Somebody may listen from now on: ask at once, and not only when a second is over.
        """
        self._ask_again_at = self.now()
        self.still_asleep()

    def turn(self) -> None:
        """
        From the background thread: once a second, let the pools put their peaks away.
        """
        now = self.now()
        if now - self._turned_at >= 1.0:
            self._turned_at = now
            for pool in tuple(self.pools.values()):
                pool.turn(now)

    def forget_leases(self) -> None:
        """
        In a child process after a fork: start anew at nothing.
        """
        self.changing = RLock()
        self.began_at = clock.to_unix_nanoseconds(self.now(), self.now)
        self._ask_again_at = self.now()
        self.units.forget()
        for pool in self.pools.values():
            pool.forget_leases()

    def _named(self, identity: Identity) -> Pool:
        name, number = identity.name, 1
        while name in self.pools and any(not source.retired for source in self.pools[name].live_sources()):
            number += 1
            name = f"{identity.name}#{number}"
        if name in self.pools:
            pool = self.pools[name]
            pool.identity = replace(identity, name=name)
            return pool
        if len(self.pools) >= self._most_pools:
            return self._overflow(identity)
        return self._add(replace(identity, name=name))

    def _overflow(self, identity: Identity) -> Pool:
        if OVERFLOW in self.pools:
            return self.pools[OVERFLOW]
        _logger.warning(
            "more than %d connection pools: further ones share the series of one named %r; see POOLSCOPE_MAX_POOLS",
            self._most_pools,
            OVERFLOW,
        )
        return self._add(Identity(OVERFLOW, identity.system))

    def _add(self, identity: Identity) -> Pool:
        pool = Pool(
            identity,
            self._bounds,
            origins=self._origins,
            ambient=self._ambient,
            slow_wait=self._slow_wait,
            now=self.now,
            distribution=self.distribution,
        )
        pool.observer = self.observer
        pool.long_hold = self.long_hold
        # A new dict, so that whoever iterates over the old one is not disturbed.
        self.pools = {**self.pools, identity.name: pool}
        self.observer.pool_added(pool)
        return pool


def _after_fork() -> None:
    guard.reset()
    for ledger in list(_ledgers):
        ledger.forget_leases()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
