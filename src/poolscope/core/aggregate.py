"""
Counters and fixed-bucket histograms that many threads write without a lock and that lose nothing.

The idea: a cell of counts belongs to whoever took it from the deque of free cells. ``deque.pop`` and ``deque.append``
are atomic, so a writer owns its cell alone for the moment of the write, and so does the reader that empties it. There
is no lock that a finaliser, run by the garbage collector inside a write, could find held. A write costs about a third
of a microsecond.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from poolscope.core.types import override

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_INFINITY: Final = float("inf")
_Trace = TypeVar("_Trace")

#: What pools record beside a value measured inside a recorded span: the span, and the moment in seconds of the clock.
#: Not the lease: an exemplar stays until another takes its place, and through the lease its unit of work would too.
Trace = tuple[Any, float]


class _Cell(Generic[_Trace]):
    __slots__ = ("counts", "exemplars", "first", "least", "most", "second", "third", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = self.first = self.second = self.third = 0.0
        self.least = _INFINITY
        self.most = -_INFINITY
        self.exemplars: dict[int, tuple[float, _Trace]] = {}


@dataclass
class Totals(Generic[_Trace]):
    """
    What a distribution holds, or held over an interval.

    Args:
        counts: How many values fell into each bucket; one more than there are bounds.
        total: The sum of the values.
        first: The sum of the first parts that values were split into, where they were.
        second: The sum of the second parts.
        third: The sum of the third parts.
        least: The smallest value; infinity when there is none.
        most: The largest value; minus infinity when there is none.
        exemplars: For each bucket the last value that came with a trace, and that trace.
    """

    counts: list[int]
    total: float = 0.0
    first: float = 0.0
    second: float = 0.0
    third: float = 0.0
    least: float = _INFINITY
    most: float = -_INFINITY
    exemplars: dict[int, tuple[float, _Trace]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """
        How many values there are.
        """
        return sum(self.counts)

    def add(self, cell: _Cell[_Trace]) -> None:
        """
        Add what a cell holds.
        """
        for index, number in enumerate(cell.counts):
            self.counts[index] += number
        self.total += cell.total
        self.first += cell.first
        self.second += cell.second
        self.third += cell.third
        self.least = min(self.least, cell.least)
        self.most = max(self.most, cell.most)
        self.exemplars.update(cell.exemplars)

    def copy(self) -> Totals[_Trace]:
        """
        The same figures, independent of this one.
        """
        return replace(self, counts=self.counts.copy(), exemplars=self.exemplars.copy())


class Tap(Generic[_Trace]):
    """
    One reader's view of a distribution.

    Args:
        totals: What was recorded before the reader came.
        delta: Whether each reading starts anew; else figures are since the start and only exemplars are renewed.
    """

    def __init__(self, totals: Totals[_Trace], *, delta: bool) -> None:
        self.totals = totals
        self._delta = delta

    def take(self) -> Totals[_Trace]:
        """
        The figures for this reading; the next one starts here.
        """
        taken = self.totals.copy()
        if self._delta:
            self.totals = Totals([0] * len(taken.counts))
        else:
            self.totals.exemplars.clear()
        return taken


class Distribution(Generic[_Trace]):
    """
    A histogram with fixed buckets; a value may be split into three parts that are summed beside it.

    Args:
        bounds: Upper bounds of the buckets, inclusive, ascending (the data model of OpenTelemetry).
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._lowest = self.bounds[0] if self.bounds else _INFINITY
        self._free: deque[_Cell[_Trace]] = deque()
        self._totals: Totals[_Trace] = self._empty()
        self._taps: weakref.WeakSet[Tap[_Trace]] = weakref.WeakSet()  # each lives as long as its reader
        self._reading = RLock()  # among readers only; no writer takes it

    def record(
        self, value: float, trace: _Trace | None = None, first: float = 0.0, second: float = 0.0, third: float = 0.0
    ) -> None:
        """
        Record one value. Safe from any thread, from finalisers, and again while it runs.

        Args:
            value: The value, in the unit of the bounds.
            trace: The trace that it was measured in, where that is recorded.
            first: The first part of the value.
            second: The second part.
            third: The third part.
        """
        free = self._free
        try:
            cell = free.pop()
        except IndexError:
            cell = _Cell(len(self.bounds) + 1)
        index = bisect_left(self.bounds, value) if value > self._lowest else 0
        cell.counts[index] += 1
        cell.total += value
        if value < cell.least:
            cell.least = value
        if value > cell.most:
            cell.most = value
        cell.first += first
        if second:
            cell.second += second
        if third:
            cell.third += third
        if trace is not None:
            cell.exemplars[index] = (value, trace)
        free.append(cell)

    def read(self) -> Totals[_Trace]:
        """
        All figures since the start.
        """
        with self._reading:
            self._drain()
            return self._totals.copy()

    def tap(self, *, delta: bool) -> Tap[_Trace]:
        """
        A view for one more reader; it begins with everything recorded so far. It is held weakly.
        """
        with self._reading:
            self._drain()
            tap = Tap(self._totals.copy(), delta=delta)
            self._taps.add(tap)
            return tap

    def take(self, tap: Tap[_Trace]) -> Totals[_Trace]:
        """
        Read through a view of `tap()`.
        """
        with self._reading:
            self._drain()
            return tap.take()

    def reset(self) -> None:
        """
        Start anew at nothing, as a child process does after a fork; no writer may be at work.
        """
        self._reading = RLock()
        self._free = deque()
        self._totals = self._empty()
        self._taps = weakref.WeakSet()

    def _empty(self) -> Totals[_Trace]:
        return Totals([0] * (len(self.bounds) + 1))

    def _drain(self) -> None:
        # Writers take from the right end and this takes from the left, so each free cell is met once. A cell that is in
        # a writer's hand right now is met at the next reading, with all of its figures together.
        free = self._free
        for _ in range(len(free)):
            try:
                cell = free.popleft()
            except IndexError:
                return
            if cell.most >= cell.least:
                self._totals.add(cell)
                for tap in self._taps:
                    tap.totals.add(cell)
                cell = _Cell(len(self.bounds) + 1)
            free.append(cell)


