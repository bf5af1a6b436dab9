"""The lower half of *Connection pools*: leak or too small a pool, routes, and budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import links, prometheus
from grafana.collector import SERVICE
from grafana.panels import PanelOptions, Target, bar_gauge_panel, time_series_panel
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
TO_POOL = (links.to(links.POOL, "Each pool", "service"), links.POOL_OF_SERIES)
TO_SERVICE = (TO_POOL[0], links.of_series(links.POOL, "Pools of this service", service=SERVICE))
TO_FINDINGS = (links.to(links.FINDINGS, "Findings", "service"),)
TO_REQUESTS = (links.to(links.REQUESTS, "Routes", "service"),)
TO_SERVER = (links.to(links.POSTGRESQL, "PostgreSQL server", "server"),)


def leak_or_small() -> Panels:
    """Whether connections leak, or there are too few of them."""
    kind = prometheus.label(semconv.LEAK_KIND)
    yield time_series_panel(
        PanelOptions(
            "Fullest process of each pool",
            good="below 100 % at the peaks; follows the traffic.",
            bad=(
                "a staircase that never falls: a leak. A plateau at 100 % under load: the pool is too small, or "
                "connections are held too long."
            ),
            unit="percentunit",
            thresholds=(0.8, 1),
            links=TO_POOL,
            maximum=1,
        ),
        [Target(over("max", usage(FLEET), BY_POOL), LEGEND)],
    )
    yield time_series_panel(
        PanelOptions(
            "Oldest hold",
            good="falls again after the slowest request.",
            bad="a straight line upwards: one connection is not returned.",
            unit="s",
            thresholds=(30, 60),
            links=TO_POOL,
        ),
        [Target(over("max", value(semconv.OLDEST_LEASE_AGE, FLEET), BY_POOL), LEGEND)],
    )
    yield time_series_panel(
        PanelOptions(
            "Leaks found in 5 minutes",
            good="0.",
            bad="`abandoned` and `owner_finished` are certain; `overdue` is past the threshold and may still return.",
            unit="locale",
            thresholds=(1,),
            decimals=0,
            links=TO_FINDINGS,
        ),
        [
            Target(
                over("sum", increase(prometheus.family(semconv.LEAKS), FLEET, LATELY), (SERVICE, kind)),
                f"{{{{{SERVICE}}}}} · {{{{{kind}}}}}",
            )
        ],
    )


def routes() -> Panels:
    """Which routes hold connections, which wait, and which run N+1 loops."""
    routes = (SERVICE, UNIT)
    legend = f"{{{{{SERVICE}}}}} · {{{{{UNIT}}}}}"
    held = over("sum", rate(prometheus.total(semconv.UNIT_HOLD_TIME), SERVICES, RANGE), routes)
    waited = over("sum", rate(prometheus.total(semconv.UNIT_WAIT_TIME), SERVICES, RANGE), routes)
    yield bar_gauge_panel(
        PanelOptions(
            "Connections held by route, on average",
            good="spread over the busy routes.",
            bad="one route with most of them: fix what it does while it holds.",
            unit="short",
            thresholds=(1, 5),
            links=TO_REQUESTS,
            height=9,
            decimals=2,
        ),
        f"sort_desc(topk(5, {held}))",
        legend,
    )
    yield bar_gauge_panel(
        PanelOptions(
            "Pending checkouts by route, on average",
            good="0 everywhere.",
            bad="the routes that wait; they are seldom the cause.",
            unit="short",
            thresholds=(0.1, 1),
            links=TO_REQUESTS,
            height=9,
            decimals=2,
        ),
        f"sort_desc(topk(5, {waited}))",
        legend,
    )
    yield bar_gauge_panel(
        PanelOptions(
            "Queries in N+1 loops, by route",
            good="0.",
            bad="any: one query instead of the loop returns the connection sooner.",
            unit="locale",
            thresholds=(1, 100),
            links=TO_REQUESTS,
            height=9,
            decimals=0,
        ),
        f"sort_desc(topk(5, {over('sum', increase(REPEATED, SERVICES), routes)}))",
        legend,
    )


def fit_and_trust() -> Panels:
    """Whether all pools fit the server, and whether the figures are reliable."""
    limits = over("sum", value(semconv.CONNECTION_MAX, FLEET), BY_SERVER)
    yield bar_gauge_panel(
        PanelOptions(
            "Sum of pool limits, as a share of what the server accepts",
            good="below 80 %: enough for a deploy, when old and new processes run together.",
            bad="above 100 %: when all pools fill, the server rejects connections.",
            unit="percentunit",
            thresholds=(0.8, 1),
            links=TO_SERVER,
            height=6,
            decimals=0,
            maximum=1.5,
        ),
        ratio(limits, accepted(), BY_SERVER),
        SERVER_LEGEND,
    )
    yield time_series_panel(
        PanelOptions(
            "Processes that report",
            good="all processes of the service.",
            bad="fewer: a worker ended, or its telemetry does not arrive.",
            unit="short",
            thresholds=(),
            links=TO_SERVICE,
            height=6,
        ),
        [
            Target(
                over("count", over("count", value(semconv.DRIFT, FLEET), (SERVICE, "service_instance_id")), (SERVICE,)),
                f"{{{{{SERVICE}}}}}",
            )
        ],
    )
    yield time_series_panel(
        PanelOptions(
            "Internal errors and drift of poolscope",
            good="0.",
            bad="other than 0: poolscope has a bug. Rely on the server's own figures, and report it.",
            unit="short",
            thresholds=(1,),
            links=TO_FINDINGS,
            height=6,
        ),
        [
            Target(over("sum", f"abs({value(semconv.DRIFT, FLEET)})"), "drift of connections"),
            Target(
                or_zero(over("sum", increase(prometheus.family(semconv.ERRORS), SERVICES, "$__rate_interval"))),
                "internal errors",
            ),
        ],
    )
