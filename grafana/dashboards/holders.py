"""The tables of who holds the connections of a pool: by route, and by the line that checks them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import prometheus
from grafana.collector import SERVICE, SPAN_DURATION
from grafana.panels import PanelOptions
from grafana.query import POOLS, RANGE, UNIT, increase, over, quantile, rate
from grafana.tables import Column, table_panel
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.links import Link
    from grafana.query import Scope
    from grafana.sdk import table

HOLD_SPANS = POOLS.having(prometheus.label("span.name"), f"{semconv.HOLD_SPAN.prefix} .+", "=~")
FUNCTION = prometheus.label(semconv.CODE_FUNCTION)
FILE = prometheus.label(semconv.CODE_FILE)
LINE = prometheus.label(semconv.CODE_LINE)
# File and line as one label, which only these queries have.
LOCATION = "place"
BY_LINE = (SERVICE, FUNCTION, LOCATION)
# The last folder and the file: enough to identify it without the machine's paths.
_FILE_AND_FOLDER = "(?:.*?/)??([^/]+/[^/]+|[^/]+)"


def by_route(links: tuple[Link, ...]) -> table.Panel:
    """The routes, tasks and jobs that hold connections, and how many each holds on average."""
    by = (SERVICE, UNIT)
    held = over("sum", rate(prometheus.total(semconv.UNIT_HOLD_TIME), POOLS, RANGE), by)
    return table_panel(
        PanelOptions(
            "Holders by route",
            good="the busiest routes are first.",
            bad="a rare route is first: it holds for long. The table on the right has its line.",
            unit="short",
            thresholds=(1,),
            links=links,
            width=12,
            height=9,
        ),
        [
            Column("Service", SERVICE, width=100),
            Column("Route", UNIT),
            Column("Held, mean", held, "short", (1, 5), 110, decimals=2),
            Column(
                "Calls/s",
                over("sum", rate(prometheus.count(semconv.UNIT_HOLD_TIME), POOLS, RANGE), by),
                "short",
                width=80,
                decimals=1,
            ),
            Column("Hold p95", quantile(0.95, semconv.UNIT_HOLD_TIME, POOLS, by, RANGE), "s", (0.5, 2.5), 90),
            Column("Wait p95", quantile(0.95, semconv.UNIT_WAIT_TIME, POOLS, by, RANGE), "s", (0.1, 1), 90),
        ],
        sort_by="Held, mean",
    )


def by_line(links: tuple[Link, ...]) -> table.Panel:
    """The lines of code that check connections out, from the hold spans."""
    held = over("sum", with_location(rate(prometheus.total(SPAN_DURATION), HOLD_SPANS, RANGE)), BY_LINE)
    holds = over("sum", with_location(increase(prometheus.count(SPAN_DURATION), HOLD_SPANS)), BY_LINE)
    return table_panel(
        PanelOptions(
            "Holders by line",
            good="lines of queries and repositories.",
            bad="a line around a call to another service, or around rendering.",
            unit="short",
            thresholds=(1,),
            links=links,
            width=12,
            height=9,
        ),
        [
            Column("Service", SERVICE, width=100),
            Column("Function", FUNCTION),
            Column("Line", LOCATION),
            Column("Held, mean", held, "short", (1, 5), 110, decimals=2),
            Column("Holds", holds, "locale", width=75, decimals=0),
            Column("Hold p95", quantile_by_line(HOLD_SPANS), "s", (0.5, 2.5), 90),
        ],
        sort_by="Held, mean",
    )


def quantile_by_line(spans: Scope) -> str:
    """The 95th percentile of the duration of these spans, by line of code."""
    buckets = with_location(rate(prometheus.bucket(SPAN_DURATION), spans, RANGE))
    return f"histogram_quantile(0.95, {over('sum', buckets, ('le', *BY_LINE))})"


def with_location(expression: str) -> str:
    """The expression's series with file and line as one label."""
    file = f'label_replace({expression}, "file", "$1", "{FILE}", "{_FILE_AND_FOLDER}")'
    return f'label_join({file}, "{LOCATION}", ":", "file", "{LINE}")'
