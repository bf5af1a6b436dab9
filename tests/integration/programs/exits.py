"""
An application that ends while something is stuck: a log that is not read, an exporter whose endpoint does not answer.

It writes the moment at which it begins to end to a file, as `time.monotonic`, which all processes share.

Usage:
    python -m tests.integration.programs.exits bare|poolscope STUCK WAY FILE [PORT]
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter, SpanExportResult
from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from collections.abc import Callable

_exporting: Any = importlib.import_module("opentelemetry.sdk._logs.export")
# SDKs before 1.36 have other names.
LogRecordExporter: Any = getattr(_exporting, "LogRecordExporter", None) or _exporting.LogExporter
LogRecordExportResult: Any = getattr(_exporting, "LogRecordExportResult", None) or _exporting.LogExportResult

for_ever = threading.Event()
# What has a bound lasts so long, in seconds: more than poolscope may add to it.
LASTING = 3.0


class Locked:
    """An exporter that has a lock while it exports, for ever; `shutdown` takes it, too."""

    def __init__(self, result: Any) -> None:
        self._lock = threading.Lock()
        self._result = result

    def export(self, *_: Any, **__: Any) -> Any:
        """Get stuck."""
        with self._lock:
            for_ever.wait()
        return self._result

    def shutdown(self, *_: Any, **__: Any) -> None:
        """Wait for what is being exported."""
        with self._lock:
            pass

    def force_flush(self, *_: Any, **__: Any) -> bool:
        """Nothing is kept."""
        return True


class LockedSpans(Locked, SpanExporter):
    """Of spans."""


class LockedRecords(Locked, LogRecordExporter):  # type: ignore[misc]  # as its SDK has it
    """Of log records."""


class Flushing(SimpleSpanProcessor):
    """A processor whose `force_flush` never ends."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Get stuck."""
        return for_ever.wait()


class Ending(SimpleSpanProcessor):
    """A processor whose `shutdown` lasts."""

    def shutdown(self) -> None:
        """Last."""
        time.sleep(LASTING)


class Nothing(SpanExporter):
    """Exports nothing."""

    def export(self, spans: Any) -> SpanExportResult:
        """Do nothing."""
        return SpanExportResult.SUCCESS


class Handler(logging.Handler):
    """A log handler that never returns."""

    def emit(self, record: logging.LogRecord) -> None:
        """Get stuck."""
        for_ever.wait()


def metric_exporter() -> Any:
    """A metric exporter of which each export lasts."""
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

    class Slow(ConsoleMetricExporter):
        def export(self, *_: Any, **__: Any) -> MetricExportResult:
            time.sleep(LASTING)
            return MetricExportResult.SUCCESS

    return Slow()


def otlp_spans(endpoint: str) -> SpanExporter:
    """OTLP's exporter of spans."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=f"{endpoint}/traces")


def otlp_records(endpoint: str) -> Any:
    """OTLP's exporter of log records."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    return OTLPLogExporter(endpoint=f"{endpoint}/logs")


PROCESSORS: dict[str, Callable[[str], Any]] = {
    "spans": lambda endpoint: SimpleSpanProcessor(otlp_spans(endpoint)),
    "records": lambda endpoint: _exporting.SimpleLogRecordProcessor(otlp_records(endpoint)),
    "locked_spans": lambda _: SimpleSpanProcessor(LockedSpans(SpanExportResult.SUCCESS)),
    "locked_records": lambda _: _exporting.SimpleLogRecordProcessor(LockedRecords(LogRecordExportResult.SUCCESS)),
    "console": lambda _: SimpleSpanProcessor(ConsoleSpanExporter()),
    "force_flush": lambda _: Flushing(Nothing()),
    "shutdown": lambda _: Ending(Nothing()),
}


def set_up(stuck: str, port: str) -> None:
    """The SDK, and what is stuck in it."""
    spans, records = TracerProvider(), LoggerProvider()
    words = stuck.split("+")
    for word in PROCESSORS.keys() & set(words):
        processor = PROCESSORS[word](f"http://127.0.0.1:{port}/v1")
        if "records" in word:
            records.add_log_record_processor(processor)
        else:
            spans.add_span_processor(processor)
    slow = "metrics" in words
    reader: Any = (
        PeriodicExportingMetricReader(metric_exporter(), export_interval_millis=100) if slow else InMemoryMetricReader()
    )
    if "handler" in words:
        logging.getLogger().addHandler(Handler())
    if "stream" in words:
        logging.basicConfig()
    trace.set_tracer_provider(spans)
    metrics.set_meter_provider(MeterProvider([reader]))
    metrics.get_meter("exits").create_counter("application.work").add(1)
    _logs.set_logger_provider(records)


def work() -> None:
    """A checkout that times out: it makes a span, an event, a finding and its line in the log."""
    engine = sqlalchemy.create_engine(
        "sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.05, pool_logging_name="exits"
    )
    held = engine.connect()
    for _ in range(20):
        try:
            engine.connect().close()
        except sqlalchemy.exc.TimeoutError:
            continue
    held.close()


def settle() -> None:
    """Wait until the background thread is stuck, or has nothing to do."""
    number = next((thread.ident for thread in threading.enumerate() if thread.name == "poolscope"), None)
    seen: list[Any] = []
    deadline = time.monotonic() + 2
    while number is not None and time.monotonic() < deadline and len(seen) < 8:
        frame = sys._current_frames().get(number)
        places = []
        while frame is not None:
            places.append((frame.f_code, frame.f_lasti))
            frame = frame.f_back
        idle = any(code.co_name == "wait" and "poolscope" in code.co_filename for code, _ in places)
        seen = [] if idle or (seen and seen[-1] != places) else [*seen, places]
        time.sleep(0.05)


def fork(*, leave: bool) -> None:
    """Fork; the child ends as a program does, or at once."""
    child = os.fork()
    if not child:
        if leave:
            os._exit(0)
        sys.exit(3)
    os.waitpid(child, 0)


def end(way: str, file: Path, instrumentor: Any) -> None:
    """End in that way."""
    lasting: dict[str, Callable[[], Any]] = {
        "uninstrument": lambda: instrumentor and instrumentor.uninstrument(),
        "flush": lambda: instrumentor and instrumentor._session.pool_registry.flush(),
        "fork": lambda: fork(leave=True),
        "child": lambda: fork(leave=False),
    }
    ending: dict[str, Callable[[], Any]] = {
        "exit": lambda: sys.exit(3),
        "_exit": lambda: os._exit(3),
        "sigterm": lambda: os.kill(os.getpid(), signal.SIGTERM),
        "error": lambda: os.environ["NO_SUCH_VARIABLE"],
        "uninstrument and return": lasting["uninstrument"],
        "return": lambda: None,
    }
    began = time.monotonic()
    file.write_text(json.dumps({"began": began}))
    if way in ending:
        ending[way]()
        return
    lasting[way]()
    file.write_text(json.dumps({"began": began, "ended": time.monotonic()}))
    os._exit(0)


def main(what: str, stuck: str, way: str, file: str, port: str = "1") -> None:
    """Set up, work, get stuck, end."""
    set_up(stuck, port)
    instrumentor = None
    if what == "poolscope":
        from poolscope.instrumentor import PoolscopeInstrumentor

        instrumentor = PoolscopeInstrumentor()
        instrumentor.instrument(skip_dep_check=True)
    if way == "sigterm":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    work()
    settle()
    if "lock" in stuck.split("+"):
        logging.getLogger().handlers[0].acquire()
    end(way, Path(file), instrumentor)


if __name__ == "__main__":
    main(*sys.argv[1:])
