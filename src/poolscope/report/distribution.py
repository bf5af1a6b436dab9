"""Histograms from OTLP: their sums and their quantiles."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Quantiles:
    """The median and the 95th and 99th percentiles; ``None`` where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


NO_QUANTILES = Quantiles(None, None, None)


@dataclass(frozen=True)
class Distribution:
    """
    A histogram with explicit bounds.

    Args:
        bounds: Upper bounds of all buckets but the last, ascending.
        counts: Points per bucket, one more than there are bounds.
        total: The sum of all values, in the metric's unit.
        minimum: The lowest value, where known.
        maximum: The highest value, where known.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float = 0.0
    minimum: float | None = None
    maximum: float | None = None

    @property
    def count(self) -> int:
        """The number of points."""
        return sum(self.counts)

    def __add__(self, other: Distribution) -> Distribution:
        """The sum of both, over the bounds that both have."""
        if self.bounds == other.bounds:
            bounds = self.bounds
        else:
            theirs = frozenset(other.bounds)
            bounds = tuple(bound for bound in self.bounds if bound in theirs)
        return Distribution(
            bounds,
            tuple(map(add, self._over(bounds), other._over(bounds))),
            self.total + other.total,
            min(_known(self.minimum, other.minimum), default=None),
            max(_known(self.maximum, other.maximum), default=None),
        )

    def above(self, value: float) -> int:
        """The number of points in the buckets that are completely above a value."""
        first = bisect_left(self.bounds, value) + 1
        return sum(self.counts[first:])

    def bound_from(self, value: float) -> float | None:
        """The lowest bound that is not below a value; None where there is none."""
        index = bisect_left(self.bounds, value)
        return self.bounds[index] if index < len(self.bounds) else None

    def quantile(self, q: float) -> float | None:
        """
        The value that a share of the points does not exceed.

        Linear interpolation within the bucket, as in ``histogram_quantile`` of Prometheus, but between the lowest and
        the highest value if the histogram has them.

        Args:
            q: The share, 0 to 1.

        Returns:
            The value, or ``None`` without points. Above the last bound of a histogram without a maximum it is that
            bound.
        """
        if not self.count:
            return None
        rank = q * self.count
        running = list(accumulate(self.counts))
        # As a float the rank may be above the count of all.
        index = bisect_left(running, min(rank, running[-1]))
        while not self.counts[index]:
            index += 1
        lower, upper = self._edges(index)
        share = (rank - (running[index] - self.counts[index])) / self.counts[index]
        return lower + (upper - lower) * max(0.0, min(share, 1.0))

    def quantiles(self) -> Quantiles:
        """The three that the report shows."""
        return Quantiles(self.quantile(0.50), self.quantile(0.95), self.quantile(0.99))

    def _edges(self, index: int) -> tuple[float, float]:
        lower = self.bounds[index - 1] if index else 0.0
        upper = self.bounds[index] if index < len(self.bounds) else math.inf
        if self.minimum is not None:
            lower = min(max(lower, self.minimum), upper)
        if self.maximum is not None:
            upper = max(min(upper, self.maximum), lower)
        return lower, upper if math.isfinite(upper) else lower

    def _over(self, bounds: tuple[float, ...]) -> Sequence[int]:
        if bounds == self.bounds:
            return self.counts
        counts = [0] * (len(bounds) + 1)
        for index, count in enumerate(self.counts):
            upper = self.bounds[index] if index < len(self.bounds) else math.inf
            counts[bisect_left(bounds, upper)] += count
        return counts


def from_exponential(
    scale: int,
    zero: int,
    offset: int,
    counts: Sequence[int],
    *,
    total: float,
    minimum: float | None,
    maximum: float | None,
) -> Distribution:
    """
    An exponential histogram of non-negative values, with explicit bounds.

    Bucket ``i`` of scale ``s`` ends at ``2 ** ((i + 1) / 2 ** s)`` (OpenTelemetry data model, exponential buckets).
    """
    base = 2.0 ** (2.0**-scale)
    edges = tuple(base ** (offset + index) for index in range(len(counts) + 1))
    return Distribution(edges, (zero, *counts, 0), total, minimum, maximum)


def exact_quantiles(values: Iterable[float]) -> Quantiles:
    """The quantiles of single values."""
    ordered = sorted(values)
    return Quantiles(nearest(ordered, 0.50), nearest(ordered, 0.95), nearest(ordered, 0.99))


def nearest(ordered: Sequence[float], q: float) -> float | None:
    """
    The value at the nearest rank to a share.

    Args:
        ordered: The values, ascending.
        q: The share, 0 to 1.
    """
    if not ordered:
        return None
    return ordered[max(0, min(math.ceil(q * len(ordered)), len(ordered)) - 1)]


def _known(*values: float | None) -> list[float]:
    return [value for value in values if value is not None]
