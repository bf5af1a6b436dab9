"""
What dashboard-linter and pint would say of the dashboards, where neither can be had.

Each check takes a dashboard's model, as Grafana would read it, and yields complaints: no complaint, no fault.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import promql_parser as promql

from grafana import collector, prometheus
from grafana.links import Dashboard
from poolscope import semconv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Model = dict[str, Any]

# Kinds of panel that the page in grafana/pictures can draw.
DRAWABLE: Final = {"row", "stat", "bargauge", "timeseries", "heatmap", "table", "text"}
RATED: Final = {"rate", "irate", "increase"}
METRICS: Final = (*semconv.METRICS, *collector.COLLECTOR_METRICS)
EVERYWHERE: Final = {collector.SERVICE, collector.INSTANCE}
# Series that neither the dictionary nor the Collector's SQL and spans give: Prometheus's own and the Collector's own.
OTHERS: Final = {
    "ALERTS": {
        *("alertname", "alertstate", "severity"),
        *map(prometheus.label, (semconv.POOL_NAME, semconv.SERVER_ADDRESS)),
        *EVERYWHERE,
    },
    collector.COLLECTOR_QUEUE_SIZE: {"exporter"},
    collector.COLLECTOR_IN_FLIGHT: {"exporter"},
}
# What Grafana fills in; the values only have to parse.
BUILT_IN: Final = {"__rate_interval": "1m", "__range": "30m", "__interval": "15s"}
OWN_TO_LINKS: Final = {"__url_time_range", "__from", "__to", "__field", "__data"}
GRID: Final = 24


@dataclass(frozen=True)
class Selector:
    """One selector of series in a query, and the function that is applied to it over a window."""

    name: str
    labels: dict[str, str]
    rated_by: str | None
    windowed: bool


def complaints(model: Model) -> list[str]:
    """Everything that is wrong with one dashboard."""
    return [f"{model['uid']}: {said}" for check in CHECKS for said in check(model)]


def panels(model: Model) -> list[Model]:
    """The panels that show something: all but the rows."""
    return [panel for panel in model["panels"] if panel["type"] != "row"]


def targets(model: Model) -> Iterator[tuple[Model, Model]]:
    """Every query with its panel."""
    for panel in panels(model):
        for target in panel.get("targets", []):
            yield panel, target


def parsed(expr: str, model: Model) -> object:
    """
    The query's tree, after the variables are filled in with stand-ins.

    Raises:
        ValueError: It does not parse, or uses a variable that the dashboard has not.
    """
    known = {variable["name"] for variable in model["templating"]["list"]}

    def stand_in(found: re.Match[str]) -> str:
        name = found[1]
        if name in BUILT_IN:
            return BUILT_IN[name]
        if name in known:
            return ".*"
        raise ValueError(f"unknown variable ${name}")

    return promql.parse(re.sub(r"\$([a-zA-Z_]\w*)", stand_in, expr))


def selectors(node: Any, rated_by: str | None = None) -> Iterator[Selector]:
    """Every selector of series in a tree."""
    if isinstance(node, promql.VectorSelector):
        yield _selector(node, None, windowed=False)
    elif isinstance(node, promql.MatrixSelector):
        yield _selector(node.vector_selector, rated_by, windowed=True)
    else:
        function = node.func.name if isinstance(node, promql.Call) else None
        for child in _children(node):
            yield from selectors(child, function)


def _selector(node: Any, rated_by: str | None, *, windowed: bool) -> Selector:
    labels = {matcher.name: matcher.value for matcher in node.matchers.matchers}
    return Selector(node.name, labels, rated_by, windowed)


def _children(node: Any) -> list[Any]:
    if isinstance(node, promql.Call):
        return list(node.args)
    found = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "param")]
    return [child for child in found if child is not None and not isinstance(child, str)]


def _aggregations(node: Any) -> Iterator[Any]:
    if isinstance(node, promql.AggregateExpr):
        yield node
    for child in _children(node):
        yield from _aggregations(child)


def _made_labels(node: Any) -> Iterator[str]:
    """The labels that a query makes for itself."""
    if isinstance(node, promql.Call) and node.func.name in {"label_replace", "label_join"}:
        yield node.args[1].val
    for child in _children(node):
        yield from _made_labels(child)


def labels_of(series: str) -> set[str]:
    """
    The labels that a series can have.

    Raises:
        KeyError: There is no such series.
    """
    if series in OTHERS:
        return OTHERS[series]
    for metric in METRICS:
        if series in prometheus.series(metric):
            bucket = {"le"} if series.endswith("_bucket") else set()
            return {*map(prometheus.label, metric.attributes), *EVERYWHERE, *bucket}
    raise KeyError(series)


def check_panels(model: Model) -> Iterator[str]:
    """Every panel says what good and bad look like, has a unit and thresholds, leads onward, and can be drawn."""
    for panel in panels(model):
        title = panel["title"]
        if panel["type"] not in DRAWABLE:
            yield f"{title}: nothing draws a {panel['type']}"
        if panel["type"] == "text":
            continue
        if not re.fullmatch(r"\*\*Good:\*\* .+\n\n\*\*Bad:\*\* .+", panel.get("description", ""), re.DOTALL):
            yield f"{title}: the description does not say what good and bad look like"
        defaults = panel["fieldConfig"]["defaults"]
        if not defaults.get("unit"):
            yield f"{title}: no unit"
        if not defaults.get("thresholds", {}).get("steps"):
            yield f"{title}: no thresholds"
        if not panel.get("links"):
            yield f"{title}: leads nowhere"
        if not panel.get("targets"):
            yield f"{title}: asks nothing"


def check_layout(model: Model) -> Iterator[str]:
    """Panels lie within the grid, not on one another, and have ids and titles of their own; rows ask a question."""
    taken: dict[tuple[int, int], str] = {}
    for panel in model["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if x >= GRID or (x, y) in taken:
                    yield f"{panel['title']}: overlaps {taken.get((x, y), 'the edge')}"
                    return
                taken[x, y] = panel["title"]
        if panel["type"] == "row" and not panel["title"].endswith("?"):
            yield f"{panel['title']}: a row asks a question"
    for key in ("id", "title"):
        values = [panel[key] for panel in model["panels"]]
        for value in {value for value in values if values.count(value) > 1}:
            yield f"{key} {value} is used twice"


def check_sources(model: Model) -> Iterator[str]:
    """Data comes from the data source that the variable chooses, never from a fixed one."""
    if "datasource" not in {variable["name"] for variable in model["templating"]["list"]}:
        yield "no variable chooses the data source"
    for panel, target in targets(model):
        for where in (panel, target):
            if where.get("datasource") != {"type": "prometheus", "uid": "${datasource}"}:
                yield f"{panel['title']}: a fixed data source"


def check_queries(model: Model) -> Iterator[str]:
    """Queries parse; ask for series and labels that exist; rate counters, and nothing but counters."""
    for panel, target in targets(model):
        try:
            tree = parsed(target["expr"], model)
        except ValueError as error:
            yield f"{panel['title']}: {error}"
            continue
        for selector in selectors(tree):
            for said in _faults(selector):
                yield f"{panel['title']}: {said}"
        for said in _grouping_faults(tree):
            yield f"{panel['title']}: {said}"


def _faults(selector: Selector) -> Iterator[str]:
    try:
        known = labels_of(selector.name)
    except KeyError:
        yield f"no series {selector.name}"
        return
    for label in selector.labels.keys() - known:
        yield f"{selector.name} has no label {label}"
    counts = selector.name not in OTHERS and prometheus.is_counter(selector.name, METRICS)
    if counts and selector.rated_by not in RATED:
        yield f"{selector.name} is a counter, and not rated"
    if not counts and selector.rated_by in RATED:
        yield f"{selector.rated_by}() of {selector.name}, which is no counter"
    if collector.SERVICE in known and selector.name in PROCESS_SERIES and collector.SERVICE not in selector.labels:
        yield f"{selector.name} is not narrowed by the service variable"


PROCESS_SERIES: Final = {series for metric in semconv.METRICS for series in prometheus.series(metric)}


def _grouping_faults(tree: object) -> Iterator[str]:
    for aggregation in _aggregations(tree):
        modifier = aggregation.modifier
        asked = set(modifier.labels) - set(_made_labels(aggregation.expr)) if modifier else set()
        for selector in selectors(aggregation.expr):
            try:
                missing = asked - labels_of(selector.name)
            except KeyError:
                continue
            for label in missing:
                yield f"by ({label}) of {selector.name}, which has no such label"


def check_legends(model: Model) -> Iterator[str]:
    """Lines have names, made of labels that the query keeps."""
    for panel, target in targets(model):
        if panel["type"] in {"table", "heatmap"}:
            continue
        legend = target.get("legendFormat", "")
        if not legend:
            yield f"{panel['title']}: no legend"
        try:
            kept = {
                label
                for one in _aggregations(parsed(target["expr"], model))
                if one.modifier
                for label in one.modifier.labels
            }
        except ValueError:
            continue
        for label in re.findall(r"\{\{(\w+)\}\}", legend):
            if label not in kept:
                yield f"{panel['title']}: the legend names {label}, which the query does not keep"


def check_links(model: Model) -> Iterator[str]:
    """Links lead to dashboards that exist, and use variables that this dashboard has."""
    uids = {dashboard.value for dashboard in Dashboard}
    known = {variable["name"] for variable in model["templating"]["list"]} | OWN_TO_LINKS
    for url in _urls(model):
        target = re.match(r"/d/([\w-]+)", url)
        if target and target[1] not in uids:
            yield f"a link leads to {target[1]}, which does not exist"
        if not url.startswith(("/d/", "/explore?", "/public/")):
            yield f"a link leads out: {url}"
        for name in re.findall(r"\$\{(\w+)", url):
            if name not in known:
                yield f"a link uses ${{{name}}}, which this dashboard has not"


def kept(node: Any) -> set[str]:
    """The labels that the series of a query's result surely have: those that its outermost aggregation keeps."""
    if isinstance(node, promql.AggregateExpr):
        # topk and its like keep what they choose from.
        return kept(node.expr) if node.param is not None else set(node.modifier.labels if node.modifier else ())
    if isinstance(node, promql.BinaryExpr):
        return kept(node.rhs) if isinstance(node.lhs, promql.NumberLiteral) else kept(node.lhs)
    return {label for child in _children(node) for label in kept(child)}


