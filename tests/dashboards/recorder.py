"""
Made-up series for a real Prometheus, by the names of the dictionary.

A `Recorder` takes values the way instruments do, keeps what a scrape would see at each tick, and writes it in the
OpenMetrics form that ``promtool tsdb create-blocks-from openmetrics`` reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING

from grafana import prometheus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from poolscope.semconv import Metric

Labels = tuple[tuple[str, str], ...]


class Recorder:
    """The series of a story, tick by tick."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, Labels], float] = defaultdict(float)
        self._ticks: dict[tuple[str, Labels], list[tuple[float, float]]] = defaultdict(list)

    def set(self, metric: Metric, labels: Mapping[str, str], value: float) -> None:
        """Set a gauge or an up-down counter."""
        self._values[prometheus.family(metric), _frozen(metric, labels)] = value

    def add(self, metric: Metric, labels: Mapping[str, str], amount: float = 0) -> None:
        """Add to a counter; without an amount the series is there with 0, as from a pool's first moment."""
        self._values[prometheus.family(metric), _frozen(metric, labels)] += amount

    def observe(self, metric: Metric, labels: Mapping[str, str], values: Iterable[float]) -> None:
        """Put points into a histogram."""
        frozen = _frozen(metric, labels)
        bounds = (*metric.boundaries, float("inf"))
        counts = [0] * len(bounds)
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            self._values[prometheus.total(metric), frozen] += value
        self._values[prometheus.count(metric), frozen] += sum(counts)
        self._values[prometheus.total(metric), frozen] += 0
        for place, bound in enumerate(bounds):
            le = (("le", "+Inf" if bound == float("inf") else repr(float(bound))),)
            self._values[prometheus.bucket(metric), frozen + le] += sum(counts[: place + 1])

    def plain(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Set a series that has its Prometheus name already, such as one that Prometheus makes itself."""
        self._values[name, tuple(sorted(labels.items()))] = value

    def tick(self, at: float) -> None:
        """What a scrape at this time (seconds of the epoch) would see."""
        for series, value in self._values.items():
            self._ticks[series].append((at, value))

    def openmetrics(self) -> Iterator[str]:
        """The lines of the whole story."""
        for (name, labels), points in sorted(self._ticks.items()):
            braces = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
            for at, value in points:
                yield f"{name}{{{braces}}} {value:.9g} {at:.0f}\n"
        yield "# EOF\n"


def _frozen(metric: Metric, labels: Mapping[str, str]) -> Labels:
    """The labels as they are in Prometheus: attributes of the metric, or labels that every series has."""
    known = {*map(prometheus.label, metric.attributes), "service_name", "service_instance_id", "server_address"}
    named = {prometheus.label(key): value for key, value in labels.items()}
    return tuple(sorted((key, value) for key, value in named.items() if key in known))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
