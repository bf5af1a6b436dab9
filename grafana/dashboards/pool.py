"""*Pool*: one pool, and its processes side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import board, links, prometheus
from grafana.collector import INSTANCE
from grafana.dashboards import holders, pool_causes
from grafana.panels import PanelOptions, Target, heatmap_panel, stat_options, stat_panel, time_series_panel
from grafana.query import INSTANCES, RECENT, increase, or_zero, over, quantile, rate, usage, value
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

SATURATION = prometheus.family(semconv.SATURATION_TIME)
TIMEOUTS = prometheus.family(semconv.TIMEOUTS)
LEAKS = prometheus.family(semconv.LEAKS)
# The quantile that shows exemplars.
TAIL = 0.99
FAILED = prometheus.family(semconv.FAILED_CHECKOUTS)
OUTCOME = prometheus.label(semconv.CHECKOUT_OUTCOME)
STATE = prometheus.label(semconv.CONNECTION_STATE)
USED = INSTANCES.having(STATE, semconv.STATE_USED)
IDLE = INSTANCES.having(STATE, semconv.STATE_IDLE)
EACH = f"{{{{{INSTANCE}}}}}"
TO_REQUESTS = (links.to(links.REQUESTS, "Routes that use this pool", "service", "pool"),)
TO_FINDINGS = (links.to(links.FINDINGS, "Findings", "service", "pool"),)
TO_INSTANCE = (links.to(links.FINDINGS, "Findings", "service", "pool"), links.INSTANCE_OF_SERIES)
TO_WAITS = (
    links.traces("Traces with waits", f'{{ name =~ "{semconv.CHECKOUT_SPAN.prefix} .*" && duration > 100ms }}'),
    *TO_REQUESTS,
)
TO_HOLDS = (
    links.traces("Traces with long holds", f'{{ name =~ "{semconv.HOLD_SPAN.prefix} .*" && duration > 1s }}'),
    *TO_REQUESTS,
)


def dashboard() -> dict[str, object]:
    """The dashboard in Grafana's model."""
    return board.board(
        links.POOL,
        "Pool",
        "One connection pool: is it full, who waits, what holders do, leak or too small, process by process.",
        ("service", "pool", "instance"),
        {
            "Are we out of connections?": _exhaustion(),
            "Who waits?": _waits(),
            "Who holds, and doing what?": _holds(),
            "Leak, or too small a pool?": pool_causes.leak_or_small(),
            "Which process? What do new connections cost?": pool_causes.processes(),
        },
    )


def _exhaustion() -> Panels:
    yield stat_panel(
        stat_options(
            "Fullest process",
            good="below 80 %.",
            bad="100 %: its next checkout waits.",
            unit="percentunit",
            thresholds=(0.8, 1),
            links=TO_INSTANCE[:1],
            decimals=0,
        ),
        over("max", usage(INSTANCES)),
    )
    yield stat_panel(
        stat_options(
            "Time saturated",
            good="0 %.",
            bad="the share of time with every connection in use.",
            unit="percentunit",
            thresholds=(0.01, 0.1),
            links=TO_REQUESTS,
            decimals=0,
        ),
        over("max", rate(SATURATION, INSTANCES)),
    )
    yield stat_panel(
        stat_options(
            "Pending checkouts",
            good="0.",
            bad="more than 0 that stays.",
            unit="short",
            thresholds=(1, 5),
            links=TO_WAITS,
        ),
        over("sum", value(semconv.PENDING_REQUESTS, INSTANCES)),
    )
    yield stat_panel(
        stat_options(
            "Oldest hold",
            good="at most the duration of the slowest request.",
            bad="minutes: a connection is not returned.",
            unit="s",
            thresholds=(30, 60),
            links=TO_FINDINGS,
        ),
        over("max", value(semconv.OLDEST_LEASE_AGE, INSTANCES)),
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
        over("sum", increase(TIMEOUTS, INSTANCES)),
    )
    yield stat_panel(
        stat_options(
            "Leaks",
            good="0.",
            bad="any: the panel below shows which kind.",
            unit="locale",
            thresholds=(1,),
            links=TO_FINDINGS,
            decimals=0,
        ),
        over("sum", increase(LEAKS, INSTANCES)),
    )
    yield time_series_panel(
        PanelOptions(
            "Connections of all processes",
            good="`in use` stays below the limit; `idle` connections are ready.",
            bad="`in use` is at the limit: further checkouts wait.",
            unit="short",
            thresholds=(),
            links=TO_FINDINGS,
            width=12,
        ),
        [
            Target(over("sum", value(semconv.CONNECTION_COUNT, USED)), "in use"),
            Target(over("sum", value(semconv.CONNECTION_COUNT, IDLE)), "idle"),
            Target(over("sum", value(semconv.CONNECTION_MAX, INSTANCES)), "limit"),
            Target(over("sum", value(semconv.CONNECTION_IDLE_MAX, INSTANCES)), "idle at most"),
            Target(over("sum", value(semconv.CONNECTION_IDLE_MIN, INSTANCES)), "idle at least"),
        ],
        stacked=True,
        colours={"in use": "orange", "idle": "green"},
        limit_series=("limit", "idle at most", "idle at least"),
    )
    yield time_series_panel(
        PanelOptions(
            "Share of time saturated, by process",
            good="0 %.",
            bad="one process: its traffic or a leak. All: the pool is too small, or connections are held too long.",
            unit="percentunit",
            thresholds=(0.01, 0.1),
            links=TO_INSTANCE,
            width=12,
            maximum=1,
        ),
        [Target(over("max", rate(SATURATION, INSTANCES), (INSTANCE,)), EACH)],
    )


