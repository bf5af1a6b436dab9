"""
OTLP as JSON, decoded: metric points, spans and log records.

The SDK's file exporter and the Collector's write the same. Only what the report reads is kept: foreign metrics and log
records, and most attributes of foreign spans, are not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from poolscope import semconv
from poolscope.core.catalogue import KINDS
from poolscope.report import wire
from poolscope.report.distribution import Distribution, from_exponential
from poolscope.report.wire import UNREADABLE, Json, MalformedError, Repeated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SPAN_KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_NUMBER_KINDS: Final = ("sum", "gauge")
_DISTRIBUTION_KINDS: Final = ("histogram", "exponentialHistogram")
_METRICS: Final = {metric.name: metric for metric in semconv.METRICS}
_OF_RESOURCES: Final = frozenset({"service.name", "service.instance.id", "process.pid"})
_OF_FOREIGN_SPANS: Final = frozenset({semconv.UNIT_OF_WORK_NAME, semconv.FINDINGS})
_OF_OUR_SPANS: Final = frozenset(key for span in semconv.SPANS for key in span.attributes) | _OF_FOREIGN_SPANS
#: The names of events that say that a finding is over.
RESOLVED: Final = frozenset(kind.resolved_event.name for kind in KINDS.values() if kind.resolved_event is not None)


class Temporality(Enum):
    """Whether a point counts since the last point or since the beginning; a gauge does neither."""

    DELTA = "delta"
    CUMULATIVE = "cumulative"
    INSTANT = "instant"


class Source(NamedTuple):
    """The process that sent something."""

    service: str
    instance: str


class Point(NamedTuple):
    """One value of one metric, for one set of attributes; times in nanoseconds since the epoch."""

    source: Source
    metric: str
    monotonic: bool
    temporality: Temporality
    attributes: Mapping[str, object]
    start: int
    time: int
    value: float | Distribution


class Span(NamedTuple):
    """One span; times in nanoseconds since the epoch, links as trace id and span id."""

    source: Source
    scope: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: Mapping[str, object]
    links: tuple[tuple[str, str], ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) / 1e9


class Event(NamedTuple):
    """One log record that has an event name."""

    source: Source
    name: str
    time: int
    trace_id: str
    span_id: str
    attributes: Mapping[str, object]


@dataclass
class Batch:
    """
    The content of one line of a file.

    Args:
        points: Of the metrics that the report reads.
        spans: All of them.
        events: Findings, and what became of them.
        sources: Who sent it.
        left_out: What does not follow the specification, by what it is.
        reason: Why the first of it does not.
    """

    points: list[Point] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    sources: set[Source] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    reason: str = ""

    def leave_out(self, what: str, error: BaseException) -> None:
        """Count what does not follow the specification."""
        self.reason = self.reason or wire.why(error)
        self.left_out[what] += 1


def is_export(document: object) -> bool:
    """Whether a JSON document is an OTLP export request with metrics, spans or logs."""
    return isinstance(document, dict) and any(key in document for key in _READ_BY)


class Recent:
    """What repeats from line to line of a file, decoded once."""

    def __init__(self) -> None:
        self.attributes = Repeated("attributes", wire.attributes)
        self.bounds = Repeated("explicitBounds", wire.bounds)
        self._source = Repeated("resource", _source)

    def source(self, resource: Json) -> Source:
        """The process that sent a resource's telemetry."""
        return self._source.of(resource)


def _source(resource: Json) -> Source:
    attributes = wire.attributes(wire.part(resource, "resource"), _OF_RESOURCES)
    instance = attributes.get("service.instance.id", attributes.get("process.pid", ""))
    return Source(wire.text(attributes.get("service.name", "unknown_service")), wire.text(instance))


def decode(document: Json, recent: Recent) -> Batch:
    """
    Decode one export request; what does not follow the specification is left out and counted.

    Args:
        document: The request.
        recent: Of the lines before it in its file.
    """
    batch = Batch()
    for signal, read in _READ_BY.items():
        if signal not in document:
            continue
        for resource in _parts(batch, document, signal, "resource"):
            try:
                source = recent.source(resource)
            except UNREADABLE as error:
                batch.leave_out("resource", error)
                continue
            batch.sources.add(source)
            read(batch, recent, source, resource)
    return batch


def _parts(batch: Batch, raw: Json, key: str, what: str) -> Iterator[Json]:
    try:
        found = wire.items(raw, key)
    except UNREADABLE as error:
        batch.leave_out(what, error)
        return
    for each in found:
        if type(each) is dict:
            yield each
        else:
            batch.leave_out(what, MalformedError(f"{key} has what is no object"))


def _metrics(batch: Batch, recent: Recent, source: Source, resource: Json) -> None:
    for scope in _parts(batch, resource, "scopeMetrics", "scope"):
        for metric in _parts(batch, scope, "metrics", "metric"):
            try:
                known = _METRICS.get(metric["name"])
                if known is not None:
                    _points(batch, recent, source, known, metric)
            except UNREADABLE as error:
                batch.leave_out("metric", error)


