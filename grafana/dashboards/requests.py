"""*Requests and queries*: what one request, task or job costs in connections and queries, by route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import board, links, prometheus
from grafana.collector import INSTANCE, SERVICE, SPAN_CALLS, SPAN_DURATION
from grafana.dashboards import holders
from grafana.panels import PanelOptions, Target, heatmap_panel, stat_options, stat_panel, time_series_panel
from grafana.query import (
    BY_POOL,
    POOL,
    POOLS,
    RANGE,
    RECENT,
    SERVICES,
    UNIT,
    increase,
    mean,
    or_zero,
    over,
    quantile,
    rate,
)
from grafana.tables import Column, table_panel
from poolscope import semconv
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP

if TYPE_CHECKING:
    from grafana.board import Panels

ROUTE = (SERVICE, UNIT)
LEGEND = f"{{{{{SERVICE}}}}} · {{{{{UNIT}}}}}"
POOL_LEGEND = f"{{{{{SERVICE}}}}} · {{{{{POOL}}}}}"
REPEATED = prometheus.family(semconv.REPEATED_QUERIES)
SPAN_NAME = prometheus.label("span.name")
# The spans of units of work: all but poolscope's own, which have these prefixes.
UNITS = SERVICES.having(SPAN_NAME, f"({semconv.CHECKOUT_SPAN.prefix}|{semconv.HOLD_SPAN.prefix}) .+", "!~")
FAILED = UNITS.having(prometheus.label("status.code"), "STATUS_CODE_ERROR")
CHECKOUTS = POOLS.having(SPAN_NAME, f"{semconv.CHECKOUT_SPAN.prefix} .+", "=~")
TO_POOL = (links.to(links.POOL, "The pool", "service", "pool"),)
TO_FINDINGS = (links.to(links.FINDINGS, "Findings", "service", "pool"),)
TO_TRACES = (links.traces("Traces with findings", f"{{ span.{semconv.FINDINGS} != nil }}"), *TO_POOL)
TO_LOOPS = (links.traces("Traces with many queries", f"{{ span.{semconv.UNIT_OF_WORK_QUERIES} > 20 }}"), *TO_FINDINGS)
TO_FAILURES = (links.traces("Traces that failed", "{ status = error }"), *TO_POOL)


def dashboard() -> dict[str, object]:
    """The dashboard in Grafana's model."""
    return board.board(
        links.REQUESTS,
        "Requests and queries",
        "What each route, task and job costs: queries, N+1 loops, connections held and waited for.",
        ("service", "pool"),
        {
            "Are requests slow?": _summary(),
            "Which route?": _routes(),
            "How many queries? N+1?": _queries(),
            "Who holds, and from which line?": _holds(),
        },
    )


