"""Holders and waiters from spans."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from poolscope import semconv
from poolscope.core.phases import HOLD_PHASES
from poolscope.report.distribution import exact_quantiles
from poolscope.report.model import CallSite, Holder, Starvation
from poolscope.report.series import pool_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from poolscope.report.otlp import Source, Span

_ENTRY_KINDS = ("SERVER", "CONSUMER")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DEPTH = 100
NO_ROUTE = "(outside a request)"


class Traces:
    """
    All spans, with lookups for the report.

    Attributes:
        entries: The spans of units of work.
        holds: The hold spans by the process and the name of the pool.
        checkouts: The checkout spans, likewise.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        self._by_id = {span.span_id: span for span in spans}
        self.entries = [span for span in self._by_id.values() if span.kind in _ENTRY_KINDS]
        self._entry_names = {span.trace_id: _name_of(span) for span in self.entries}
        self.holds = self._ours(semconv.HOLD_SPAN.prefix)
        self.checkouts = self._ours(semconv.CHECKOUT_SPAN.prefix)

    def _ours(self, prefix: str) -> defaultdict[tuple[Source, str], list[Span]]:
        found = defaultdict(list)
        for span in self._by_id.values():
            if span.scope == semconv.SCOPE and span.name.startswith(f"{prefix} "):
                found[span.source, pool_of(span.attributes)].append(span)
        return found

    def route(self, span_id: str) -> str:
        """The name of the unit of work around a span."""
        span = self._by_id.get(span_id)
        outermost = span
        for _ in range(_DEPTH):
            if span is None:
                break
            if semconv.UNIT_OF_WORK_NAME in span.attributes:
                return str(span.attributes[semconv.UNIT_OF_WORK_NAME])
            if span.kind in _ENTRY_KINDS:
                return _name_of(span)
            outermost, span = span, self._by_id.get(span.parent_id)
        return NO_ROUTE if outermost is None or outermost.scope == semconv.SCOPE else outermost.name

    def route_of_link(self, trace_id: str, span_id: str) -> str:
        """
        The name of the unit of work that a link leads to.

        The span of a connection that is never returned is missing; its trace still names the request.
        """
        if span_id in self._by_id:
            return self.route(span_id)
        return self._entry_names.get(trace_id, NO_ROUTE)

    def call_site(self, span: Span) -> CallSite:
        """Where a span's connection was checked out."""
        return call_site_of(span.attributes, self.route(span.span_id))


def _name_of(entry: Span) -> str:
    # The OpenTelemetry instrumentation of Django omits the leading slash of routes.
    method, space, path = entry.name.partition(" ")
    return f"{method} /{path}" if space and method in _METHODS and path[:1] not in "/<" else entry.name


def call_site_of(attributes: Mapping[str, object], route: str) -> CallSite:
    """The call site in the attributes of a span or event."""
    line = attributes.get(semconv.CODE_LINE, 0)
    return CallSite(
        route,
        str(attributes.get(semconv.CODE_FUNCTION, "")),
        str(attributes.get(semconv.CODE_FILE, "")),
        line if isinstance(line, int) else 0,
    )


def phase_seconds(spans: Sequence[Span], prefix: str, phase: str) -> list[float]:
    """
    The seconds of one phase in every span.

    Args:
        spans: The waits or the holds.
        prefix: The attribute's prefix, `semconv.SPAN_WAIT_PHASE_PREFIX` or `semconv.SPAN_HOLD_PHASE_PREFIX`.
        phase: The phase.
    """
    return [_number(span.attributes.get(f"{prefix}{phase}", 0.0)) for span in spans]


def holders(traces: Traces, holds: Sequence[Span], not_returned: Collection[str], end: int) -> tuple[Holder, ...]:
    """
    The holds by call site, longest total first.

    Args:
        traces: All spans.
        holds: The pool's hold spans.
        not_returned: The ids of those whose connection was not returned; such a span ends where the leak was found.
        end: The end of the telemetry, in nanoseconds since the epoch.
    """
    by_call_site: defaultdict[CallSite, list[_Hold]] = defaultdict(list)
    for span in holds:
        is_missing = span.span_id in not_returned
        seconds = max((end - span.start) / 1e9, span.seconds) if is_missing else span.seconds
        by_call_site[traces.call_site(span)].append(_Hold(span, seconds, is_missing))
    everything = sum(hold.seconds for each in by_call_site.values() for hold in each)
    found = [_holder(call_site, each, everything) for call_site, each in by_call_site.items()]
    return tuple(sorted(found, key=lambda holder: holder.seconds, reverse=True))


class _Hold(NamedTuple):
    span: Span
    seconds: float
    is_missing: bool


def _holder(call_site: CallSite, holds: Sequence[_Hold], everything: float) -> Holder:
    spans = [hold.span for hold in holds]
    lengths = [hold.seconds for hold in holds]
    seconds = sum(lengths)
    queries = sum(_number(span.attributes.get(semconv.LEASE_QUERIES, 0)) for span in spans)
    return Holder(
        call_site=call_site,
        count=len(spans),
        not_returned=sum(hold.is_missing for hold in holds),
        seconds=seconds,
        share=seconds / everything if everything else 0.0,
        quantiles=exact_quantiles(lengths),
        longest=max(lengths),
        queries=queries / len(spans),
        phases={phase: sum(phase_seconds(spans, semconv.SPAN_HOLD_PHASE_PREFIX, phase)) for phase in HOLD_PHASES},
    )


def starvations(traces: Traces, checkouts: Sequence[Span]) -> tuple[Starvation, ...]:
    """The waits by waiter and holder, from the links of the checkout spans; longest total first."""
    waits: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for span in checkouts:
        waiter = traces.route(span.span_id)
        for holder in {traces.route_of_link(*link) for link in span.links}:
            waits[waiter, holder].append(span.seconds)
    found = [Starvation(waiter, holder, len(each), sum(each)) for (waiter, holder), each in waits.items()]
    return tuple(sorted(found, key=lambda one: one.seconds, reverse=True))


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
