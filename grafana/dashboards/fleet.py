"""*Connection pools*: every pool of every service, worst first. An engineer on call opens this page first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import board, links, prometheus
from grafana.collector import SERVICE
from grafana.dashboards import fleet_causes
from grafana.panels import PanelOptions, Target, stat_options, stat_panel, time_series_panel
from grafana.query import BY_POOL, FLEET, POOL, SERVICES, increase, or_zero, over, quantile, rate, usage, value
from grafana.tables import Column, table_panel
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

SATURATION = prometheus.family(semconv.SATURATION_TIME)
LEAKS = prometheus.family(semconv.LEAKS)
TIMEOUTS = prometheus.family(semconv.TIMEOUTS)
REPEATED = prometheus.family(semconv.REPEATED_QUERIES)
LEGEND = f"{{{{{SERVICE}}}}} · {{{{{POOL}}}}}"
TO_POOLS = (links.to(links.POOL, "Each pool", "service"),)
TO_POOL = (*TO_POOLS, links.POOL_OF_SERIES)
TO_FINDINGS = (links.to(links.FINDINGS, "Findings", "service"),)
TO_REQUESTS = (links.to(links.REQUESTS, "Routes", "service"),)


def dashboard() -> dict[str, object]:
    """The dashboard in Grafana's model."""
    return board.board(
        links.FLEET,
        "Connection pools",
        "Every connection pool of every service: which are exhausted, who waits, who holds, does the fleet fit.",
        ("service", "server"),
        {
            "Are we out of connections?": _exhaustion(),
            "Who waits?": _waits(),
            "Who holds, and doing what?": _holds(),
            "Leak, or too small a pool?": fleet_causes.leak_or_small(),
            "Which route?": fleet_causes.routes(),
            "Does the fleet fit the server? Are the figures reliable?": fleet_causes.fit_and_trust(),
        },
    )


def _exhaustion() -> Panels:
    saturated = over("max", rate(SATURATION, FLEET), BY_POOL)
    yield stat_panel(
        stat_options(
            "Pools saturated",
            good="0.",
            bad="any: checkouts of that pool wait. The table names it.",
            unit="short",
            thresholds=(1,),
            links=TO_POOLS,
        ),
        or_zero(over("count", f"{saturated} > 0.05")),
    )
    yield stat_panel(
        stat_options(
            "Fullest pool",
            good="below 80 % at the peak of the last minute.",
            bad="100 %: the next checkout waits.",
            unit="percentunit",
            thresholds=(0.8, 1),
            links=TO_POOLS,
            decimals=0,
        ),
        over("max", usage(FLEET)),
    )
    yield stat_panel(
        stat_options(
            "Pending checkouts",
            good="0, or a few for a moment.",
            bad="more than 0 that stays.",
            unit="short",
            thresholds=(1, 5),
            links=TO_POOLS,
        ),
        over("sum", value(semconv.PENDING_REQUESTS, FLEET)),
    )
    yield stat_panel(
        stat_options(
            "Slowest wait, p99",
            good="below 10 ms: a connection was free.",
            bad="above 100 ms. Interpolated within a bucket: waits that end at a timeout of 1 s may show as 2.5 s.",
            unit="s",
            thresholds=(0.1, 1),
            links=TO_REQUESTS,
        ),
        over("max", quantile(0.99, semconv.WAIT_TIME, FLEET, BY_POOL)),
    )
    yield stat_panel(
        stat_options(
            "Timeouts",
            good="0.",
            bad="any: a request failed because it got no connection.",
            unit="locale",
            thresholds=(1,),
            links=TO_FINDINGS,
            decimals=0,
        ),
        over("sum", increase(TIMEOUTS, FLEET)),
    )
    yield stat_panel(
        stat_options(
            "Leaks",
            good="0.",
            bad="any: a connection was not returned.",
            unit="locale",
            thresholds=(1,),
            links=TO_FINDINGS,
            decimals=0,
        ),
        over("sum", increase(LEAKS, FLEET)),
    )
    yield table_panel(
        PanelOptions(
            "Every pool, worst first",
            good="no colour.",
            bad="a red line: click it. Saturated with leaks: fix the leak. Saturated without leaks: see what holds.",
            unit="short",
            thresholds=(1,),
            links=TO_POOLS,
            width=24,
        ),
        _columns(),
        sort_by="Saturated",
    )


