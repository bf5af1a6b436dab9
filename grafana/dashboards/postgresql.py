"""*PostgreSQL and the fleet budget*: the server's own figures, and whether all pools together fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import board, links, prometheus
from grafana.collector import (
    INSTANCE,
    POSTGRESQL_CONNECTION_MAX,
    SERVER_CONNECTIONS,
    SERVER_CONNECTIONS_MAX,
    SERVER_OLDEST_IDLE_IN_TRANSACTION,
    SERVICE,
)
from grafana.dashboards import postgresql_clients
from grafana.panels import PanelOptions, Target, stat_options, stat_panel, time_series_panel
from grafana.query import BY_SERVER, FLEET, SERVERS, accepted, monitored, over, ratio, value
from grafana.tables import Column, table_panel
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

IN_TRANSACTION = SERVERS.having("state", "idle in transaction.*", "=~")
USED = FLEET.having(prometheus.label(semconv.CONNECTION_STATE), semconv.STATE_USED)
ACCEPTED = over("sum", accepted())
LIMITS = value(semconv.CONNECTION_MAX, FLEET)
# The worst of several servers: a free one does not help a full one.
BUDGET_USED = over("max", ratio(over("sum", LIMITS, BY_SERVER), accepted(), BY_SERVER))
CONNECTED = over("max", ratio(over("sum", value(SERVER_CONNECTIONS, SERVERS), BY_SERVER), accepted(), BY_SERVER))
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


def dashboard() -> dict[str, object]:
    """The dashboard in Grafana's model."""
    return board.board(
        links.POSTGRESQL,
        "PostgreSQL and the fleet budget",
        "The server's own figures: its connections, idle transactions, and whether all pools together fit it.",
        ("service", "server"),
        {
            "Does the fleet fit?": _budget(),
            "Which connections does the server have?": _server(),
            "Who is idle in a transaction?": postgresql_clients.transactions(),
            "Do both sides agree? What do new connections cost?": postgresql_clients.agreement(),
        },
    )


def _budget() -> Panels:
    yield stat_panel(
        stat_options(
            "Server accepts",
            good="constant.",
            bad="a change: `max_connections` was changed.",
            unit="locale",
            thresholds=(),
            links=TO_FLEET,
            decimals=0,
        ),
        ACCEPTED,
    )
    yield stat_panel(
        stat_options(
            "Pools may open",
            good="less than the server accepts.",
            bad="more: when all pools fill, the server rejects connections.",
            unit="locale",
            thresholds=(),
            links=TO_FLEET,
            decimals=0,
        ),
        over("sum", monitored(LIMITS)),
    )
    yield stat_panel(
        stat_options(
            "Budget used",
            good="below 80 % at every server: a deploy runs old and new processes together.",
            bad="above 100 %: the pools may open more connections than the server accepts.",
            unit="percentunit",
            thresholds=(0.8, 1),
            links=TO_FLEET,
            decimals=0,
        ),
        BUDGET_USED,
    )
    yield stat_panel(
        stat_options(
            "Connected",
            good="below 80 % at every server.",
            bad="near 100 %: new connections fail, also those of the monitoring.",
            unit="percentunit",
            thresholds=(0.8, 0.95),
            links=TO_FLEET,
            decimals=0,
        ),
        CONNECTED,
    )
    yield stat_panel(
        stat_options(
            "Oldest idle",
            good="0 s.",
            bad="seconds: locks are held, and VACUUM waits.",
            unit="s",
            thresholds=(1, 30),
            links=TO_TRACES,
        ),
        over("max", value(SERVER_OLDEST_IDLE_IN_TRANSACTION, SERVERS)),
    )
    yield stat_panel(
        stat_options(
            "Idle in tx",
            good="0, or a few for a moment.",
            bad="stays above 0: an application does other work between BEGIN and COMMIT.",
            unit="locale",
            thresholds=(5, 20),
            links=TO_TRACES,
            decimals=0,
        ),
        over("sum", value(SERVER_CONNECTIONS, IN_TRANSACTION)),
    )
    yield table_panel(
        PanelOptions(
            "Budget by service",
            good="the sum of `May open` is below what the server accepts.",
            bad="a service with a large share and a low peak: lower its limit, or its processes.",
            unit="short",
            thresholds=(1,),
            links=TO_SERVICE,
            width=12,
        ),
        _services(),
        sort_by="May open",
    )
    yield time_series_panel(
        PanelOptions(
            "Sum of pool limits, by service",
            good="the sum stays below the line.",
            bad="above the line: the fleet does not fit.",
            unit="short",
            thresholds=(),
            links=TO_POOL,
            width=12,
        ),
        [
            Target(over("sum", monitored(LIMITS), (SERVICE,)), f"{{{{{SERVICE}}}}}"),
            Target(ACCEPTED, "server accepts"),
        ],
        stacked=True,
        limit_series=("server accepts",),
    )


