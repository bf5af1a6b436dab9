"""docs/metrics.md, made from the dictionary of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope import semconv

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KINDS = {
    semconv.Kind.COUNTER: "counter",
    semconv.Kind.UP_DOWN_COUNTER: "up-down counter",
    semconv.Kind.GAUGE: "gauge",
    semconv.Kind.HISTOGRAM: "histogram",
}
HEAD = """\
# Metrics, spans and events

<!-- Made by `make generate` from src/poolscope/semconv; do not edit. -->

Scope name `{scope}`, schema {schema}. Units are UCUM. Times are seconds.
"""


def generate() -> dict[str, str]:
    """
    The page.

    Returns:
        Its text by its path.
    """
    return {"docs/metrics.md": "\n".join(_page())}


def _page() -> Iterator[str]:
    yield HEAD.format(scope=semconv.SCOPE, schema=semconv.SCHEMA_URL)
    yield "## Metrics of the semantic conventions\n"
    yield from _metrics(metric for metric in semconv.METRICS if metric.conventional)
    yield "\n## Metrics of poolscope's own\n"
    yield from _metrics(metric for metric in semconv.METRICS if not metric.conventional)
    yield "\n## Attributes of the metrics\n"
    yield "| metric | attributes |\n| --- | --- |"
    for metric in semconv.METRICS:
        yield f"| `{metric.name}` | {_codes(metric.attributes)} |"
    yield "\n## Buckets\n"
    yield from _buckets()
    yield "\n## Spans\n"
    yield "| span | when | attributes |\n| --- | --- | --- |"
    for span in semconv.SPANS:
        yield f"| `{span.named('{pool}')}` | {span.description} | {_codes(span.attributes)} |"
    yield "\n## Events\n"
    yield "| event | when |\n| --- | --- |"
    for event in semconv.EVENTS:
        yield f"| `{event.name}` | {event.description} |"
    yield ""


def _metrics(metrics: Iterable[semconv.Metric]) -> Iterator[str]:
    yield "| metric | kind | unit | meaning |\n| --- | --- | --- | --- |"
    for metric in metrics:
        yield f"| `{metric.name}` | {KINDS[metric.kind]} | `{metric.unit}` | {metric.description} |"


def _buckets() -> Iterator[str]:
    groups: dict[tuple[float, ...], list[str]] = {}
    for metric in semconv.METRICS:
        if metric.boundaries:
            groups.setdefault(metric.boundaries, []).append(metric.name)
    for boundaries, metrics in groups.items():
        yield f"- {_codes(metrics)}: {', '.join(f'{boundary:g}' for boundary in boundaries)}"


def _codes(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)
