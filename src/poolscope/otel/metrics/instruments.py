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
from poolscope.otel.metrics.metric_producer import Bridge, begin_anew, understands
from poolscope.otel.metrics.observations import HISTOGRAMS, READINGS, histograms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.core.pool_registry import Ledger
    from poolscope.core.types import LibraryObject
    from poolscope.otel.metrics.observations import Reading

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
        self.ledger: Ledger | None = None
        self._bridge: Bridge | None = None
        meter = provider.get_meter(semconv.SCOPE, __version__, semconv.SCHEMA_URL)
        self._observed = [
            getattr(meter, _CREATE[metric.kind])(
                metric.name, callbacks=[self._callback(metric, read)], unit=metric.unit, description=metric.description
            )
            for metric, read in READINGS.items()
        ]
        self._histograms = {metric.name: _create_histogram(meter, metric) for metric in HISTOGRAMS}

    def open(self, ledger: Ledger, *, native: bool) -> None:
        """
        Begin to report a pool registry; before its first pool.

        Args:
            ledger: The pool registry.
            native: Whether to hand ready histogram points over where that is possible.
        """
        begin_anew(self._provider, self._instruments())
        if native and understands(self._provider, self._histograms.values()):
            self._bridge = Bridge(self._provider, ledger, histograms, __version__)
            self._bridge.connect()
        else:
            ledger.distribution = KeepingDistribution
            ledger.units.distribution = KeepingDistribution
        self.ledger = ledger

    def close(self) -> None:
        """
        Report no more.
        """
        self.drain()
        self.ledger = None
        if self._bridge is not None:
            self._bridge.disconnect()
            self._bridge = None

    def after_fork(self) -> None:
        """
        In a child process: its series begin anew, as the pool registry does.
        """
        begin_anew(self._provider, self._instruments(), alone=True)

    def _instruments(self) -> list[Any]:
        return [*self._observed, *self._histograms.values()]

    def drain(self) -> None:
        """
        Without the metric producer: record what was kept into the ordinary instruments. From the background thread and
        at collection.
        """
        ledger = self.ledger
        if ledger is None or self._bridge is not None:
            return
        for metric, series in histograms(ledger):
            histogram = self._histograms[metric.name]
            for attributes, distribution in series:
                if isinstance(distribution, KeepingDistribution):
                    for value, measured in distribution.take_kept():
                        _record(histogram, value, attributes, measured)

    def _callback(
        self, metric: semconv.Metric, read: Callable[[Ledger], Iterable[Reading]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        reference = weakref.ref(self)

        def observe(_: CallbackOptions) -> list[Observation]:
            here = reference()
            ledger = here.ledger if here is not None else None
            if here is None or ledger is None or ledger.asleep:
                return []
            if metric is semconv.CONNECTION_COUNT:
                guard.run("metrics.drain", here.drain, None)
            nothing: list[Reading] = []
            readings = guard.run(f"metrics.{metric.name}", lambda: list(read(ledger)), nothing)
            return [Observation(value, attributes) for value, attributes in readings]

        return observe


_made: Final[weakref.WeakKeyDictionary[Any, Metrics]] = weakref.WeakKeyDictionary()


def metrics_of(provider: otel_metrics.MeterProvider) -> Metrics:
    """
    The metrics of a provider: those made before, or new ones.
    """
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