def _services() -> list[Column]:
    by = (SERVICE,)
    processes = over("count", over("count", monitored(value(semconv.CONNECTION_COUNT, FLEET)), (SERVICE, INSTANCE)), by)
    return [
        Column("Service", SERVICE, link=links.of_row(links.POOL, "Pools of this service", service="Service")),
        Column("Processes", processes, "short", width=100),
        Column("May open", over("sum", monitored(LIMITS), by), "short", width=100),
        Column("Open", over("sum", monitored(value(semconv.CONNECTION_COUNT, FLEET)), by), "short", width=80),
        Column("In use", over("sum", monitored(value(semconv.CONNECTION_COUNT, USED)), by), "short", width=80),
        Column("Peak", over("sum", monitored(value(semconv.USED_PEAK, FLEET)), by), "short", width=80),
        Column(
            "Share of server",
            f"{over('sum', monitored(LIMITS), by)} / scalar({ACCEPTED})",
            "percentunit",
            (0.8, 1),
            150,
            decimals=0,
            bar=True,
        ),
    ]


def _server() -> Panels:
    yield time_series_panel(
        PanelOptions(
            "Connections by state",
            good="`active` and `idle`, far below the line.",
            bad="the line is reached, or `idle in transaction` grows.",
            unit="short",
            thresholds=(),
            links=TO_FLEET,
        ),
        [
            Target(over("sum", value(SERVER_CONNECTIONS, SERVERS), ("state",)), "{{state}}"),
            Target(over("sum", value(SERVER_CONNECTIONS_MAX, SERVERS)), "max_connections"),
        ],
        stacked=True,
        colours={
            "active": "green",
            "idle": "blue",
            "idle in transaction": "red",
            "idle in transaction (aborted)": "purple",
            "starting": "orange",
        },
        limit_series=("max_connections",),
    )
    yield time_series_panel(
        PanelOptions(
            "Connections by application",
            good="names that you know.",
            bad="one grows without end, or an unknown one uses the rest.",
            unit="short",
            thresholds=(),
            links=TO_FLEET,
        ),
        [
            Target(
                postgresql_clients.named(
                    f"{over('sum', value(SERVER_CONNECTIONS, SERVERS), ('application_name',))} > 0"
                ),
                APPLICATION,
            )
        ],
        stacked=True,
    )
    yield time_series_panel(
        PanelOptions(
            "Connections by database",
            good="the databases of these services.",
            bad="another database uses most connections.",
            unit="short",
            thresholds=(),
            links=TO_FLEET,
        ),
        [
            Target(
                postgresql_clients.named(
                    f"{over('sum', value(SERVER_CONNECTIONS, SERVERS), ('datname',))} > 0",
                    "datname",
                    "(no database yet)",
                ),
                "{{datname}}",
            ),
            Target(over("sum", value(POSTGRESQL_CONNECTION_MAX, SERVERS)), "max_connections"),
        ],
        stacked=True,
        limit_series=("max_connections",),
    )
