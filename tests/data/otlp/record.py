"""
Record the small telemetry files beside this script with the SDK's own instruments and file exporters.

    python -m tests.data.otlp.record

What is recorded stands in `truth.py`; the tests of the report compare with it. Ids and times differ from recording to
recording.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.json.file._log_exporter import FileLogExporter
from opentelemetry.exporter.otlp.json.file.metric_exporter import FileMetricExporter
from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, set_span_in_context

from poolscope import semconv
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.finding_kind import Severity
from tests.data.otlp.truth import HOLDS, ROUTES, TIMEOUTS, USED, WAITS

HERE = Path(__file__).parent
POOL: dict[str, Any] = {
    semconv.POOL_NAME: "shop",
    semconv.DB_SYSTEM: "postgresql",
    semconv.SERVER_ADDRESS: "db.example",
    semconv.SERVER_PORT: 5432,
}
RESOURCE = Resource.create({"service.name": "shop", "service.instance.id": "one"})


def metrics(path: Path, temporality: AggregationTemporality, views: tuple[View, ...] = ()) -> None:
    """Two exports of a pool's metrics."""
    path.unlink(missing_ok=True)
    preferred: dict[type, AggregationTemporality] = dict.fromkeys((Counter, Histogram, ObservableCounter), temporality)
    reader = PeriodicExportingMetricReader(FileMetricExporter(path, preferred_temporality=preferred), 3_600_000)
    provider = MeterProvider([reader], RESOURCE, views=views, shutdown_on_exit=False)
    meter = provider.get_meter(semconv.SCOPE)
    now = {"used": 0}

    def used(_options: CallbackOptions) -> list[Observation]:
        return [
            Observation(now["used"], {**POOL, semconv.CONNECTION_STATE: semconv.STATE_USED}),
            Observation(15 - now["used"], {**POOL, semconv.CONNECTION_STATE: semconv.STATE_IDLE}),
        ]

    def limit(_options: CallbackOptions) -> list[Observation]:
        return [Observation(15, POOL)]

    meter.create_observable_up_down_counter(semconv.CONNECTION_COUNT.name, [used], semconv.CONNECTION_COUNT.unit)
    meter.create_observable_up_down_counter(semconv.CONNECTION_MAX.name, [limit], semconv.CONNECTION_MAX.unit)
    waits, holds = (_histogram(meter, metric) for metric in (semconv.WAIT_TIME, semconv.USE_TIME))
    unit = _histogram(meter, semconv.UNIT_HOLD_TIME)
    timeouts = meter.create_counter(semconv.TIMEOUTS.name, semconv.TIMEOUTS.unit)
    for collection in range(2):
        for seconds in WAITS[collection]:
            waits.record(seconds, POOL)
        for seconds in HOLDS[collection]:
            holds.record(seconds, POOL)
            route = {semconv.UNIT_OF_WORK_KIND: "http", semconv.UNIT_OF_WORK_NAME: ROUTES[collection]}
            unit.record(seconds, {**route, semconv.POOL_NAME: POOL[semconv.POOL_NAME]})
        timeouts.add(TIMEOUTS[collection], POOL)
        now["used"] = USED[collection]
        provider.force_flush()
    provider.shutdown()


def _histogram(meter: Any, metric: semconv.Metric) -> Any:
    return meter.create_histogram(metric.name, metric.unit, explicit_bucket_boundaries_advisory=list(metric.boundaries))


def traces(path: Path) -> None:
    """A request that held a connection for 2 s, mostly idle in a transaction, and one that waited for it."""
    path.unlink(missing_ok=True)
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(path)))
    web, ours = provider.get_tracer("web"), provider.get_tracer(semconv.SCOPE)
    second = 1_000_000_000
    found = {semconv.FINDINGS: [IDLE_IN_TRANSACTION]}
    holder = web.start_span("POST /checkout/{id}", kind=SpanKind.SERVER, start_time=second, attributes=found)
    inner = web.start_span("charge", context=set_span_in_context(holder), start_time=second)
    where = {semconv.CODE_FUNCTION: "checkout", semconv.CODE_FILE: "/srv/shop/app.py", semconv.CODE_LINE: 42}
    phases = {"query": 0.1, "idle_in_transaction": 1.8, "idle": 0.1}
    used = {f"{semconv.SPAN_HOLD_PHASE_PREFIX}{phase}": value for phase, value in phases.items()}
    attributes = {**POOL, **where, **used, semconv.LEASE_QUERIES: 3}
    name = semconv.HOLD_SPAN.named("shop")
    hold = ours.start_span(name, set_span_in_context(inner), attributes=attributes, start_time=second)
    waiter = web.start_span("GET /users/{id}", kind=SpanKind.SERVER, start_time=2 * second)
    phases = {"queue": 0.7, "connect": 0.2, "validate": 0.1}
    waited = {f"{semconv.SPAN_WAIT_PHASE_PREFIX}{phase}": value for phase, value in phases.items()}
    checkout = ours.start_span(
        semconv.CHECKOUT_SPAN.named("shop"),
        set_span_in_context(waiter),
        attributes={**POOL, **waited, semconv.CHECKOUT_SPAN_THRESHOLD: 0.001},
        links=[Link(holder.get_span_context())],
        start_time=2 * second,
    )
    for span in (hold, inner, holder, checkout, waiter):
        span.end(3 * second)
    provider.shutdown()


def logs(path: Path) -> None:
    """Two leaks from the same line, three more held back, and one that came back."""
    path.unlink(missing_ok=True)
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(FileLogExporter(path)))
    logger = provider.get_logger(semconv.SCOPE)
    repeated = f"{semconv.EVIDENCE_PREFIX}repeated"
    for event, age, more in (
        (semconv.LEAK_EVENT, 1.5, 0),
        (semconv.LEAK_EVENT, 2.5, 3),
        (semconv.LEAK_RESOLVED_EVENT, 4.0, 0),
    ):
        attributes: dict[str, Any] = {
            semconv.FINDING_ID: LEAK,
            semconv.FINDING_SEVERITY: Severity.CRITICAL.value,
            semconv.FINDING_SUMMARY: "GET /cart/{id} is over and still has a connection",
            semconv.FINDING_FIX: "close the session",
            semconv.FINDING_PAGE: "docs/findings/connection_leak.md",
            semconv.POOL_NAME: "shop",
            semconv.UNIT_OF_WORK_NAME: "GET /cart/{id}",
            semconv.CODE_FILE: "/srv/shop/app.py",
            semconv.CODE_LINE: 77,
            semconv.LEASE_AGE: age,
            repeated: more,
        }
        record = LogRecord(
            timestamp=int(age * 1e9),
            severity_number=SeverityNumber.WARN,
            event_name=event.name,
            body="leak",
            attributes=attributes,
        )
        logger.emit(record)
    provider.shutdown()


def main() -> None:
    """Record every file."""
    exponential = View(instrument_type=Histogram, aggregation=ExponentialBucketHistogramAggregation())
    metrics(HERE / "cumulative.jsonl", AggregationTemporality.CUMULATIVE)
    metrics(HERE / "delta.jsonl", AggregationTemporality.DELTA)
    metrics(HERE / "exponential.jsonl", AggregationTemporality.CUMULATIVE, (exponential,))
    traces(HERE / "traces.jsonl")
    logs(HERE / "logs.jsonl")


if __name__ == "__main__":
    main()
