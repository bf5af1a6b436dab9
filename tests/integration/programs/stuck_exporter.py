"""
Requests while the background thread is stuck in an exporter; prints how many megabytes they cost, and what was lost.

Usage:
    python -m tests.integration.programs.stuck_exporter REQUESTS
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from sqlalchemy.pool import QueuePool

from examples.lab.processes import wait_until
from poolscope import unit_of_work
from poolscope.core.guard import guard
from poolscope.instrumentor import PoolscopeInstrumentor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

PAGE = os.sysconf("SC_PAGE_SIZE")
ATTRIBUTES = {"http.request.method": "GET", "user_agent.original": "a browser", "http.response.status_code": 200}


class Stuck(SpanExporter):
    """Never comes back from poolscope's spans."""

    is_stuck = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Get stuck."""
        if spans[0].name.startswith(("hold", "checkout")):
            self.is_stuck.set()
            threading.Event().wait()
        return SpanExportResult.SUCCESS


def megabytes() -> float:
    """What the process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def main(requests: str) -> None:
    """Some requests until it is stuck, then the others."""
    spans = TracerProvider(shutdown_on_exit=False)
    spans.add_span_processor(SimpleSpanProcessor(Stuck()))
    trace.set_tracer_provider(spans)
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False))
    PoolscopeInstrumentor().instrument(skip_dep_check=True, checkout_spans="always")
    engine = sqlalchemy.create_engine(
        "sqlite://", poolclass=QueuePool, connect_args={"check_same_thread": False}, pool_logging_name="stuck"
    )
    tracer = trace.get_tracer("application")

    def request(number: int) -> None:
        attributes = {**ATTRIBUTES, "url.path": f"/users/{number}"}
        span = tracer.start_as_current_span("GET /users/{id}", kind=trace.SpanKind.SERVER, attributes=attributes)
        with span, unit_of_work("request"), engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))

    for number in range(300):
        request(number)
    wait_until(Stuck.is_stuck.is_set, 60, "the exporter to be stuck")
    before = megabytes()
    for number in range(int(requests)):
        request(number)
    print(json.dumps({"megabytes": megabytes() - before, "errors": guard.counts()}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
