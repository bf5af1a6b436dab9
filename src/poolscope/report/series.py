"""Adds points up to one series per metric, process and set of attributes, with any temporality."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from poolscope.report.distribution import Distribution
from poolscope.report.otlp import Point, Source, Temporality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from poolscope.semconv import Metric

Key = tuple[str, Source, frozenset[tuple[str, object]]]
Value = TypeVar("Value", float, Distribution)


@dataclass
class Series:
    """
    One series over the time that the files cover.

    Args:
        source: The process.
        attributes: The attributes that identify it among the metric's series.
        start: The start of counting; nanoseconds since the epoch.
        time: The time of the last point.
        total: The total count (counters and histograms).
        last: The latest value (gauges and up-down counters).
        peak: The highest value of a point.
    """

    source: Source
    attributes: dict[str, object]
    start: int
    time: int
    total: float | Distribution | None = None
    last: float = 0.0
    peak: float = 0.0
    _runs: dict[int, float | Distribution] = field(default_factory=dict)

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
        if point.temporality is Temporality.DELTA:
            self.total = _plus(self.total, point.value)
            return
        before = self._runs.get(point.start)
        if before is not None and _amount(point.value) < _amount(before):
            # The counter restarted, and the start time does not show it: the old count remains.
            self._runs[-len(self._runs) - 1] = before
        self._runs[point.start] = point.value
        self.total = None
        for run in self._runs.values():
            self.total = _plus(self.total, run)


class SeriesStore:
    """All series."""

    def __init__(self) -> None:
        self._series: dict[Key, Series] = {}

    def add(self, points: Iterable[Point]) -> None:
        """Add the points of one batch."""
        for point in points:
            key = (
                point.metric,
                point.source,
                frozenset((name, str(value)) for name, value in point.attributes.items()),
            )
            series = self._series.get(key)
            if series is None:
                series = Series(point.source, dict(point.attributes), point.start or point.time, point.time)
                self._series[key] = series
            series.add(point)

    def of(self, metric: Metric) -> Iterator[Series]:
        """Every series of a metric."""
        return (series for (name, _, _), series in self._series.items() if name == metric.name)

    def where(self, metric: Metric, matches: Callable[[Series], bool]) -> list[Series]:
        """The series of a metric that match."""
        return [series for series in self.of(metric) if matches(series)]


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
