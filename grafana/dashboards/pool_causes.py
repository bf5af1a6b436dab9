"""
The lower half of *Pool*: leak or too small, and its processes side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import links, prometheus
from grafana.collector import INSTANCE, SERVICE
from grafana.panels import Ask, Face, course
from grafana.query import INSTANCES, LATELY, increase, over, quantile, rate, usage, value
from grafana.tables import Column, rows
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

SATURATION = prometheus.family(semconv.SATURATION_TIME)
TIMEOUTS = prometheus.family(semconv.TIMEOUTS)
LEAKS = prometheus.family(semconv.LEAKS)
STATE = prometheus.label(semconv.CONNECTION_STATE)
USED = INSTANCES.having(STATE, semconv.STATE_USED)
EACH = f"{{{{{INSTANCE}}}}}"
TO_FINDINGS = (links.to(links.FINDINGS, "What was found", "service", "pool"),)
TO_SERVER = (links.to(links.POSTGRESQL, "The server's side"),)
TO_INSTANCE = (links.to(links.FINDINGS, "What was found", "service", "pool"), links.INSTANCE_OF_SERIES)


def leak_or_small() -> Panels:
    """
    Whether connections get lost, or there are too few of them.
    """
    kind = prometheus.label(semconv.LEAK_KIND)
    yield course(
        Face(
            "In use, and what finished work accounts for",
            good="the two lie on each other.",
            bad=(
                "a gap that stays open and grows: those connections never come back, a leak. No gap "
                "at the limit: too small, or held too long."
            ),
            unit="short",
            limits=(),
            onward=TO_FINDINGS,
            width=12,
        ),
        [
            Ask(over("sum", value(semconv.CONNECTION_COUNT, USED)), "in use"),
            Ask(over("sum", rate(prometheus.total(semconv.USE_TIME), INSTANCES)), "finished work (arrivals × hold)"),
            Ask(over("sum", value(semconv.CONNECTION_MAX, INSTANCES)), "limit"),
        ],
        colours={"in use": "orange", "finished work (arrivals × hold)": "green"},
        lines=("limit",),
    )
    yield course(
        Face(
            "Leaks found in 5 minutes, by kind",
            good="0.",
            bad="`abandoned`, `owner_finished`: certain. `overdue`: past the threshold.",
            unit="locale",
            limits=(1,),
            decimals=0,
            onward=TO_FINDINGS,
            width=12,
        ),
        [Ask(over("sum", increase(LEAKS, INSTANCES, LATELY), (kind,)), f"{{{{{kind}}}}}")],
    )
    yield course(
        Face(
            "Oldest connection out, by process",
            good="saw teeth.",
            bad="a straight line upwards: somebody sits on it.",
            unit="s",
            limits=(30, 60),
            onward=TO_INSTANCE,
            width=12,
        ),
        [Ask(over("max", value(semconv.OLDEST_LEASE_AGE, INSTANCES), (INSTANCE,)), EACH)],
    )
    yield course(
        Face(
            "Asked for a second connection while holding one",
            good="0.",
            bad="any: under load each waits for the other, and all of them for ever.",
            unit="short",
            limits=(0.1,),
            onward=TO_FINDINGS,
            width=12,
        ),
        [Ask(f"60 * {over('sum', rate(prometheus.family(semconv.NESTED_CHECKOUTS), INSTANCES), (INSTANCE,))}", EACH)],
    )


def processes() -> Panels:
    """
    Each process beside the others, and what the pool costs the server.
    """
    reason = prometheus.label(semconv.CLOSE_REASON)
    by = (SERVICE, INSTANCE)
    to_instance = links.of_row(links.POOL, "This process alone", service="Service", instance="Process")
    yield rows(
        Face(
            "Every process",
            good="all alike.",
            bad="one unlike the others: restart it last, look at it first.",
            unit="short",
            limits=(1,),
            onward=TO_FINDINGS,
            width=24,
        ),
        [
            Column("Service", SERVICE, width=190),
            Column("Process", INSTANCE, link=to_instance),
            Column("Limit", over("sum", value(semconv.CONNECTION_MAX, INSTANCES), by), "short", width=80),
            Column("Peak", over("sum", value(semconv.USED_PEAK, INSTANCES), by), "short", width=80),
            Column("Fullest", over("max", usage(INSTANCES), by), "percentunit", (0.8, 1), 160, decimals=0, bar=True),
            Column(
                "Saturated",
                over("max", rate(SATURATION, INSTANCES), by),
                "percentunit",
                (0.01, 0.1),
                160,
                decimals=0,
                bar=True,
            ),
            Column("Wait p99", quantile(0.99, semconv.WAIT_TIME, INSTANCES, by), "s", (0.1, 1), 100),
            Column("Hold p95", quantile(0.95, semconv.USE_TIME, INSTANCES, by), "s", (0.5, 2.5), 100),
            Column("Oldest", over("max", value(semconv.OLDEST_LEASE_AGE, INSTANCES), by), "s", (30, 60), 100),
            Column("Timeouts", over("sum", increase(TIMEOUTS, INSTANCES), by), "locale", (1,), 90, decimals=0),
            Column("Leaks", over("sum", increase(LEAKS, INSTANCES), by), "locale", (1,), 80, decimals=0),
            Column("Drift", over("max", f"abs({value(semconv.DRIFT, INSTANCES)})", by), "short", (1,), 70),
        ],
        worst_first="Saturated",
    )
    yield course(
        Face(
            "Time to make a connection, p95",
            good="tens of milliseconds.",
            bad="a step up: the server or the network is slow to accept.",
            unit="s",
            limits=(0.1, 1),
            onward=TO_SERVER,
            width=12,
        ),
        [Ask(quantile(0.95, semconv.CREATE_TIME, INSTANCES, (INSTANCE,)), EACH)],
    )
    yield course(
        Face(
            "Connections closed per minute, by why",
            good="few, `recycled`.",
            bad=(
                "many `overflow`: the base size is too small. `invalidated`, `failed_validation`: the "
                "server or the network cuts them."
            ),
            unit="short",
            limits=(10, 60),
            onward=TO_SERVER,
            width=12,
        ),
        [
            Ask(
                f"60 * {over('sum', rate(prometheus.family(semconv.CLOSURES), INSTANCES), (reason,))}",
                f"{{{{{reason}}}}}",
            )
        ],
        stack=True,
    )
