"""
*PostgreSQL and the fleet budget*: the server's side, and whether all pools together fit it.
"""

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
from grafana.panels import Ask, Face, course, one, tile
from grafana.query import BY_SERVER, FLEET, SERVERS, accepted, over, ratio, value, watched
from grafana.tables import Column, rows
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

IN_TRANSACTION = SERVERS.having("state", "idle in transaction.*", "=~")
USED = FLEET.having(prometheus.label(semconv.CONNECTION_STATE), semconv.STATE_USED)
ACCEPTED = over("sum", accepted())
LIMITS = value(semconv.CONNECTION_MAX, FLEET)
# Of several servers the worst: a free one does not help a full one.
PROMISED = over("max", ratio(over("sum", LIMITS, BY_SERVER), accepted(), BY_SERVER))
CONNECTED = over("max", ratio(over("sum", value(SERVER_CONNECTIONS, SERVERS), BY_SERVER), accepted(), BY_SERVER))
APPLICATION = "{{application_name}}"
TO_FLEET = (links.to(links.FLEET, "The pools of the fleet", "service", "server"),)
TO_POOL = (links.to(links.POOL, "The pools, one by one", "service"),)
TO_SERVICE = (*TO_POOL, links.of_series(links.POOL, "The pools of this service", service=SERVICE))
TO_TRACES = (
    links.traces(
        "Leases that idled in a transaction", f"{{ span.{semconv.SPAN_USE_PHASE_PREFIX}idle_in_transaction > 0.5 }}"
    ),
    *TO_POOL,
)


def dashboard() -> dict[str, object]:
    """
    The dashboard in Grafana's model.
    """
    return board.board(
        links.POSTGRESQL,
        "PostgreSQL and the fleet budget",
        "What the server says: its connections, who idles in a transaction, and whether all pools together fit it.",
        ("service", "server"),
        {
            "Does the fleet fit?": _budget(),
            "What does the server say?": _server(),
            "Who sits in a transaction?": postgresql_clients.transactions(),
            "Do both sides agree? What does it cost?": postgresql_clients.agreement(),
        },
    )


def _budget() -> Panels:
    yield one(
        tile(
            "Server accepts",
            good="known and stable.",
            bad="changes: somebody changed `max_connections`.",
            unit="locale",
            limits=(),
            onward=TO_FLEET,
            decimals=0,
        ),
        ACCEPTED,
    )
    yield one(
        tile(
            "Pools may open",
            good="less than the server accepts.",
            bad="more: when all fill, the server refuses connections.",
            unit="locale",
            limits=(),
            onward=TO_FLEET,
            decimals=0,
        ),
        over("sum", watched(LIMITS)),
    )
    yield one(
        tile(
            "Promised",
            good="below 80 % at every server: a deploy runs old and new together.",
            bad="above 100 %.",
            unit="percentunit",
            limits=(0.8, 1),
            onward=TO_FLEET,
            decimals=0,
        ),
        PROMISED,
    )
    yield one(
        tile(
            "Connected",
            good="below 80 % at every server.",
            bad="near 100 %: new connections fail, also those of the monitoring.",
            unit="percentunit",
            limits=(0.8, 0.95),
            onward=TO_FLEET,
            decimals=0,
        ),
        CONNECTED,
    )
    yield one(
        tile(
            "Oldest idle",
            good="0 s.",
            bad="seconds: locks are held, VACUUM waits.",
            unit="s",
            limits=(1, 30),
            onward=TO_TRACES,
        ),
        over("max", value(SERVER_OLDEST_IDLE_IN_TRANSACTION, SERVERS)),
    )
    yield one(
        tile(
            "Idle in tx",
            good="0, or a few for an instant.",
            bad="stays: somebody works between BEGIN and COMMIT.",
            unit="locale",
            limits=(5, 20),
            onward=TO_TRACES,
            decimals=0,
        ),
        over("sum", value(SERVER_CONNECTIONS, IN_TRANSACTION)),
    )
    yield rows(
        Face(
            "The budget, service by service",
            good="the sum of `May open` is below what the server accepts.",
            bad="a service with a large share and a low peak: lower its limit, or its processes.",
            unit="short",
            limits=(1,),
            onward=TO_SERVICE,
            width=12,
        ),
        _services(),
        worst_first="May open",
    )
    yield course(
        Face(
            "What the pools may open, by service",
            good="the sum stays below the line.",
            bad="above the line: the fleet does not fit.",
            unit="short",
            limits=(),
            onward=TO_POOL,
            width=12,
        ),
        [
            Ask(over("sum", watched(LIMITS), (SERVICE,)), f"{{{{{SERVICE}}}}}"),
            Ask(ACCEPTED, "server accepts"),
        ],
        stack=True,
        lines=("server accepts",),
    )


def _services() -> list[Column]:
    by = (SERVICE,)
    processes = over("count", over("count", watched(value(semconv.CONNECTION_COUNT, FLEET)), (SERVICE, INSTANCE)), by)
    return [
        Column("Service", SERVICE, link=links.of_row(links.POOL, "The pools of this service", service="Service")),
        Column("Processes", processes, "short", width=100),
        Column("May open", over("sum", watched(LIMITS), by), "short", width=100),
        Column("Open", over("sum", watched(value(semconv.CONNECTION_COUNT, FLEET)), by), "short", width=80),
        Column("In use", over("sum", watched(value(semconv.CONNECTION_COUNT, USED)), by), "short", width=80),
        Column("Peak", over("sum", watched(value(semconv.USED_PEAK, FLEET)), by), "short", width=80),
        Column(
            "Of the server",
            f"{over('sum', watched(LIMITS), by)} / scalar({ACCEPTED})",
            "percentunit",
            (0.8, 1),
            150,
            decimals=0,
            bar=True,
        ),
    ]


def _server() -> Panels:
    yield course(
        Face(
            "Connections by state",
            good="`active` and `idle`, far below the line.",
            bad="the line is reached, or red grows.",
            unit="short",
            limits=(),
            onward=TO_FLEET,
        ),
        [
            Ask(over("sum", value(SERVER_CONNECTIONS, SERVERS), ("state",)), "{{state}}"),
            Ask(over("sum", value(SERVER_CONNECTIONS_MAX, SERVERS)), "max_connections"),
        ],
        stack=True,
        colours={
            "active": "green",
            "idle": "blue",
            "idle in transaction": "red",
            "idle in transaction (aborted)": "purple",
            "starting": "orange",
        },
        lines=("max_connections",),
    )
    yield course(
        Face(
            "Connections by application",
            good="names that you know.",
            bad="one grows without end; or an unknown one takes the rest.",
            unit="short",
            limits=(),
            onward=TO_FLEET,
        ),
        [
            Ask(
                postgresql_clients.named(
                    f"{over('sum', value(SERVER_CONNECTIONS, SERVERS), ('application_name',))} > 0"
                ),
                APPLICATION,
            )
        ],
        stack=True,
    )
    yield course(
        Face(
            "Connections by database",
            good="the databases of these services.",
            bad="another database takes the room.",
            unit="short",
            limits=(),
            onward=TO_FLEET,
        ),
        [
            Ask(
                postgresql_clients.named(
                    f"{over('sum', value(SERVER_CONNECTIONS, SERVERS), ('datname',))} > 0",
                    "datname",
                    "(not yet in one)",
                ),
                "{{datname}}",
            ),
            Ask(over("sum", value(POSTGRESQL_CONNECTION_MAX, SERVERS)), "max_connections"),
        ],
        stack=True,
        lines=("max_connections",),
    )
