"""Which traces are kept: slow ones, and waits outside of any request."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from examples.lab.pipeline import CONFIG, Collector
from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from tests.pipeline.sink import Sink, figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opentelemetry.trace import Span

    from tests.pipeline.emitter import Process

pytestmark = pytest.mark.timeout(200)

SOME = 20
LONG_WAIT = 0.1


@pytest.fixture
def sampler(collector: Path, tmp_path: Path) -> Iterator[tuple[Collector, Sink]]:
    """The Collector of one machine, which keeps nothing but what it must, and a trace store."""
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink(tmp_path / "sink"))
        env = {
            "POOLSCOPE_TRACES_ENDPOINT": sink.address("otlp_grpc"),
            "POOLSCOPE_DECISION_WAIT_AFTER_ROOT": "1s",
            "POOLSCOPE_KEEP_PERCENT": "0",
            "POOLSCOPE_LONG_WAIT_SECONDS": str(LONG_WAIT),
        }
        yield stack.enter_context(Collector(tmp_path / "collector", CONFIG / "collector.yaml", env=env)), sink


def decided(otel: Collector) -> float:
    """Of how many traces it is decided whether they are kept."""
    return figure(otel, "otelcol_processor_tail_sampling_global_count_traces_sampled")


def test_a_slow_request_is_decided_when_it_is_over(
    sampler: tuple[Collector, Sink], processes: Callable[..., Process]
) -> None:
    """
    A request whose first spans came long before its finding is kept whole, though quick ones are
    decided meanwhile.
    """
    otel, sink = sampler
    process = processes(otel.otlp)
    slow: list[Span] = [process.begin() for _ in range(SOME)]
    assert process.flush()
    for _ in range(SOME):
        process.request()
    assert process.flush()
    wait_until(lambda: decided(otel) >= SOME, 60, "the quick requests")
    assert decided(otel) == SOME
    for unit in slow:
        unit.set_attribute(semconv.UNIT_OF_WORK_QUERIES, 1)
        unit.set_attribute(semconv.FINDINGS, [POOL_EXHAUSTED])
        unit.end()
    assert process.flush()
    wanted = {f"{unit.get_span_context().trace_id:032x}" for unit in slow}
    wait_until(lambda: set(sink.traces()) >= wanted, 60, "the slow requests")
    assert set(sink.traces()) == wanted
    assert {len(spans) for spans in sink.traces().values()} == {2}


def test_a_long_wait_outside_of_a_request_is_kept(
    sampler: tuple[Collector, Sink], processes: Callable[..., Process]
) -> None:
    """A checkout in no unit of work that waited long is kept, one that did not is not."""
    otel, sink = sampler
    process = processes(otel.otlp)
    long = {process.wait(LONG_WAIT * 2) for _ in range(SOME)}
    for _ in range(SOME):
        process.wait(LONG_WAIT / 2)
    assert process.flush()
    wait_until(lambda: decided(otel) == 2 * SOME, 60, "all decisions")
    wait_until(lambda: set(sink.traces()) >= long, 60, "the long waits")
    assert set(sink.traces()) == long
