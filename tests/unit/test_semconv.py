"""The semantic conventions: what is emitted is what they say, or carries our own prefix."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

import opentelemetry.semconv
import pytest
import sqlalchemy
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, Histogram, InMemoryMetricReader, Sum
from opentelemetry.semconv._incubating.metrics import db_metrics

from poolscope import semconv
from tests.support.skips import require
from tests.support.telemetry import Collected, Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN_PREFIX = "poolscope."

#: Of the names that we emit, those that came into the conventions after the oldest package that we allow (0.49b0).
NEWER = {"db.system.name", "code.function.name", "code.file.path", "code.line.number"}

CONVENTIONAL = [metric for metric in semconv.METRICS if metric.conventional]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(checkout_spans="always")


def everything(telemetry: Telemetry, folder: Any) -> Collected:
    """A pool with a bit of everything, collected."""
    limits = {"poolclass": sqlalchemy.pool.QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 0.01}
    engine = sqlalchemy.create_engine(f"sqlite:///{folder / 'all.db'}", **limits)
    with telemetry.tracer.start_as_current_span("request"), engine.connect() as connection:
        connection.execute(sqlalchemy.text("select 1"))
        with pytest.raises(sqlalchemy.exc.TimeoutError):
            engine.connect()
        connection.invalidate()
    engine.dispose()
    return telemetry.collect()


def kind_of(data: Any) -> semconv.Kind:
    """The kind of exported data."""
    if isinstance(data, Histogram):
        return semconv.Kind.HISTOGRAM
    if isinstance(data, Gauge):
        return semconv.Kind.GAUGE
    assert isinstance(data, Sum)
    return semconv.Kind.COUNTER if data.is_monotonic else semconv.Kind.UP_DOWN_COUNTER


def constants() -> set[str]:
    """Every attribute key that the conventions' package knows, stable and incubating."""
    found: set[str] = set()
    for package in ("opentelemetry.semconv.attributes", "opentelemetry.semconv._incubating.attributes"):
        module = importlib.import_module(package)
        for each in pkgutil.iter_modules(module.__path__):
            content = vars(importlib.import_module(f"{package}.{each.name}"))
            found |= {value for key, value in content.items() if key.isupper() and isinstance(value, str)}
    return found


@pytest.mark.parametrize("metric", CONVENTIONAL, ids=[metric.name for metric in CONVENTIONAL])
def test_a_metric_of_the_conventions_is_as_their_factory_makes_it(metric: semconv.Metric) -> None:
    """
    Name, unit, description and kind of data are those of the instrument that the conventions' own
    factory creates.
    """
    factory = getattr(db_metrics, f"create_{metric.name.replace('.', '_')}", None)
    require(factory, f"{metric.name} is not in this package of the conventions", "make env")
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument = factory(provider.get_meter("conventions"))
    if metric.kind is semconv.Kind.HISTOGRAM:
        instrument.record(1)
    else:
        instrument.add(1)
    exported = Collected.of(reader.get_metrics_data(), None).metrics[metric.name]
    theirs = (exported.name, exported.unit, exported.description.rstrip("."), kind_of(exported.data))
    assert theirs == (metric.name, metric.unit, metric.description.rstrip("."), metric.kind)
    provider.shutdown()


def test_what_is_exported_is_what_the_dictionary_says(telemetry: Telemetry, tmp_path: Any) -> None:
    """
    Each exported metric has the dictionary's unit, description and kind of data, and no attribute
    but the dictionary's.
    """
    collected = everything(telemetry, tmp_path)
    dictionary = {metric.name: metric for metric in semconv.METRICS}
    assert len(collected.metrics) > 15
    for name, exported in collected.metrics.items():
        metric = dictionary[name]
        assert (exported.unit, exported.description) == (metric.unit, metric.description)
        assert kind_of(exported.data) is metric.kind, name
        for point in exported.data.data_points:
            assert set(point.attributes) <= set(metric.attributes), name
            if metric.kind is semconv.Kind.HISTOGRAM:
                assert tuple(point.explicit_bounds) == metric.boundaries


def test_the_scope_names_us_and_the_conventions(telemetry: Telemetry, tmp_path: Any) -> None:
    """Instrumentation scope and schema URL stand on metrics and spans alike."""
    everything(telemetry, tmp_path)
    data = telemetry.reader.get_metrics_data()
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    assert {scope.scope.name for scope in scopes} == {semconv.SCOPE}
    spans = [*telemetry.spans(semconv.CHECKOUT_SPAN), *telemetry.spans(semconv.HOLD_SPAN)]
    assert len(spans) == 3
    for scope in (*(scope.scope for scope in scopes), *(span.instrumentation_scope for span in spans)):
        assert (scope.name, scope.schema_url) == (semconv.SCOPE, semconv.SCHEMA_URL)


def test_spans_carry_what_the_dictionary_says(telemetry: Telemetry, tmp_path: Any) -> None:
    """Each span's name starts with its kind and its attributes are among the dictionary's."""
    everything(telemetry, tmp_path)
    for kind in semconv.SPANS:
        spans = telemetry.spans(kind)
        assert spans
        for span in spans:
            assert set(span.attributes or {}) <= set(kind.attributes), span.name


@pytest.mark.parametrize(
    ("settings", "threshold"),
    [({"checkout_span_threshold": 0.1}, 0.1), ({}, 0.001), ({"checkout_spans": "always"}, 0.0)],
)
def test_a_checkout_span_says_from_which_wait_on_there_are_some(
    settings: dict[str, Any], threshold: float, tmp_path: Any
) -> None:
    """The setting in force, in seconds; 0 where every checkout has a span."""
    for telemetry in instrumented(**settings):
        everything(telemetry, tmp_path)
        spans = telemetry.spans(semconv.CHECKOUT_SPAN)
        assert {span.attributes[semconv.CHECKOUT_SPAN_THRESHOLD] for span in spans} == {threshold}


def test_each_attribute_is_conventional_or_ours() -> None:
    """
    Every key in the dictionary is a constant of the conventions' package or carries our prefix; so is every metric's
    name, and no unit and no `total` is in a name.
    """
    known = constants() | NEWER
    keys = {key for metric in semconv.METRICS for key in metric.attributes}
    keys |= {key for span in semconv.SPANS for key in span.attributes}
    assert {key for key in keys if not key.startswith(OWN_PREFIX)} <= known
    for metric in semconv.METRICS:
        assert metric.conventional or metric.name.startswith(OWN_PREFIX)
        assert not set(metric.name.replace(".", "_").split("_")) & {"total", "seconds", "ms", "ratio"}
    assert opentelemetry.semconv
