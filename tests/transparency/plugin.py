"""
A pytest plugin that puts poolscope under somebody else's tests: `pytest -p plugin`.

The hooks go in when the session starts, with a real SDK that samples everything: each test runs inside a recorded span,
so that `hold` spans are made and stacks are captured, and metrics are collected all the time from another thread.
Garbage is not collected in these background threads: SQLAlchemy's tests count on it being collected in their own. (Any
other thread that allocates makes some of them fail now and then, without poolscope just the same.)

When the session is over the hooks come out again, and the file that `--poolscope-report` names tells what they saw. A
session in which they saw no lease, or an error of poolscope's own, ends with exit code `UNFIT`, whatever the tests did.
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from poolscope import semconv
from poolscope.core.guard import guard
from poolscope.core.worker import Worker
from poolscope.hooks.patching import active_patches
from poolscope.instrumentor import PoolscopeInstrumentor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

COLLECT_SECONDS = 0.2
UNFIT = 9
TEST_SPAN = "test"
MOST_LINES = 10


class CountingExporter(SpanExporter):
    """Counts spans by the first word of their names. The tests make too many to keep."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._counting = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called at the end of each span, from whichever thread ends it."""
        with self._counting:
            self.counts.update(span.name.partition(" ")[0] for span in spans)
        return SpanExportResult.SUCCESS


class Lines(logging.Handler):
    """Keeps the first lines that poolscope logs about errors of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Called in whichever thread logs."""
        line = record.getMessage()
        if "error of its own" in line and len(self.lines) < MOST_LINES:
            self.lines.append(line)


class Watch:
    """Poolscope with a real SDK, from the start of a session to its end."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._exporter = CountingExporter()
        self._tracers = TracerProvider(sampler=ALWAYS_ON)
        self._tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._meters = MeterProvider(metric_readers=[self._reader])
        self._collections = 0
        self._over = threading.Event()
        self._quiet = threading.RLock()
        self._collector = threading.Thread(target=self._collect_for_ever, name="transparency-collector", daemon=True)
        self.tracer = self._tracers.get_tracer("transparency")
        self.errors = Lines()

    def start(self) -> None:
        """Put the hooks in and collect from now on."""
        logging.getLogger("poolscope").addHandler(self.errors)
        Worker._call = self._without_garbage_collection(Worker._call)  # type: ignore[method-assign]
        PoolscopeInstrumentor().instrument(
            tracer_provider=self._tracers, meter_provider=self._meters, checkout_spans="always"
        )
        self._collector.start()

    def stop(self) -> dict[str, Any]:
        """
        Take the hooks out.

        Returns:
            What was seen between, ready for JSON.
        """
        instrumentor = PoolscopeInstrumentor()
        self._over.set()
        self._collector.join()
        patches = len(active_patches())
        adapters = {name: status.state.value for name, status in instrumentor.statuses().items()}
        instrumentor.flush()
        points = self._collect()
        instrumentor.uninstrument()
        return {
            "leases": sum(point.count for point in points.get(semconv.USE_TIME.name, ())),
            "asks": sum(point.count for point in points.get(semconv.WAIT_TIME.name, ())),
            "spans": dict(self._exporter.counts),
            "collections": self._collections,
            "errors": guard.counts(),
            "exported_errors": sum(point.value for point in points.get(semconv.ERRORS.name, ())),
            "adapters": adapters,
            "patches": patches,
            "patches_left": list(active_patches()),
        }

    def _collect_for_ever(self) -> None:
        collect = self._without_garbage_collection(self._collect)
        while not self._over.wait(COLLECT_SECONDS):
            collect()

    def _without_garbage_collection(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def quiet(*args: Any) -> Any:
            with self._quiet:
                gc.disable()
                try:
                    return function(*args)
                finally:
                    gc.enable()

        return quiet

    def _collect(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        self._collections += 1
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """The report's place."""
    parser.addoption("--poolscope-report", type=Path, required=True, help="where to write what the hooks saw")


def pytest_sessionstart(session: pytest.Session) -> None:
    """The hooks go in. The library may be imported by now, and have engines, or come later."""
    session.config.poolscope_watch = watch = Watch()
    watch.start()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Each test, its fixtures included, is a recorded span."""
    with item.config.poolscope_watch.tracer.start_as_current_span(TEST_SPAN):
        yield


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """The hooks come out; what they saw is written down."""
    seen = session.config.poolscope_watch.stop()
    session.config.getoption("--poolscope-report").write_text(json.dumps(seen))
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    terminal.write_line(f"\npoolscope: {seen['leases']} leases, spans {seen['spans']}, errors {seen['errors']}")
    for line in session.config.poolscope_watch.errors.lines:
        terminal.write_line(line)
    if not seen["leases"] or seen["errors"] or seen["exported_errors"] or seen["patches_left"]:
        session.exitstatus = UNFIT
