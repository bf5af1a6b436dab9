"""
A process of an application as the Collector sees it: metrics, spans and events of the dictionary through the real SDK.

It lets a test say "this pool now has 3 timeouts" without an application that brings it about.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from poolscope import semconv
from poolscope.semconv import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter
    from opentelemetry.trace import Span

E = TypeVar("E", OTLPMetricExporter, OTLPSpanExporter, OTLPLogExporter)
LEAK_KINDS = ("abandoned", "owner_finished", "overdue")
HOLD_PHASES = ("query", "idle_in_transaction", "idle")
EXPORT_SECONDS = 5  # how long an exporter tries
QUIET = 3_600_000.0  # milliseconds: export only when told to


class Process:
    """
    One process with one pool; `close` it.

    Args:
        endpoint: An OTLP/HTTP address.
        service: `service.name`.
        instance: `service.instance.id`.
        version: `service.version`.
        pool: The pool's name.
        limit: The most connections that the pool may open.
        server: Address and port of the pool's database server.
        interval: Milliseconds between two exports of metrics; only `flush` exports when left out.
    """

    def __init__(
        self,
        endpoint: str,
        service: str = "shop",
        *,
        instance: str = "worker-1",
        version: str = "1.0",
        pool: str = "orders",
        limit: int = 10,
        server: tuple[str, int] = ("127.0.0.1", 5432),
        interval: float = QUIET,
    ) -> None:
        identity = {"service.name": service, "service.instance.id": instance, "service.version": version}
        resource = Resource.create({**identity, "process.pid": 1})
        self.pool = {
            semconv.POOL_NAME: pool,
            semconv.DB_SYSTEM: "postgresql",
            semconv.DB_NAMESPACE: "shop",
            semconv.SERVER_ADDRESS: server[0],
            semconv.SERVER_PORT: server[1],
        }
        self._undelivered = 0
        self._requesting: set[int] = set()  # threads
        #: Exports that ran in the thread of a request, which would wait for them.
        self.in_requests = 0
        metrics = self._watched(OTLPMetricExporter(f"{endpoint}/v1/metrics", timeout=EXPORT_SECONDS))
        reader = PeriodicExportingMetricReader(metrics, interval)
        self._metrics = MeterProvider([reader], resource=resource)
        self._traces = TracerProvider(resource=resource)
        self._traces.add_span_processor(
            BatchSpanProcessor(
                self._watched(OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=EXPORT_SECONDS)),
                max_queue_size=100_000,
                max_export_batch_size=2_000,
                schedule_delay_millis=200,
            )
        )
        self._logs = LoggerProvider(resource=resource)
        logs = self._watched(OTLPLogExporter(f"{endpoint}/v1/logs", timeout=EXPORT_SECONDS))
        self._logs.add_log_record_processor(BatchLogRecordProcessor(logs))
        self._poolscope = self._traces.get_tracer(semconv.SCOPE)
        self._framework = self._traces.get_tracer("framework")
        self._values: dict[str, dict[tuple[tuple[str, Any], ...], float]] = {}
        self._histograms: dict[str, Any] = {}
        meter = self._metrics.get_meter(semconv.SCOPE)
        for metric in semconv.METRICS:
            self._register(meter, metric)
        self._start(limit)

    def _watched(self, exporter: E) -> E:
        """An exporter whose failures are counted: the SDK's `force_flush` is true whatever became of the export."""
        export: Any = exporter.export

        def watched(*arguments: Any, **more: Any) -> Any:
            self.in_requests += threading.get_ident() in self._requesting
            result = export(*arguments, **more)
            self._undelivered += result.name != "SUCCESS"
            return result

        exporter.export = watched  # type: ignore[method-assign]
        return exporter

    def _register(self, meter: Meter, metric: semconv.Metric) -> None:
        if metric.kind is Kind.HISTOGRAM:
            self._histograms[metric.name] = meter.create_histogram(
                metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.boundaries
            )
            return
        values = self._values.setdefault(metric.name, {})

        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, dict(key)) for key, value in list(values.items())]

        create = {
            Kind.COUNTER: meter.create_observable_counter,
            Kind.UP_DOWN_COUNTER: meter.create_observable_up_down_counter,
            Kind.GAUGE: meter.create_observable_gauge,
        }[metric.kind]
        create(metric.name, [observe], metric.unit, metric.description)

    def _start(self, limit: int) -> None:
        self.set(semconv.CONNECTION_MAX, limit)
        for state in (semconv.STATE_IDLE, semconv.STATE_USED):
            self.set(semconv.CONNECTION_COUNT, 0, {semconv.CONNECTION_STATE: state})
        for metric in (
            semconv.PENDING_REQUESTS, semconv.TIMEOUTS, semconv.SATURATION_TIME, semconv.USED_PEAK,
            semconv.PENDING_PEAK, semconv.OLDEST_LEASE_AGE, semconv.NESTED_CHECKOUTS, semconv.DRIFT,
        ):  # fmt: skip
            self.set(metric, 0)
        for kind in LEAK_KINDS:
            self.set(semconv.LEAKS, 0, {semconv.LEAK_KIND: kind})
        for phase in HOLD_PHASES:
            self.set(semconv.HOLD_PHASE_TIME, 0, {semconv.HOLD_PHASE: phase})

    def set(self, metric: semconv.Metric, value: float, more: dict[str, Any] | None = None) -> None:
        """Let a counter or gauge of the pool have a value."""
        self._values[metric.name][self._key(metric, more)] = value

    def add(self, metric: semconv.Metric, amount: float, more: dict[str, Any] | None = None) -> None:
        """Let a counter of the pool grow."""
        values, key = self._values[metric.name], self._key(metric, more)
        values[key] = values.get(key, 0) + amount

    def record(self, metric: semconv.Metric, value: float, more: dict[str, Any] | None = None) -> None:
        """Give a histogram one point."""
        self._histograms[metric.name].record(value, dict(self._key(metric, more)))

    def _key(self, metric: semconv.Metric, more: dict[str, Any] | None) -> tuple[tuple[str, Any], ...]:
        attributes = {**{key: self.pool[key] for key in metric.attributes if key in self.pool}, **(more or {})}
        assert set(attributes) <= set(metric.attributes)
        return tuple(sorted(attributes.items()))

    def request(
        self, *, findings: Sequence[str] = (), wait: float = 0.002, error: str = "", name: str = "GET /orders"
    ) -> str:
        """
        One request with one checkout, as spans.

        Args:
            findings: What was found in it.
            wait: Seconds it waited for a connection.
            error: The error type of the checkout, when it failed.
            name: The unit of work.

        Returns:
            The trace id.
        """
        self._requesting.add(threading.get_ident())
        try:
            return self._request(findings, wait, error, name)
        finally:
            self._requesting.discard(threading.get_ident())

    def _request(self, findings: Sequence[str], wait: float, error: str, name: str) -> str:
        with self._framework.start_as_current_span(name, kind=SpanKind.SERVER) as unit:
            begun = 1_000_000_000
            start: int = unit.start_time or begun  # type: ignore[attr-defined]
            attributes = {**self.pool, **({semconv.ERROR_TYPE: error} if error else {})}
            title = semconv.CHECKOUT_SPAN.named(self.pool[semconv.POOL_NAME])
            checkout = self._poolscope.start_span(title, attributes=attributes, start_time=start)
            if error:
                checkout.set_status(Status(StatusCode.ERROR))
            checkout.end(start + int(wait * 1e9))
            unit.set_attribute(semconv.UNIT_OF_WORK_QUERIES, 1)
            unit.set_attribute(semconv.UNIT_OF_WORK_WAIT_TIME, wait)
            if findings:
                unit.set_attribute(semconv.FINDINGS, list(findings))
            return f"{unit.get_span_context().trace_id:032x}"

    def begin(self, name: str = "GET /orders") -> Span:
        """A request that goes on, with a checkout behind it; end the span."""
        unit = self._framework.start_span(name, kind=SpanKind.SERVER)
        self.wait(0.002, set_span_in_context(unit))
        return unit

    def wait(self, seconds: float, context: Context | None = None) -> str:
        """
        A checkout that waited, in a trace or alone.

        Returns:
            The trace id.
        """
        begun = 1_000_000_000
        title = semconv.CHECKOUT_SPAN.named(self.pool[semconv.POOL_NAME])
        span = self._poolscope.start_span(title, context, attributes=self.pool, start_time=begun)
        span.end(begun + int(seconds * 1e9))
        return f"{span.get_span_context().trace_id:032x}"

    def event(self, event: semconv.Event, attributes: dict[str, Any]) -> None:
        """Emit an event."""
        self._logs.get_logger(semconv.SCOPE).emit(
            LogRecord(
                event_name=event.name, severity_number=SeverityNumber.WARN, attributes=attributes, body=event.name
            )
        )

    def flush(self) -> bool:
        """
        Export everything now.

        Returns:
            Whether all of it arrived, and nothing failed to meanwhile.
        """
        before = self._undelivered
        over = all([self._traces.force_flush(), self._metrics.force_flush(), self._logs.force_flush()])
        return over and self._undelivered == before

    def close(self) -> None:
        """Export what is left and end the exporters' threads."""
        self._traces.shutdown()
        self._metrics.shutdown()
        self._logs.shutdown()
