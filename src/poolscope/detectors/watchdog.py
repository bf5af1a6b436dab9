"""
The watchdog: passes what core observes to the detectors, and what they diagnose to the sink.

It knows no detector by name: `poolscope.detectors.registry` lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.core.finding import FindingCounts
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.core.pool import OTHER_ERROR
from poolscope.detectors.detector import Detector, Made, Nested, Released, Suspected, Waited, WorkEnded
from poolscope.detectors.diagnosis.describe import is_over
from poolscope.detectors.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from poolscope.core.clock import Clock
    from poolscope.core.finding import FindingSink
    from poolscope.core.lease import Lease
    from poolscope.core.making import Making
    from poolscope.core.pool import Pool
    from poolscope.core.work import UnitOfWork
    from poolscope.detectors.detector import Occurrence
    from poolscope.types import LibraryObject

# Seconds between two looks at every pool.
_LOOK_INTERVAL: Final = 1.0


class Watchdog:
    """
    A `PoolListener` in the application's threads, and a task of the background thread.

    Args:
        detectors: The detectors; they diagnose in this order.
        sink: Takes the findings.
        interval: Seconds in which one place is reported once (`Settings.finding_interval`).
        now: The clock.
    """

    def __init__(self, detectors: Sequence[Detector[Any, Any]], sink: FindingSink, interval: float, now: Clock) -> None:
        self.detectors = tuple(detectors)
        self._now = now
        #: How many findings there were.
        self.counts = FindingCounts()
        self._throttle = Throttle(sink, interval, now, self.counts)
        self._wait_listeners = self._listeners_of(Waited)
        self._nested_listeners = self._listeners_of(Nested)
        self._release_listeners = self._listeners_of(Released)
        self._suspicion_listeners = self._listeners_of(Suspected)
        self._making_listeners = self._listeners_of(Made)
        self._end_listeners = self._listeners_of(WorkEnded)
        self._glancing = tuple(one for one in self.detectors if type(one).glance is not Detector.glance)
        self._marking = tuple(one for one in self.detectors if type(one).mark is not Detector.mark)
        self._is_last_tick = False
        self._looked_at = now()

    def _listeners_of(self, event: type) -> tuple[Detector[Any, Any], ...]:
        return tuple(detector for detector in self.detectors if detector.observes is event)

    def forget(self) -> None:
        """In a child process after a fork: what was kept and reported is the parent's."""
        self._throttle.forget()
        self.counts.reset()
        self._looked_at = self._now()
        for detector in self.detectors:
            detector.forget()

    # In the application's threads

    def waited(self, lease: Lease, holders: Collection[Lease]) -> None:
        """Pass a slow or failed checkout to the detectors that observe it."""
        for detector in self._wait_listeners:
            detector.observe(Waited(lease, holders))

    def nested(self, lease: Lease, held: Lease) -> None:
        """Pass a nested checkout to the detectors that observe it."""
        for detector in self._nested_listeners:
            detector.observe(Nested(lease, held))

    def returned(self, lease: Lease) -> None:
        """Pass a lease that ended to the detectors that observe it."""
        for detector in self._release_listeners:
            detector.observe(Released(lease))

    def traced(self, lease: Lease) -> None:
        """Nothing: these are for the spans."""

    def suspected(self, lease: Lease) -> None:
        """Pass a suspected checkout to the detectors that observe it."""
        for detector in self._suspicion_listeners:
            detector.observe(Suspected(lease))

    def made(self, making: Making) -> None:
        """Pass a pool that was made to the detectors that observe it."""
        for detector in self._making_listeners:
            detector.observe(Made(making))

    def diagnose_unit(self, unit: UnitOfWork) -> None:
        """Have the detectors mark a unit of work that still runs, when the span around it ends."""
        for detector in self._marking:
            detector.mark(unit)

    def unit_ended(self, unit: UnitOfWork) -> None:
        """Pass a unit of work that ends to the detectors that observe it."""
        for detector in self._end_listeners:
            detector.observe(WorkEnded(unit))

    # In the background thread

    def tick(self, pools: Iterable[Pool]) -> None:
        """
        Have everything diagnosed that was observed; about once a second have every pool looked at.

        Args:
            pools: Every pool of the process.
        """
        pools = tuple(pools)
        for detector in self._glancing:
            self._take_all("watchdog.glance", detector.glance, pools)
        for detector in self.detectors:
            while detector.observations:
                self._take_all("watchdog.diagnose", detector.diagnose, detector.observations.popleft())
            self._take_all("watchdog.diagnose", detector.again, self._is_last_tick)
        if self._is_last_tick:
            self._is_last_tick = False
            guard.run("watchdog.report", lambda: self._throttle.report_due(everything=True), None)
        now = self._now()
        if now - self._looked_at < _LOOK_INTERVAL:
            return
        self._looked_at = now
        for pool in pools:
            guard.run("watchdog.look", lambda: self._look(pool), None)  # noqa: B023 - run at once
        guard.run("watchdog.report", self._throttle.report_due, None)

    def end(self) -> None:
        """Poolscope or the process ends: the next run reports everything that it has held back."""
        self._is_last_tick = True

    def _look(self, pool: Pool) -> None:
        for checkout in pool.pending.copy():
            if is_over(checkout):
                checkout.failed(Outcome.CANCELLED, OTHER_ERROR)
        for detector in self.detectors:
            self._take_all("watchdog.look", detector.look, pool)

    def _take_all(
        self, component: str, find: Callable[[LibraryObject], Iterable[Occurrence]], subject: LibraryObject
    ) -> None:
        # One that cannot be found, described or reported does not stop the others.
        nothing: list[Occurrence] = []
        for occurrence in guard.run(component, lambda: list(find(subject)), nothing):
            guard.run("watchdog.report", lambda: self._take(occurrence), None)  # noqa: B023 - run at once

    def _take(self, occurrence: Occurrence) -> None:
        if occurrence.describe is None:
            self._throttle.count(occurrence.place)
        elif occurrence.place is None:
            self._throttle.report_apart(occurrence.describe(0))
        elif occurrence.at_once:
            self._throttle.report_now(occurrence.place, occurrence.describe)
        else:
            self._throttle.report(occurrence.place, occurrence.describe, critical=occurrence.critical)
