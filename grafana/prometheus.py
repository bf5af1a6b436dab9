"""
The names that an OpenTelemetry metric has in Prometheus.

The Collector's prometheus exporter, OTLP ingestion of Prometheus 3 and remote write agree on them: dots become
underscores, the unit is spelled out and appended, monotonic counters end in ``_total``, a histogram becomes three
series, and a unit in braces (a UCUM annotation) is left out. Source: "Prometheus and OpenMetrics Compatibility",
section "OTLP Metric points to Prometheus", of the OpenTelemetry specification; checked against a running Collector
0.152.
"""

from __future__ import annotations

import re
from typing import Final

from poolscope.semconv import Kind, Metric

# The units of our metrics and of the other sources that the dashboards read.
_UNITS: Final = {"s": "seconds", "ms": "milliseconds", "By": "bytes"}
_NOT_IN_A_NAME: Final = re.compile(r"[^a-zA-Z0-9]+")
_HISTOGRAM_SUFFIXES: Final = ("_bucket", "_sum", "_count")


def family(metric: Metric) -> str:
    """
    The name of the metric's family; of a counter or a gauge it is the name of its series.

    Args:
        metric: A metric.

    Returns:
        For example ``poolscope_pool_saturation_time_seconds_total``.

    Raises:
        ValueError: The spelling of the metric's unit is not known here.
    """
    words = [word for word in _NOT_IN_A_NAME.split(metric.name) if word]
    unit = _spelled(metric)
    if unit and unit not in words:
        words.append(unit)
    if metric.kind is Kind.COUNTER:
        words = [word for word in words if word != "total"] + ["total"]
    return "_".join(words)


def series(metric: Metric) -> tuple[str, ...]:
    """Every series name of the metric in Prometheus: three for a histogram, else one."""
    name = family(metric)
    if metric.kind is Kind.HISTOGRAM:
        return tuple(name + suffix for suffix in _HISTOGRAM_SUFFIXES)
    return (name,)


def bucket(histogram: Metric) -> str:
    """The series of the histogram's cumulative buckets, by the label ``le``."""
    return _part(histogram, "_bucket")


def total(histogram: Metric) -> str:
    """The series of the sum of all values of the histogram, in its unit."""
    return _part(histogram, "_sum")


def count(histogram: Metric) -> str:
    """The series of the number of values of the histogram."""
    return _part(histogram, "_count")


def label(attribute: str) -> str:
    """
    The Prometheus label of an attribute.

    Args:
        attribute: An attribute's key, such as ``db.client.connection.pool.name``.

    Returns:
        For example ``db_client_connection_pool_name``.
    """
    return re.sub(r"[^a-zA-Z0-9_]", "_", attribute)


def is_counter(name: str, metrics: tuple[Metric, ...]) -> bool:
    """
    Whether the series only grows or restarts at 0, so that ``rate`` and ``increase`` make sense.

    Args:
        name: A series name in Prometheus.
        metrics: The metrics among which it is looked up.

    Raises:
        KeyError: None of the metrics has such a series.
    """
    for metric in metrics:
        if name in series(metric):
            return metric.kind in {Kind.COUNTER, Kind.HISTOGRAM}
    raise KeyError(name)


def _part(metric: Metric, suffix: str) -> str:
    if metric.kind is not Kind.HISTOGRAM:
        message = f"{metric.name} is a {metric.kind.value}, not a histogram"
        raise ValueError(message)
    return family(metric) + suffix


def _spelled(metric: Metric) -> str:
    if metric.unit.startswith("{") or not metric.unit:
        return ""
    if metric.unit == "1":
        return "ratio" if metric.kind is Kind.GAUGE else ""
    if metric.unit not in _UNITS:
        message = f"{metric.name}: the spelling of the unit is not known: {metric.unit!r}"
        raise ValueError(message)
    return _UNITS[metric.unit]