def check_targets_of_links(model: Model) -> Iterator[str]:
    """
    What a link takes from a value is there: a label that every query of the panel keeps, or a
    column of the table.
    """
    for panel in panels(model):
        fields = panel.get("fieldConfig", {})
        columns = {override["matcher"]["options"] for override in fields.get("overrides", [])}
        for url in _urls(fields):
            for label in re.findall(r"\$\{__field\.labels\.(\w+)", url):
                try:
                    lost = any(label not in kept(parsed(target["expr"], model)) for target in panel["targets"])
                except ValueError:
                    continue
                if lost:
                    yield f"{panel['title']}: a link needs {label}, which its series do not have"
            for column in re.findall(r'\$\{__data\.fields\["(.+?)"\]', url):
                if column not in columns:
                    yield f"{panel['title']}: a link needs the column {column}, which is not there"
            if re.search(r"=\$\{__(field|data)\.[^}]*(?<!:percentencode)\}", url):
                yield f"{panel['title']}: a link would end at the # of a name"


def _urls(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("url"), str) and value["url"]:
            yield value["url"]
        for inner in value.values():
            yield from _urls(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _urls(inner)


CHECKS: Final[tuple[Callable[[Model], Iterator[str]], ...]] = (
    check_panels,
    check_layout,
    check_sources,
    check_queries,
    check_legends,
    check_links,
    check_targets_of_links,
)
