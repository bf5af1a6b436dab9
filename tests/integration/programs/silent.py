"""
An application under poolscope without an SDK, or with one that is set late or disabled; prints one line of JSON.

Usage:
    python -m tests.integration.programs.silent none|late|disabled
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import sqlalchemy
from opentelemetry import metrics, trace
from sqlalchemy.pool import QueuePool

from poolscope import semconv, unit_of_work
from poolscope.core.guard import guard
from poolscope.instrumentor import PoolscopeInstrumentor

POOL = "silent"


def work(engine: sqlalchemy.Engine, times: int = 1) -> None:
    """What the application does."""
    for _ in range(times):
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("select 1")).scalar() == 1


def state(engine: sqlalchemy.Engine) -> dict[str, Any]:
    """What there is of poolscope in the process."""
    session = PoolscopeInstrumentor()._session
    assert session is not None
    pool = session.pool_registry.pools.get(POOL)
    return {
        "asleep": session.pool_registry.dormant,
        "asks": pool.waits.read().count if pool is not None else 0,
        "marks": [key for key in engine.pool.__dict__ if key.startswith("_poolscope") and key != "_poolscope_records"],
        "threads": [thread.name for thread in threading.enumerate() if thread.name == "poolscope"],
        "errors": guard.counts(),
    }


def provider() -> tuple[Any, Any]:
    """An SDK with a reader."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    return MeterProvider([reader], shutdown_on_exit=False), reader


def spans_under_a_later_tracer_provider(engine: sqlalchemy.Engine) -> tuple[int, int | None]:
    """
    Set the TracerProvider after the MeterProvider; how many hold spans one checkout inside a request's span has, and
    how many queries that span says.
    """
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, tracers = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(tracers)
    tracer = tracers.get_tracer("application")
    with tracer.start_as_current_span("request", kind=trace.SpanKind.SERVER), unit_of_work("request"):
        work(engine)
    PoolscopeInstrumentor().flush()
    spans = {span.name: span.attributes or {} for span in exporter.get_finished_spans()}
    holds = sum(span.name == semconv.HOLD_SPAN.named(POOL) for span in exporter.get_finished_spans())
    return holds, spans["request"].get(semconv.UNIT_OF_WORK_QUERIES)


def main(kind: str) -> None:
    """Instrument first, as a program that configures its SDK late does."""
    reader = None
    if kind == "disabled":  # OTEL_SDK_DISABLED is set by the test
        made, reader = provider()
        metrics.set_meter_provider(made)
    PoolscopeInstrumentor().instrument()
    engine = sqlalchemy.create_engine(
        "sqlite://", poolclass=QueuePool, pool_logging_name=POOL, connect_args={"check_same_thread": False}
    )
    held = engine.connect() if kind == "late" else None
    work(engine, 100)
    reports: dict[str, Any] = {"before": state(engine)}
    if kind == "none":
        session = PoolscopeInstrumentor()._session
        assert session is not None
        for _ in range(50):  # as often as it asks in 50 seconds
            session.pool_registry._check_listeners_at = 0.0
            work(engine)
        proxy = metrics.get_meter_provider()
        reports["meters"] = len(getattr(proxy, "_meters", ()))
        reports["providers"] = [type(proxy).__name__, type(trace.get_tracer_provider()).__name__]
    if kind == "late":
        made, reader = provider()
        metrics.set_meter_provider(made)
        work(engine, 5)
        assert held is not None
        held.close()
        work(engine)
        reports["asked"] = state(engine)["asks"]
        reports["holds"], reports["queries"] = spans_under_a_later_tracer_provider(engine)
    if reader is not None:
        from tests.support.telemetry import Collected

        collected = Collected.of(reader.get_metrics_data())
        reports["exported"] = sorted(collected.metrics)
        reports["used"] = collected.used(POOL)
        reports["drift"] = collected.value(semconv.DRIFT, POOL)
    reports["after"] = state(engine)
    print(json.dumps(reports), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
