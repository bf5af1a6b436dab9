"""The names that the dashboards and the alerts use are those that Prometheus stores."""

from __future__ import annotations

import re

import pytest

from grafana import prometheus
from poolscope import semconv


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (semconv.CONNECTION_COUNT, ("db_client_connection_count",)),
        (semconv.TIMEOUTS, ("db_client_connection_timeouts_total",)),
        (
            semconv.WAIT_TIME,
            (
                "db_client_connection_wait_time_seconds_bucket",
                "db_client_connection_wait_time_seconds_sum",
                "db_client_connection_wait_time_seconds_count",
            ),
        ),
        (semconv.SATURATION_TIME, ("poolscope_pool_saturation_time_seconds_total",)),
        (semconv.USED_PEAK, ("poolscope_pool_used_peak",)),
        (semconv.OLDEST_LEASE_AGE, ("poolscope_pool_oldest_lease_age_seconds",)),
    ],
)
def test_names_seen_in_a_running_pipeline(metric: semconv.Metric, expected: tuple[str, ...]) -> None:
    """A metric has the names that a real Collector and Prometheus gave it (read off a running pair, not derived)."""
    assert prometheus.series(metric) == expected


@pytest.mark.parametrize("metric", semconv.METRICS, ids=lambda metric: metric.name)
def test_every_metric_of_the_dictionary_has_valid_names(metric: semconv.Metric) -> None:
    """Every metric of the dictionary can be named in PromQL without quotes, with its kind's suffix once at most."""
    for name in prometheus.series(metric):
        assert re.fullmatch(r"[a-z_][a-z0-9_]*", name)
        assert name.count("_total") == (metric.kind is semconv.Kind.COUNTER)


def test_no_two_metrics_share_a_series() -> None:
    """Two metrics of the dictionary never fall on one name in Prometheus."""
    every = [name for metric in semconv.METRICS for name in prometheus.series(metric)]
    assert len(every) == len(set(every))


def test_a_ratio_is_spelled_on_gauges_only() -> None:
    """The unit 1 is ``ratio`` on a gauge and nothing on a sum, as the compatibility specification has it."""
    gauge = semconv.Metric("a.b", semconv.Kind.GAUGE, "1", "")
    backends = semconv.Metric("a.b", semconv.Kind.UP_DOWN_COUNTER, "1", "")
    assert prometheus.family(gauge) == "a_b_ratio"
    assert prometheus.family(backends) == "a_b"


def test_a_unit_in_the_name_is_not_repeated() -> None:
    """A name that already ends in its spelled unit keeps it once."""
    assert prometheus.family(semconv.Metric("a.seconds", semconv.Kind.COUNTER, "s", "")) == "a_seconds_total"


def test_an_unknown_unit_is_refused() -> None:
    """A unit of which the spelling is not known raises, instead of giving a name that no series has."""
    with pytest.raises(ValueError, match="fortnight"):
        prometheus.family(semconv.Metric("a.b", semconv.Kind.GAUGE, "fortnight", ""))


def test_parts_of_a_histogram_only() -> None:
    """Asking a counter for its buckets raises; a histogram gives each of its parts."""
    with pytest.raises(ValueError, match="not a histogram"):
        prometheus.bucket(semconv.TIMEOUTS)
    assert prometheus.bucket(semconv.USE_TIME).endswith("_seconds_bucket")
    assert prometheus.total(semconv.USE_TIME).endswith("_seconds_sum")
    assert prometheus.count(semconv.USE_TIME).endswith("_seconds_count")


def test_labels() -> None:
    """An attribute is the label that the exporter makes of it."""
    assert prometheus.label(semconv.POOL_NAME) == "db_client_connection_pool_name"


def test_counters_are_distinguished_from_gauges() -> None:
    """Counters and histogram parts may be rated; gauges and up-down counters may not; strangers are no answer."""
    assert prometheus.is_counter("db_client_connection_timeouts_total", semconv.METRICS)
    assert prometheus.is_counter("db_client_connection_wait_time_seconds_sum", semconv.METRICS)
    assert not prometheus.is_counter("db_client_connection_count", semconv.METRICS)
    with pytest.raises(KeyError):
        prometheus.is_counter("up", semconv.METRICS)
