"""The lower half of *PostgreSQL and the fleet budget*: who is idle in a transaction, and whether both sides agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import links, prometheus
from grafana.collector import (
    SERVER_CONNECTIONS,
    SERVER_OLDEST_IDLE_IN_TRANSACTION,
    SERVICE,
)
from grafana.panels import PanelOptions, Target, time_series_panel
from grafana.query import (
    BY_POOL,
    BY_SERVER,
    FLEET,
    POOL,
    SERVER_LEGEND,
    SERVERS,
    monitored,
    over,
    quantile,
    rate,
    value,
)
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

IN_TRANSACTION = SERVERS.having("state", "idle in transaction.*", "=~")
CONNECTED = over("sum", value(SERVER_CONNECTIONS, SERVERS))
APPLICATION = "{{application_name}}"
TO_FLEET = (links.to(links.FLEET, "All pools", "service", "server"),)
TO_POOL = (links.to(links.POOL, "Each pool", "service"),)
TO_SERVICE = (*TO_POOL, links.of_series(links.POOL, "Pools of this service", service=SERVICE))
TO_TRACES = (
    links.traces(
        "Holds that were idle in a transaction", f"{{ span.{semconv.SPAN_HOLD_PHASE_PREFIX}idle_in_transaction > 0.5 }}"
    ),
    *TO_POOL,
)


def named(expression: str, label: str = "application_name", unnamed: str = "(no name)") -> str:
    """The series by application or by another label; those with an empty label get a name."""
    return f'label_replace({expression}, "{label}", "{unnamed}", "{label}", "")'


def transactions() -> Panels:
    """Who is idle between BEGIN and COMMIT, by the server's count and by the pools'."""
    phase = prometheus.label(semconv.HOLD_PHASE)
    idling = FLEET.having(phase, "idle_in_transaction")
    yield time_series_panel(
        PanelOptions(
            "Oldest idle in transaction",
            good="0 s.",
            bad="rises: a transaction is not ended.",
            unit="s",
            thresholds=(1, 30),
            links=TO_TRACES,
        ),
        [Target(over("max", value(SERVER_OLDEST_IDLE_IN_TRANSACTION, SERVERS), BY_SERVER), SERVER_LEGEND)],
        threshold_lines=True,
    )
    yield time_series_panel(
        PanelOptions(
            "Idle in transaction by application, the server's count",
            good="0.",
            bad="stays above 0.",
            unit="short",
            thresholds=(5, 20),
            links=TO_TRACES,
        ),
        [Target(named(over("sum", value(SERVER_CONNECTIONS, IN_TRANSACTION), ("application_name",))), APPLICATION)],
    )
    yield time_series_panel(
        PanelOptions(
            "Idle in transaction by pool, the applications' count",
            good="0.",
            bad="the pool whose code does other work between BEGIN and COMMIT. The server counts more: holds that "
            "still run are not counted here, leaked ones never.",
            unit="short",
            thresholds=(5, 20),
            links=TO_TRACES,
        ),
        [
            Target(
                over("sum", rate(prometheus.family(semconv.HOLD_PHASE_TIME), idling), BY_POOL),
                f"{{{{{SERVICE}}}}} · {{{{{POOL}}}}}",
            )
        ],
    )


def agreement() -> Panels:
    """Whether server and pools count the same, and what new connections cost."""
    yield time_series_panel(
        PanelOptions(
            "Open connections, by both counts",
            good="the pools' count is at most the server's.",
            bad="a gap: other clients, or connections that the server keeps for a client that ended.",
            unit="short",
            thresholds=(),
            links=TO_FLEET,
        ),
        [
            Target(CONNECTED, "the server"),
            Target(over("sum", monitored(value(semconv.CONNECTION_COUNT, FLEET))), "the pools"),
        ],
    )
    yield time_series_panel(
        PanelOptions(
            "Time to open a connection, p95",
            good="tens of milliseconds.",
            bad="a step up: the server lacks CPU or memory.",
            unit="s",
            thresholds=(0.1, 1),
            links=TO_SERVICE,
        ),
        [Target(quantile(0.95, semconv.CREATE_TIME, FLEET, (SERVICE,)), f"{{{{{SERVICE}}}}}")],
    )
    made = over("sum", rate(prometheus.count(semconv.CREATE_TIME), FLEET), (SERVICE,))
    yield time_series_panel(
        PanelOptions(
            "Connections opened per minute",
            good="few.",
            bad="many: each costs the server a process. Raise the number of idle connections that the pool keeps.",
            unit="short",
            thresholds=(60, 600),
            links=TO_SERVICE,
        ),
        [Target(f"60 * {made}", f"{{{{{SERVICE}}}}}")],
    )