def _columns() -> list[Column]:
    pool = links.of_row(links.POOL, "This pool", service="Service", pool="Pool")
    return [
        Column("Service", SERVICE, link=pool, width=190),
        Column("Pool", POOL, link=pool),
        Column("Processes", over("count", value(semconv.USED_PEAK, FLEET), BY_POOL), "short", width=90),
        Column("Limit", over("sum", value(semconv.CONNECTION_MAX, FLEET), BY_POOL), "short", width=70),
        Column("Fullest", over("max", usage(FLEET), BY_POOL), "percentunit", (0.8, 1), 150, decimals=0, bar=True),
        Column(
            "Saturated",
            over("max", rate(SATURATION, FLEET), BY_POOL),
            "percentunit",
            (0.01, 0.1),
            150,
            decimals=0,
            bar=True,
        ),
        Column("Peak pending", over("sum", value(semconv.PENDING_PEAK, FLEET), BY_POOL), "short", (10, 30), 120),
        Column("Wait p99", quantile(0.99, semconv.WAIT_TIME, FLEET, BY_POOL), "s", (0.1, 1), 90),
        Column("Hold p95", quantile(0.95, semconv.USE_TIME, FLEET, BY_POOL), "s", (0.5, 2.5), 90),
        Column("Oldest hold", over("max", value(semconv.OLDEST_LEASE_AGE, FLEET), BY_POOL), "s", (30, 60), 90),
        Column("Timeouts", over("sum", increase(TIMEOUTS, FLEET), BY_POOL), "locale", (1,), 90, decimals=0),
        Column("Leaks", over("sum", increase(LEAKS, FLEET), BY_POOL), "locale", (1,), 80, decimals=0),
        Column("N+1 queries", over("sum", increase(REPEATED, SERVICES), BY_POOL), "locale", (1,), 110, decimals=0),
    ]


def _waits() -> Panels:
    yield time_series_panel(
        PanelOptions(
            "Share of time saturated",
            good="0 %.",
            bad="above 1 %: checkouts wait; 100 %: every checkout waits.",
            unit="percentunit",
            thresholds=(0.01, 0.1),
            links=TO_POOL,
            maximum=1,
        ),
        [Target(over("max", rate(SATURATION, FLEET), BY_POOL), LEGEND)],
    )
    yield time_series_panel(
        PanelOptions(
            "Wait for a connection, p99",
            good="flat, in milliseconds.",
            bad="a step up: the panel on the left shows whether the pool is full then.",
            unit="s",
            thresholds=(0.1, 1),
            links=TO_POOL,
        ),
        [Target(quantile(0.99, semconv.WAIT_TIME, FLEET, BY_POOL), LEGEND, exemplars=True)],
    )
    yield time_series_panel(
        PanelOptions(
            "Peak of pending checkouts",
            good="0.",
            bad="more than the pool's limit: the queue no longer empties.",
            unit="short",
            thresholds=(1, 5),
            links=TO_POOL,
        ),
        [Target(over("sum", value(semconv.PENDING_PEAK, FLEET), BY_POOL), LEGEND)],
    )


def _holds() -> Panels:
    phase = prometheus.label(semconv.HOLD_PHASE)
    yield time_series_panel(
        PanelOptions(
            "What held connections do",
            good="nearly all of it `query`.",
            bad="`idle` or `idle_in_transaction`: held while the application does other work. Return it earlier.",
            unit="short",
            thresholds=(1, 10),
            links=TO_POOLS,
            width=12,
        ),
        [Target(over("sum", rate(prometheus.family(semconv.HOLD_PHASE_TIME), FLEET), (phase,)), f"{{{{{phase}}}}}")],
        stacked=True,
        colours={"query": "green", "idle_in_transaction": "red", "idle": "orange"},
    )
    yield time_series_panel(
        PanelOptions(
            "Hold time of a connection, p95",
            good="flat; about the duration of the queries.",
            bad="grows while queries do not: other work is done while the connection is held.",
            unit="s",
            thresholds=(0.5, 2.5),
            links=TO_POOL,
            width=12,
        ),
        [Target(quantile(0.95, semconv.USE_TIME, FLEET, BY_POOL), LEGEND, exemplars=True)],
    )
