"""
The lower half of *PostgreSQL and the fleet budget*: who sits in a transaction, and whether both sides agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import links, prometheus
from grafana.collector import (
    SERVER_CONNECTIONS,
    SERVER_OLDEST_IDLE_IN_TRANSACTION,
    SERVICE,
)
from grafana.panels import Ask, Face, course
from grafana.query import (
    BY_POOL,
    BY_SERVER,
    FLEET,
    POOL,
    SERVER_LEGEND,
    SERVERS,
    over,
    quantile,
    rate,
    value,
    watched,
)
from poolscope import semconv

if TYPE_CHECKING:
    from grafana.board import Panels

IN_TRANSACTION = SERVERS.having("state", "idle in transaction.*", "=~")
CONNECTED = over("sum", value(SERVER_CONNECTIONS, SERVERS))
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


def named(expression: str, label: str = "application_name", nobody: str = "(no name)") -> str:
    """
    The series by application, or by another label, those without one among them under a name in words.
    """
    return f'label_replace({expression}, "{label}", "{nobody}", "{label}", "")'


def transactions() -> Panels:
    """
    Who works between BEGIN and COMMIT, by the server's account and by the pools'.
    """
    phase = prometheus.label(semconv.USE_PHASE)
    idling = FLEET.having(phase, "idle_in_transaction")
    yield course(
        Face(
            "Oldest idle in transaction",
            good="0 s.",
            bad="climbs: one transaction is forgotten.",
            unit="s",
            limits=(1, 30),
            onward=TO_TRACES,
        ),
        [Ask(over("max", value(SERVER_OLDEST_IDLE_IN_TRANSACTION, SERVERS), BY_SERVER), SERVER_LEGEND)],
        limit_lines=True,
    )
    yield course(
        Face(
            "Idle in transaction by application, the server's count",
            good="0.",
            bad="stays above 0.",
            unit="short",
            limits=(5, 20),
            onward=TO_TRACES,
        ),
        [Ask(named(over("sum", value(SERVER_CONNECTIONS, IN_TRANSACTION), ("application_name",))), APPLICATION)],
    )
    yield course(
        Face(
            "Idle in transaction by pool, the applications' count",
            good="0.",
            bad="the pool whose code works between BEGIN and COMMIT. The server counts more: leases that "
            "still run are not in it, leaked ones never.",
            unit="short",
            limits=(5, 20),
            onward=TO_TRACES,
        ),
        [
            Ask(
                over("sum", rate(prometheus.family(semconv.USE_PHASE_TIME), idling), BY_POOL),
                f"{{{{{SERVICE}}}}} · {{{{{POOL}}}}}",
            )
        ],
    )


def agreement() -> Panels:
    """
    Whether server and pools count the same, and what making connections costs.
    """
    yield course(
        Face(
            "Open connections, counted by both sides",
            good="the pools' count is at most the server's.",
            bad="a gap: other clients (left out here), or connections that the server keeps for a client that died.",
            unit="short",
            limits=(),
            onward=TO_FLEET,
        ),
        [Ask(CONNECTED, "the server"), Ask(over("sum", watched(value(semconv.CONNECTION_COUNT, FLEET))), "the pools")],
    )
    yield course(
        Face(
            "Time to make a connection, p95",
            good="tens of milliseconds.",
            bad="a step up: the server is short of processors or memory.",
            unit="s",
            limits=(0.1, 1),
            onward=TO_SERVICE,
        ),
        [Ask(quantile(0.95, semconv.CREATE_TIME, FLEET, (SERVICE,)), f"{{{{{SERVICE}}}}}")],
    )
    made = over("sum", rate(prometheus.count(semconv.CREATE_TIME), FLEET), (SERVICE,))
    yield course(
        Face(
            "Connections made per minute",
            good="few.",
            bad="many: each costs the server a process; raise the pool's idle size.",
            unit="short",
            limits=(60, 600),
            onward=TO_SERVICE,
        ),
        [Ask(f"60 * {made}", f"{{{{{SERVICE}}}}}")],
    )
