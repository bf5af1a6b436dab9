"""
*Pool*: one pool, its processes side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import board, links, prometheus
from grafana.collector import INSTANCE
from grafana.dashboards import holders, pool_causes
from grafana.panels import Ask, Face, course, heat, one, tile
from grafana.query import INSTANCES, RECENT, increase, over, quantile, rate, usage, value
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

SATURATION = prometheus.family(semconv.SATURATION_TIME)
TIMEOUTS = prometheus.family(semconv.TIMEOUTS)
LEAKS = prometheus.family(semconv.LEAKS)
# The quantile whose exemplars are worth a look.
TAIL = 0.99
STATE = prometheus.label(semconv.CONNECTION_STATE)
USED = INSTANCES.having(STATE, semconv.STATE_USED)
IDLE = INSTANCES.having(STATE, semconv.STATE_IDLE)
EACH = f"{{{{{INSTANCE}}}}}"
TO_REQUESTS = (links.to(links.REQUESTS, "The routes that use it", "service", "pool"),)
TO_FINDINGS = (links.to(links.FINDINGS, "What was found", "service", "pool"),)
TO_INSTANCE = (links.to(links.FINDINGS, "What was found", "service", "pool"), links.INSTANCE_OF_SERIES)
TO_WAITS = (
    links.traces("Traces that waited", f'{{ name =~ "{semconv.CHECKOUT_SPAN.prefix} .*" && duration > 100ms }}'),
    *TO_REQUESTS,
)
TO_HOLDS = (
    links.traces("Traces that held long", f'{{ name =~ "{semconv.HOLD_SPAN.prefix} .*" && duration > 1s }}'),
    *TO_REQUESTS,
)


def dashboard() -> dict[str, object]:
    """
    The dashboard in Grafana's model.
    """
    return board.board(
        links.POOL,
        "Pool",
        "One connection pool: full or not, who waits, what the holders do, leak or too small, process by process.",
        ("service", "pool", "instance"),
        {
            "Are we out of connections?": _exhaustion(),
            "Who waits?": _waits(),
            "Who holds, and doing what?": _holds(),
            "Leak, or too small a pool?": pool_causes.leak_or_small(),
            "Which process? What does the server cost?": pool_causes.processes(),
        },
    )


def _exhaustion() -> Panels:
    yield one(
        tile(
            "Fullest process",
            good="below 80 %.",
            bad="100 %: its next caller waits.",
            unit="percentunit",
            limits=(0.8, 1),
            onward=TO_INSTANCE[:1],
            decimals=0,
        ),
        over("max", usage(INSTANCES)),
    )
    yield one(
        tile(
            "Time saturated",
            good="0 %.",
            bad="the share of time in which every connection was out.",
            unit="percentunit",
            limits=(0.01, 0.1),
            onward=TO_REQUESTS,
            decimals=0,
        ),
        over("max", rate(SATURATION, INSTANCES)),
    )
    yield one(
        tile("Callers waiting", good="0.", bad="more than 0 that stays.", unit="short", limits=(1, 5), onward=TO_WAITS),
        over("sum", value(semconv.PENDING_REQUESTS, INSTANCES)),
    )
    yield one(
        tile(
            "Oldest lease",
            good="as long as the slowest request.",
            bad="minutes: somebody sits on it.",
            unit="s",
            limits=(30, 60),
            onward=TO_FINDINGS,
        ),
        over("max", value(semconv.OLDEST_LEASE_AGE, INSTANCES)),
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
        over("sum", increase(TIMEOUTS, INSTANCES)),
    )
    yield one(
        tile(
            "Leaks",
            good="0.",
            bad="any: see which kind, below.",
            unit="locale",
            limits=(1,),
            onward=TO_FINDINGS,
            decimals=0,
        ),
        over("sum", increase(LEAKS, INSTANCES)),
    )
    yield course(
        Face(
            "Connections of all processes",
            good="`in use` stays below the limit; `idle` is what is ready.",
            bad="`in use` lies on the limit: everybody else waits.",
            unit="short",
            limits=(),
            onward=TO_FINDINGS,
            width=12,
        ),
        [
            Ask(over("sum", value(semconv.CONNECTION_COUNT, USED)), "in use"),
            Ask(over("sum", value(semconv.CONNECTION_COUNT, IDLE)), "idle"),
            Ask(over("sum", value(semconv.CONNECTION_MAX, INSTANCES)), "limit"),
            Ask(over("sum", value(semconv.CONNECTION_IDLE_MAX, INSTANCES)), "idle at most"),
            Ask(over("sum", value(semconv.CONNECTION_IDLE_MIN, INSTANCES)), "idle at least"),
        ],
        stack=True,
        colours={"in use": "orange", "idle": "green"},
        lines=("limit", "idle at most", "idle at least"),
    )
    yield course(
        Face(
            "Share of time saturated, by process",
            good="0 %.",
            bad="one process alone: its traffic or its leak; all: the pool is too small or held too long.",
            unit="percentunit",
            limits=(0.01, 0.1),
            onward=TO_INSTANCE,
            width=12,
            top=1,
        ),
        [Ask(over("max", rate(SATURATION, INSTANCES), (INSTANCE,)), EACH)],
    )


def _waits() -> Panels:
    phase = prometheus.label(semconv.WAIT_PHASE)
    yield heat(
        Face(
            "Waits for a connection",
            good="one dark band below a millisecond.",
            bad="a second band, at the pool's timeout or in whole seconds.",
            unit="s",
            limits=(0.1, 1),
            onward=TO_WAITS,
            width=12,
        ),
        over("sum", increase(prometheus.bucket(semconv.WAIT_TIME), INSTANCES, RECENT), ("le",)),
    )
    yield course(
        Face(
            "Wait: p50, p95, p99",
            good="milliseconds at most.",
            bad="p50 up: every request pays; p99 alone: bursts.",
            unit="s",
            limits=(0.1, 1),
            onward=TO_WAITS,
            width=12,
        ),
        [
            Ask(quantile(share, semconv.WAIT_TIME, INSTANCES), f"p{share * 100:.0f}", exemplars=share == TAIL)
            for share in (0.5, 0.95, TAIL)
        ],
    )
    yield course(
        Face(
            "What the waiting is spent on",
            good="next to nothing.",
            bad="`queue`: all in use. `connect`: connections are made too often. `validate`: the pre-ping is slow.",
            unit="short",
            limits=(0.1, 1),
            onward=TO_WAITS,
        ),
        [Ask(over("sum", rate(prometheus.family(semconv.WAIT_PHASE_TIME), INSTANCES), (phase,)), f"{{{{{phase}}}}}")],
        stack=True,
        colours={"queue": "red", "connect": "orange", "validate": "blue"},
    )
    yield course(
        Face(
            "Most callers waiting at once, by process",
            good="0.",
            bad="more than its limit: the queue no longer drains.",
            unit="short",
            limits=(1, 5),
            onward=TO_INSTANCE,
        ),
        [Ask(over("max", value(semconv.PENDING_PEAK, INSTANCES), (INSTANCE,)), EACH)],
    )
    yield course(
        Face(
            "Timeouts per minute",
            good="0.",
            bad="any: these requests failed.",
            unit="short",
            limits=(0.1,),
            onward=TO_FINDINGS,
        ),
        [Ask(f"60 * {over('sum', rate(TIMEOUTS, INSTANCES), (INSTANCE,))}", EACH)],
    )


def _holds() -> Panels:
    phase = prometheus.label(semconv.USE_PHASE)
    yield heat(
        Face(
            "Holds of a connection",
            good="a band about where the queries are.",
            bad="a band above it: held across something else than queries.",
            unit="s",
            limits=(0.5, 2.5),
            onward=TO_HOLDS,
            width=12,
        ),
        over("sum", increase(prometheus.bucket(semconv.USE_TIME), INSTANCES, RECENT), ("le",)),
    )
    yield course(
        Face(
            "What the held connections do",
            good="nearly all of it `query`.",
            bad=(
                "`idle_in_transaction`: work between BEGIN and COMMIT that is no query. `idle`: taken "
                "too early, given back too late."
            ),
            unit="short",
            limits=(1, 10),
            onward=TO_HOLDS,
            width=12,
        ),
        [Ask(over("sum", rate(prometheus.family(semconv.USE_PHASE_TIME), INSTANCES), (phase,)), f"{{{{{phase}}}}}")],
        stack=True,
        colours={"query": "green", "idle_in_transaction": "red", "idle": "orange"},
    )
    yield holders.by_route(TO_REQUESTS)
    yield holders.by_line(TO_HOLDS)
