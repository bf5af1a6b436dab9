"""Alerts on the database server, on the fleet as a whole, and on the telemetry itself."""

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
from grafana.alerts.model import Alert, Group, Urgency, ValueFormat
from grafana.collector import INSTANCE, SERVICE
from grafana.prometheus import family
from poolscope import semconv
from poolscope.core.catalogue.exhaustion import FLEET_BUDGET
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION

if TYPE_CHECKING:
    from grafana.alerts.model import Pace

SERVER_USED_SHARE: Final = 0.8
IDLE_IN_TRANSACTION_SECONDS: Final = 60
SERVER: Final = "<server_address>:<server_port>"


def groups(pace: Pace) -> tuple[Group, ...]:
    """The alerts on servers, on the fleet and on the telemetry."""
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
    """The connections that a server has for roles without special rights."""
    limit = family(collector.SERVER_CONNECTIONS_MAX)
    reserved = family(collector.SERVER_CONNECTIONS_RESERVED)
    return f"(max by ({BY_SERVER}) ({limit}) - max by ({BY_SERVER}) ({reserved}))"


def near_max_connections(pace: Pace) -> Alert:
    """A server with nearly all connections in use."""
    return Alert(
        name="ServerNearMaxConnections",
        expression=f"sum by ({BY_SERVER}) ({family(collector.SERVER_CONNECTIONS)}) / {usable()} > {SERVER_USED_SHARE}",
        pending=pace("5m"),
        urgency=Urgency.PAGE,
        finding=FLEET_BUDGET,
        summary=f"<value> of the connections of {SERVER} are in use",
        description='At 100 % the server rejects every client ("too many clients already"), even the operator\'s '
        "tools. The dashboard shows which applications hold the connections.",
        value_format=ValueFormat.SHARE,
        dashboard=links.POSTGRESQL,
        variables=SERVER_VARIABLES,
    )


def oldest_idle_in_transaction(pace: Pace) -> Alert:
    """A transaction that is open and idle for long, by the server's own count."""
    age = f"max by ({BY_SERVER}) ({family(collector.SERVER_OLDEST_IDLE_IN_TRANSACTION)})"
    return Alert(
        name="ServerIdleInTransaction",
        expression=f"{age} > {IDLE_IN_TRANSACTION_SECONDS / pace.divisor:g}",
        pending=pace("1m"),
        urgency=Urgency.TICKET,
        finding=IDLE_IN_TRANSACTION,
        summary=f"A transaction on {SERVER} has been open and idle for <value>",
        description="It keeps its locks, delays vacuum, and holds a connection of a pool. "
        "`pg_stat_activity` names its application.",
        value_format=ValueFormat.DURATION,
        dashboard=links.POSTGRESQL,
        variables=SERVER_VARIABLES,
    )


def fleet_budget(pace: Pace) -> Alert:
    """Pools that may together open more connections than the server accepts."""
    limits = f"sum by ({BY_SERVER}) ({family(semconv.CONNECTION_MAX)})"
    return Alert(
        name="FleetOverBudget",
        expression=f"{limits} > {usable()}",
        pending=pace("10m"),
        urgency=Urgency.TICKET,
        finding=FLEET_BUDGET,
        summary=f"All pools together may open <value> connections to {SERVER}, more than it accepts",
        description="There are no errors until the pools fill at the same time: then the server rejects connections, "
        "and all services fail together. Lower pool limits or worker counts, or put a pooler before the server.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.POSTGRESQL,
        variables=SERVER_VARIABLES,
    )


def unwatched(pace: Pace) -> Alert:
    """
    PostgreSQL servers that pools use and no Collector monitors, although a Collector monitors some
    server now or today.
    """
    limit = family(collector.SERVER_CONNECTIONS_MAX)
    pools = f'{family(semconv.CONNECTION_MAX)}{{{label(semconv.DB_SYSTEM)}="postgresql"}}'
    return Alert(
        name="ServerUnwatched",
        expression=f"(sum by ({BY_SERVER}) ({pools})\nunless on ({BY_SERVER})\n{limit})\n"
        f"and on ()\ngroup(count_over_time({limit}[{pace('1d')}]))",
        pending=pace("10m"),
        urgency=Urgency.NOTE,
        finding=FLEET_BUDGET,
        summary=f"Pools may open <value> connections to {SERVER}, but no Collector monitors that server",
        description="The alerts on servers and on the fleet budget do not cover it. The Collector cannot log in there, "
        "or it knows the server by another name (POOLSCOPE_PG_HOST), or this is a connection pooler.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.POSTGRESQL,
        variables=(),
    )


