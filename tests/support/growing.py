"""Files of telemetry that have n of something: for what a report costs as they grow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Json = dict[str, Any]


def attributes(**values: str) -> list[Json]:
    """Attributes of OTLP; a double underscore in a name is a dot."""
    return [{"key": key.replace("__", "."), "value": {"stringValue": value}} for key, value in values.items()]


def metric(name: str, *points: Json, kind: str = "sum", instance: str = "one") -> Json:
    """One export of one metric."""
    data = {"dataPoints": list(points), "aggregationTemporality": 2, "isMonotonic": kind != "sum" or "timeouts" in name}
    metrics = [{"name": name, kind: data}]
    resource = {"attributes": attributes(service__name="shop", service__instance__id=instance)}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": metrics}]}]}


def point(pool: str = "p", start: int = 100, time: int = 10**9, **values: Any) -> Json:
    """One point; a count of 1 unless it says otherwise."""
    named = [{"key": "db.client.connection.pool.name", "value": {"stringValue": pool}}, *values.pop("attributes", [])]
    values = values or {"asInt": "1"}
    return {"attributes": named, "startTimeUnixNano": str(start), "timeUnixNano": str(time), **values}


def span(number: int, *, name: str = "hold p", parent: int = 0, **more: Any) -> Json:
    """A span of poolscope's."""
    named = [{"key": "db.client.connection.pool.name", "value": {"stringValue": more.pop("pool", "p")}}]
    return {
        "traceId": "1" * 32, "spanId": f"{number:016x}", "parentSpanId": f"{parent:016x}" if parent else "",
        "name": name, "kind": 1, "startTimeUnixNano": "1000", "endTimeUnixNano": "2000", "attributes": named, **more,
    }  # fmt: skip


def spans(*of: Json, scope: str = "poolscope") -> Json:
    """One export of spans."""
    resource = {"attributes": attributes(service__name="shop", service__instance__id="one")}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": scope}, "spans": list(of)}]}]}


def finding(line: int) -> Json:
    """One export of a finding."""
    values = attributes(poolscope__finding__id="long_hold", poolscope__finding__summary="held", code__file__path="a.py")
    values.append({"key": "code.line.number", "value": {"intValue": str(line)}})
    record = {"eventName": "poolscope.long_hold", "timeUnixNano": str(line), "attributes": values}
    resource = {"attributes": attributes(service__name="shop")}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}


USED: Final = metric("db.client.connection.count", point())
COUNT: Final = "db.client.connection.count"
TIMEOUTS: Final = "db.client.connection.timeouts"
WAITS: Final = "db.client.connection.wait_time"


def _waits(bounds: range, start: int) -> Json:
    counts = ["1"] * (len(bounds) + 1)
    return metric(WAITS, point(start=start, explicitBounds=list(bounds), bucketCounts=counts), kind="histogram")


def _each(make: Callable[[int], Json]) -> Callable[[int], Iterator[Json]]:
    return lambda n: (make(number) for number in range(1, n + 1))


#: What grows, and the exports of a file with n of it.
GROWING: Final[dict[str, Callable[[int], Iterator[Json]]]] = {
    "start times": _each(lambda n: metric(TIMEOUTS, point(start=n))),
    "start times in turn": lambda n: (metric(TIMEOUTS, point(start=k)) for _ in range(2) for k in range(1, n // 2 + 1)),
    "restarts": _each(lambda n: metric(TIMEOUTS, point(asInt=str(n % 2)))),
    "start times of histograms": _each(lambda n: _waits(range(10), n)),
    "histograms with other bounds": _each(lambda n: _waits(range(n % 7, 20), n)),
    "buckets": lambda n: iter([_waits(range(n), 1), _waits(range(1, n), 2), _waits(range(0, 2 * n, 2), 3)]),
    "pools": _each(lambda n: metric(COUNT, point(f"p{n}"))),
    "pools with holds": lambda n: (
        export for k in range(1, n + 1) for export in (metric(COUNT, point(f"p{k}")), spans(span(k, pool=f"p{k}")))
    ),
    "processes": _each(lambda n: metric(COUNT, point(), instance=str(n))),
    "series": _each(lambda n: metric(COUNT, point(attributes=attributes(extra=str(n))))),
    "findings": _each(finding),
    "holds": _each(lambda n: spans(span(n))),
    "holds by call site": _each(
        lambda n: spans(span(n, attributes=[*span(n)["attributes"], *attributes(code__function__name=f"f{n}")]))
    ),
    "spans in spans": _each(lambda n: spans(span(n, parent=n - 1 if n % 10 else 0))),
    "spans in a circle": lambda n: (spans(span(k, parent=k % n + 1)) for k in range(1, n + 1)),
    "foreign spans": _each(lambda n: spans(span(n, name=f"GET /{n}"), scope="other")),
    "waits with links": lambda n: iter(
        [spans(span(1, name="checkout p", links=[{"traceId": "1" * 32, "spanId": f"{k:016x}"} for k in range(n)]))]
    ),
    "waits with holders": _each(
        lambda n: spans(span(n, name="checkout p", links=[{"traceId": f"{n:032x}", "spanId": f"{n:016x}"}]))
    ),
    "attributes": lambda n: iter(
        [metric(COUNT, point(attributes=[a for k in range(n) for a in attributes(**{f"a{k}": "b"})]))]
    ),
    "what is not OTLP": _each(lambda n: {"line": n}),
    "what does not follow OTLP": _each(lambda n: metric(TIMEOUTS, point(asInt="many"))),
}


def text(what: str, n: int) -> str:
    """A file with n of something, and a pool."""
    return "".join(f"{json.dumps(export)}\n" for export in (USED, *GROWING[what](n)))
