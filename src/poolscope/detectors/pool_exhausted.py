"""Exhausted pools: a checkout timed out, or waits for longer than the threshold; with all holders and the cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.lease import Outcome
from poolscope.detectors.detector import Detector, Occurrence, Waited, mark
from poolscope.detectors.diagnosis.cause import cause_of
from poolscope.detectors.diagnosis.exhaustion_report import Snapshot, report
from poolscope.detectors.diagnosis.load import Record, Sample
from poolscope.detectors.diagnosis.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from poolscope.core.pool import Pool
    from poolscope.detectors.detector import Context


class PoolExhaustedDetector(Detector[Waited, "Snapshot | str"]):
    """
    Observes timeouts, and looks for long waits. An observation is a snapshot of the pool; or only the pool's name,
    where one was taken within the interval.
    """

    kinds = (POOL_EXHAUSTED,)
    observes = Waited

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._now = context.now
        # The wait from which a pool is exhausted, in seconds; a setting of 0 leaves it to timeouts.
        self._longest_wait = context.settings.exhaustion_threshold or float("inf")
        self._long_hold = context.settings.long_hold_threshold
        self._interval = context.settings.finding_interval
        self._start()

    def _start(self) -> None:
        self._records: dict[str, Record] = {}
        self._pace = Pace(self._interval, self._now)

    def observe(self, event: Waited) -> None:
        """On a timeout the thread that waited takes the snapshot itself: at this moment it shows the holders."""
        lease = event.lease
        if lease.outcome is not Outcome.TIMEOUT or lease.silent:
            return
        mark(lease, POOL_EXHAUSTED)
        self.keep(Snapshot.take(lease) if self._pace.allows(lease.pool) else lease.pool.identity.name)

    def diagnose(self, seen: Snapshot | str) -> Iterator[Occurrence]:
        """A timeout."""
        yield Occurrence(_place_of(seen), None) if isinstance(seen, str) else self._occurrence(seen)

    def look(self, pool: Pool) -> Iterator[Occurrence]:
        """Record what the pool carries, and report the longest of the long waits."""
        self._record_of(pool).add(Sample.of(pool))
        waiting = [lease for lease in pool.pending.copy() if lease.age() >= self._longest_wait and not lease.silent]
        for lease in waiting:
            mark(lease, POOL_EXHAUSTED)
        if waiting and self._pace.allows(pool):
            yield self._occurrence(Snapshot.take(max(waiting, key=lambda lease: lease.age())))

    def forget(self) -> None:
        """
        In a child process after a fork: start anew, with a new lock: a thread of the parent may
        have held the old one.
        """
        super().forget()
        self._start()

    def _occurrence(self, snapshot: Snapshot) -> Occurrence:
        cause = cause_of(snapshot.pool, self._record_of(snapshot.pool), snapshot.out, self._long_hold)
        place = _place_of(snapshot.pool.identity.name)
        return Occurrence(place, lambda repeated: report(snapshot, cause, repeated), at_once=True)

    def _record_of(self, pool: Pool) -> Record:
        record = self._records.get(pool.identity.name)
        if record is None:
            record = self._records[pool.identity.name] = Record(pool)
        return record


def _place_of(pool: str) -> Hashable:
    return (POOL_EXHAUSTED, pool)
