"""What is set on the span around a unit of work, and when."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import poolscope
from poolscope import semconv
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.guard import SessionEndedError, guard
from poolscope.core.pool_registry import open_pool_registries
from poolscope.core.work_scope import begin
from tests.support.telemetry import Telemetry, instrumented
from tests.support.units import Queries, figures, queries_by_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.work_scope import WorkScope

#: No request holds or waits for so long, however busy the machine is: what is found is what the test makes.
PATIENT = {"long_hold_threshold": 60, "exhaustion_threshold": 0}
KEYS = {
    semconv.UNIT_OF_WORK_QUERIES,
    semconv.UNIT_OF_WORK_CONNECTIONS,
    semconv.UNIT_OF_WORK_WAIT_TIME,
    semconv.UNIT_OF_WORK_HOLD_TIME,
}


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on; no spans of its own."""
    yield from instrumented(hold_spans=False, checkout_spans="never", **PATIENT)


@pytest.fixture
def queries(telemetry: Telemetry) -> Queries:
    """A pool."""
    return Queries()


def unit_begins(kind: str = "http", name: str = "GET /") -> WorkScope:
    """As a boundary does it."""
    work_scope = begin(open_pool_registries[-1], kind, name)
    assert work_scope is not None
    return work_scope


def exported(telemetry: Telemetry) -> list[tuple[str, dict[str, object]]]:
    """Name and figures of the spans that ended."""
    return [(span.name, dict(figures(span))) for span in telemetry.exporter.get_finished_spans()]


@pytest.mark.parametrize("kind", [SpanKind.SERVER, SpanKind.CONSUMER])
def test_a_span_inside_the_unit_that_ends_first_has_the_figures(
    telemetry: Telemetry, queries: Queries, kind: SpanKind
) -> None:
    """Upstream's Flask and Starlette end their span before the request has finished: what is known by then is on it."""
    unit = unit_begins()
    with telemetry.tracer.start_as_current_span("request", kind=kind):
        queries(3)
    queries(4)
    unit.end()
    [(_, found)] = exported(telemetry)
    assert set(found) == KEYS
    assert (found[semconv.UNIT_OF_WORK_QUERIES], found[semconv.UNIT_OF_WORK_CONNECTIONS]) == (3, 1)
    assert queries_by_unit(telemetry.collect()) == {"http GET /": (1, 7.0)}


def test_a_span_around_the_unit_has_the_figures(telemetry: Telemetry, queries: Queries) -> None:
    """A span that began before the unit of work and ends after it."""
    with telemetry.tracer.start_as_current_span("message", kind=SpanKind.CONSUMER):
        unit = unit_begins("task", "send")
        queries(3)
        unit.end()
        queries(5)
    assert [found[semconv.UNIT_OF_WORK_QUERIES] for _, found in exported(telemetry)] == [3]


def test_only_the_outermost_span_of_the_right_kind_has_them(telemetry: Telemetry, queries: Queries) -> None:
    """Not its children, not a client's, not a second server's inside it."""
    unit = unit_begins()
    tracer = telemetry.tracer
    with tracer.start_as_current_span("client", kind=SpanKind.CLIENT):
        pass
    with (
        tracer.start_as_current_span("outer", kind=SpanKind.SERVER),
        tracer.start_as_current_span("inner", kind=SpanKind.SERVER),
        tracer.start_as_current_span("child"),
    ):
        queries(1)
    unit.end()
    assert {name: bool(found) for name, found in exported(telemetry)} == {
        "client": False,
        "outer": True,
        "inner": False,
        "child": False,
    }


def test_a_span_around_several_units_has_their_sum(telemetry: Telemetry, queries: Queries) -> None:
    """The messages of a websocket, the jobs of a batch: calls and times add up, findings stay."""
    with telemetry.tracer.start_as_current_span("websocket", kind=SpanKind.SERVER):
        for number in (7, 2):
            unit = unit_begins()
            queries(number, "select * from t where id = 1")
            unit.end()
    [(_, found)] = exported(telemetry)
    assert found[semconv.UNIT_OF_WORK_QUERIES] == 9
    assert found[semconv.FINDINGS] == (N_PLUS_ONE,)


