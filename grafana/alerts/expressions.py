"""
The PromQL that several alerts share.
"""

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

# The dashboards' variables, by the labels that fill them.
POOL_VARIABLES: Final = (("service", SERVICE), ("pool", POOL))
INSTANCE_VARIABLES: Final = (*POOL_VARIABLES, ("instance", INSTANCE))
SERVICE_VARIABLES: Final = (("service", SERVICE),)
SERVER_VARIABLES: Final = (("server", ADDRESS),)


def label(attribute: str) -> str:
    """
    The label of an attribute of the dictionary.
    """
    return prometheus.label(attribute)


def events(series: str, by: str, window: str, pace: Pace) -> str:
    """
    How many rare events a counter saw in the window, the first event of a new series included.

    ``increase`` alone is 0 for a series that appears with the value 1. So a series of which nothing was seen in the
    hour before the window counts with its whole value; every other one with its increase, which also survives a counter
    that starts again at 0. An hour, for a gap in the data shorter than that is not taken for a new series.

    Args:
        series: A counter with its matchers.
        by: The labels that remain.
        window: How far back, a Prometheus duration.
        pace: The pace of the rules.

    Returns:
        An expression; whole numbers, for `increase` reckons to the edges of the window and makes 1.07 of one event.
    """
    known = f"count_over_time({series}[{pace('1h')}] offset {pace(window)})"
    return f"round(sum by ({by}) ((increase({series}[{pace(window)}]) and {known}) or ({series} unless {known})))"


def rate(series: str, by: str, window: str, pace: Pace) -> str:
    """
    The summed rate of a counter per second.
    """
    return f"sum by ({by}) (rate({series}[{pace(window)}]))"


def too_slow(histogram: semconv.Metric, limit: float, by: str, window: str, pace: Pace) -> str:
    """
    How many points of a histogram per second lie above a limit, or are of an attempt that failed.

    One that its caller cancelled in time is no failure. Where every attempt fails, there is no series of good ones.

    Args:
        histogram: A histogram that has the limit among its boundaries, and ``error.type`` where an attempt failed.
        limit: In the histogram's unit.
        by: The labels that remain.
        window: How far back.
        pace: The pace of the rules.

    Returns:
        An expression.

    Raises:
        ValueError: The histogram has no such boundary, so that the expression would return nothing.
    """
    if limit not in histogram.boundaries:
        raise ValueError(f"{histogram.name} has no boundary {limit}")
    # Prometheus 3 writes scraped whole boundaries as 1.0; remote write leaves them as they come.
    bound = f'le=~"{limit:g}([.]0)?"' if limit == int(limit) else f'le="{limit:g}"'
    well = f'{bound}, {label(semconv.ERROR_TYPE)}=~"|.*Cancel.*"'
    good = rate(f"{prometheus.bucket(histogram)}{{{well}}}", by, window, pace)
    every = rate(prometheus.count(histogram), by, window, pace)
    return f"({every} - ({good} or {every} * 0))"


def share_too_slow(histogram: semconv.Metric, limit: float, by: str, window: str, pace: Pace) -> str:
    """
    The share of a histogram's points that are `too_slow`, between 0 and 1.
    """
    every = rate(prometheus.count(histogram), by, window, pace)
    return f"{too_slow(histogram, limit, by, window, pace)} / {every}"
