"""
Prebuilt spans, handed to the processors of an SDK TracerProvider without ``Tracer.start_span``.

A hold span is made after the fact: its times, attributes and parent are known, no code changes it, and its parent is
sampled. ``start_span`` and ``end`` cost about four times what it takes to make the immutable `ReadableSpan` that the
processors get in the end. A prebuilt span is used only where it does not differ from an ordinary one: a sampler that
lets the children of sampled parents pass, processors that look at ended spans only, no limits that the span could meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import SpanKind, Status, StatusCode

from poolscope.otel.traces.entry_span import EntrySpans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import SpanContext

    from poolscope.types import LibraryObject

# More attributes than any span of ours has.
_ATTRIBUTES: Final = 32
# What a tracer has that does not count its spans (OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, from SDK 1.40 on).
_NOT_COUNTED: Final = ("NoneType", "NoOpTracerMetrics")
_UNSET: Final = Status(StatusCode.UNSET)


class PrebuiltSpans:
    """
    Prebuilt spans of one tracer.

    Args:
        tracer: Any tracer; of one that is not recognised as the SDK's `usable` is never true.
    """

    def __init__(self, tracer: LibraryObject) -> None:
        self._tracer = tracer
        self._decided_for: Any = None
        self._decision = False
        try:
            from opentelemetry.sdk.trace import ReadableSpan, SynchronousMultiSpanProcessor, Tracer  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415

            counts = type(getattr(tracer, "_tracer_metrics", None)).__name__ not in _NOT_COUNTED
            self._known = type(tracer) is Tracer and not counts and _unlimited(tracer._span_limits)
            self._several = SynchronousMultiSpanProcessor
            self._processors = {BatchSpanProcessor, SimpleSpanProcessor, EntrySpans}
            self._make = ReadableSpan
            self._scopes = (tracer.instrumentation_info, tracer._instrumentation_scope)
        except (ImportError, AttributeError):
            self._known = False

    def usable(self) -> bool:
        """
        Whether prebuilt spans may be used now. Processors may be added at any time: to be called
        before each batch.
        """
        if not self._known:
            return False
        try:
            tracer = self._tracer
            if type(tracer.span_processor) is not self._several or not getattr(tracer, "_is_enabled", _yes)():
                return False
            state = (tracer.span_processor._span_processors, tracer.sampler)
            if state != self._decided_for:
                self._decision = {type(one) for one in state[0]} <= self._processors and _passes_children(state[1])
                self._decided_for = state
        except AttributeError:
            return False
        return self._decision

    def end(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext,
        attributes: Mapping[str, Any],
        times: tuple[int, int],
    ) -> None:
        """
        Hand over a span that has ended.

        Args:
            name: Its name.
            context: Its own identity; in the trace of its parent, with the parent's flags and state.
            parent: The span around it; sampled.
            attributes: Its attributes: text, numbers, truth values or tuples of them.
            times: When it started and ended, in nanoseconds since 1970.
        """
        tracer = self._tracer
        span = self._make(
            name=name,
            context=context,
            parent=parent,
            resource=tracer.resource,
            attributes=attributes,
            kind=SpanKind.INTERNAL,
            status=_UNSET,
            start_time=times[0],
            end_time=times[1],
            instrumentation_info=self._scopes[0],
            instrumentation_scope=self._scopes[1],
        )
        tracer.span_processor.on_end(span)


def _yes() -> bool:
    return True


def _unlimited(limits: LibraryObject) -> bool:
    most = limits.max_span_attributes
    return limits.max_span_attribute_length is None and (most is None or most >= _ATTRIBUTES)


def _passes_children(sampler: LibraryObject) -> bool:
    from opentelemetry.sdk.trace import sampling  # noqa: PLC0415

    if _passes_all(sampler):
        return True
    # Of the SDK's own, by module: the class that OTEL_TRACES_SAMPLER names is another than the one that code names.
    if not isinstance(sampler, sampling.ParentBased) or type(sampler).__module__ != sampling.__name__:
        return False
    return _passes_all(sampler._local_parent_sampled) and _passes_all(sampler._remote_parent_sampled)


def _passes_all(sampler: LibraryObject) -> bool:
    from opentelemetry.sdk.trace import sampling  # noqa: PLC0415

    own = isinstance(sampler, sampling.StaticSampler) and type(sampler).__module__ == sampling.__name__
    return own and sampler._decision is sampling.Decision.RECORD_AND_SAMPLE
