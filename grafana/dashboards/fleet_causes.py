"""
The lower half of *Connection pools*: leak or too small, the routes, the budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import links, prometheus
from grafana.collector import SERVICE
from grafana.panels import Ask, Face, bars, course
from grafana.query import (
    BY_POOL,
    BY_SERVER,
    FLEET,
    LATELY,
    POOL,
    RANGE,
    SERVER_LEGEND,
    SERVICES,
    UNIT,
    accepted,
    increase,
    or_zero,
    over,
    rate,
    ratio,
    usage,
    value,
)
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

LEAKS = prometheus.family(semconv.LEAKS)
TIMEOUTS = prometheus.family(semconv.TIMEOUTS)
REPEATED = prometheus.family(semconv.REPEATED_QUERIES)
LEGEND = f"{{{{{SERVICE}}}}} · {{{{{POOL}}}}}"
TO_POOL = (links.to(links.POOL, "The pools, one by one", "service"), links.POOL_OF_SERIES)
TO_SERVICE = (TO_POOL[0], links.of_series(links.POOL, "The pools of this service", service=SERVICE))
TO_FINDINGS = (links.to(links.FINDINGS, "What was found", "service"),)
TO_REQUESTS = (links.to(links.REQUESTS, "The routes", "service"),)
TO_SERVER = (links.to(links.POSTGRESQL, "The server's side", "server"),)


def leak_or_small() -> Panels:
    """
    Whether connections get lost, or there are too few of them.
    """
    kind = prometheus.label(semconv.LEAK_KIND)
    yield course(
        Face(
            "Fullest process of each pool",
            good="room at the peaks; goes up and down with the traffic.",
            bad=(
                "a staircase that never comes down is a leak; a plateau at 100 % in traffic is too "
                "small, or held too long."
            ),
            unit="percentunit",
            limits=(0.8, 1),
            onward=TO_POOL,
            top=1,
        ),
        [Ask(over("max", usage(FLEET), BY_POOL), LEGEND)],
    )
    yield course(
        Face(
            "Oldest connection out",
            good="saw teeth as low as the slowest request.",
            bad="a straight line upwards: somebody sits on it.",
            unit="s",
            limits=(30, 60),
            onward=TO_POOL,
        ),
        [Ask(over("max", value(semconv.OLDEST_LEASE_AGE, FLEET), BY_POOL), LEGEND)],
    )
    yield course(
        Face(
            "Leaks found in 5 minutes",
            good="0.",
            bad="`abandoned` and `owner_finished` are certain; `overdue` is past the threshold and may come back.",
            unit="locale",
            limits=(1,),
            decimals=0,
            onward=TO_FINDINGS,
        ),
        [
            Ask(
                over("sum", increase(prometheus.family(semconv.LEAKS), FLEET, LATELY), (SERVICE, kind)),
                f"{{{{{SERVICE}}}}} · {{{{{kind}}}}}",
            )
        ],
    )


def routes() -> Panels:
    """
    Which routes hold, which wait, which loop.
    """
    routes = (SERVICE, UNIT)
    legend = f"{{{{{SERVICE}}}}} · {{{{{UNIT}}}}}"
    held = over("sum", rate(prometheus.total(semconv.UNIT_HOLD_TIME), SERVICES, RANGE), routes)
    waited = over("sum", rate(prometheus.total(semconv.UNIT_WAIT_TIME), SERVICES, RANGE), routes)
    yield bars(
        Face(
            "Connections held by route, on average",
            good="spread over the busy routes.",
            bad="one route with most of it: what it does while holding is the place to mend.",
            unit="short",
            limits=(1, 5),
            onward=TO_REQUESTS,
            height=9,
            decimals=2,
        ),
        f"sort_desc(topk(5, {held}))",
        legend,
    )
    yield bars(
        Face(
            "Callers waiting by route, on average",
            good="0 everywhere.",
            bad="the routes that suffer; seldom those that cause it.",
            unit="short",
            limits=(0.1, 1),
            onward=TO_REQUESTS,
            height=9,
            decimals=2,
        ),
        f"sort_desc(topk(5, {waited}))",
        legend,
    )
    yield bars(
        Face(
            "Queries spent in N+1 loops",
            good="0.",
            bad="any: one query in place of the loop frees the connection sooner.",
            unit="locale",
            limits=(1, 100),
            onward=TO_REQUESTS,
            height=9,
            decimals=0,
        ),
        f"sort_desc(topk(5, {over('sum', increase(REPEATED, SERVICES), routes)}))",
        legend,
    )


def fit_and_trust() -> Panels:
    """
    Whether all pools fit the server, and whether the figures can be trusted.
    """
    promised = over("sum", value(semconv.CONNECTION_MAX, FLEET), BY_SERVER)
    yield bars(
        Face(
            "Limits of these pools, of what the server accepts",
            good="below 80 %: room for a deploy, when old and new run together.",
            bad="above 100 %: when all pools fill, the server refuses, and no pool says why.",
            unit="percentunit",
            limits=(0.8, 1),
            onward=TO_SERVER,
            height=6,
            decimals=0,
            top=1.5,
        ),
        ratio(promised, accepted(), BY_SERVER),
        SERVER_LEGEND,
    )
    yield course(
        Face(
            "Processes that report",
            good="as many as run.",
            bad="fewer: a worker died, or its telemetry does.",
            unit="short",
            limits=(),
            onward=TO_SERVICE,
            height=6,
        ),
        [
            Ask(
                over("count", over("count", value(semconv.DRIFT, FLEET), (SERVICE, "service_instance_id")), (SERVICE,)),
                f"{{{{{SERVICE}}}}}",
            )
        ],
    )
    yield course(
        Face(
            "Our own errors and drift",
            good="0.",
            bad="anything else: poolscope is wrong here. Trust the server's side, and report it.",
            unit="short",
            limits=(1,),
            onward=TO_FINDINGS,
            height=6,
        ),
        [
            Ask(over("sum", f"abs({value(semconv.DRIFT, FLEET)})"), "drift of connections"),
            Ask(
                or_zero(over("sum", increase(prometheus.family(semconv.ERRORS), SERVICES, "$__rate_interval"))),
                "errors caught",
            ),
        ],
    )
