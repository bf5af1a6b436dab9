"""
*Requests and queries*: what one request, task or job costs in connections and queries, route by route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import board, links, prometheus
from grafana.collector import SERVICE, SPAN_CALLS, SPAN_DURATION
from grafana.dashboards import holders
from grafana.panels import Ask, Face, course, heat, one, tile
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
from grafana.tables import Column, rows
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

ROUTE = (SERVICE, UNIT)
LEGEND = f"{{{{{SERVICE}}}}} · {{{{{UNIT}}}}}"
POOL_LEGEND = f"{{{{{SERVICE}}}}} · {{{{{POOL}}}}}"
REPEATED = prometheus.family(semconv.REPEATED_QUERIES)
SPAN_NAME = prometheus.label("span.name")
# The spans around units of work; poolscope's own are named by its prefixes.
UNITS = SERVICES.having(SPAN_NAME, f"({semconv.CHECKOUT_SPAN.prefix}|{semconv.HOLD_SPAN.prefix}) .+", "!~")
FAILED = UNITS.having(prometheus.label("status.code"), "STATUS_CODE_ERROR")
CHECKOUTS = POOLS.having(SPAN_NAME, f"{semconv.CHECKOUT_SPAN.prefix} .+", "=~")
TO_POOL = (links.to(links.POOL, "Their pool", "service", "pool"),)
TO_FINDINGS = (links.to(links.FINDINGS, "What was found", "service", "pool"),)
TO_TRACES = (links.traces("Traces with findings", f"{{ span.{semconv.FINDINGS} != nil }}"), *TO_POOL)
TO_LOOPS = (links.traces("Traces with many queries", f"{{ span.{semconv.UNIT_OF_WORK_QUERIES} > 20 }}"), *TO_FINDINGS)
TO_FAILURES = (links.traces("Traces that failed", "{ status = error }"), *TO_POOL)


def dashboard() -> dict[str, object]:
    """
    The dashboard in Grafana's model.
    """
    return board.board(
        links.REQUESTS,
        "Requests and queries",
        "What each route, task and job asks of the pool: queries, N+1 loops, connections held and waited for.",
        ("service", "pool"),
        {
            "Do requests suffer?": _suffering(),
            "Which route?": _routes(),
            "How many queries? N+1?": _queries(),
            "Who holds, and from which line?": _holds(),
        },
    )


def _suffering() -> Panels:
    waited = over("sum", rate(prometheus.total(semconv.UNIT_WAIT_TIME), POOLS))
    held = over("sum", rate(prometheus.total(semconv.UNIT_HOLD_TIME), POOLS))
    units = over("sum", rate(prometheus.count(semconv.UNIT_QUERIES), POOLS))
    yield one(
        tile(
            "Requests",
            good="as usual for the hour.",
            bad="a sudden peak fills pools; a fall may be their effect.",
            unit="reqps",
            limits=(),
            onward=TO_POOL,
        ),
        units,
    )
    yield one(
        tile(
            "Mean wait",
            good="below 1 ms.",
            bad="above 100 ms: users notice.",
            unit="s",
            limits=(0.01, 0.1),
            onward=TO_POOL,
        ),
        f"{waited} / {units}",
    )
    yield one(
        tile(
            "Mean hold",
            good="about the time of its queries.",
            bad="more: held across other work.",
            unit="s",
            limits=(0.5, 2.5),
            onward=TO_POOL,
        ),
        f"{held} / {units}",
    )
    yield one(
        tile(
            "Queries, p95",
            good="below 10.",
            bad="above 20: look for a loop.",
            unit="locale",
            limits=(20, 100),
            onward=TO_LOOPS,
            decimals=0,
        ),
        quantile(0.95, semconv.UNIT_QUERIES, POOLS),
    )
    yield one(
        tile(
            "In N+1 loops",
            good="0 %.",
            bad="any: each of these could be part of one.",
            unit="percentunit",
            limits=(0.01, 0.2),
            onward=TO_LOOPS,
            decimals=0,
        ),
        f"({or_zero(over('sum', rate(REPEATED, POOLS)))})"
        f" / {over('sum', rate(prometheus.total(semconv.UNIT_QUERIES), POOLS))}",
    )
    yield one(
        tile(
            "Failed",
            good="0 %.",
            bad="any: below, which route.",
            unit="percentunit",
            limits=(0.001, 0.01),
            onward=TO_FAILURES,
            decimals=1,
        ),
        f"({or_zero(over('sum', rate(prometheus.family(SPAN_CALLS), FAILED)))})"
        f" / {over('sum', rate(prometheus.family(SPAN_CALLS), UNITS))}",
    )
    yield course(
        Face(
            "Where a request's time with the pool goes, mean",
            good="`holding` only.",
            bad="`waiting` takes a share: the pool is the bottleneck.",
            unit="s",
            limits=(0.5, 2.5),
            onward=TO_POOL,
            width=12,
            height=10,
        ),
        [Ask(mean(semconv.UNIT_WAIT_TIME, POOLS), "waiting"), Ask(mean(semconv.UNIT_HOLD_TIME, POOLS), "holding")],
        stack=True,
        colours={"waiting": "red", "holding": "green"},
    )
    yield course(
        Face(
            "Duration of requests by route, p95",
            good="flat.",
            bad="routes that share a pool rise together: one of them starves the others.",
            unit="s",
            limits=(1, 5),
            onward=TO_TRACES,
            width=12,
            height=10,
        ),
        [Ask(quantile(0.95, SPAN_DURATION, UNITS, (SPAN_NAME,)), f"{{{{{SPAN_NAME}}}}}", exemplars=True)],
        many=True,
    )


def _routes() -> Panels:
    route = links.of_row(links.POOL, "The pools of this service", service="Service")
    held = over("sum", rate(prometheus.total(semconv.UNIT_HOLD_TIME), POOLS, RANGE), ROUTE)
    waited = over("sum", rate(prometheus.total(semconv.UNIT_WAIT_TIME), POOLS, RANGE), ROUTE)
    repeated = over("sum", increase(REPEATED, POOLS), ROUTE)
    yield rows(
        Face(
            "Every route, task and job",
            good="no colour.",
            bad=(
                "first by what it holds: mend that one. `Most at once` above 1: it takes a second "
                "connection while it has one."
            ),
            unit="short",
            limits=(1,),
            onward=TO_LOOPS,
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
        worst_first="Held, mean",
    )


def _queries() -> Panels:
    yield heat(
        Face(
            "Queries in one request",
            good="one band, low.",
            bad="a second band far above: the loops.",
            unit="short",
            limits=(20, 100),
            onward=TO_LOOPS,
            width=24,
        ),
        over("sum", increase(prometheus.bucket(semconv.UNIT_QUERIES), POOLS, RECENT), ("le",)),
    )
    yield course(
        Face(
            "Queries in one request by route, p95",
            good="flat, below 10.",
            bad="grows with the data: an N+1 loop.",
            unit="short",
            limits=(20, 100),
            onward=TO_LOOPS,
            width=12,
            height=10,
        ),
        [Ask(quantile(0.95, semconv.UNIT_QUERIES, POOLS, ROUTE), LEGEND)],
        many=True,
    )
    yield course(
        Face(
            "Queries per second in N+1 loops",
            good="0.",
            bad="starts at a deploy: that deploy brought the loop.",
            unit="short",
            limits=(0.1, 10),
            onward=TO_LOOPS,
            width=12,
            height=10,
        ),
        [Ask(over("sum", rate(REPEATED, POOLS), ROUTE), LEGEND)],
        stack=True,
        many=True,
    )


def _holds() -> Panels:
    waits = over("sum", holders.placed(increase(prometheus.count(SPAN_DURATION), CHECKOUTS)), holders.BY_LINE)
    yield holders.by_line(TO_POOL)
    yield rows(
        Face(
            "Waiters by line",
            good="none that waits long.",
            bad="these lines stand still; who makes them stands at the left.",
            unit="short",
            limits=(1,),
            onward=TO_TRACES,
            width=12,
            height=9,
        ),
        [
            Column("Service", SERVICE, width=100),
            Column("Function", holders.FUNCTION),
            Column("Line", holders.PLACE),
            Column("Waits", waits, "locale", width=90, decimals=0),
            Column("Wait p95", holders.quantile_by_line(CHECKOUTS), "s", (0.1, 1), 100),
        ],
        worst_first="Waits",
    )
    yield course(
        Face(
            "Connections held by route",
            good="follows the traffic.",
            bad="one colour takes over.",
            unit="short",
            limits=(),
            onward=TO_POOL,
            width=12,
            height=10,
            decimals=2,
        ),
        [Ask(over("sum", rate(prometheus.total(semconv.UNIT_HOLD_TIME), POOLS), ROUTE), LEGEND)],
        stack=True,
        many=True,
    )
    yield course(
        Face(
            "Callers waiting by route",
            good="0.",
            bad="the routes that suffer; seldom those that cause it.",
            unit="short",
            limits=(0.1, 1),
            onward=TO_TRACES,
            width=12,
            height=10,
            decimals=2,
        ),
        [Ask(over("sum", rate(prometheus.total(semconv.UNIT_WAIT_TIME), POOLS), ROUTE), LEGEND)],
        stack=True,
        many=True,
    )
    yield course(
        Face(
            "Checkouts per second outside of any request, task or job",
            good="0: all work has a name.",
            bad="a framework that is not hooked, or threads of their own: name their work with `unit_of_work`.",
            unit="short",
            limits=(),
            onward=TO_POOL,
            width=24,
            decimals=2,
        ),
        [Ask(over("sum", rate(prometheus.family(semconv.UNATTRIBUTED), POOLS), BY_POOL), POOL_LEGEND)],
    )
