"""What a pool had to carry: its totals, sampled about every second over the last minute."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolscope.core.pool import Pool

#: The span that rates are taken over, in seconds, and that of "the last moment".
WINDOW: Final = 60.0
MOMENT: Final = 3.0


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
        short: Seconds of them in holds below the threshold of long holds, likewise.
        long_holds: How many of the leases that ended were long holds.
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
    short: float = 0.0
    long_holds: int = 0
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
            squares=_sum_of(pool.holds.bounds, holds.counts, 2),
            short=holds.total * _share_below(pool.long_hold, pool.holds.bounds, holds.counts),
            long_holds=holds.count - sum(_below(pool.long_hold, pool.holds.bounds, holds.counts)),
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


def _below(bound: float, bounds: Sequence[float], counts: Sequence[int]) -> list[int]:
    # The counts of a histogram's buckets that end below a bound; 0 for the others.
    return [count if end <= bound else 0 for count, end in zip(counts, (*bounds, float("inf")), strict=True)]


def _share_below(bound: float, bounds: Sequence[float], counts: Sequence[int]) -> float:
    whole = _sum_of(bounds, counts, 1)
    return _sum_of(bounds, _below(bound, bounds, counts), 1) / whole if whole else 0.0


def _sum_of(bounds: Sequence[float], counts: Sequence[int], power: int) -> float:
    # The sum of powers, where each value is taken for the middle of its bucket.
    middles = [(low + high) / 2 for low, high in zip((0.0, *bounds), (*bounds, bounds[-1]), strict=True)]
    return sum(count * middle**power for count, middle in zip(counts, middles, strict=True))
