"""
Ready-made histogram points for the readers of an SDK MeterProvider.

The specification has a MetricProducer: a source of ready metrics that a reader merges in. The Python SDK has none
(1.45), and its `Histogram.record` costs ten times what our own aggregation does. All collections of all readers pass
through `MetricReaderStorage.collect`; it is wrapped once, and what it returns is joined with our points. It runs
under the SDK's collection lock: no lock is taken here that a hook could hold.

It is used only where it recognises the SDK and no other aggregation of our histograms is requested; elsewhere
`metrics.py` records into ordinary instruments, and both ways give the same points. A reader that is added later and
requests another aggregation gets the explicit buckets all the same: the single values are gone by then.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from poolscope import semconv
from poolscope.core import clock
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.core.histogram import Distribution, Tap, Totals, Trace
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.otel.metrics.observations import Series
    from poolscope.types import LibraryObject

    Source = Callable[[PoolRegistry], Iterable[tuple[semconv.Metric, list[Series]]]]

# Seconds that the beginning waits for a collection.
_PATIENCE: Final = 0.5


def understands(provider: object, instruments: Iterable[Any]) -> bool:
    """
    Whether the metric producer can serve a provider's readers.

    Args:
        provider: The MeterProvider.
        instruments: The ordinary histograms made for our metrics, which views are matched against.

    Returns:
        False when it is no SDK that we recognise, when a view concerns one of the histograms, or when a reader wants
        another aggregation than the default one: exponential buckets, or bounds of its own.
    """
    try:
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - the SDK may be absent
        from opentelemetry.sdk.metrics._internal.instrument import _Histogram  # noqa: PLC0415
        from opentelemetry.sdk.metrics._internal.metric_reader_storage import MetricReaderStorage  # noqa: PLC0415

        if not isinstance(provider, MeterProvider) or not callable(MetricReaderStorage.collect):
            return False
        config: Any = provider._sdk_config
        storages = provider._measurement_consumer._reader_storages.values()
        for storage in storages:
            storage._instrument_class_temporality[_Histogram]
            if not _usual(storage._instrument_class_aggregation[_Histogram]):
                return False
        return not any(view._match(instrument) for view in config.views for instrument in instruments)
    except (ImportError, AttributeError, KeyError, TypeError):
        return False


def begin_anew(provider: LibraryObject, instruments: Iterable[LibraryObject], *, alone: bool = False) -> None:
    """
    Let the series of instruments begin anew: what they report is another pool registry now.

    An SDK would go on from the sums of the registry before: counters would fall for delta readers, and histograms hold
    what another process measured.

    Args:
        provider: The MeterProvider.
        instruments: Its instruments.
        alone: Whether no other thread is there, as after a fork: one that is gone may have held the lock, so it is not
            taken.
    """
    storages = getattr(getattr(provider, "_measurement_consumer", None), "_reader_storages", None)
    for storage in tuple(storages.values()) if isinstance(storages, Mapping) else ():
        kept, lock = getattr(storage, "_instrument_view_instrument_matches", None), getattr(storage, "_lock", None)
        if isinstance(kept, dict) and lock is not None:
            # A collection has the lock while it calls the application's callbacks, which may hang.
            taken = not alone and lock.acquire(timeout=_PATIENCE)
            for instrument in instruments:
                kept.pop(instrument, None)
            if taken:
                lock.release()


def _usual(aggregation: LibraryObject) -> bool:
    # The OTLP exporters request explicit buckets by name, without bounds: those of each instrument's advice.
    from opentelemetry.sdk.metrics.view import (  # noqa: PLC0415
        DefaultAggregation,
        ExplicitBucketHistogramAggregation,
    )

    kind = type(aggregation)
    if kind is ExplicitBucketHistogramAggregation:
        return bool(vars(aggregation) == vars(kind()))
    return kind is DefaultAggregation


class HistogramProducer:
    """
    Joins our histograms into what one provider's readers collect.

    Args:
        provider: The SDK's MeterProvider.
        pool_registry: The pool registry whose histograms they are.
        source: Yields the histogram metrics and their series.
        version: Of the instrumentation scope.
    """

    def __init__(self, provider: LibraryObject, pool_registry: PoolRegistry, source: Source, version: str) -> None:
        from opentelemetry.sdk.metrics._internal.metric_reader_storage import MetricReaderStorage  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

        self._storage_class: Any = MetricReaderStorage
        self._config = provider._sdk_config
        self._pool_registry = pool_registry
        self._source = source
        self._scope = InstrumentationScope(semconv.SCOPE, version, semconv.SCHEMA_URL)
        self._readers: weakref.WeakKeyDictionary[Any, _Reader] = weakref.WeakKeyDictionary()
        # Newer SDKs can switch a meter off, and on again.
        self._enabled: Callable[[], bool] = getattr(
            provider.get_meter(semconv.SCOPE, version, semconv.SCHEMA_URL), "_is_enabled", _yes
        )

    def connect(self) -> None:
        """Begin to join."""
        _producers.append(self)
        if not _wraps:
            original = self._storage_class.collect
            self._storage_class.collect = replacement = _joining(original)
            _wraps.append((original, replacement))

    def disconnect(self) -> None:
        """Join no more."""
        if self not in _producers:
            return
        _producers.remove(self)
        # Where other code has wrapped ours since, it stays, does nothing, and serves the next metric producer.
        if not _producers and self._storage_class.collect is _wraps[0][1]:
            self._storage_class.collect = _wraps.pop()[0]

    def serves(self, storage: LibraryObject) -> bool:
        """Whether a reader's storage belongs to this provider."""
        return storage._sdk_config is self._config

    def join(self, storage: LibraryObject, data: LibraryObject) -> LibraryObject:
        """
        A reader's collection with our points in it.

        Args:
            storage: The reader's storage.
            data: What the SDK collected; None when it had nothing.
        """
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics  # noqa: PLC0415

        reader = self._readers.get(storage)
        if reader is None:
            reader = self._readers[storage] = _Reader(storage, self._pool_registry)
        now = time.time_ns()
        metrics = [
            metric for metric in (reader.read(*item, now) for item in self._source(self._pool_registry)) if metric
        ]
        reader.read_at = now
        if not metrics or not self._enabled():
            return data
        resources = list(data.resource_metrics) if data is not None else []
        scopes = list(resources[0].scope_metrics) if resources else []
        mine = [scope for scope in scopes if scope.scope == self._scope]
        ready = {metric.name for metric in metrics}
        # An ordinary instrument reports forever what it once recorded, as in a session before this one.
        metrics = [metric for scope in mine for metric in scope.metrics if metric.name not in ready] + metrics
        scopes = [scope for scope in scopes if scope.scope != self._scope]
        scopes.append(ScopeMetrics(scope=self._scope, metrics=metrics, schema_url=semconv.SCHEMA_URL))
        resource = self._config.resource
        joined = ResourceMetrics(resource=resource, scope_metrics=scopes, schema_url=resource.schema_url)
        return MetricsData(resource_metrics=[joined, *resources[1:]])


