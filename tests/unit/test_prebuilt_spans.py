"""Hold spans by the short way: the same as by the SDK's own, and only where no reader could see a difference."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from poolscope import semconv
from poolscope.core.pool_registry import open_pool_registries
from poolscope.instrumentor import PoolscopeInstrumentor
from poolscope.otel.traces.prebuilt_spans import PrebuiltSpans
from tests.support.pools import Source, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan


class Watching(SpanProcessor):
    """A processor that wants to see spans start."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.started.append(span.name)


class NoHolds(sampling.Sampler):
    """A sampler of the application's own: no hold spans."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **kwargs: Any) -> Any:
        decision = sampling.Decision.DROP if name.startswith("hold") else sampling.Decision.RECORD_AND_SAMPLE
        return sampling.SamplingResult(decision)

    def get_description(self) -> str:
        return "no holds"


@pytest.fixture
def held() -> Iterator[Callable[..., list[ReadableSpan]]]:
    """One lease inside a span; returns its hold spans."""
    instrumentor = PoolscopeInstrumentor()

    def hold(provider: TracerProvider, exporter: InMemorySpanExporter) -> list[ReadableSpan]:
        instrumentor.instrument(tracer_provider=provider, meter_provider=MeterProvider(shutdown_on_exit=False))
        pool = open_pool_registries[-1].register(identity("shop"), Source(4))
        with provider.get_tracer("app").start_as_current_span("request"):
            lease = pool.checkout()
            lease.backend_process_id = 4711
            lease.acquired()
            lease.released()
        instrumentor.flush()
        provider.force_flush()
        return [span for span in exporter.get_finished_spans() if span.name.startswith("hold")]

    yield hold
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def provider_of(**settings: Any) -> tuple[TracerProvider, InMemorySpanExporter]:
    """An SDK that exports to memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, **settings)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def test_both_ways_give_the_same_span(held: Callable[..., list[ReadableSpan]], monkeypatch: pytest.MonkeyPatch) -> None:
    """All that an exporter can see is the same, but for ids and times."""
    provider, exporter = provider_of()
    spans = []
    for usable in (True, False):
        monkeypatch.setattr(PrebuiltSpans, "usable", lambda _, usable=usable: usable)
        spans += held(provider, exporter)
        exporter.clear()
        PoolscopeInstrumentor().uninstrument()
    short, long = spans
    seen = [json.loads(span.to_json()) for span in (short, long)]
    for one in seen:
        for key in ("context", "parent_id", "start_time", "end_time"):
            assert one.pop(key)
        for key in one["attributes"]:
            if key.startswith(semconv.SPAN_HOLD_PHASE_PREFIX):
                one["attributes"][key] = 0.0
    assert seen[0] == seen[1]
    assert seen[0]["attributes"][semconv.BACKEND_PROCESS_ID] == 4711
    for span in (short, long):
        assert span.context is not None
        assert span.parent is not None
        assert (span.context.trace_id, span.context.trace_flags) == (span.parent.trace_id, span.parent.trace_flags)
        assert span.context.span_id != span.parent.span_id
        assert 0 < (span.start_time or 0) <= (span.end_time or 0)
        assert (span.dropped_attributes, span.dropped_events, span.dropped_links) == (0, 0, 0)
    assert short.instrumentation_scope == long.instrumentation_scope
    assert short.resource is long.resource


def test_the_short_way_is_the_usual_one() -> None:
    """With the samplers that environments choose, and processors that only export."""
    for sampler in (sampling.ALWAYS_ON, sampling.DEFAULT_ON, sampling.ParentBasedTraceIdRatio(0.5)):
        provider, exporter = provider_of(sampler=sampler)
        batches = BatchSpanProcessor(exporter)
        provider.add_span_processor(batches)
        assert PrebuiltSpans(provider.get_tracer("poolscope")).usable()
        batches.shutdown()


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("always_on", True),
        ("parentbased_always_on", True),
        ("parentbased_traceidratio", True),
        ("traceidratio", False),
        ("always_off", False),
    ],
)
def test_a_sampler_that_the_environment_names(name: str, *, usable: bool) -> None:
    """
    What `OTEL_TRACES_SAMPLER` names, as the SDK's configurator makes it: of classes of their own. One that would ask
    again for each child is asked.
    """
    (named,) = entry_points(group="opentelemetry_traces_sampler", name=name)
    provider, _ = provider_of(sampler=named.load()(0.5))
    assert PrebuiltSpans(provider.get_tracer("poolscope")).usable() is usable


def test_a_processor_that_sees_spans_start_sees_ours(held: Callable[..., list[ReadableSpan]]) -> None:
    """Whoever is added, even after the tracer was made, is asked."""
    provider, exporter = provider_of()
    ready = PrebuiltSpans(provider.get_tracer("poolscope"))
    assert ready.usable()
    watching = Watching()
    provider.add_span_processor(watching)
    assert not ready.usable()
    assert len(held(provider, exporter)) == 1
    assert [name for name in watching.started if name.startswith("hold")] == ["hold shop"]


def test_a_sampler_of_the_applications_own_decides(held: Callable[..., list[ReadableSpan]]) -> None:
    """One that wants no hold spans gets none, alone or below a parent-based one."""
    provider, exporter = provider_of(sampler=NoHolds())
    assert held(provider, exporter) == []
    PoolscopeInstrumentor().uninstrument()
    provider, exporter = provider_of(sampler=sampling.ParentBased(sampling.ALWAYS_ON, local_parent_sampled=NoHolds()))
    assert held(provider, exporter) == []


def test_limits_of_the_sdk_hold(held: Callable[..., list[ReadableSpan]]) -> None:
    """Where attributes are cut short or counted, the SDK does it."""
    provider, exporter = provider_of(span_limits=SpanLimits(max_span_attribute_length=3))
    (span,) = held(provider, exporter)
    assert (span.attributes or {})[semconv.POOL_NAME] == "sho"
    PoolscopeInstrumentor().uninstrument()
    provider, exporter = provider_of(span_limits=SpanLimits(max_span_attributes=2))
    (span,) = held(provider, exporter)
    assert len(span.attributes or {}) == 2
    assert span.dropped_attributes > 0


def test_what_is_no_sdk_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another implementation's tracer, and an SDK that counts its spans."""
    assert not PrebuiltSpans(object()).usable()
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    tracer: Any = provider_of()[0].get_tracer("poolscope")
    assert PrebuiltSpans(tracer).usable() is not hasattr(tracer, "_tracer_metrics")  # older ones do not count