def _summary() -> Panels:
    waited = over("sum", rate(prometheus.total(semconv.UNIT_WAIT_TIME), POOLS))
    held = over("sum", rate(prometheus.total(semconv.UNIT_HOLD_TIME), POOLS))
    units = over("sum", rate(prometheus.count(semconv.UNIT_QUERIES), POOLS))
    yield stat_panel(
        stat_options(
            "Requests",
            good="as usual at this hour.",
            bad="a sudden peak fills pools; a fall may be the effect of full pools.",
            unit="reqps",
            thresholds=(),
            links=TO_POOL,
        ),
        units,
    )
    yield stat_panel(
        stat_options(
            "Mean wait",
            good="below 1 ms.",
            bad="above 100 ms: users notice.",
            unit="s",
            thresholds=(0.01, 0.1),
            links=TO_POOL,
        ),
        f"{waited} / {units}",
    )
    yield stat_panel(
        stat_options(
            "Mean hold",
            good="about the duration of the queries.",
            bad="more: the connection is held across other work.",
            unit="s",
            thresholds=(0.5, 2.5),
            links=TO_POOL,
        ),
        f"{held} / {units}",
    )
    yield stat_panel(
        stat_options(
            "Queries, p95",
            good="below 10.",
            bad="above 20: look for a loop.",
            unit="locale",
            thresholds=(20, 100),
            links=TO_LOOPS,
            decimals=0,
        ),
        quantile(0.95, semconv.UNIT_QUERIES, POOLS),
    )
    yield stat_panel(
        stat_options(
            "In N+1 loops",
            good="0 %.",
            bad="any: one query could replace many of these.",
            unit="percentunit",
            thresholds=(0.01, 0.2),
            links=TO_LOOPS,
            decimals=0,
        ),
        f"({or_zero(over('sum', rate(REPEATED, POOLS)))})"
        f" / {over('sum', rate(prometheus.total(semconv.UNIT_QUERIES), POOLS))}",
    )
    yield stat_panel(
        stat_options(
            "Failed",
            good="0 %.",
            bad="any: the traces show which route.",
            unit="percentunit",
            thresholds=(0.001, 0.01),
            links=TO_FAILURES,
            decimals=1,
        ),
        f"({or_zero(over('sum', rate(prometheus.family(SPAN_CALLS), FAILED)))})"
        f" / {over('sum', rate(prometheus.family(SPAN_CALLS), UNITS))}",
    )
    yield time_series_panel(
        PanelOptions(
            "Waiting and holding per request, mean",
            good="`holding` only.",
            bad="`waiting` is visible: the pool is the bottleneck.",
            unit="s",
            thresholds=(0.5, 2.5),
            links=TO_POOL,
            width=12,
            height=10,
        ),
        [
            Target(mean(semconv.UNIT_WAIT_TIME, POOLS), "waiting"),
            Target(mean(semconv.UNIT_HOLD_TIME, POOLS), "holding"),
        ],
        stacked=True,
        colours={"waiting": "red", "holding": "green"},
    )
    yield time_series_panel(
        PanelOptions(
            "Duration of requests by route, p95",
            good="flat.",
            bad="routes that share a pool rise together: one of them blocks the others.",
            unit="s",
            thresholds=(1, 5),
            links=TO_TRACES,
            width=12,
            height=10,
        ),
        [Target(quantile(0.95, SPAN_DURATION, UNITS, (SPAN_NAME,)), f"{{{{{SPAN_NAME}}}}}", exemplars=True)],
        many_series=True,
    )
    yield time_series_panel(
        PanelOptions(
            "Lag of event loops, p99, by process",
            good="below 10 ms.",
            bad="above 0.25 s: synchronous work blocks the loop; the finding `blocked_event_loop` has its line.",
            unit="s",
            thresholds=(0.05, 0.25),
            links=(links.page(BLOCKED_EVENT_LOOP), *TO_FINDINGS),
            width=24,
        ),
        [Target(quantile(0.99, semconv.EVENT_LOOP_LAG, SERVICES, (SERVICE, INSTANCE)), f"{{{{{INSTANCE}}}}}")],
        many_series=True,
    )


def _routes() -> Panels:
    route = links.of_row(links.POOL, "Pools of this service", service="Service")
    held = over("sum", rate(prometheus.total(semconv.UNIT_HOLD_TIME), POOLS, RANGE), ROUTE)
    waited = over("sum", rate(prometheus.total(semconv.UNIT_WAIT_TIME), POOLS, RANGE), ROUTE)
    repeated = over("sum", increase(REPEATED, POOLS), ROUTE)
    yield table_panel(
        PanelOptions(
            "Every route, task and job",
            good="no colour.",
            bad=(
                "the first row holds most: fix it first. `Most at once` above 1: the route checks out a second "
                "connection while it holds one."
            ),
            unit="short",
            thresholds=(1,),
            links=TO_LOOPS,
            width=24,
            height=9,
        ),
        [
            Column("Service", SERVICE, link=route, width=190),
            Column("Route", UNIT),
            Column(
                "Calls/s",
                over("sum", rate(prometheus.count(semconv.UNIT_QUERIES), POOLS, RANGE), ROUTE),
                "short",
                width=90,
                decimals=1,
            ),
            Column("Held, mean", held, "short", (1, 5), 110, decimals=2),
            Column("Waiting, mean", waited, "short", (0.1, 1), 120, decimals=2),
            Column("Hold p95", quantile(0.95, semconv.UNIT_HOLD_TIME, POOLS, ROUTE, RANGE), "s", (0.5, 2.5), 100),
            Column("Wait p95", quantile(0.95, semconv.UNIT_WAIT_TIME, POOLS, ROUTE, RANGE), "s", (0.1, 1), 100),
            Column(
                "Queries, mean", mean(semconv.UNIT_QUERIES, POOLS, ROUTE, RANGE), "short", (20, 100), 120, decimals=1
            ),
            Column(
                "Queries p95",
                quantile(0.95, semconv.UNIT_QUERIES, POOLS, ROUTE, RANGE),
                "locale",
                (20, 100),
                110,
                decimals=0,
            ),
            Column(
                "Most at once",
                quantile(1, semconv.UNIT_CONNECTIONS, POOLS, ROUTE, RANGE),
                "locale",
                (1.5, 3),
                120,
                decimals=0,
            ),
            Column("In N+1 loops", repeated, "locale", (1,), 120, decimals=0),
        ],
        sort_by="Held, mean",
    )


