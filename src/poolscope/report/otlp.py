"""
OTLP as JSON, decoded: metric points, spans and log records.

The encoding is that of the OTLP specification ("JSON Protobuf Encoding"): 64-bit integers may be strings, enumerations
are numbers, trace and span ids are hexadecimal. The SDK's file exporter and the Collector's write the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from poolscope.report.distribution import Distribution, from_exponential

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json = dict[str, Any]

_DELTA = 1
_SPAN_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_NUMBER_KINDS = ("sum", "gauge")
_DISTRIBUTION_KINDS = ("histogram", "exponentialHistogram")


class Temporality(Enum):
    """Whether a point counts since the last point or since the beginning; a gauge does neither."""

    DELTA = "delta"
    CUMULATIVE = "cumulative"
    INSTANT = "instant"


@dataclass(frozen=True)
class Source:
    """The process that sent something."""

    service: str
    instance: str


@dataclass(frozen=True)
class Point:
    """One value of one metric, for one set of attributes; times in nanoseconds since the epoch."""

    source: Source
    metric: str
    monotonic: bool
    temporality: Temporality
    attributes: Mapping[str, object]
    start: int
    time: int
    value: float | Distribution


@dataclass(frozen=True)
class Span:
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


@dataclass(frozen=True)
class Event:
    """One log record that has an event name."""

    source: Source
    name: str
    time: int
    trace_id: str
    span_id: str
    attributes: Mapping[str, object]


@dataclass
class Batch:
    """The content of one line of a file."""

    points: list[Point] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    sources: set[Source] = field(default_factory=set)


def is_export(document: object) -> bool:
    """Whether a JSON document is an OTLP export request with metrics, spans or logs."""
    return isinstance(document, dict) and any(
        key in document for key in ("resourceMetrics", "resourceSpans", "resourceLogs")
    )


def decode(document: Json) -> Batch:
    """
    Decode one export request.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It does not follow the specification.
    """
    batch = Batch()
    for resource in document.get("resourceMetrics", ()):
        source = _source(resource, batch)
        batch.points.extend(_points(source, resource))
    for resource in document.get("resourceSpans", ()):
        source = _source(resource, batch)
        batch.spans.extend(_spans(source, resource))
    for resource in document.get("resourceLogs", ()):
        source = _source(resource, batch)
        batch.events.extend(_events(source, resource))
    return batch


def _source(resource: Json, batch: Batch) -> Source:
    attributes = _attributes(resource.get("resource", {}))
    instance = attributes.get("service.instance.id", attributes.get("process.pid", ""))
    source = Source(str(attributes.get("service.name", "unknown_service")), str(instance))
    batch.sources.add(source)
    return source


def _points(source: Source, resource: Json) -> Iterator[Point]:
    for scope in resource.get("scopeMetrics", ()):
        for metric in scope.get("metrics", ()):
            for kind in (*_NUMBER_KINDS, *_DISTRIBUTION_KINDS):
                data = metric.get(kind)
                if data is not None:
                    yield from (_point(source, metric["name"], kind, data, raw) for raw in data.get("dataPoints", ()))


def _point(source: Source, name: str, kind: str, data: Json, raw: Json) -> Point:
    temporality = Temporality.INSTANT
    if kind != "gauge":
        delta = data.get("aggregationTemporality") in (_DELTA, "AGGREGATION_TEMPORALITY_DELTA")
        temporality = Temporality.DELTA if delta else Temporality.CUMULATIVE
    return Point(
        source=source,
        metric=name,
        monotonic=kind in _DISTRIBUTION_KINDS or bool(data.get("isMonotonic")),
        temporality=temporality,
        attributes=_attributes(raw),
        start=int(raw.get("startTimeUnixNano", 0)),
        time=int(raw.get("timeUnixNano", 0)),
        value=_distribution(kind, raw) if kind in _DISTRIBUTION_KINDS else _number(raw),
    )


def _number(raw: Json) -> float:
    return float(raw["asInt"]) if "asInt" in raw else float(raw.get("asDouble", 0.0))


def _distribution(kind: str, raw: Json) -> Distribution:
    total = float(raw.get("sum", 0.0))
    lowest, highest = _optional(raw, "min"), _optional(raw, "max")
    if kind == "exponentialHistogram":
        positive = raw.get("positive", {})
        counts = [int(count) for count in positive.get("bucketCounts", ())]
        zero, offset = int(raw.get("zeroCount", 0)), int(positive.get("offset", 0))
        scale = int(raw.get("scale", 0))
        return from_exponential(scale, zero, offset, counts, total=total, minimum=lowest, maximum=highest)
    bounds = tuple(float(bound) for bound in raw.get("explicitBounds", ()))
    counts = [int(count) for count in raw.get("bucketCounts", ())] or [int(raw.get("count", 0))]
    return Distribution(bounds, tuple(counts), total, lowest, highest)


def _optional(raw: Json, key: str) -> float | None:
    return float(raw[key]) if key in raw else None


def _spans(source: Source, resource: Json) -> Iterator[Span]:
    for scope in resource.get("scopeSpans", ()):
        scope_name = scope.get("scope", {}).get("name", "")
        for raw in scope.get("spans", ()):
            yield Span(
                source=source,
                scope=scope_name,
                name=raw.get("name", ""),
                kind=_span_kind(raw.get("kind", 0)),
                trace_id=raw["traceId"],
                span_id=raw["spanId"],
                parent_id=raw.get("parentSpanId", ""),
                start=int(raw["startTimeUnixNano"]),
                end=int(raw["endTimeUnixNano"]),
                attributes=_attributes(raw),
                links=tuple((link["traceId"], link["spanId"]) for link in raw.get("links", ())),
            )


def _span_kind(kind: int | str) -> str:
    return kind.removeprefix("SPAN_KIND_") if isinstance(kind, str) else _SPAN_KINDS[kind]


def _events(source: Source, resource: Json) -> Iterator[Event]:
    for scope in resource.get("scopeLogs", ()):
        for raw in scope.get("logRecords", ()):
            attributes = _attributes(raw)
            # The protocol has the field since 1.5; before, the event's name was an attribute.
            name = str(raw.get("eventName") or attributes.get("event.name") or "")
            if name:
                time = int(raw.get("timeUnixNano") or raw.get("observedTimeUnixNano") or 0)
                yield Event(source, name, time, raw.get("traceId", ""), raw.get("spanId", ""), attributes)


def _attributes(raw: Json) -> dict[str, object]:
    return {pair["key"]: _value(pair.get("value", {})) for pair in raw.get("attributes", ())}


def _value(raw: Json) -> object:
    for kind, value in raw.items():
        if kind == "intValue":
            return int(value)
        if kind == "arrayValue":
            return tuple(_value(item) for item in value.get("values", ()))
        if kind == "kvlistValue":
            return {pair["key"]: _value(pair.get("value", {})) for pair in value.get("values", ())}
        return value
    return None