def _waits() -> Panels:
    phase = prometheus.label(semconv.WAIT_PHASE)
    yield heatmap_panel(
        PanelOptions(
            "Waits for a connection",
            good="one dark band below a millisecond.",
            bad="a second band, at the pool's timeout or in whole seconds.",
            unit="s",
            thresholds=(0.1, 1),
            links=TO_WAITS,
            width=12,
        ),
        over("sum", increase(prometheus.bucket(semconv.WAIT_TIME), INSTANCES, RECENT), ("le",)),
    )
    yield time_series_panel(
        PanelOptions(
            "Wait: p50, p95, p99",
            good="milliseconds at most.",
            bad="p50 rises: every request waits. Only p99 rises: bursts.",
            unit="s",
            thresholds=(0.1, 1),
            links=TO_WAITS,
            width=12,
        ),
        [
            Target(quantile(share, semconv.WAIT_TIME, INSTANCES), f"p{share * 100:.0f}", exemplars=share == TAIL)
            for share in (0.5, 0.95, TAIL)
        ],
    )
    yield time_series_panel(
        PanelOptions(
            "What waits are spent on",
            good="almost nothing.",
            bad="`queue`: all are in use. `connect`: connections open too often. `validate`: the pre-ping is slow. "
            "`resume`: the event loop is blocked.",
            unit="short",
            thresholds=(0.1, 1),
            links=TO_WAITS,
        ),
        [
            Target(
                over("sum", rate(prometheus.family(semconv.WAIT_PHASE_TIME), INSTANCES), (phase,)), f"{{{{{phase}}}}}"
            )
        ],
        stacked=True,
        colours={"queue": "red", "connect": "orange", "validate": "blue", "resume": "purple"},
    )
    yield time_series_panel(
        PanelOptions(
            "Peak of pending checkouts, by process",
            good="0.",
            bad="more than the pool's limit: the queue no longer empties.",
            unit="short",
            thresholds=(1, 5),
            links=TO_INSTANCE,
        ),
        [Target(over("max", value(semconv.PENDING_PEAK, INSTANCES), (INSTANCE,)), EACH)],
    )
    yield time_series_panel(
        PanelOptions(
            "Checkouts without a connection per minute, by how",
            good="0.",
            bad="any: these requests failed. `server_refused`: the server has too many connections.",
            unit="short",
            thresholds=(0.1,),
            links=TO_FINDINGS,
        ),
        [
            Target(or_zero(f"60 * {over('sum', rate(FAILED, INSTANCES))}"), "all"),
            Target(f"60 * {over('sum', rate(FAILED, INSTANCES), (OUTCOME,))}", f"{{{{{OUTCOME}}}}}"),
        ],
    )


def _holds() -> Panels:
    phase = prometheus.label(semconv.HOLD_PHASE)
    yield heatmap_panel(
        PanelOptions(
            "Holds of a connection",
            good="one band, at the duration of the queries.",
            bad="a second band above it: held across other work than queries.",
            unit="s",
            thresholds=(0.5, 2.5),
            links=TO_HOLDS,
            width=12,
        ),
        over("sum", increase(prometheus.bucket(semconv.USE_TIME), INSTANCES, RECENT), ("le",)),
    )
    yield time_series_panel(
        PanelOptions(
            "What held connections do",
            good="nearly all of it `query`.",
            bad=(
                "`idle_in_transaction`: work between BEGIN and COMMIT that is no query. `idle`: checked out too "
                "early, or returned too late."
            ),
            unit="short",
            thresholds=(1, 10),
            links=TO_HOLDS,
            width=12,
        ),
        [
            Target(
                over("sum", rate(prometheus.family(semconv.HOLD_PHASE_TIME), INSTANCES), (phase,)), f"{{{{{phase}}}}}"
            )
        ],
        stacked=True,
        colours={"query": "green", "idle_in_transaction": "red", "idle": "orange"},
    )
    yield holders.by_route(TO_REQUESTS)
    yield holders.by_line(TO_HOLDS)
