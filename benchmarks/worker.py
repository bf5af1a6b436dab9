"""
One variant of a measurement: a process of its own that runs batches on request.

It reads lines ``ROW COUNT`` from standard input, runs the row that often, and answers with the CPU and wall time of
one operation in nanoseconds. `run.py` keeps one such process for each variant and requests batches from them in turn,
so that a machine whose speed drifts treats all alike. CPU time is that of the whole process, our background thread
included.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


def sdk() -> tuple[Any, Any]:
    """
    The SDK as a service has it: spans in batches, metrics on a timer; exporters that take
    everything and keep nothing.
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        MetricExporter,
        MetricExportResult,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class NoSpans(SpanExporter):
        def export(self, spans: Any) -> Any:  # noqa: ANN401, ARG002
            return SpanExportResult.SUCCESS

    class NoMetrics(MetricExporter):
        def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> Any:  # noqa: ANN401, ARG002
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 0) -> bool:  # noqa: ARG002
            return True

        def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:  # noqa: ANN401
            pass

    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(NoSpans()))
    meters = MeterProvider([PeriodicExportingMetricReader(NoMetrics(), export_interval_millis=5_000)])
    return tracers, meters


def instrument(variant: str, tracers: Any, meters: Any) -> None:  # noqa: ANN401
    """Put the variant's instrumentation in."""
    if variant == "poolscope":
        from poolscope.instrumentor import PoolscopeInstrumentor

        PoolscopeInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)
    elif variant == "poolscope, no SDK":
        from poolscope.instrumentor import PoolscopeInstrumentor

        PoolscopeInstrumentor().instrument()
    elif variant == "upstream":
        from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

        SQLAlchemyInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)


def rows(dsn: str | None) -> dict[str, Callable[[int], None]]:
    """What is measured: a name, and a function that does it so many times."""
    from sqlalchemy import create_engine, text

    one = text("select 1")

    def leases(engine: Any) -> Callable[[int], None]:  # noqa: ANN401
        def run(count: int) -> None:
            for _ in range(count):
                engine.raw_connection().close()

        return run

    def selects(engine: Any) -> Callable[[int], None]:  # noqa: ANN401
        def run(count: int) -> None:
            for _ in range(count):
                with engine.connect() as connection:
                    connection.execute(one)

        return run

    from sqlalchemy.pool import QueuePool

    sqlite = create_engine("sqlite:///file:bench?mode=memory&cache=shared&uri=true", poolclass=QueuePool)
    table = {"checkout and checkin": leases(sqlite), "select 1, SQLite": selects(sqlite)}
    if dsn:
        table["select 1, PostgreSQL"] = selects(create_engine(dsn))
    return table


def main() -> None:
    """Answer until standard input ends."""
    variant, spans = sys.argv[1], sys.argv[2] == "in a span"
    tracers, meters = sdk() if variant != "poolscope, no SDK" else (None, None)
    instrument(variant, tracers, meters)
    table = rows(os.environ.get("BENCH_DSN"))
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    if spans and tracers is not None:
        tracer = tracers.get_tracer("bench")
        around = lambda: tracer.start_as_current_span("request")  # noqa: E731
    print("ready", flush=True)
    for line in sys.stdin:
        name, count = line.rsplit(" ", 1)
        number = int(count)
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        if spans:
            for _ in range(number // 10):
                with around():
                    table[name](10)
        else:
            table[name](number)
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        print(cpu / number, wall / number, flush=True)


if __name__ == "__main__":
    main()