def drift(pace: Pace) -> Alert:
    """A difference between poolscope's count and the pool's own that lasts longer than load can explain."""
    return Alert(
        name="PoolscopeDrift",
        expression=f"max by ({BY_POOL}, {INSTANCE}) (abs({family(semconv.DRIFT)})) > 0",
        pending=pace("10m"),
        urgency=Urgency.NOTE,
        finding="",
        summary="poolscope's count for the pool <db_client_connection_pool_name> of <service_name> differs by <value> "
        "from the pool's own",
        description="Do not rely on the counts of this instance: poolscope has a bug, or code takes connections past "
        "the pool. `poolscope doctor`, run in the environment of the service, checks every hook.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.POOL,
        variables=INSTANCE_VARIABLES,
    )


def errors(pace: Pace) -> Alert:
    """Errors of poolscope, which it catches before they reach the application."""
    site = label(semconv.COMPONENT)
    return Alert(
        name="PoolscopeErrors",
        expression=f"{events(family(semconv.ERRORS), f'{SERVICE}, {site}', '15m', pace)} > 0",
        pending=pace("0s"),
        urgency=Urgency.NOTE,
        finding="",
        summary=f"poolscope caught <value> internal errors in <service_name> (<{site}>)",
        description="The application is not affected; the figures of its pools may be incomplete. The log of the "
        "process has one warning with the traceback.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.FLEET,
        variables=SERVICE_VARIABLES,
    )


def no_data(pace: Pace) -> Alert:
    """A service that reported pools within the last hour and reports none now."""
    series = family(semconv.CONNECTION_COUNT)
    before = f"group by ({SERVICE}) (count_over_time({series}[{pace('1h')}] offset {pace('5m')}))"
    return Alert(
        name="PoolscopeNoData",
        expression=f"{before}\nunless\ngroup by ({SERVICE}) ({series})",
        pending=pace("5m"),
        urgency=Urgency.TICKET,
        finding="",
        summary="<service_name> no longer reports its connection pools",
        description="The service is down, is scaled to zero, or its telemetry does not arrive: no other alert about "
        "it can fire. After an hour the service counts as retired, and the alert ends.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.FLEET,
        variables=SERVICE_VARIABLES,
    )


def collector_down(pace: Pace) -> Alert:
    """A Collector that Prometheus cannot scrape."""
    return Alert(
        name="CollectorDown",
        expression=f'(1 - up{{job=~"{collector.SCRAPE_JOBS}"}}) > 0',
        pending=pace("2m"),
        urgency=Urgency.PAGE,
        finding="",
        summary="The Collector at <instance> does not answer (<job>)",
        description="Applications are not affected and drop the telemetry that they cannot send. No alert on pools can "
        "fire.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.FLEET,
        variables=(),
    )


def collector_loses(pace: Pace) -> Alert:
    """A Collector that refuses data, or cannot keep or deliver it."""
    by = "instance, exporter, receiver"
    kinds = [
        f'label_replace({events(series, by, "15m", pace)} > 0, "lost", "{fate}", "", "")'
        for series, fate in collector.losses()
    ]
    return Alert(
        name="CollectorLosesData",
        expression="\nor\n".join(kinds),
        pending=pace("0s"),
        urgency=Urgency.TICKET,
        finding="",
        summary="The Collector at <instance> loses data: <value> <lost> (<receiver><exporter>) within 15 minutes",
        description="Its memory limit refuses input, a queue is full, or a destination rejects the data. "
        "docs/operate.md has the sizing.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.FLEET,
        variables=(),
    )
