"""The lower half of *Pool*: leak or too small a pool, and its processes side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import links, prometheus
from grafana.collector import INSTANCE, SERVICE
from grafana.panels import PanelOptions, Target, time_series_panel
from grafana.query import INSTANCES, LATELY, increase, over, quantile, rate, usage, value
from grafana.tables import Column, table_panel
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

SATURATION = prometheus.family(semconv.SATURATION_TIME)
TIMEOUTS = prometheus.family(semconv.TIMEOUTS)
LEAKS = prometheus.family(semconv.LEAKS)
STATE = prometheus.label(semconv.CONNECTION_STATE)
USED = INSTANCES.having(STATE, semconv.STATE_USED)
EACH = f"{{{{{INSTANCE}}}}}"
TO_FINDINGS = (links.to(links.FINDINGS, "Findings", "service", "pool"),)
TO_SERVER = (links.to(links.POSTGRESQL, "PostgreSQL server"),)
TO_INSTANCE = (links.to(links.FINDINGS, "Findings", "service", "pool"), links.INSTANCE_OF_SERIES)


def leak_or_small() -> Panels:
    """Whether connections leak, or there are too few of them."""
    kind = prometheus.label(semconv.LEAK_KIND)
    yield time_series_panel(
        PanelOptions(
            "In use, and what finished holds account for",
            good="both lines are the same.",
            bad=(
                "a gap that stays and grows: these connections are not returned (leak). No gap at the limit: the "
                "pool is too small, or connections are held too long."
            ),
            unit="short",
            thresholds=(),
            links=TO_FINDINGS,
            width=12,
        ),
        [
            Target(over("sum", value(semconv.CONNECTION_COUNT, USED)), "in use"),
            Target(
                over("sum", rate(prometheus.total(semconv.USE_TIME), INSTANCES)),
                "finished holds (arrivals × hold time)",
            ),
            Target(over("sum", value(semconv.CONNECTION_MAX, INSTANCES)), "limit"),
        ],
        colours={"in use": "orange", "finished holds (arrivals × hold time)": "green"},
        limit_series=("limit",),
    )
    yield time_series_panel(
        PanelOptions(
            "Leaks found in 5 minutes, by kind",
            good="0.",
            bad="`abandoned` and `owner_finished` are certain; `overdue` is past the threshold and may still return.",
            unit="locale",
            thresholds=(1,),
            decimals=0,
            links=TO_FINDINGS,
            width=12,
        ),
        [Target(over("sum", increase(LEAKS, INSTANCES, LATELY), (kind,)), f"{{{{{kind}}}}}")],
    )
    yield time_series_panel(
        PanelOptions(
            "Oldest hold, by process",
            good="falls again after the slowest request.",
            bad="a straight line upwards: one connection is not returned.",
            unit="s",
            thresholds=(30, 60),
            links=TO_INSTANCE,
            width=12,
        ),
        [Target(over("max", value(semconv.OLDEST_LEASE_AGE, INSTANCES), (INSTANCE,)), EACH)],
    )
    yield time_series_panel(
        PanelOptions(
            "Nested checkouts per minute, by process",
            good="0.",
            bad="any: under load these requests wait for each other until the timeout (deadlock).",
            unit="short",
            thresholds=(0.1,),
            links=TO_FINDINGS,
            width=12,
        ),
        [
            Target(
                f"60 * {over('sum', rate(prometheus.family(semconv.NESTED_CHECKOUTS), INSTANCES), (INSTANCE,))}", EACH
            )
        ],
    )


def processes() -> Panels:
    """The processes side by side, and what the pool costs the server."""
    reason = prometheus.label(semconv.CLOSE_REASON)
    by = (SERVICE, INSTANCE)
    to_instance = links.of_row(links.POOL, "Only this process", service="Service", instance="Process")
    yield table_panel(
        PanelOptions(
            "Every process",
            good="all alike.",
            bad="one process differs from the others: look at it first, and restart it last.",
            unit="short",
            thresholds=(1,),
            links=TO_FINDINGS,
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
            Column("Oldest hold", over("max", value(semconv.OLDEST_LEASE_AGE, INSTANCES), by), "s", (30, 60), 100),
            Column("Timeouts", over("sum", increase(TIMEOUTS, INSTANCES), by), "locale", (1,), 90, decimals=0),
            Column("Leaks", over("sum", increase(LEAKS, INSTANCES), by), "locale", (1,), 80, decimals=0),
            Column("Drift", over("max", f"abs({value(semconv.DRIFT, INSTANCES)})", by), "short", (1,), 70),
        ],
        sort_by="Saturated",
    )
    yield time_series_panel(
        PanelOptions(
            "Time to open a connection, p95",
            good="tens of milliseconds.",
            bad="a step up: the server or the network is slow to accept.",
            unit="s",
            thresholds=(0.1, 1),
            links=TO_SERVER,
            width=12,
        ),
        [Target(quantile(0.95, semconv.CREATE_TIME, INSTANCES, (INSTANCE,)), EACH)],
    )
    yield time_series_panel(
        PanelOptions(
            "Connections closed per minute, by reason",
            good="few, with the reason `recycled`.",
            bad=(
                "many `overflow`: the base size is too small. `invalidated` or `failed_validation`: the server or "
                "the network closes them."
            ),
            unit="short",
            thresholds=(10, 60),
            links=TO_SERVER,
            width=12,
        ),
        [
            Target(
                f"60 * {over('sum', rate(prometheus.family(semconv.CLOSURES), INSTANCES), (reason,))}",
                f"{{{{{reason}}}}}",
            )
        ],
        stacked=True,
    )
