"""
Forks again and again while the background thread exports; each child uses what the parent uses, and ends.

Prints one line of JSON: how many children there were, those that hung, how many warnings of threads at a fork there
were, and the parent's seconds for one fork.

Usage:
    python -m tests.integration.programs.many_forks bare|poolscope EXPORTER FORKS [WAY]

EXPORTER is ``locked``, ``batch``, ``memory``, ``console`` or the port of an OTLP endpoint; WAY a key of `Forks.ways`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds until a child hangs.
PATIENCE = 20


class Locked(SpanExporter):
    """An exporter that has a lock for most of the time, and writes a log line in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.spans = 0

    def export(self, spans: Any) -> SpanExportResult:
        """Take a while, as a network does."""
        with self._lock:
            self.spans += len(spans)
            time.sleep(0.002)
            logging.getLogger("exporter").info("%d spans", self.spans)
        return SpanExportResult.SUCCESS


def processor(exporter: str) -> Any:
    """The processor of that exporter."""
    if exporter == "locked":
        return SimpleSpanProcessor(Locked())
    if exporter == "batch":
        return BatchSpanProcessor(Locked(), schedule_delay_millis=5)
    if exporter == "memory":
        return SimpleSpanProcessor(InMemorySpanExporter())
    if exporter == "console":
        return SimpleSpanProcessor(ConsoleSpanExporter(out=Path(os.devnull).open("w")))
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"http://127.0.0.1:{exporter}/v1/traces", timeout=1))


class Forks:
    """
    Forks in one way.

    Args:
        engine: What each child uses.
    """

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self._engine = engine
        self._tracer = trace.get_tracer("application")
        self.seconds = 0.0
        self.well: list[bool] = []
        self.ways: dict[str, Callable[[], object]] = {
            "fork": self._fork,
            "forkpty": lambda: self._fork(lambda: os.forkpty()[0]),
            "subprocess": self._run_program,
            "handler": lambda: signal.raise_signal(signal.SIGUSR2),
            "thread": self._fork_in_threads,
        }
        signal.signal(signal.SIGUSR2, lambda *_: self._fork())

    def work(self) -> None:
        """Use the pool, in a recorded span."""
        with self._tracer.start_as_current_span("work"):
            self._engine.connect().close()

    def _child(self) -> None:
        signal.alarm(PATIENCE)
        logging.getLogger("child").info("a line")
        self.work()
        os._exit(0)

    def _fork(self, fork: Callable[[], int] = os.fork) -> None:
        began = time.perf_counter()
        number = fork()
        if not number:
            self._child()
        self.seconds += time.perf_counter() - began
        self.well.append(os.waitpid(number, 0)[1] == 0)

    def _run_program(self) -> None:
        began = time.perf_counter()
        done = subprocess.run(["/bin/true"], preexec_fn=_nothing, check=False)
        self.seconds += time.perf_counter() - began
        self.well.append(done.returncode == 0)

    def _fork_in_threads(self) -> None:
        threads = [threading.Thread(target=self._fork) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _nothing() -> None:
    """With it, `subprocess` forks by Python's own means."""


def main(what: str, exporter: str, number: str, way: str = "fork") -> None:
    """Work, and fork."""
    logging.basicConfig(filename=os.devnull, level=logging.INFO)
    spans = TracerProvider(shutdown_on_exit=False)
    spans.add_span_processor(processor(exporter))
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False))
    trace.set_tracer_provider(spans)
    if what == "poolscope":
        from poolscope.instrumentor import PoolscopeInstrumentor

        PoolscopeInstrumentor().instrument(skip_dep_check=True, checkout_spans="always")
    engine = sqlalchemy.create_engine(
        "sqlite://", poolclass=QueuePool, pool_logging_name="forks", connect_args={"check_same_thread": False}
    )
    forks = Forks(engine)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        while len(forks.well) < int(number):
            for _ in range(3):
                forks.work()
            # At another moment of the background thread's each time: after its start, it waits a while.
            time.sleep(0.0007 * (len(forks.well) % 11) + (0.21 if len(forks.well) % 3 else 0))
            forks.ways[way]()
    report = {
        "forks": len(forks.well),
        "hung": forks.well.count(False),
        "warned": sum("multi-threaded" in str(warning.message) for warning in caught),
        "seconds": forks.seconds / len(forks.well),
    }
    print(json.dumps(report), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
