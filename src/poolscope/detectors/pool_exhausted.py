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
from poolscope.detectors.diagnosis.describe import is_over
from poolscope.detectors.diagnosis.exhaustion_report import report
from poolscope.detectors.diagnosis.load import Record, Sample
from poolscope.detectors.diagnosis.outcomes import AT_ONCE
from poolscope.detectors.diagnosis.pace import Pace
from poolscope.detectors.diagnosis.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator

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
        picture: The last one in which each of them still held its connection.
        waiter: The checkout that was refused.
        holders: Their leases.
        until: When to decide at the latest, in seconds of the clock.
    """

    picture: Picture
    waiter: Lease
    holders: frozenset[Lease]
    until: float

    def look(self) -> None:
        """Take a later picture, while all of them still hold."""
        if self.holders and self.holders <= self.picture.pool.leases:
            self.picture = replace(_taken(self.waiter), waiting=self.picture.waiting, before=self.picture.before)

    def settled(self) -> Picture:
        """The last picture, with what its holders have done in the end, or by now."""
        held = tuple(
            replace(one, age=one.lease.held(), phases=one.lease.hold_phases()) if one.acquired else one
            for one in self.picture.held
        )
        return replace(self.picture, held=held)

    def is_clear(self, now: float) -> bool:
        """Whether all of them have returned their connections, or were watched for long enough."""
        return now >= self.until or not self.holders & self.picture.pool.leases


class PoolExhaustedDetector(Detector[Waited, "tuple[Picture, Lease] | str"]):
    """
    Observes checkouts that went without a connection, and looks for long waits. An observation is a picture of the
    pool; or only the pool's name, where one was taken within the interval.
    """

    kinds = (POOL_EXHAUSTED,)
    observes = Waited

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._now = context.now
        # The wait from which a pool is exhausted, in seconds; a setting of 0 leaves it to failed checkouts.
        self._longest_wait = context.settings.exhaustion_threshold or float("inf")
        self._interval = context.settings.finding_interval
        self._start()

    def _start(self) -> None:
        self._records: dict[str, Record] = {}
        self._pace = Pace(self._interval, self._now)
        self._unclear: list[Unclear] = []

    def observe(self, event: Waited) -> None:
        """
        The thread whose checkout went without a connection takes the picture itself: at this moment it shows the
        holders.
        """
        lease = event.lease
        if lease.silent or not _goes_without(lease):
            return
        mark(lease, POOL_EXHAUSTED)
        pool = lease.pool
        self.keep((_taken(lease, event.holders), lease) if self._pace.allows(pool) else pool.identity.name)

    def diagnose(self, seen: tuple[Picture, Lease] | str) -> Iterator[Occurrence]:
        """A checkout that went without; where it did not wait, the cause has to show first."""
        if isinstance(seen, str):
            yield Occurrence(_place_of(seen), None)
            return
        picture, waiter = seen
        if picture.waited < AT_ONCE and picture.full:
            holders = frozenset(held.lease for held in picture.held)
            self._unclear.append(Unclear(picture, waiter, holders, self._now() + _WATCHED))
        else:
            yield self._occurrence(picture, waiter)

    def again(self, last: bool) -> Iterator[Occurrence]:
        """The refusals whose cause shows by now."""
        unclear, self._unclear = self._unclear, []
        now = self._now()
        for one in unclear:
            one.look()
            if last or one.is_clear(now):
                yield self._occurrence(one.settled(), one.waiter)
            else:
                self._unclear.append(one)

    def glance(self, pools: Collection[Pool]) -> Iterator[Occurrence]:
        """Report the longest of a pool's long waits, soon after it has become one: it may end in the next moment."""
        for pool in pools:
            waiting = [
                lease
                for lease in pool.pending.copy()
                if lease.age() >= self._longest_wait and not lease.silent and not is_over(lease)
            ]
            for lease in waiting:
                mark(lease, POOL_EXHAUSTED)
            if waiting and self._pace.allows(pool):
                longest = max(waiting, key=lambda lease: lease.age())
                yield self._occurrence(Picture.take(pool, longest, longest.starved_by), longest)

    def look(self, pool: Pool) -> Iterator[Occurrence]:
        """Record what the pool carries."""
        self._record_of(pool).add(Sample.of(pool))
        return iter(())

    def forget(self) -> None:
        """
        In a child process after a fork: start anew, with a new lock: a thread of the parent may
        have held the old one.
        """
        super().forget()
        self._start()

    def _occurrence(self, picture: Picture, waiter: Lease) -> Occurrence:
        cause = _for_refused(waiter, cause_of(picture, self._record_of(picture.pool)))
        place = _place_of(picture.pool.identity.name)
        return Occurrence(place, lambda repeated: report(picture, waiter, cause, repeated), at_once=True)

    def _record_of(self, pool: Pool) -> Record:
        record = self._records.get(pool.identity.name)
        if record is None:
            record = self._records[pool.identity.name] = Record(pool)
        return record


def _goes_without(lease: Lease) -> bool:
    # Whether a checkout failed for the pool's state: in time, at once, for its connect failed, or since its caller did
    # not wait any longer. What the server refuses is a finding of its own.
    if lease.outcome in (Outcome.TIMEOUT, Outcome.REJECTED, Outcome.CONNECT_FAILED):
        return True
    if lease.outcome is not Outcome.CANCELLED or lease.error_type in _ENDS_ALL or lease.ended_at is None:
        return False
    pool = lease.pool
    is_full = lease.used_at_checkout > 0 or (pool.limit is not None and len(pool.leases) >= pool.limit)
    return is_full and lease.handed_over_at is None and lease.ended_at - lease.requested_at >= AT_ONCE


def _taken(waiter: Lease, before: Collection[Lease] = ()) -> Picture:
    picture = Picture.take(waiter.pool, waiter, before)
    if waiter.outcome is Outcome.REJECTED and not picture.full:  # one was returned meanwhile, or there is no limit
        return replace(picture, full=True)
    return picture


def _for_refused(waiter: Lease, cause: Cause) -> Cause:
    case = Outcome.REJECTED.value
    if waiter.outcome is not Outcome.REJECTED or case not in KINDS[cause.id].further_fixes:
        return cause
    return replace(cause, fix=KINDS[cause.id].fix_for(case))


def _place_of(pool: str) -> Hashable:
    return (POOL_EXHAUSTED, pool)