def _yes() -> bool:
    return True


_producers: Final[list[HistogramProducer]] = []

# The SDK's method and ours in its place, while a metric producer is connected: one wrap for all, so that the order
# in which they disconnect makes no difference.
_wraps: Final[list[tuple[Callable[..., Any], Callable[..., Any]]]] = []


def _joining(original: Callable[..., Any]) -> Callable[..., Any]:
    def collect(storage: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        data = original(storage, *args, **kwargs)
        producer = next((producer for producer in tuple(_producers) if producer.serves(storage)), None)
        return (
            data
            if producer is None
            else guard.run("metric_producer.collect", lambda: producer.join(storage, data), data)
        )

    return collect


class _Reader:
    """What one reader of the SDK has seen of each distribution."""

    def __init__(self, storage: LibraryObject, pool_registry: PoolRegistry) -> None:
        from opentelemetry.sdk.metrics._internal.instrument import _Histogram  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import AggregationTemporality  # noqa: PLC0415

        self._temporality = storage._instrument_class_temporality[_Histogram]
        self._delta = self._temporality is AggregationTemporality.DELTA
        self._exemplars = _exemplars_wanted(storage._sdk_config)
        self._pool_registry = pool_registry
        self._taps: weakref.WeakKeyDictionary[Distribution[Any], Tap[Any]] = weakref.WeakKeyDictionary()
        self.read_at: int | None = None

    def read(self, metric: semconv.Metric, series: list[Series], now: int) -> LibraryObject:
        from opentelemetry.sdk.metrics.export import Histogram, Metric  # noqa: PLC0415

        points = [point for point in (self._point(*one, now) for one in series) if point is not None]
        if not points:
            return None
        data = Histogram(data_points=points, aggregation_temporality=self._temporality)
        return Metric(name=metric.name, description=metric.description, unit=metric.unit, data=data)

    def _point(self, attributes: LibraryObject, distribution: Distribution[LibraryObject], now: int) -> LibraryObject:
        from opentelemetry.sdk.metrics.export import HistogramDataPoint  # noqa: PLC0415

        tap = self._taps.get(distribution)
        if tap is None:
            tap = self._taps[distribution] = distribution.tap(delta=self._delta)
        totals = distribution.take(tap)
        count = totals.count
        if not count:
            return None
        began = self._pool_registry.began_at
        if self._delta and self.read_at is not None:
            began = max(began, self.read_at)
        return HistogramDataPoint(
            attributes=attributes,
            start_time_unix_nano=began,
            time_unix_nano=now,
            count=count,
            sum=totals.total,
            bucket_counts=tuple(totals.counts),
            explicit_bounds=distribution.bounds,
            min=totals.least,
            max=totals.most,
            exemplars=self._exemplars_of(totals),
        )

    def _exemplars_of(self, totals: Totals[Trace]) -> list[Any]:
        from opentelemetry.sdk.metrics import Exemplar  # noqa: PLC0415

        if not self._exemplars:
            return []
        exemplars = []
        for _, (value, (span, moment)) in sorted(totals.exemplars.items()):
            around = span.get_span_context()
            if around.trace_flags.sampled:
                when = clock.to_unix_nanoseconds(moment, self._pool_registry.now)
                exemplars.append(Exemplar({}, value, when, around.span_id, around.trace_id))
        return exemplars


def _exemplars_wanted(config: LibraryObject) -> bool:
    return type(getattr(config, "exemplar_filter", None)).__name__ != "AlwaysOffExemplarFilter"


__all__: Final = ["HistogramProducer", "understands"]
