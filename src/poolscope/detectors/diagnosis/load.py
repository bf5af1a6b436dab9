"""
What a pool had to carry: its totals, sampled about every second over the last minute, and what is checked out at
one moment.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolscope.core.execution import ThreadsNow
from poolscope.detectors.diagnosis.describe import is_left
from poolscope.detectors.leak import ABANDONED, OVERDUE, OWNER_FINISHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolscope.core.execution import Frames
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool

#: The span that rates are taken over, in seconds, and that of "the last moment".
WINDOW: Final = 60.0
MOMENT: Final = 3.0
# A lease that no code is left to return, and that has not been used for so long, is lost, known or not.
_UNUSED: Final = 5.0


@dataclass(frozen=True)
class Sample:
    """
    A pool's totals at one moment.

    Args:
        moment: Seconds of the clock.
        checkouts: Checkouts so far, also those that wait or failed.
        used: Connections in use.
        holds: Leases that ended so far.
        held: Seconds they were held.
        squares: The sum of the squares of these seconds, as far as a histogram knows it.
        querying: Seconds of these in which a query ran.
        in_transaction: Seconds of these that were idle in a transaction.
        saturated: Seconds in which every allowed connection was in use.
    """

    moment: float
    checkouts: int = 0
    used: int = 0
    holds: int = 0
    held: float = 0.0
    squares: float = 0.0
    querying: float = 0.0
    in_transaction: float = 0.0
    saturated: float = 0.0

    @classmethod
    def of(cls, pool: Pool) -> Sample:
        """Read them off a pool now."""
        holds, waits = pool.holds.read(), pool.waits.read()
        failed = sum(distribution.read().count for distribution in pool.failed_waits.copy().values())
        return cls(
            pool.now(),
            checkouts=waits.count + failed + len(pool.pending),
            used=len(pool.leases),
            holds=holds.count,
            held=holds.total,
            squares=_squares(pool.holds.bounds, holds.counts),
            querying=holds.phases["query"],
            in_transaction=holds.phases["idle_in_transaction"],
            saturated=pool.saturation_time(),
        )


class Record:
    """
    The last minute of a pool.

    Args:
        pool: The pool; what came before its record is not known, unless it is as young.
    """

    def __init__(self, pool: Pool) -> None:
        self._samples: deque[Sample] = deque()
        if pool.now() - pool.began_at < WINDOW:
            self._samples.append(Sample(pool.began_at))

    def add(self, sample: Sample) -> None:
        """Add the next sample."""
        self._samples.append(sample)
        while self._samples[0].moment < sample.moment - WINDOW:
            self._samples.popleft()

    def span(self, now: Sample) -> tuple[Sample, Sample]:
        """
        The first sample of the last minute, and the last one that is `MOMENT` old or older; either is `now` when there
        is no other.
        """
        first = self._samples[0] if self._samples else now
        recent = next((one for one in reversed(self._samples) if one.moment <= now.moment - MOMENT), first)
        return first, recent


@dataclass(frozen=True)
class CheckedOut:
    """
    What is checked out of a pool at one moment. Sums are over the leases that will be returned.

    Args:
        leaked: Leases that will not be returned: known leaks, and such as look like one.
        deadlocked: Leases of units of work that wait for another connection of the pool.
        holds: The others' number.
        held: Seconds they have been held.
        squares: The sum of the squares of these.
        querying: Seconds of these in which a query ran.
        in_transaction: Seconds of these that were idle in a transaction.
        full: Whether the waiter waits for the pool: every allowed connection is checked out, or was when the wait
            began, or one was returned and other waiters are first. Else it waits for a connection to be made or
            validated.
    """

    leaked: int = 0
    deadlocked: int = 0
    holds: int = 0
    held: float = 0.0
    squares: float = 0.0
    querying: float = 0.0
    in_transaction: float = 0.0
    full: bool = True

    @classmethod
    def of(cls, pool: Pool, waiter: Lease | None = None) -> CheckedOut:
        """
        Look at a pool now.

        Args:
            pool: The pool.
            waiter: The checkout that waits, or waited until now.
        """
        pending = {one.unit for one in (*pool.pending.copy(), *((waiter,) if waiter is not None else ()))} - {None}
        out = [lease for lease in pool.leases.copy() if lease.acquired_at is not None]
        with ThreadsNow() as frames:
            lost = {lease for lease in out if is_lost(lease, frames)}
        kept = [lease for lease in out if lease not in lost and not lease.adopted]
        phases = [lease.hold_phases() for lease in kept]
        return cls(
            leaked=len(lost),
            deadlocked=sum(lease.unit in pending for lease in out),
            holds=len(kept),
            held=sum(lease.held() for lease in kept),
            squares=sum(lease.held() ** 2 for lease in kept),
            querying=sum(each["query"] for each in phases),
            in_transaction=sum(each["idle_in_transaction"] for each in phases),
            full=_waits_for_pool(pool, waiter),
        )


def _waits_for_pool(pool: Pool, waiter: Lease | None) -> bool:
    if pool.limit is None:
        return False
    if len(pool.leases) >= pool.limit:
        return True
    if waiter is None:
        return False
    if waiter.used_at_checkout > 0:
        return True
    # A checkout that opens or validates a connection has no use for another one that was returned meanwhile.
    opens = waiter.connecting or waiter.connect_time > 0 or waiter.handed_over_at is not None
    return not opens and pool.idle() > 0


def is_lost(lease: Lease, frames: Frames | None = None) -> bool:
    """
    Whether a lease will not be returned: a known leak that no query runs on, or one that has long not been used and
    that no code is left to return.

    Args:
        lease: A lease that is still held.
        frames: The current frame of each thread; looked up when not given.
    """
    if lease.leak in (ABANDONED, OWNER_FINISHED):
        return True
    if lease.running or lease.adopted:
        return False
    unused = lease.pool.now() - lease.last_used >= _UNUSED
    return unused and (lease.leak == OVERDUE or lease.excuse is None) and is_left(lease, frames)


def _squares(bounds: Sequence[float], counts: Sequence[int]) -> float:
    middles = [(low + high) / 2 for low, high in zip((0.0, *bounds), (*bounds, bounds[-1]), strict=True)]
    return sum(count * middle**2 for count, middle in zip(counts, middles, strict=True))