@pytest.mark.parametrize(("number", "findings"), [(6, (N_PLUS_ONE,)), (5, None)])
def test_findings_are_on_the_span_before_it_ends(
    telemetry: Telemetry, queries: Queries, number: int, findings: object
) -> None:
    """What a tail sampler keeps: ids of what was found so far; no attribute where nothing was."""
    unit = unit_begins()
    with telemetry.tracer.start_as_current_span("request", kind=SpanKind.SERVER):
        queries(number, "select * from t where id = 1")
    unit.end()
    [(_, found)] = exported(telemetry)
    assert found.get(semconv.FINDINGS) == findings


def test_the_time_of_a_connection_still_out_counts(telemetry: Telemetry, queries: Queries) -> None:
    """A session that the framework closes after the span has ended is held all the same."""
    unit = unit_begins()
    with telemetry.tracer.start_as_current_span("request", kind=SpanKind.SERVER):
        lease = queries.pool.checkout()
        lease.acquired()
        lease.acquired_at = queries.pool.now() - 5.0
    lease.released()
    unit.end()
    [(_, found)] = exported(telemetry)
    assert float(str(found[semconv.UNIT_OF_WORK_HOLD_TIME])) >= 5.0


def test_the_span_ends_as_it_always_does(telemetry: Telemetry, queries: Queries) -> None:
    """The time given to `end()` is the span's, a second `end()` warns as ever, and the span has its own `end` back."""
    unit = unit_begins()
    span: Any = telemetry.tracer.start_span("request", kind=SpanKind.SERVER)
    span.end(end_time=1_900_000_000_000_000_000)
    assert span.end_time == 1_900_000_000_000_000_000
    assert "end" not in vars(span)
    unit.end()


def test_an_error_of_ours_ends_the_span_all_the_same(
    telemetry: Telemetry, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and the application's span is exported without figures."""
    unit = unit_begins()
    with telemetry.tracer.start_as_current_span("request", kind=SpanKind.SERVER):
        monkeypatch.setattr(unit.unit, "usages", None)
    monkeypatch.undo()
    unit.end()
    assert exported(telemetry) == [("request", {})]
    assert guard.counts()["entry_span.end"] == 1
    guard.reset()


def test_after_uninstrument_the_processor_does_nothing(telemetry: Telemetry, queries: Queries) -> None:
    """An SDK keeps its processors; ours looks at no span any more, and serves again after the next `instrument()`."""
    unit = unit_begins()
    telemetry.stop()
    with telemetry.tracer.start_as_current_span("off", kind=SpanKind.SERVER), pytest.raises(SessionEndedError):
        queries(1)
    unit.end()
    telemetry.start()
    again = Queries()
    unit = unit_begins()
    with telemetry.tracer.start_as_current_span("on", kind=SpanKind.SERVER):
        again(2)
    unit.end()
    assert [(name, found.get(semconv.UNIT_OF_WORK_QUERIES)) for name, found in exported(telemetry)] == [
        ("off", None),
        ("on", 2),
    ]


def test_a_generator_that_is_dropped_leaves_the_span_alone(telemetry: Telemetry, queries: Queries) -> None:
    """The garbage collector may drop it while the SDK holds its locks; the span has the figures once it ends itself."""

    @poolscope.unit_of_work("rows", kind="rpc")
    def rows() -> Iterator[int]:
        with telemetry.tracer.start_as_current_span("call", kind=SpanKind.SERVER, end_on_exit=False) as span:
            spans.append(span)
        queries(2)
        yield 1

    spans: list[Any] = []
    generator = rows()
    next(generator)
    del generator
    assert queries_by_unit(telemetry.collect()) == {"rpc rows": (1, 2.0)}
    assert semconv.UNIT_OF_WORK_QUERIES not in spans[0].attributes
    spans[0].end()
    assert [found[semconv.UNIT_OF_WORK_QUERIES] for _, found in exported(telemetry)] == [2]


def test_a_provider_set_after_instrument_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """`opentelemetry-instrument` may start us before the application sets its provider."""
    telemetry = Telemetry(hold_spans=False, checkout_spans="never", **PATIENT)
    telemetry.instrumentor.instrument(meter_provider=telemetry.meter_provider, skip_dep_check=True)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: telemetry.tracer_provider)
    telemetry.instrumentor.flush()
    queries = Queries()
    unit = unit_begins()
    with telemetry.tracer.start_as_current_span("request", kind=SpanKind.SERVER):
        queries(2)
    unit.end()
    assert [found[semconv.UNIT_OF_WORK_QUERIES] for _, found in exported(telemetry)] == [2]
    telemetry.shutdown()


