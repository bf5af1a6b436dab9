"""Adds points up to one series per metric, process and set of attributes, with any temporality."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from poolscope import semconv
from poolscope.report.distribution import Distribution
from poolscope.report.otlp import Point, Source, Temporality

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from poolscope.semconv import Metric

Key = tuple[str, Source, frozenset[tuple[str, object]]]
# How many starts of counting one series may have at a time: processes behind one identity, or restarts.
_MOST_RUNS: Final = 1000


@dataclass
class Series:
    """
    One series over the time that the files cover.

    Args:
        source: The process.
        attributes: The attributes that identify it among the metric's series.
        start: The start of counting; nanoseconds since the epoch.
        time: The time of the last point.
        last: The latest value (gauges and up-down counters).
        peak: The highest value of a point.
    """

    source: Source
    attributes: dict[str, object]
    start: int
    time: int
    last: float = 0.0
    peak: float = 0.0
    _ended: float | Distribution | None = None
    _runs: dict[int, float | Distribution] = field(default_factory=dict)
    _total: float | Distribution | None = None

    @property
    def total(self) -> float | Distribution | None:
        """The total count (counters and histograms)."""
        if self._total is None:
            self._total = self._ended
            for run in self._runs.values():
                self._total = _plus(self._total, run)
        return self._total

    def add(self, point: Point) -> None:
        """Add the next point; the points of one series are in order of time."""
        self.start = min(self.start, point.start or point.time)
        self.time = max(self.time, point.time)
        if point.monotonic:
            self._count(point)
            return
        value = point.value if isinstance(point.value, float) else 0.0
        self.last = self.last + value if point.temporality is Temporality.DELTA else value
        self.peak = max(self.peak, self.last)

    def _count(self, point: Point) -> None:
        self._total = None
        if point.temporality is Temporality.DELTA:
            self._ended = _plus(self._ended, point.value)
            return
        before = self._runs.pop(point.start, None)
        if before is not None and _amount(point.value) < _amount(before):
            # The counter restarted, and the start time does not show it: the old count remains.
            self._ended = _plus(self._ended, before)
        self._runs[point.start] = point.value
        if len(self._runs) > _MOST_RUNS:
            # The one that has not counted for the longest time counts no more.
            self._ended = _plus(self._ended, self._runs.pop(next(iter(self._runs))))


class SeriesStore:
    """
    All series.

    Args:
        most: How many to keep; the points of further ones are counted only.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._series: dict[Key, Series] = {}
        self._by_pool: defaultdict[tuple[str, Source, str], list[Series]] = defaultdict(list)
        #: The points of series beyond the most that are kept.
        self.beyond = 0

    def add(self, points: Iterable[Point]) -> None:
        """Add the points of one batch."""
        attributes: Mapping[str, object] | None = None
        identity: frozenset[tuple[str, object]] = frozenset()
        for point in points:
            if point.attributes is not attributes:
                attributes = point.attributes
                identity = frozenset([(name, str(value)) for name, value in attributes.items()])
            key = (point.metric, point.source, identity)
            series = self._series.get(key)
            if series is None:
                if len(self._series) >= self._most:
                    self.beyond += 1
                    continue
                series = Series(point.source, dict(point.attributes), point.start or point.time, point.time)
                self._series[key] = series
                self._by_pool[point.metric, point.source, pool_of(point.attributes)].append(series)
            series.add(point)

    def pools(self, metrics: Collection[Metric]) -> Iterator[tuple[Source, str]]:
        """Each pool that one of the metrics is about, by the process and its name, in the order of the metrics."""
        found = {metric.name: dict[tuple[Source, str], None]() for metric in metrics}
        for name, source, pool in self._by_pool:
            if name in found:
                found[name][source, pool] = None
        return iter(dict.fromkeys(pool for pools in found.values() for pool in pools))

    def of_pool(self, metric: Metric, source: Source, pool: str) -> list[Series]:
        """The series of a metric about one pool."""
        return self._by_pool.get((metric.name, source, pool), [])


def pool_of(attributes: Mapping[str, object]) -> str:
    """The name of the pool that a point or a span is about."""
    return str(attributes.get(semconv.POOL_NAME, ""))


def counted(series: Iterable[Series]) -> float:
    """The sum of counters."""
    return sum(one.total for one in series if isinstance(one.total, float))


def distributed(series: Iterable[Series]) -> Distribution | None:
    """The sum of histograms; ``None`` where there is none."""
    result: Distribution | None = None
    for one in series:
        if isinstance(one.total, Distribution):
            result = one.total if result is None else result + one.total
    return result


def _plus(one: float | Distribution | None, other: float | Distribution) -> float | Distribution:
    if one is None:
        return other
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        return one + other
    if isinstance(one, float) and isinstance(other, float):
        return one + other
    return other


def _amount(value: float | Distribution) -> float:
    return value.count if isinstance(value, Distribution) else value
