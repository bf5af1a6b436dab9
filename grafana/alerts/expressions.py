"""The PromQL that several alerts share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana import prometheus
from grafana.collector import INSTANCE, SERVICE
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.alerts.model import Pace

POOL: Final = prometheus.label(semconv.POOL_NAME)
UNIT: Final = prometheus.label(semconv.UNIT_OF_WORK_NAME)
ADDRESS: Final = prometheus.label(semconv.SERVER_ADDRESS)
PORT: Final = prometheus.label(semconv.SERVER_PORT)
BY_POOL: Final = f"{SERVICE}, {POOL}"
BY_SERVER: Final = f"{ADDRESS}, {PORT}"

# The dashboards' variables, each with the label that sets it.
POOL_VARIABLES: Final = (("service", SERVICE), ("pool", POOL))
INSTANCE_VARIABLES: Final = (*POOL_VARIABLES, ("instance", INSTANCE))
SERVICE_VARIABLES: Final = (("service", SERVICE),)
SERVER_VARIABLES: Final = (("server", ADDRESS),)


def label(attribute: str) -> str:
    """The Prometheus label of an attribute."""
    return prometheus.label(attribute)


def events(series: str, by: str, window: str, pace: Pace) -> str:
    """
    The number of rare events that a counter has counted in the window, including the first event of a new series.

    ``increase`` alone is 0 for a series that appears with the value 1. So a series without a sample in the hour before
    the window counts with its whole value, and every other one with its increase, which is also right for a counter
    that restarts at 0. The hour keeps a shorter gap in the data from looking like a new series.

    Args:
        series: A counter with its matchers.
        by: The labels that remain.
        window: How far back, a Prometheus duration.
        pace: The pace of the rules.

    Returns:
        An expression; rounded, since `increase` extrapolates to the edges of the window and makes 1.07 of one event.
    """
    known = f"count_over_time({series}[{pace('1h')}] offset {pace(window)})"
    return f"round(sum by ({by}) ((increase({series}[{pace(window)}]) and {known}) or ({series} unless {known})))"


def rate(series: str, by: str, window: str, pace: Pace) -> str:
    """The summed rate of a counter per second."""
    return f"sum by ({by}) (rate({series}[{pace(window)}]))"


def too_slow(histogram: semconv.Metric, limit: float, by: str, window: str, pace: Pace) -> str:
    """
    The rate per second of values of a histogram that are above a limit, or that belong to a failed attempt.

    An attempt that its caller cancels in time is no failure. If every attempt fails, no series of good ones exists.

    Args:
        histogram: A histogram that has the limit among its boundaries, and ``error.type`` where an attempt failed.
        limit: In the histogram's unit.
        by: The labels that remain.
        window: How far back.
        pace: The pace of the rules.

    Returns:
        An expression.

    Raises:
        ValueError: The histogram has no such boundary; the expression would return nothing.
    """
    if limit not in histogram.boundaries:
        raise ValueError(f"{histogram.name} has no boundary {limit}")
    # Prometheus 3 stores a scraped whole boundary as 1.0; remote write does not change it.
    bound = f'le=~"{limit:g}([.]0)?"' if limit == int(limit) else f'le="{limit:g}"'
    well = f'{bound}, {label(semconv.ERROR_TYPE)}=~"|.*Cancel.*"'
    good = rate(f"{prometheus.bucket(histogram)}{{{well}}}", by, window, pace)
    every = rate(prometheus.count(histogram), by, window, pace)
    return f"({every} - ({good} or {every} * 0))"


def share_too_slow(histogram: semconv.Metric, limit: float, by: str, window: str, pace: Pace) -> str:
    """The share of a histogram's values that are `too_slow`, between 0 and 1."""
    every = rate(prometheus.count(histogram), by, window, pace)
    return f"{too_slow(histogram, limit, by, window, pace)} / {every}"