class Sum:
    """
    A sum that many threads add to without a lock; for rare things, its cells are few.
    """

    def __init__(self) -> None:
        self._free: deque[list[float]] = deque()
        self._total = 0.0
        self._reading = RLock()

    def add(self, amount: float) -> None:
        """
        Add an amount, 0 or more.
        """
        try:
            cell = self._free.pop()
        except IndexError:
            cell = [0.0]
        cell[0] += amount
        self._free.append(cell)

    def read(self) -> float:
        """
        The sum so far; it never falls.
        """
        with self._reading:
            free = self._free
            for _ in range(len(free)):
                try:
                    cell = free.popleft()
                except IndexError:
                    break
                self._total += cell[0]
                cell[0] = 0.0
                free.append(cell)
            return self._total

    def reset(self) -> None:
        """
        Start anew at 0.
        """
        self._reading = RLock()
        self._free = deque()
        self._total = 0.0


class Tally:
    """
    A count that many threads add one to without a lock, at a third of what `Sum.add` costs; for the hot path.
    """

    def __init__(self) -> None:
        self.reset()

    def read(self) -> int:
        """
        How many times `add` was called so far.
        """
        with self._reading:
            total: int = self.add() - self._reads  # reading the counter counts too
            self._reads += 1
            return total

    def reset(self) -> None:
        """
        Start anew at 0.
        """
        self._reading = RLock()
        self._reads = 0
        #: Add one; a single atomic operation.
        self.add: Callable[[], int] = count().__next__


class Peak:
    """
    The highest of the last numbers seen, within a window.

    Numbers go into a set, which is atomic and loses none; sets are put away by time.

    Args:
        window: How far back it looks, in seconds.
    """

    def __init__(self, window: float = 60.0) -> None:
        self.seen: set[int] = set()
        self._window = window
        self._past: deque[tuple[float, set[int]]] = deque()

    def turn(self, now: float, current: int) -> None:
        """
        Put the numbers seen so far away as those up to now. To be called about every second, by one thread.

        Args:
            now: Seconds of the clock.
            current: The number at this moment: where the next set starts.
        """
        past, self.seen = self.seen, {current}
        if past:
            self._past.append((now, past))
        while self._past and self._past[0][0] < now - self._window:
            self._past.popleft()

    def highest(self, current: int) -> int:
        """
        The highest number within the window, the current one included. Any number of readers get the same.
        """
        return max(
            current,
            max(self.seen.copy(), default=0),
            max((max(seen.copy(), default=0) for _, seen in self._past.copy()), default=0),
        )

    def reset(self) -> None:
        """
        Forget all numbers.
        """
        self.seen = set()
        self._past = deque()


class KeepingDistribution(Distribution[_Trace]):
    """
    A distribution that also keeps each value until it is taken away, for those who aggregate it once more elsewhere.

    Values that are not taken away within `MOST_KEPT` further ones are lost to them, oldest first, but not to this
    distribution.
    """

    MOST_KEPT: Final = 500_000

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__(bounds)
        self._kept: deque[tuple[float, _Trace | None]] = deque(maxlen=self.MOST_KEPT)

    @override
    def record(
        self, value: float, trace: _Trace | None = None, first: float = 0.0, second: float = 0.0, third: float = 0.0
    ) -> None:
        super().record(value, trace, first, second, third)
        self._kept.append((value, trace))

    def take_kept(self) -> list[tuple[float, _Trace | None]]:
        """
        Take the values away that came since the last time.
        """
        kept = []
        while True:
            try:
                kept.append(self._kept.popleft())
            except IndexError:
                return kept

    @override
    def reset(self) -> None:
        super().reset()
        self._kept = deque(maxlen=self.MOST_KEPT)
