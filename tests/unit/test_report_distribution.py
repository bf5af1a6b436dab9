"""Quantiles of histograms, and histograms added up."""

from __future__ import annotations

import random

import pytest

from poolscope import semconv
from poolscope.report.distribution import Distribution, exact_quantiles, from_exponential

BOUNDS = (1.0, 2.0, 4.0)


def filled(values: list[float], bounds: tuple[float, ...]) -> Distribution:
    """A histogram of values."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(value > bound for bound in bounds)] += 1
    return Distribution(bounds, tuple(counts), sum(values), min(values), max(values))


def test_interpolates_within_the_bucket() -> None:
    """Without minimum and maximum a quantile is Prometheus's: linear within the bucket."""
    distribution = Distribution(BOUNDS, (10, 10, 0, 0), 25.0)

    assert distribution.quantile(0.25) == pytest.approx(0.5)
    assert distribution.quantile(0.5) == pytest.approx(1.0)
    assert distribution.quantile(0.75) == pytest.approx(1.5)


def test_minimum_and_maximum_narrow_the_buckets() -> None:
    """No quantile lies outside what was measured."""
    distribution = Distribution(BOUNDS, (0, 10, 0, 0), 17.0, 1.6, 1.8)

    assert distribution.quantile(0.0) == pytest.approx(1.6)
    assert distribution.quantile(1.0) == pytest.approx(1.8)


@pytest.mark.parametrize(("maximum", "expected"), [(None, 4.0), (9.0, 9.0)])
def test_the_last_bucket_ends_at_the_maximum_or_is_its_bound(maximum: float | None, expected: float) -> None:
    """Beyond the last bound only the maximum is known; without one the bound is all that can be said."""
    assert Distribution(BOUNDS, (0, 0, 0, 3), 20.0, None, maximum).quantile(1.0) == expected


def test_nothing_measured_has_no_quantile() -> None:
    """No points, no figure; never a 0 that was not measured."""
    assert Distribution(BOUNDS, (0, 0, 0, 0)).quantiles().p50 is None
    assert exact_quantiles([]).p99 is None


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_a_quantile_falls_into_the_bucket_of_the_true_one(q: float) -> None:
    """The estimate is never further off than the bucket is wide."""
    source = random.Random(4)
    values = [source.lognormvariate(-5, 2) for _ in range(5000)]
    truth = sorted(values)[int(q * len(values)) - 1]

    estimate = filled(values, semconv.DURATION_BOUNDARIES).quantile(q)

    below = max((bound for bound in semconv.DURATION_BOUNDARIES if bound < truth), default=0.0)
    above = min((bound for bound in semconv.DURATION_BOUNDARIES if bound >= truth), default=max(values))
    assert estimate is not None
    assert below <= estimate <= above


def test_an_exponential_histogram_says_the_same() -> None:
    """Base-2 buckets are spelt out: scale 0, offset 1 is (2, 4], (4, 8]."""
    distribution = from_exponential(0, 1, 1, [3, 1], total=15.0, minimum=0.0, maximum=7.0)

    assert distribution.bounds == (2.0, 4.0, 8.0)
    assert distribution.counts == (1, 3, 1, 0)
    assert distribution.quantile(1.0) == pytest.approx(7.0)


def test_histograms_with_other_bounds_meet_in_those_that_both_have() -> None:
    """Nothing is lost and no bucket claims more than was known."""
    both = Distribution((1.0, 2.0), (1, 2, 3), 10.0, 0.5, 3.0) + Distribution((0.5, 2.0), (4, 5, 6), 20.0, 0.1, 9.0)

    assert both == Distribution((2.0,), (12, 9), 30.0, 0.1, 9.0)


def test_above_counts_whole_buckets() -> None:
    """What lies in a bucket that a value cuts is not above it for certain."""
    distribution = Distribution(BOUNDS, (1, 2, 4, 8))

    assert distribution.above(1.0) == 14
    assert distribution.above(1.5) == 12
