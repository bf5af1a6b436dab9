"""
Alerts on the database server, the fleet as a whole, and the telemetry itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana import collector, links
from grafana.alerts.expressions import (
    BY_POOL,
    BY_SERVER,
    INSTANCE_VARIABLES,
    SERVER_VARIABLES,
    SERVICE_VARIABLES,
    events,
    label,
)
from grafana.alerts.model import Alert, Group, Shown, Urgency
from grafana.collector import INSTANCE, SERVICE
from grafana.prometheus import family
from poolscope import semconv
from poolscope.core import finding

if TYPE_CHECKING:
    from grafana.alerts.model import Pace

SERVER_USED_SHARE: Final = 0.8
IDLE_IN_TRANSACTION_SECONDS: Final = 60
SERVER: Final = "<server_address>:<server_port>"


def groups(pace: Pace) -> tuple[Group, ...]:
    """
    The alerts on servers, the fleet and the telemetry.
    """
    return (
        Group(
            "poolscope-server",
            (near_max_connections(pace), oldest_idle_in_transaction(pace), fleet_budget(pace), unwatched(pace)),
        ),
        Group(
            "poolscope-telemetry",
            (drift(pace), errors(pace), no_data(pace), collector_down(pace), collector_loses(pace)),
        ),
    )


def usable() -> str:
    """
    The connections that a server has for ordinary roles.
    """
    limit = family(collector.SERVER_CONNECTIONS_MAX)
    reserved = family(collector.SERVER_CONNECTIONS_RESERVED)
    return f"(max by ({BY_SERVER}) ({limit}) - max by ({BY_SERVER}) ({reserved}))"


def near_max_connections(pace: Pace) -> Alert:
    """
    A server whose connections are nearly all taken.
    """
    return Alert(
        name="ServerNearMaxConnections",
        expression=f"sum by ({BY_SERVER}) ({family(collector.SERVER_CONNECTIONS)}) / {usable()} > {SERVER_USED_SHARE}",
        held=pace("5m"),
        urgency=Urgency.PAGE,
        finding=finding.FLEET_BUDGET,
        summary=f"{SERVER} has <value> of its connections in use",
        description='At 100 % it refuses everybody ("too many clients already"), the operator\'s own tools included. '
        "The dashboard shows which application has them.",
        shown=Shown.SHARE,
        dashboard=links.POSTGRESQL,
        variables=SERVER_VARIABLES,
    )


def oldest_idle_in_transaction(pace: Pace) -> Alert:
    """
    A transaction that has been open and idle for long, as the server sees it.
    """
    age = f"max by ({BY_SERVER}) ({family(collector.SERVER_OLDEST_IDLE_IN_TRANSACTION)})"
    return Alert(
        name="ServerIdleInTransaction",
        expression=f"{age} > {IDLE_IN_TRANSACTION_SECONDS / pace.divisor:g}",
        held=pace("1m"),
        urgency=Urgency.TICKET,
        finding=finding.IDLE_IN_TRANSACTION,
        summary=f"A transaction on {SERVER} has been open and idle for <value>",
        description="It keeps its locks, holds vacuum back, and occupies a connection of some pool. "
        "`pg_stat_activity` names its application.",
        shown=Shown.DURATION,
        dashboard=links.POSTGRESQL,
        variables=SERVER_VARIABLES,
    )


def fleet_budget(pace: Pace) -> Alert:
    """
    Pools that may together open more connections than the server accepts.
    """
    limits = f"sum by ({BY_SERVER}) ({family(semconv.CONNECTION_MAX)})"
    return Alert(
        name="FleetOverBudget",
        expression=f"{limits} > {usable()}",
        held=pace("10m"),
        urgency=Urgency.TICKET,
        finding=finding.FLEET_BUDGET,
        summary=f"The pools of all workers may open <value> connections to {SERVER}, more than it accepts",
        description="Nothing is wrong until they fill at once: then the server refuses connections and every service "
        "fails together. Lower pool sizes or worker counts, or put a pooler before the server.",
        shown=Shown.NUMBER,
        dashboard=links.POSTGRESQL,
        variables=SERVER_VARIABLES,
    )


def unwatched(pace: Pace) -> Alert:
    """
    PostgreSQL servers that pools name and no Collector looks at, though one looks at some server or did so today.
    """
    limit = family(collector.SERVER_CONNECTIONS_MAX)
    pools = f'{family(semconv.CONNECTION_MAX)}{{{label(semconv.DB_SYSTEM)}="postgresql"}}'
    return Alert(
        name="ServerUnwatched",
        expression=f"(sum by ({BY_SERVER}) ({pools})\nunless on ({BY_SERVER})\n{limit})\n"
        f"and on ()\ngroup(count_over_time({limit}[{pace('1d')}]))",
        held=pace("10m"),
        urgency=Urgency.NOTE,
        finding=finding.FLEET_BUDGET,
        summary=f"Pools may open <value> connections to {SERVER}, and no Collector looks at that server",
        description="The alerts on servers and on the fleet budget are silent about it: the Collector has lost its "
        "login there, or knows the server by another name (POOLSCOPE_PG_HOST), or this is a pooler.",
        shown=Shown.NUMBER,
        dashboard=links.POSTGRESQL,
        variables=(),
    )


def drift(pace: Pace) -> Alert:
    """
    A ledger that disagrees with the pool's own account for longer than any moment under load explains.
    """
    return Alert(
        name="PoolscopeDrift",
        expression=f"max by ({BY_POOL}, {INSTANCE}) (abs({family(semconv.DRIFT)})) > 0",
        held=pace("10m"),
        urgency=Urgency.NOTE,
        finding="",
        summary="poolscope and the pool <db_client_connection_pool_name> of <service_name> disagree by <value>",
        description="Do not trust the counts of this instance: this is a fault of poolscope, or something takes "
        "connections past the pool. `poolscope doctor` tells which hooks are in place.",
        shown=Shown.NUMBER,
        dashboard=links.POOL,
        variables=INSTANCE_VARIABLES,
    )


def errors(pace: Pace) -> Alert:
    """
    Faults of poolscope's own, caught before they reached the application.
    """
    site = label(semconv.SITE)
    return Alert(
        name="PoolscopeErrors",
        expression=f"{events(family(semconv.ERRORS), f'{SERVICE}, {site}', '15m', pace)} > 0",
        held=pace("0s"),
        urgency=Urgency.NOTE,
        finding="",
        summary=f"poolscope caught <value> errors of its own in <service_name> at <{site}>",
        description="The application is unharmed; what is measured there may be incomplete. The process's log has one "
        "warning with the traceback.",
        shown=Shown.NUMBER,
        dashboard=links.FLEET,
        variables=SERVICE_VARIABLES,
    )


def no_data(pace: Pace) -> Alert:
    """
    A service that reported pools within the last hour and reports none now.
    """
    series = family(semconv.CONNECTION_COUNT)
    before = f"group by ({SERVICE}) (count_over_time({series}[{pace('1h')}] offset {pace('5m')}))"
    return Alert(
        name="PoolscopeNoData",
        expression=f"{before}\nunless\ngroup by ({SERVICE}) ({series})",
        held=pace("5m"),
        urgency=Urgency.TICKET,
        finding="",
        summary="<service_name> has stopped reporting its connection pools",
        description="It is down, it was scaled to nothing, or its telemetry does not arrive: no other alert about it "
        "can fire. After an hour it counts as retired and the alert ends.",
        shown=Shown.NUMBER,
        dashboard=links.FLEET,
        variables=SERVICE_VARIABLES,
    )


def collector_down(pace: Pace) -> Alert:
    """
    A Collector that Prometheus cannot scrape.
    """
    return Alert(
        name="CollectorDown",
        expression=f'(1 - up{{job=~"{collector.SCRAPE_JOBS}"}}) > 0',
        held=pace("2m"),
        urgency=Urgency.PAGE,
        finding="",
        summary="The Collector at <instance> does not answer (<job>)",
        description="Applications go on unharmed and drop what they cannot send; every alert on pools is blind.",
        shown=Shown.NUMBER,
        dashboard=links.FLEET,
        variables=(),
    )


def collector_loses(pace: Pace) -> Alert:
    """
    A Collector that refuses data, or could not keep or deliver it.
    """
    by = "instance, exporter, receiver"
    kinds = [
        f'label_replace({events(series, by, "15m", pace)} > 0, "lost", "{said}", "", "")'
        for series, said in collector.losses()
    ]
    return Alert(
        name="CollectorLosesData",
        expression="\nor\n".join(kinds),
        held=pace("0s"),
        urgency=Urgency.TICKET,
        finding="",
        summary="The Collector at <instance> loses data: <value> <lost> (<receiver><exporter>) within 15 minutes",
        description="Its memory limit refuses input, a queue is full, or what it sends to rejects it. docs/operate.md "
        "has the sizing.",
        shown=Shown.NUMBER,
        dashboard=links.FLEET,
        variables=(),
    )
