"""
Metrics: observable instruments that read the pool registry, and its histograms through the metric producer or through
ordinary instruments.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import metrics as otel_metrics
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Observation

from poolscope import __version__, semconv
from poolscope.core.guard import guard
from poolscope.core.histogram import KeepingDistribution
from poolscope.otel.metrics.metric_producer import HistogramProducer, begin_anew, understands
from poolscope.otel.metrics.observations import HISTOGRAMS, OBSERVATIONS, histograms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.otel.metrics.observations import PoolObservation
    from poolscope.types import LibraryObject

_CREATE: Final = {
    semconv.Kind.COUNTER: "create_observable_counter",
    semconv.Kind.UP_DOWN_COUNTER: "create_observable_up_down_counter",
    semconv.Kind.GAUGE: "create_observable_gauge",
}


class Metrics:
    """
    The metrics of one MeterProvider. An SDK keeps instruments forever, so this is made once for each provider, and
    reads whichever pool registry is open.

    Args:
        provider: The MeterProvider.
    """

    def __init__(self, provider: otel_metrics.MeterProvider) -> None:
        self._provider = provider
        self.pool_registry: PoolRegistry | None = None
        self._producer: HistogramProducer | None = None
        meter = provider.get_meter(semconv.SCOPE, __version__, semconv.SCHEMA_URL)
        self._observed = [
            getattr(meter, _CREATE[metric.kind])(
                metric.name, callbacks=[self._callback(metric, read)], unit=metric.unit, description=metric.description
            )
            for metric, read in OBSERVATIONS.items()
        ]
        self._histograms = {metric.name: _create_histogram(meter, metric) for metric in HISTOGRAMS}

    def open(self, pool_registry: PoolRegistry, *, native: bool) -> None:
        """
        Begin to report a pool registry; before its first pool.

        Args:
            pool_registry: The pool registry.
            native: Whether to hand ready histogram points over where that is possible.
        """
        begin_anew(self._provider, self._instruments())
        if native and understands(self._provider, self._histograms.values()):
            self._producer = HistogramProducer(self._provider, pool_registry, histograms, __version__)
            self._producer.connect()
        else:
            pool_registry.distribution = KeepingDistribution
            pool_registry.units.distribution = KeepingDistribution
            if pool_registry.event_loops is not None:
                pool_registry.event_loops.distribution = KeepingDistribution
        self.pool_registry = pool_registry

    def close(self) -> None:
        """Report no more; what was kept is drained before, by the background thread."""
        self.pool_registry = None
        if self._producer is not None:
            self._producer.disconnect()
            self._producer = None

    def after_fork(self) -> None:
        """In a child process: its series begin anew, as the pool registry does."""
        begin_anew(self._provider, self._instruments(), alone=True)

    def _instruments(self) -> list[Any]:
        return [*self._observed, *self._histograms.values()]

    def drain(self) -> None:
        """
        Without the metric producer: record what was kept into the ordinary instruments. From the background thread and
        at collection.
        """
        pool_registry = self.pool_registry
        if pool_registry is None or self._producer is not None:
            return
        for metric, series in histograms(pool_registry):
            histogram = self._histograms[metric.name]
            for attributes, distribution in series:
                if isinstance(distribution, KeepingDistribution):
                    for value, measured in distribution.take_kept():
                        _record(histogram, value, attributes, measured)

    def _callback(
        self, metric: semconv.Metric, read: Callable[[PoolRegistry], Iterable[PoolObservation]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        reference = weakref.ref(self)

        def observe(_: CallbackOptions) -> list[Observation]:
            here = reference()
            pool_registry = here.pool_registry if here is not None else None
            if here is None or pool_registry is None or pool_registry.is_dormant():
                return []
            if metric is semconv.CONNECTION_COUNT:
                guard.run("metrics.serve", pool_registry.still_dormant, default=False)
                guard.run("metrics.drain", here.drain, None)
            nothing: list[PoolObservation] = []
            observations = guard.run(f"metrics.{metric.name}", lambda: list(read(pool_registry)), nothing)
            return [Observation(value, attributes) for value, attributes in observations]

        return observe


_made: Final[weakref.WeakKeyDictionary[Any, Metrics]] = weakref.WeakKeyDictionary()


def metrics_of(provider: otel_metrics.MeterProvider) -> Metrics:
    """The metrics of a provider: those made before, or new ones."""
    known = _made.get(provider)
    if known is None:
        known = _made[provider] = Metrics(provider)
    return known


def _create_histogram(meter: otel_metrics.Meter, metric: semconv.Metric) -> LibraryObject:
    try:
        return meter.create_histogram(
            metric.name,
            unit=metric.unit,
            description=metric.description,
            explicit_bucket_boundaries_advisory=metric.boundaries,
        )
    except TypeError:  # an API before the advice existed (1.30)
        return meter.create_histogram(metric.name, unit=metric.unit, description=metric.description)


def _record(histogram: LibraryObject, value: float, attributes: LibraryObject, measured: LibraryObject) -> None:
    context = otel_context.Context() if measured is None else trace.set_span_in_context(measured[0])
    try:
        histogram.record(value, attributes, context=context)
    except TypeError:  # an API before records took a context (1.28)
        histogram.record(value, attributes)
