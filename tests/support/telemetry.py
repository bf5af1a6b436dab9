"""What left through OpenTelemetry, in a form that tests can ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from poolscope import semconv
from poolscope.core import worker
from poolscope.instrumentor import PoolscopeInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    from poolscope.core.lease import Lease


@dataclass
class Collected:
    """
    One collection of one reader.

    Args:
        metrics: The exported metrics by name; a name exported twice is an error.
    """

    metrics: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Any, scope: str | None = semconv.SCOPE) -> Collected:
        """
        What a reader got, or a part of it.

        Args:
            data: A `MetricsData`, or None.
            scope: Only metrics of the instrumentation scope of that name; None for all.
        """
        metrics: dict[str, Any] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scoped in resource.scope_metrics:
                for metric in scoped.metrics:
                    if scope is None or scoped.scope.name == scope:
                        assert metric.name not in metrics, f"{metric.name} was exported twice"
                        metrics[metric.name] = metric
        return cls(metrics)

    def points(self, metric: semconv.Metric, pool: str | None = None, **attributes: object) -> list[Any]:
        """
        The points of a metric.

        Args:
            metric: The metric.
            pool: Only those of the pool of that name.
            attributes: Only those with these attributes; each key is the name of a constant of `names`.
        """
        exported = self.metrics.get(metric.name)
        wanted = {getattr(semconv, constant): value for constant, value in attributes.items()}
        if pool is not None:
            wanted[semconv.POOL_NAME] = pool
        return [
            point
            for point in (exported.data.data_points if exported is not None else ())
            if wanted.items() <= dict(point.attributes).items()
        ]

    def value(self, metric: semconv.Metric, pool: str | None = None, **attributes: object) -> float | None:
        """The one value of a metric; None when there is no point, an error when there are several."""
        points = self.points(metric, pool, **attributes)
        assert len(points) <= 1, f"{metric.name} has {len(points)} points for {pool} {attributes}"
        return points[0].value if points else None

    def total(self, metric: semconv.Metric, pool: str | None = None, **attributes: object) -> float:
        """The sum over a metric's points: of their values, or of a histogram's sums."""
        points = self.points(metric, pool, **attributes)
        return float(sum(point.sum if hasattr(point, "bucket_counts") else point.value for point in points))

    def counts(self, metric: semconv.Metric, pool: str | None = None) -> dict[str, int]:
        """How many values a histogram holds, by ``error.type``; those without one are under the empty name."""
        counts: dict[str, int] = {}
        for point in self.points(metric, pool):
            kind = str(dict(point.attributes).get(semconv.ERROR_TYPE, ""))
            assert kind not in counts, f"{metric.name} has two points for {pool} {kind}"
            assert point.count == sum(point.bucket_counts)
            counts[kind] = point.count
        return counts

    def used(self, pool: str | None = None) -> float | None:
        """The connections in use."""
        return self.value(semconv.CONNECTION_COUNT, pool, CONNECTION_STATE=semconv.STATE_USED)

    def idle(self, pool: str | None = None) -> float | None:
        """The open connections without a holder."""
        return self.value(semconv.CONNECTION_COUNT, pool, CONNECTION_STATE=semconv.STATE_IDLE)


class Telemetry:
    """
    An SDK of the test's own, and poolscope on it.

    Args:
        settings: Poolscope's; spans come for every checkout unless they say otherwise.
    """

    def __init__(self, **settings: object) -> None:
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracer_provider.get_tracer("tests")
        self.settings = settings
        self.instrumentor = PoolscopeInstrumentor()
        #: Seconds that a flush, and a stop, wait for exporters: for as long as a busy machine needs.
        self.patience = 60.0

    def start(self) -> None:
        """Instrument."""
        worker.PATIENCE = self.patience
        self.instrumentor.instrument(
            meter_provider=self.meter_provider,
            tracer_provider=self.tracer_provider,
            skip_dep_check=True,
            **self.settings,
        )

    def stop(self) -> None:
        """Uninstrument, where that has not been done."""
        if self.instrumentor.is_instrumented_by_opentelemetry:
            self.instrumentor.uninstrument()

    def shutdown(self) -> None:
        """Uninstrument and end the SDK."""
        self.stop()
        self.meter_provider.shutdown()
        self.tracer_provider.shutdown()

    def leases(self) -> list[Lease]:
        """The connections that are checked out now, of all pools."""
        session = self.instrumentor._session
        assert session is not None
        return [lease for pool in tuple(session.pool_registry.pools.values()) for lease in pool.leases.copy()]

    def collect(self) -> Collected:
        """Collect now."""
        return Collected.of(self.reader.get_metrics_data())

    def spans(self, kind: semconv.Span | None = None) -> list[ReadableSpan]:
        """
        The finished spans so far.

        Args:
            kind: Only those of that kind; the test's own are of none.
        """
        self.instrumentor.flush()
        finished = self.exporter.get_finished_spans()
        return [span for span in finished if kind is None or span.name.startswith(f"{kind.prefix} ")]


def instrumented(**settings: object) -> Iterator[Telemetry]:
    """For fixtures: a telemetry that is on, and off afterwards."""
    telemetry = Telemetry(**settings)
    telemetry.start()
    yield telemetry
    telemetry.shutdown()