def _queries() -> Panels:
    yield heatmap_panel(
        PanelOptions(
            "Queries in one request",
            good="one band, low.",
            bad="a second band far above: N+1 loops.",
            unit="short",
            thresholds=(20, 100),
            links=TO_LOOPS,
            width=24,
        ),
        over("sum", increase(prometheus.bucket(semconv.UNIT_QUERIES), POOLS, RECENT), ("le",)),
    )
    yield time_series_panel(
        PanelOptions(
            "Queries in one request by route, p95",
            good="flat, below 10.",
            bad="grows with the data: an N+1 loop.",
            unit="short",
            thresholds=(20, 100),
            links=TO_LOOPS,
            width=12,
            height=10,
        ),
        [Target(quantile(0.95, semconv.UNIT_QUERIES, POOLS, ROUTE), LEGEND)],
        many_series=True,
    )
    yield time_series_panel(
        PanelOptions(
            "Queries per second in N+1 loops",
            good="0.",
            bad="starts at a deploy: that deploy added the loop.",
            unit="short",
            thresholds=(0.1, 10),
            links=TO_LOOPS,
            width=12,
            height=10,
        ),
        [Target(over("sum", rate(REPEATED, POOLS), ROUTE), LEGEND)],
        stacked=True,
        many_series=True,
    )


def _holds() -> Panels:
    waits = over("sum", holders.with_location(increase(prometheus.count(SPAN_DURATION), CHECKOUTS)), holders.BY_LINE)
    yield holders.by_line(TO_POOL)
    yield table_panel(
        PanelOptions(
            "Waits by line",
            good="short waits only.",
            bad="these lines wait; the table on the left has the lines that hold.",
            unit="short",
            thresholds=(1,),
            links=TO_TRACES,
            width=12,
            height=9,
        ),
        [
            Column("Service", SERVICE, width=100),
            Column("Function", holders.FUNCTION),
            Column("Line", holders.LOCATION),
            Column("Waits", waits, "locale", width=90, decimals=0),
            Column("Wait p95", holders.quantile_by_line(CHECKOUTS), "s", (0.1, 1), 100),
        ],
        sort_by="Waits",
    )
    yield time_series_panel(
        PanelOptions(
            "Connections held by route",
            good="follows the traffic.",
            bad="one route holds most.",
            unit="short",
            thresholds=(),
            links=TO_POOL,
            width=12,
            height=10,
            decimals=2,
        ),
        [Target(over("sum", rate(prometheus.total(semconv.UNIT_HOLD_TIME), POOLS), ROUTE), LEGEND)],
        stacked=True,
        many_series=True,
    )
    yield time_series_panel(
        PanelOptions(
            "Pending checkouts by route",
            good="0.",
            bad="the routes that wait; they are seldom the cause.",
            unit="short",
            thresholds=(0.1, 1),
            links=TO_TRACES,
            width=12,
            height=10,
            decimals=2,
        ),
        [Target(over("sum", rate(prometheus.total(semconv.UNIT_WAIT_TIME), POOLS), ROUTE), LEGEND)],
        stacked=True,
        many_series=True,
    )
    yield time_series_panel(
        PanelOptions(
            "Checkouts per second outside any request, task or job",
            good="0: all work has a name.",
            bad="a framework that poolscope does not hook, or own threads: name the work with `unit_of_work`.",
            unit="short",
            thresholds=(),
            links=TO_POOL,
            width=24,
            decimals=2,
        ),
        [Target(over("sum", rate(prometheus.family(semconv.UNATTRIBUTED), POOLS), BY_POOL), POOL_LEGEND)],
    )