def _points(batch: Batch, recent: Recent, source: Source, known: semconv.Metric, metric: Json) -> None:
    unit = metric.get("unit")
    if unit and known.unit == "s" and unit != "s":
        raise MalformedError(f"{known.name} is not in seconds")
    for kind in (*_NUMBER_KINDS, *_DISTRIBUTION_KINDS):
        if metric.get(kind) is None:
            continue
        data = wire.part(metric, kind)
        temporality = Temporality.INSTANT if kind == "gauge" else _temporality(data.get("aggregationTemporality"))
        is_distribution = kind in _DISTRIBUTION_KINDS
        monotonic = is_distribution or bool(data.get("isMonotonic"))
        for raw in _parts(batch, data, "dataPoints", "metric point"):
            try:
                point = Point(
                    source,
                    known.name,
                    monotonic,
                    temporality,
                    recent.attributes.of(raw),
                    wire.moment(raw, "startTimeUnixNano"),
                    wire.moment(raw, "timeUnixNano"),
                    _distribution(recent, kind, raw) if is_distribution else _number(raw),
                )
            except UNREADABLE as error:
                batch.leave_out("metric point", error)
            else:
                batch.points.append(point)


def _temporality(given: object) -> Temporality:
    if given in (1, "AGGREGATION_TEMPORALITY_DELTA"):
        return Temporality.DELTA
    if given in (2, "AGGREGATION_TEMPORALITY_CUMULATIVE"):
        return Temporality.CUMULATIVE
    raise MalformedError("aggregationTemporality is neither delta nor cumulative")


def _number(raw: Json) -> float:
    return wire.number(raw, "asInt" if "asInt" in raw else "asDouble")


def _distribution(recent: Recent, kind: str, raw: Json) -> Distribution:
    total = wire.number(raw, "sum")
    lowest, highest = _optional(raw, "min"), _optional(raw, "max")
    if kind == "exponentialHistogram":
        if any(wire.counts(wire.part(raw, "negative"))):
            raise MalformedError("a histogram of times has some below 0")
        positive = wire.part(raw, "positive")
        zero, offset, scale = wire.whole(raw, "zeroCount"), wire.whole(positive, "offset"), wire.whole(raw, "scale")
        if zero < 0:
            raise MalformedError("zeroCount is below 0")
        found = from_exponential(
            scale, zero, offset, wire.counts(positive), total=total, minimum=lowest, maximum=highest
        )
        wire.ascending(found.bounds, "the scale of a histogram")
        return found
    bounds = recent.bounds.of(raw)
    counts = wire.counts(raw)
    if not counts and not bounds:
        counts = wire.counts({"bucketCounts": [raw.get("count") or 0]})
    if len(counts) != len(bounds) + 1:
        raise MalformedError("bucketCounts does not fit explicitBounds")
    return Distribution(bounds, counts, total, lowest, highest)


def _optional(raw: Json, key: str) -> float | None:
    return wire.number(raw, key) if raw.get(key) is not None else None


def _spans(batch: Batch, _: Recent, source: Source, resource: Json) -> None:
    for scope in _parts(batch, resource, "scopeSpans", "scope"):
        try:
            name = wire.text(wire.part(scope, "scope").get("name") or "")
        except UNREADABLE as error:
            batch.leave_out("scope", error)
            continue
        only = _OF_OUR_SPANS if name == semconv.SCOPE else _OF_FOREIGN_SPANS
        for raw in _parts(batch, scope, "spans", "span"):
            try:
                span = Span(
                    source,
                    name,
                    wire.text(raw.get("name") or ""),
                    _span_kind(raw.get("kind", 0)),
                    wire.identifier(raw, "traceId"),
                    wire.identifier(raw, "spanId"),
                    wire.identifier(raw, "parentSpanId"),
                    wire.moment(raw, "startTimeUnixNano"),
                    wire.moment(raw, "endTimeUnixNano"),
                    wire.attributes(raw, only),
                    tuple([(link["traceId"], link["spanId"]) for link in wire.items(raw, "links")]),
                )
                _check(span)
            except UNREADABLE as error:
                batch.leave_out("span", error)
            else:
                batch.spans.append(span)


def _check(span: Span) -> None:
    if not span.span_id:
        raise MalformedError("no spanId")
    if span.end < span.start:
        raise MalformedError("a span ends before it starts")
    for link in span.links:  # most have none
        if type(link[0]) is not str or type(link[1]) is not str:
            raise MalformedError("a link has what is no id")


def _span_kind(kind: object) -> str:
    if type(kind) is str:
        return wire.text(kind.removeprefix("SPAN_KIND_"))
    return _SPAN_KINDS[kind] if type(kind) is int and 0 <= kind < len(_SPAN_KINDS) else _SPAN_KINDS[0]


def _logs(batch: Batch, _: Recent, source: Source, resource: Json) -> None:
    for scope in _parts(batch, resource, "scopeLogs", "scope"):
        for raw in _parts(batch, scope, "logRecords", "log record"):
            try:
                event = _event(source, raw)
            except UNREADABLE as error:
                batch.leave_out("log record", error)
            else:
                if event.name in RESOLVED or (event.name and semconv.FINDING_ID in event.attributes):
                    batch.events.append(event)


def _event(source: Source, raw: Json) -> Event:
    attributes = wire.attributes(raw)
    return Event(
        source,
        # The protocol has the field since 1.5; before, the event's name was an attribute.
        wire.text(raw.get("eventName") or attributes.get("event.name") or ""),
        wire.moment(raw, "timeUnixNano") or wire.moment(raw, "observedTimeUnixNano"),
        wire.identifier(raw, "traceId"),
        wire.identifier(raw, "spanId"),
        attributes,
    )


_READ_BY: Final = {"resourceMetrics": _metrics, "resourceSpans": _spans, "resourceLogs": _logs}
