"""
Exhausted pools: a checkout went without a connection, or waits for longer than the threshold; with all holders and the
cause.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.lease import Outcome
from poolscope.core.pool import OTHER_ERROR
from poolscope.detectors.detector import Detector, Occurrence, Waited, mark
from poolscope.detectors.diagnosis.cause import cause_of
from poolscope.detectors.diagnosis.exhaustion_report import Snapshot, report
from poolscope.detectors.diagnosis.load import Record, Sample
from poolscope.detectors.diagnosis.outcomes import AT_ONCE
from poolscope.detectors.diagnosis.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.detectors.detector import Context
    from poolscope.detectors.diagnosis.cause import Cause

# How long the holders are watched whom a checkout met that did not wait, in seconds.
_WATCHED: Final = 1.0
# What ends a whole process, thread or generator, and no wait in particular; also an end that no hook saw.
_ENDS_ALL: Final = frozenset(("KeyboardInterrupt", "SystemExit", "GeneratorExit", OTHER_ERROR))


@dataclass
class Unclear:
    """
    A refusal whose cause does not show yet: the holders whom it met may have begun just then.

    Args:
        snapshot: The last one in which each of them still held its connection.
        holders: Their leases.
        until: When to decide at the latest, in seconds of the clock.
    """

    snapshot: Snapshot
    holders: frozenset[Lease]
    until: float

    def look(self) -> None:
        """Take a later snapshot, while all of them still hold."""
        if self.holders and self.holders <= self.snapshot.pool.leases:
            later = _taken(self.snapshot.waiter)
            self.snapshot = replace(later, pending=self.snapshot.pending, used=self.snapshot.used)

    def is_clear(self, now: float) -> bool:
        """Whether all of them have returned their connections, or were watched for long enough."""
        return now >= self.until or not self.holders & self.snapshot.pool.leases


class PoolExhaustedDetector(Detector[Waited, "Snapshot | str"]):
    """
    Observes checkouts that went without a connection, and looks for long waits. An observation is a snapshot of the
    pool; or only the pool's name, where one was taken within the interval.
    """

    kinds = (POOL_EXHAUSTED,)
    observes = Waited

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._now = context.now
        # The wait from which a pool is exhausted, in seconds; a setting of 0 leaves it to failed checkouts.
        self._longest_wait = context.settings.exhaustion_threshold or float("inf")
        self._long_hold = context.settings.long_hold_threshold
        self._interval = context.settings.finding_interval
        self._start()

    def _start(self) -> None:
        self._records: dict[str, Record] = {}
        self._pace = Pace(self._interval, self._now)
        self._unclear: list[Unclear] = []

    def observe(self, event: Waited) -> None:
        """
        The thread whose checkout went without a connection takes the snapshot itself: at this moment it shows the
        holders.
        """
        lease = event.lease
        if lease.silent or not _goes_without(lease):
            return
        mark(lease, POOL_EXHAUSTED)
        self.keep(_taken(lease) if self._pace.allows(lease.pool) else lease.pool.identity.name)

    def diagnose(self, seen: Snapshot | str) -> Iterator[Occurrence]:
        """A checkout that went without; where it did not wait, the cause has to show first."""
        if isinstance(seen, str):
            yield Occurrence(_place_of(seen), None)
        elif seen.waited < AT_ONCE and seen.out.full:
            holders = frozenset(holder.lease for holder in seen.holders)
            self._unclear.append(Unclear(seen, holders, self._now() + _WATCHED))
        else:
            yield self._occurrence(seen)

    def again(self, last: bool) -> Iterator[Occurrence]:
        """The refusals whose cause shows by now."""
        unclear, self._unclear = self._unclear, []
        now = self._now()
        for one in unclear:
            one.look()
            if last or one.is_clear(now):
                yield self._occurrence(one.snapshot)
            else:
                self._unclear.append(one)

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
        cause = _for_refused(
            snapshot, cause_of(snapshot.pool, self._record_of(snapshot.pool), snapshot.out, self._long_hold)
        )
        place = _place_of(snapshot.pool.identity.name)
        return Occurrence(place, lambda repeated: report(snapshot, cause, repeated), at_once=True)

    def _record_of(self, pool: Pool) -> Record:
        record = self._records.get(pool.identity.name)
        if record is None:
            record = self._records[pool.identity.name] = Record(pool)
        return record


def _goes_without(lease: Lease) -> bool:
    # Whether a checkout failed for the pool's state: in time, at once, or since its caller did not wait any longer.
    if lease.outcome in (Outcome.TIMEOUT, Outcome.REJECTED):
        return True
    if lease.outcome is not Outcome.CANCELLED or lease.error_type in _ENDS_ALL or lease.ended_at is None:
        return False
    pool = lease.pool
    is_full = lease.used_at_checkout > 0 or (pool.limit is not None and len(pool.leases) >= pool.limit)
    return is_full and lease.handed_over_at is None and lease.ended_at - lease.requested_at >= AT_ONCE


def _taken(waiter: Lease) -> Snapshot:
    snapshot = Snapshot.take(waiter)
    if waiter.outcome is Outcome.REJECTED and not snapshot.out.full:  # one was returned meanwhile, or there is no limit
        return replace(snapshot, out=replace(snapshot.out, full=True))
    return snapshot


def _for_refused(snapshot: Snapshot, cause: Cause) -> Cause:
    case = Outcome.REJECTED.value
    if snapshot.waiter.outcome is not Outcome.REJECTED or case not in KINDS[cause.id].further_fixes:
        return cause
    return replace(cause, fix=KINDS[cause.id].fix_for(case))


def _place_of(pool: str) -> Hashable:
    return (POOL_EXHAUSTED, pool)
