"""
Fixed-bucket histograms that many threads write without a lock and that lose nothing.

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
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Sequence

_INFINITY: Final = float("inf")
_MOST_PHASES: Final = 3
_Trace = TypeVar("_Trace")

#: What pools record beside a value measured inside a recorded span: the span, and the moment in seconds of the clock.
#: Not the lease: an exemplar stays until another takes its place, and through the lease its unit of work would too.
Trace = tuple[Any, float]


class _Cell(Generic[_Trace]):
    __slots__ = ("counts", "exemplars", "first", "least", "most", "second", "third", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.first = self.second = self.third = 0.0
        self.total = 0.0
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
        phases: The sum of each phase that values are split into, by its name.
        least: The smallest value; infinity when there is none.
        most: The largest value; minus infinity when there is none.
        exemplars: For each bucket the last value that came with a trace, and that trace.
    """

    counts: list[int]
    total: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    least: float = _INFINITY
    most: float = -_INFINITY
    exemplars: dict[int, tuple[float, _Trace]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def add(self, cell: _Cell[_Trace]) -> None:
        """Add what a cell holds."""
        for index, number in enumerate(cell.counts):
            self.counts[index] += number
        self.total += cell.total
        for name, part in zip(self.phases, (cell.first, cell.second, cell.third), strict=False):
            self.phases[name] += part
        self.least = min(self.least, cell.least)
        self.most = max(self.most, cell.most)
        self.exemplars.update(cell.exemplars)

    def copy(self) -> Totals[_Trace]:
        """The same figures, independent of this one."""
        return replace(self, counts=self.counts.copy(), phases=self.phases.copy(), exemplars=self.exemplars.copy())


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
        """The figures for this reading; the next one starts here."""
        taken = self.totals.copy()
        if self._delta:
            self.totals = Totals([0] * len(taken.counts), phases=dict.fromkeys(taken.phases, 0.0))
        else:
            self.totals.exemplars.clear()
        return taken


class Distribution(Generic[_Trace]):
    """
    A histogram with fixed buckets; a value may be split into phases that are summed beside it.

    Args:
        bounds: Upper bounds of the buckets, inclusive, ascending (the data model of OpenTelemetry).
        phases: The names of the phases that values are split into; three at the most, for a list of them costs each
            write more than all else.

    Raises:
        ValueError: There are more phases.
    """

    def __init__(self, bounds: Sequence[float], phases: Sequence[str] = ()) -> None:
        if len(phases) > _MOST_PHASES:
            raise ValueError(f"a value has {_MOST_PHASES} phases at the most, not {len(phases)}: {', '.join(phases)}")
        self.bounds = tuple(bounds)
        self.phases = tuple(phases)
        self._lowest = self.bounds[0] if self.bounds else _INFINITY
        self._free: deque[_Cell[_Trace]] = deque()
        self._totals: Totals[_Trace] = self._empty()
        self._taps: weakref.WeakSet[Tap[_Trace]] = weakref.WeakSet()  # each lives as long as its reader
        self._readers = RLock()  # among readers only; no writer takes it

    def record(
        self, value: float, trace: _Trace | None = None, first: float = 0.0, second: float = 0.0, third: float = 0.0
    ) -> None:
        """
        Record one value. Safe from any thread, from finalisers, and again while it runs.

        Args:
            value: The value, in the unit of the bounds.
            trace: The trace that it was measured in, where that is recorded.
            first: How much of the value belongs to the first phase.
            second: How much to the second.
            third: How much to the third.
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
        if first:
            cell.first += first
        if second:
            cell.second += second
        if third:
            cell.third += third
        if trace is not None:
            cell.exemplars[index] = (value, trace)
        free.append(cell)

    def read(self) -> Totals[_Trace]:
        """All figures since the start."""
        with self._readers:
            self._drain()
            return self._totals.copy()

    def tap(self, *, delta: bool) -> Tap[_Trace]:
        """A view for one more reader; it begins with everything recorded so far. It is held weakly."""
        with self._readers:
            self._drain()
            tap = Tap(self._totals.copy(), delta=delta)
            self._taps.add(tap)
            return tap

    def take(self, tap: Tap[_Trace]) -> Totals[_Trace]:
        """Read through a view of `tap()`."""
        with self._readers:
            self._drain()
            return tap.take()

    def reset(self) -> None:
        """Start anew at nothing, as a child process does after a fork; no writer may be at work."""
        self._readers = RLock()
        self._free = deque()
        self._totals = self._empty()
        self._taps = weakref.WeakSet()

    def _empty(self) -> Totals[_Trace]:
        return Totals([0] * (len(self.bounds) + 1), phases=dict.fromkeys(self.phases, 0.0))

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


class KeepingDistribution(Distribution[_Trace]):
    """
    A distribution that also keeps each value until it is taken away, for those who aggregate it once more elsewhere.

    Values that are not taken away within `MOST_KEPT` further ones are lost to them, oldest first, but not to this
    distribution.
    """

    MOST_KEPT: Final = 500_000

    def __init__(self, bounds: Sequence[float], phases: Sequence[str] = ()) -> None:
        super().__init__(bounds, phases)
        self._kept: deque[tuple[float, _Trace | None]] = deque(maxlen=self.MOST_KEPT)

    @override
    def record(
        self, value: float, trace: _Trace | None = None, first: float = 0.0, second: float = 0.0, third: float = 0.0
    ) -> None:
        super().record(value, trace, first, second, third)
        self._kept.append((value, trace))

    def take_kept(self) -> list[tuple[float, _Trace | None]]:
        """Take the values away that came since the last time."""
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