@pytest.mark.parametrize("usage", [0.0, 1.0])
def test_counting_does_not_depend_on_sampling(usage: float) -> None:
    """With nothing sampled and with everything, metrics and findings are the same."""
    telemetry = Telemetry(**PATIENT)
    telemetry.tracer_provider = TracerProvider(sampler=sampling.TraceIdRatioBased(usage), shutdown_on_exit=False)
    telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(telemetry.exporter))
    telemetry.tracer = telemetry.tracer_provider.get_tracer("tests")
    telemetry.start()
    queries = Queries()
    found = []
    for number in (2, 8):
        unit = unit_begins("http", f"GET /{number}")
        with telemetry.tracer.start_as_current_span("request", kind=SpanKind.SERVER):
            queries(number, "select * from t where id = 1")
        unit.end()
        found.append(sorted(unit.unit.findings))
    collected = telemetry.collect()
    assert queries_by_unit(collected) == {"http GET /2": (1, 2.0), "http GET /8": (1, 8.0)}
    assert collected.total(semconv.REPEATED_QUERIES) == 8
    assert found == [[], [N_PLUS_ONE]]
    server = [span for span in telemetry.spans() if span.name == "request"]
    assert len(server) == (2 if usage else 0)
    telemetry.shutdown()


def test_nothing_keeps_the_span_or_the_unit() -> None:
    """Once both are over they go without the garbage collector; but a span may be the exemplar of a histogram."""
    telemetry = Telemetry(hold_spans=False, checkout_spans="never", **PATIENT)
    telemetry.tracer_provider = TracerProvider(shutdown_on_exit=False)  # without an exporter that keeps spans
    telemetry.start()
    queries = Queries()
    tracer = telemetry.tracer_provider.get_tracer("tests")
    gc.disable()
    try:
        unit = unit_begins()
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER) as span:
            pass
        queries(2)
        unit.end()
        references = [weakref.ref(span), weakref.ref(unit.unit)]
        del unit, span
        telemetry.instrumentor.flush()
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()
    telemetry.shutdown()


def test_an_exemplar_keeps_no_unit() -> None:
    """A histogram keeps the span of one of its values until another takes its place, and nothing of what ran in it."""
    telemetry = Telemetry(hold_spans=False, checkout_spans="never", **PATIENT)
    telemetry.start()
    queries = Queries()
    gc.disable()
    try:
        with telemetry.tracer.start_as_current_span("request", kind=SpanKind.SERVER):
            unit = unit_begins()
            queries(2)
            unit.end()
        reference = weakref.ref(unit.unit)
        del unit
        telemetry.instrumentor.flush()
        assert telemetry.collect().points(semconv.USE_TIME)[0].exemplars
        assert reference() is None
    finally:
        gc.enable()
    telemetry.shutdown()


def test_spans_that_are_not_the_sdks_are_left_alone(telemetry: Telemetry, queries: Queries) -> None:
    """A remote parent or another implementation's span takes no figures, and nothing fails."""
    context = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        unit = unit_begins()
        queries(1)
        unit.end()
    assert queries_by_unit(telemetry.collect()) == {"http GET /": (1, 1.0)}
    assert "entry_span.begin" not in guard.counts()


def test_an_exporter_sees_the_figures(telemetry: Telemetry, queries: Queries) -> None:
    """Also one that was added before poolscope came: its processor is called first."""
    first = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(first))
    telemetry.stop()
    telemetry.tracer_provider = provider
    telemetry.start()
    again = Queries()
    unit = unit_begins()
    with provider.get_tracer("tests").start_as_current_span("request", kind=SpanKind.SERVER):
        again(2)
    unit.end()
    assert [figures(span)[semconv.UNIT_OF_WORK_QUERIES] for span in first.get_finished_spans()] == [2]
