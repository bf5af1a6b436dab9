"""
*Connection pools*: every pool of every service, worst first. The page that an engineer on call opens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import board, links, prometheus
from grafana.collector import SERVICE
from grafana.dashboards import fleet_causes
from grafana.panels import Ask, Face, course, one, tile
from grafana.query import BY_POOL, FLEET, POOL, SERVICES, increase, or_zero, over, quantile, rate, usage, value
from grafana.tables import Column, rows
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

SATURATION = prometheus.family(semconv.SATURATION_TIME)
LEAKS = prometheus.family(semconv.LEAKS)
TIMEOUTS = prometheus.family(semconv.TIMEOUTS)
REPEATED = prometheus.family(semconv.REPEATED_QUERIES)
LEGEND = f"{{{{{SERVICE}}}}} · {{{{{POOL}}}}}"
TO_POOLS = (links.to(links.POOL, "The pools, one by one", "service"),)
TO_POOL = (*TO_POOLS, links.POOL_OF_SERIES)
TO_FINDINGS = (links.to(links.FINDINGS, "What was found", "service"),)
TO_REQUESTS = (links.to(links.REQUESTS, "The routes", "service"),)


def dashboard() -> dict[str, object]:
    """
    The dashboard in Grafana's model.
    """
    return board.board(
        links.FLEET,
        "Connection pools",
        "Every connection pool of every service: who is out of connections, who waits, who holds, does the fleet fit.",
        ("service", "server"),
        {
            "Are we out of connections?": _exhaustion(),
            "Who waits?": _waits(),
            "Who holds, and doing what?": _holds(),
            "Leak, or too small a pool?": fleet_causes.leak_or_small(),
            "Which route?": fleet_causes.routes(),
            "Does the fleet fit the server? Can the figures be trusted?": fleet_causes.fit_and_trust(),
        },
    )


def _exhaustion() -> Panels:
    saturated = over("max", rate(SATURATION, FLEET), BY_POOL)
    yield one(
        tile(
            "Pools saturated",
            good="0.",
            bad="any: callers of that pool queue. The table names it.",
            unit="short",
            limits=(1,),
            onward=TO_POOLS,
        ),
        or_zero(over("count", f"{saturated} > 0.05")),
    )
    yield one(
        tile(
            "Fullest pool",
            good="below 80 % at the peak of the last minute.",
            bad="100 %: the next caller waits.",
            unit="percentunit",
            limits=(0.8, 1),
            onward=TO_POOLS,
            decimals=0,
        ),
        over("max", usage(FLEET)),
    )
    yield one(
        tile(
            "Callers waiting",
            good="0, or a few for an instant.",
            bad="more than 0 that stays.",
            unit="short",
            limits=(1, 5),
            onward=TO_POOLS,
        ),
        over("sum", value(semconv.PENDING_REQUESTS, FLEET)),
    )
    yield one(
        tile(
            "Slowest wait, p99",
            good="below 10 ms: a free connection was there.",
            bad="above 100 ms. Estimated within a bucket: waits that end at a timeout of 1 s may show as 2.5 s.",
            unit="s",
            limits=(0.1, 1),
            onward=TO_REQUESTS,
        ),
        over("max", quantile(0.99, semconv.WAIT_TIME, FLEET, BY_POOL)),
    )
    yield one(
        tile(
            "Timeouts",
            good="0.",
            bad="any: a request failed for want of a connection.",
            unit="locale",
            limits=(1,),
            onward=TO_FINDINGS,
            decimals=0,
        ),
        over("sum", increase(TIMEOUTS, FLEET)),
    )
    yield one(
        tile(
            "Leaks",
            good="0.",
            bad="any: a connection that its user will not give back.",
            unit="locale",
            limits=(1,),
            onward=TO_FINDINGS,
            decimals=0,
        ),
        over("sum", increase(LEAKS, FLEET)),
    )
    yield rows(
        Face(
            "Every pool, the worst first",
            good="no colour.",
            bad="a red line: click it. Saturated with leaks: mend the leak. Saturated without: look at what holds.",
            unit="short",
            limits=(1,),
            onward=TO_POOLS,
            width=24,
        ),
        _columns(),
        worst_first="Saturated",
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
        Column("Most waiting", over("sum", value(semconv.PENDING_PEAK, FLEET), BY_POOL), "short", (10, 30), 120),
        Column("Wait p99", quantile(0.99, semconv.WAIT_TIME, FLEET, BY_POOL), "s", (0.1, 1), 90),
        Column("Hold p95", quantile(0.95, semconv.USE_TIME, FLEET, BY_POOL), "s", (0.5, 2.5), 90),
        Column("Oldest", over("max", value(semconv.OLDEST_LEASE_AGE, FLEET), BY_POOL), "s", (30, 60), 90),
        Column("Timeouts", over("sum", increase(TIMEOUTS, FLEET), BY_POOL), "locale", (1,), 90, decimals=0),
        Column("Leaks", over("sum", increase(LEAKS, FLEET), BY_POOL), "locale", (1,), 80, decimals=0),
        Column("N+1 queries", over("sum", increase(REPEATED, SERVICES), BY_POOL), "locale", (1,), 110, decimals=0),
    ]


def _waits() -> Panels:
    yield course(
        Face(
            "Share of time saturated",
            good="0 %.",
            bad="above 1 %: callers queue; 100 %: nobody gets one without waiting.",
            unit="percentunit",
            limits=(0.01, 0.1),
            onward=TO_POOL,
            top=1,
        ),
        [Ask(over("max", rate(SATURATION, FLEET), BY_POOL), LEGEND)],
    )
    yield course(
        Face(
            "Wait for a connection, p99",
            good="flat, in milliseconds.",
            bad="a step up: see at the left whether the pool is full then.",
            unit="s",
            limits=(0.1, 1),
            onward=TO_POOL,
        ),
        [Ask(quantile(0.99, semconv.WAIT_TIME, FLEET, BY_POOL), LEGEND, exemplars=True)],
    )
    yield course(
        Face(
            "Most callers waiting at once",
            good="0.",
            bad="more than the pool's limit: the queue no longer drains.",
            unit="short",
            limits=(1, 5),
            onward=TO_POOL,
        ),
        [Ask(over("sum", value(semconv.PENDING_PEAK, FLEET), BY_POOL), LEGEND)],
    )


def _holds() -> Panels:
    phase = prometheus.label(semconv.USE_PHASE)
    yield course(
        Face(
            "What the held connections do",
            good="nearly all of it `query`.",
            bad="`idle` or `idle_in_transaction`: held while the application does something else. Give back earlier.",
            unit="short",
            limits=(1, 10),
            onward=TO_POOLS,
            width=12,
        ),
        [Ask(over("sum", rate(prometheus.family(semconv.USE_PHASE_TIME), FLEET), (phase,)), f"{{{{{phase}}}}}")],
        stack=True,
        colours={"query": "green", "idle_in_transaction": "red", "idle": "orange"},
    )
    yield course(
        Face(
            "Hold of a connection, p95",
            good="flat; about the time that the queries take.",
            bad="grows while queries do not: something else is done while holding.",
            unit="s",
            limits=(0.5, 2.5),
            onward=TO_POOL,
            width=12,
        ),
        [Ask(quantile(0.95, semconv.USE_TIME, FLEET, BY_POOL), LEGEND, exemplars=True)],
    )
