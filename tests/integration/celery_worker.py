"""
The Celery application that `test_boundaries_celery` starts workers of; what it measured goes to a folder, by process.

Instrumented in the main process; the providers are made where tasks run, in the forked processes if it forks, as the
SDK's own documentation has it for servers that fork.

Environment: WORKER_BROKER, WORKER_FOLDER, WORKER_UPSTREAM (`first` or `last`), WORKER_POOL.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.signals import worker_process_init
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from sqlalchemy import create_engine, text

from poolscope.instrumentor import PoolscopeInstrumentor
from tests.support.telemetry import Collected
from tests.support.units import figures, queries_by_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

FOLDER = Path(os.environ["WORKER_FOLDER"])


class Metrics(MetricExporter):
    """Writes the newest figures of this process."""

    def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        """Replace the file as a whole, so that no reader sees half of it."""
        path = FOLDER / f"{os.getpid()}.units"
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(queries_by_unit(Collected.of(metrics_data))))
        draft.replace(path)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        """Nothing is held back."""
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        """Nothing to let go of."""


class Spans(SpanExporter):
    """Writes a line for each span."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Kind, name and our figures."""
        with (FOLDER / f"{os.getpid()}.spans").open("a") as lines:
            for span in spans:
                lines.write(json.dumps([span.kind.name, span.name, dict(figures(span))]) + "\n")
        return SpanExportResult.SUCCESS


def set_providers(**_: Any) -> None:
    """The SDK of a process that runs tasks."""
    reader = PeriodicExportingMetricReader(Metrics(), export_interval_millis=200)
    metrics.set_meter_provider(MeterProvider([reader]))
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Spans()))
    trace.set_tracer_provider(provider)


if os.environ["WORKER_POOL"] == "prefork":
    worker_process_init.connect(set_providers, weak=False)
else:
    set_providers()

order = [CeleryInstrumentor().instrument, PoolscopeInstrumentor().instrument]
for start in order if os.environ["WORKER_UPSTREAM"] == "first" else reversed(order):
    start()

app = Celery("worker", broker=os.environ["WORKER_BROKER"], backend=os.environ["WORKER_BROKER"])
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_hijack_root_logger = False
engine = create_engine(f"sqlite:///{FOLDER / 'database'}", pool_logging_name="tasks")


def run(number: int, statement: str | None = None) -> None:
    """So many queries, on one connection."""
    with engine.connect() as connection:
        for place in range(number):
            connection.execute(text(statement or f"select {place} as column_{place}"))


@app.task(name="shop.send")
def send(number: int) -> int:
    """So many queries."""
    run(number)
    return number


@app.task(name="shop.repeat")
def repeat(number: int) -> int:
    """The same one over and over."""
    run(number, "select 1 as one")
    return number


@app.task(name="shop.fails")
def fails(number: int) -> int:
    """An error after so many queries."""
    run(number)
    raise RuntimeError("theirs")


@app.task(name="shop.retries", bind=True, max_retries=2)
def retries(self: Any, number: int) -> int:
    """Fails twice; each attempt is one."""
    run(number)
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return number


@app.task(name="shop.outer")
def outer(number: int) -> int:
    """Runs another task inside itself."""
    run(1)
    return int(send.apply(args=[number]).get(disable_sync_subtasks=False))
