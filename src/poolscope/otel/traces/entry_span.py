"""
The span around a unit of work (SERVER, CONSUMER): it gets the unit's figures before it ends.

Instrumentations of frameworks end their span while the request still runs for us: before the response is streamed or
the teardown has finished. From 1.45 on the SDK accepts no attribute any more when it notifies processors that a span is
ending.
So the span's own ``end`` is replaced, on that one span, from the moment it is known to be the one until it ends.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from poolscope import semconv
from poolscope.core.guard import guard
from poolscope.core.work import CURRENT_UNIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from poolscope.core.work import UnitOfWork, Units
    from poolscope.types import LibraryObject

_KINDS: Final = (trace.SpanKind.SERVER, trace.SpanKind.CONSUMER)


class EntrySpans:
    """
    A span processor that finds the span around each unit of work. An SDK keeps processors forever: without units of
    work to serve, it does nothing.
    """

    def __init__(self) -> None:
        self.units: Units | None = None

    # What the SDK calls
    # ------------------------------------------------------------------------------------------------

    def on_start(self, span: LibraryObject, parent_context: LibraryObject = None) -> None:  # noqa: ARG002 - the SDK's interface
        """A span starts; inside a unit of work that has none yet, it is the one around it."""
        if self.units is None or span.kind not in _KINDS:
            return
        try:
            unit = CURRENT_UNIT.get()
            if unit is not None and not unit.ended and unit.span is None:
                self._take(unit, span)
        except Exception:  # noqa: BLE001 - ours
            guard.caught("entry_span.start")

    def on_end(self, span: LibraryObject) -> None:
        """Nothing; it is too late."""

    def _on_ending(self, span: LibraryObject) -> None:
        """Nothing; it is too late from 1.45 on."""

    def shutdown(self) -> None:
        """Nothing to let go of."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's interface
        """Nothing is held back."""
        return True

    # What units of work report
    # -------------------------------------------------------------------------------------------

    def began(self, unit: UnitOfWork) -> None:
        """A unit of work begins; a span that has begun already is the one around it."""
        if self.units is None:
            return
        span: Any = trace.get_current_span()
        if span.is_recording() and getattr(span, "kind", None) in _KINDS and _ending(span) is None:
            self._take(unit, span)

    def ended(self, unit: UnitOfWork) -> None:
        """A unit of work ends; if its span has not, that gets the figures now."""
        ending = _ending(unit.span)
        if ending is not None:
            ending.settle()

    def _take(self, unit: UnitOfWork, span: LibraryObject) -> None:
        unit.span = span
        span.end = _Ending(self, unit, span)


class _Ending:
    """Takes the place of ``span.end`` until the figures are on the span."""

    __slots__ = ("_original", "_processor", "_span", "_unit")

    def __init__(self, processor: EntrySpans, unit: UnitOfWork, span: LibraryObject) -> None:
        self._processor = processor
        self._unit = unit
        self._span = span
        self._original = span.end

    def __call__(self, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        guard.run("entry_span.end", self.settle, None)
        return self._original(*args, **kwargs)

    def settle(self) -> None:
        span, units = self._span, self._processor.units
        if vars(span).get("end") is self:
            del span.end
        if units is not None:
            span.set_attributes(_joined(span.attributes or {}, attributes_of(units, self._unit)))


def _ending(span: LibraryObject) -> _Ending | None:
    end = getattr(span, "__dict__", {}).get("end")
    return end if isinstance(end, _Ending) else None


def _joined(before: Mapping[str, Any], attributes: dict[str, Any]) -> dict[str, Any]:
    # One span may be around several units of work, one after the other: the messages of a websocket, jobs in a batch.
    if semconv.UNIT_OF_WORK_QUERIES not in before:
        return attributes
    for name in (semconv.UNIT_OF_WORK_QUERIES, semconv.UNIT_OF_WORK_WAIT_TIME, semconv.UNIT_OF_WORK_HOLD_TIME):
        attributes[name] += before[name]
    attributes[semconv.UNIT_OF_WORK_CONNECTIONS] = max(
        attributes[semconv.UNIT_OF_WORK_CONNECTIONS], before[semconv.UNIT_OF_WORK_CONNECTIONS]
    )
    if semconv.FINDINGS in before:
        attributes[semconv.FINDINGS] = sorted({*attributes.get(semconv.FINDINGS, ()), *before[semconv.FINDINGS]})
    return attributes


def attributes_of(units: Units, unit: UnitOfWork) -> dict[str, Any]:
    """
    What a unit of work did, over all pools, up to now.

    Args:
        units: Where it began; decides what was found about it.
        unit: The unit of work.

    Returns:
        Attributes: the calls; the most connections of one pool held at once; seconds waited and held; the ids of what
        was found, if anything.
    """
    now = units.now()
    usages = tuple(unit.usages.values())
    held = [lease for usage in usages for lease in usage.leases.copy() if lease.acquired_at is not None]
    attributes: dict[str, Any] = {
        semconv.UNIT_OF_WORK_QUERIES: int(sum(usage.queries.read() for usage in usages)),
        semconv.UNIT_OF_WORK_CONNECTIONS: max((usage.most_held() for usage in usages), default=0),
        semconv.UNIT_OF_WORK_WAIT_TIME: float(sum(usage.wait_time.read() for usage in usages)),
        semconv.UNIT_OF_WORK_HOLD_TIME: float(
            sum(usage.hold_time.read() for usage in usages) + sum(now - (lease.acquired_at or now) for lease in held)
        ),
    }
    findings = sorted(units.findings_of(unit))
    if findings:
        attributes[semconv.FINDINGS] = findings
    return attributes


class EntrySpanProcessors:
    """
    Ties units of work to the span around each.

    Args:
        units: Where units of work begin and end.
        provider: The application's TracerProvider; the API's proxy will do, until the application sets
            one.
        ended: Called first with each unit of work that ends; it finds what there is to find.
    """

    def __init__(self, units: Units, provider: trace.TracerProvider, ended: Callable[[UnitOfWork], None]) -> None:
        self._units = units
        self._provider = provider
        self._processor: EntrySpans | None = None
        self._ended = ended
        units.on_begin = self._unit_began
        units.on_end = self._unit_ended

    def attach(self) -> None:
        """Add the processor, as soon as there is a provider that takes it."""
        if self._processor is None:
            self._processor = _processor_of(self._provider) or _processor_of(trace.get_tracer_provider())
            if self._processor is not None:
                self._processor.units = self._units

    def detach(self) -> None:
        """Look at spans no more."""
        if self._processor is not None:
            self._processor.units = None

    def _unit_began(self, unit: UnitOfWork) -> None:
        processor = self._processor
        if processor is not None:
            guard.run("entry_span.begin", lambda: processor.began(unit), None)

    def _unit_ended(self, unit: UnitOfWork) -> None:
        guard.run("unit_of_work.ended", lambda: self._ended(unit), None)
        processor = self._processor
        if processor is not None:
            guard.run("entry_span.end", lambda: processor.ended(unit), None)


_made: Final[weakref.WeakKeyDictionary[Any, EntrySpans]] = weakref.WeakKeyDictionary()


def _processor_of(provider: LibraryObject) -> EntrySpans | None:
    # An SDK keeps processors forever, so a provider gets one, whoever serves.
    known = _made.get(provider)
    if known is None and callable(getattr(provider, "add_span_processor", None)):
        known = _made[provider] = EntrySpans()
        provider.add_span_processor(known)
    return known
