"""
The tables of who holds the connections of a pool: by route, and by the line that took them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import prometheus
from grafana.collector import SERVICE, SPAN_DURATION
from grafana.panels import Face
from grafana.query import POOLS, RANGE, UNIT, increase, over, quantile, rate
from grafana.tables import Column, rows
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
PLACE = "place"
BY_LINE = (SERVICE, FUNCTION, PLACE)
# The last folder and the file: enough to know it, and no path of the machine.
_FILE_AND_FOLDER = "(?:.*?/)??([^/]+/[^/]+|[^/]+)"


def by_route(onward: tuple[Link, ...]) -> table.Panel:
    """
    Which routes, tasks and jobs hold connections, and how many each on average.
    """
    by = (SERVICE, UNIT)
    held = over("sum", rate(prometheus.total(semconv.UNIT_HOLD_TIME), POOLS, RANGE), by)
    return rows(
        Face(
            "Holders by route",
            good="the busy routes lead.",
            bad="a rare route leads: it holds for long. Its line is at the right.",
            unit="short",
            limits=(1,),
            onward=onward,
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
        worst_first="Held, mean",
    )


def by_line(onward: tuple[Link, ...]) -> table.Panel:
    """
    Which line of the code checked the connections out, from the spans of the leases.
    """
    held = over("sum", placed(rate(prometheus.total(SPAN_DURATION), HOLD_SPANS, RANGE)), BY_LINE)
    leases = over("sum", placed(increase(prometheus.count(SPAN_DURATION), HOLD_SPANS)), BY_LINE)
    return rows(
        Face(
            "Holders by line",
            good="lines of repositories and queries.",
            bad="a line around a call of another service, or around rendering.",
            unit="short",
            limits=(1,),
            onward=onward,
            width=12,
            height=9,
        ),
        [
            Column("Service", SERVICE, width=100),
            Column("Function", FUNCTION),
            Column("Line", PLACE),
            Column("Held, mean", held, "short", (1, 5), 110, decimals=2),
            Column("Leases", leases, "locale", width=75, decimals=0),
            Column("Hold p95", quantile_by_line(HOLD_SPANS), "s", (0.5, 2.5), 90),
        ],
        worst_first="Held, mean",
    )


def quantile_by_line(spans: Scope) -> str:
    """
    The 95th percentile of the duration of these spans, by the line that made them.
    """
    buckets = placed(rate(prometheus.bucket(SPAN_DURATION), spans, RANGE))
    return f"histogram_quantile(0.95, {over('sum', buckets, ('le', *BY_LINE))})"


def placed(expression: str) -> str:
    """
    The expression's series with file and line as one label.
    """
    file = f'label_replace({expression}, "file", "$1", "{FILE}", "{_FILE_AND_FOLDER}")'
    return f'label_join({file}, "{PLACE}", ":", "file", "{LINE}")'
