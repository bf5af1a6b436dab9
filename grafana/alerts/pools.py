"""Alerts on what the processes report: saturated pools, waits, leaks, and code that leads to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana import links
from grafana.alerts.expressions import (
    BY_POOL,
    POOL,
    POOL_VARIABLES,
    SERVICE_VARIABLES,
    UNIT,
    events,
    label,
    rate,
    share_too_slow,
    too_slow,
)
from grafana.alerts.model import Alert, Group, Urgency, ValueFormat
from grafana.collector import INSTANCE, SERVICE, VERSION
from grafana.prometheus import family
from poolscope import semconv
from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED, POOL_TOO_SMALL
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP
from poolscope.core.catalogue.queries import N_PLUS_ONE

if TYPE_CHECKING:
    from grafana.alerts.model import Pace

# The objective of the waits: this share of checkouts within the limit, over 30 days.
OBJECTIVE: Final = 0.99
# The burn rates that fire, in multiples of the rate that the budget allows: they use up 2 % of the budget in an hour
# and 5 % in six hours. Source: The Site Reliability Workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".
FAST_BURN: Final = 14.4
SLOW_BURN: Final = 6
# An alert needs this many slow checkouts in the long window: one slow checkout an hour is no reason to wake a person.
FEWEST_SLOW: Final = 10
SATURATED_SHARE: Final = 0.1
IDLE_IN_TRANSACTION_SHARE: Final = 0.25
REPEATED_QUERIES: Final = 10
# Of the heartbeats: a loop gets no further one before it has made the last one, so that a long block counts once.
LATE_SHARE: Final = 0.1
WHERE: Final = "pool <db_client_connection_pool_name> of <service_name>"


def groups(pace: Pace) -> tuple[Group, ...]:
    """The alerts on pools and on units of work."""
    return (
        Group("poolscope-pools", (saturated(pace), *burning(pace), timeouts(pace), refused(pace))),
        Group("poolscope-leaks", (leak(pace), overdue(pace))),
        Group(
            "poolscope-habits", (n_plus_one(pace), nested(pace), idle_in_transaction(pace), blocked_event_loop(pace))
        ),
    )


def saturated(pace: Pace) -> Alert:
    """A pool that has every connection in use for a share of the time, in its worst instance."""
    per_instance = rate(family(semconv.SATURATION_TIME), f"{BY_POOL}, {INSTANCE}", "5m", pace)
    return Alert(
        name="PoolSaturated",
        expression=f"max by ({BY_POOL}) ({per_instance}) > {SATURATED_SHARE}",
        pending=pace("2m"),
        urgency=Urgency.TICKET,
        finding=POOL_TOO_SMALL,
        summary=f"The {WHERE} has no free connection <value> of the time",
        description="Requests that need a connection then have to wait. Look for a leak or for long holds first: a "
        "larger pool only delays them. If holds are short and there is more work than connections, raise the limit.",
        value_format=ValueFormat.SHARE,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def burning(pace: Pace) -> tuple[Alert, Alert]:
    """
    Waits that use up the error budget, over a long window and over a short one, which ends the
    alert when they end.
    """
    return (
        _burn(pace, "PoolWaitBurnsFast", FAST_BURN, windows=("1h", "5m"), pending="2m", urgency=Urgency.PAGE),
        _burn(pace, "PoolWaitBurnsSlowly", SLOW_BURN, windows=("6h", "30m"), pending="15m", urgency=Urgency.TICKET),
    )


def _burn(pace: Pace, name: str, factor: float, *, windows: tuple[str, str], pending: str, urgency: Urgency) -> Alert:
    limit = f"{factor * (1 - OBJECTIVE):.3g}"
    long, short = (share_too_slow(semconv.WAIT_TIME, pace.wait_limit, BY_POOL, window, pace) for window in windows)
    number = f"{too_slow(semconv.WAIT_TIME, pace.wait_limit, BY_POOL, windows[0], pace)} * {pace.seconds(windows[0]):g}"
    return Alert(
        name=name,
        expression=f"{long} > {limit}\nand\n{short} > {limit}\nand\n{number} >= {FEWEST_SLOW}",
        pending=pace(pending),
        urgency=urgency,
        finding=POOL_EXHAUSTED,
        summary=f"<value> of the checkouts from the {WHERE} fail or wait longer than {pace.wait_limit:g} s",
        description=f"The objective is {OBJECTIVE:.0%} within {pace.wait_limit:g} s; at this rate its budget is used "
        f"up within {30 / factor:.0f} days. The dashboard shows which requests wait and which hold connections.",
        value_format=ValueFormat.SHARE,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def timeouts(pace: Pace) -> Alert:
    """Checkouts that timed out."""
    return Alert(
        name="PoolTimeouts",
        expression=f"{events(family(semconv.TIMEOUTS), BY_POOL, '5m', pace)} > 0",
        pending=pace("0s"),
        urgency=Urgency.PAGE,
        finding=POOL_EXHAUSTED,
        summary=f"<value> requests got no connection from the {WHERE}",
        description="Users see errors. The event `poolscope.pool.exhausted` lists every holder at that moment, longest "
        "hold first, with route, line and last statement.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def refused(pace: Pace) -> Alert:
    """Checkouts for which the server, or a pooler in front of it, accepted no further connection."""
    series = f'{family(semconv.FAILED_CHECKOUTS)}{{{label(semconv.CHECKOUT_OUTCOME)}="server_refused"}}'
    return Alert(
        name="TooManyConnections",
        expression=f"{events(series, BY_POOL, '5m', pace)} > 0",
        pending=pace("0s"),
        urgency=Urgency.PAGE,
        finding=TOO_MANY_CONNECTIONS,
        summary=f"The server refused <value> requests a connection, for the {WHERE}",
        description="It has too many connections, and so do all that use it. The event "
        "`poolscope.connection.refused` says whose limit was reached, and who in this process has how many.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def leak(pace: Pace) -> Alert:
    """Connections that are never returned: collected as garbage, or the request that checked them out has finished."""
    kind = label(semconv.LEAK_KIND)
    series = f'{family(semconv.LEAKS)}{{{kind}!="overdue"}}'
    return Alert(
        name="ConnectionLeak",
        expression=f"{events(series, f'{BY_POOL}, {kind}', '15m', pace)} > 0",
        pending=pace("0s"),
        urgency=Urgency.PAGE,
        finding=LEAK,
        summary=f"<value> connections leaked (<{kind}>) from the {WHERE}",
        description="At this rate the pool runs out of connections whatever its size; a restart only delays that. The "
        "event `poolscope.connection.leak` has the line that checked out each connection.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.FINDINGS,
        variables=POOL_VARIABLES,
    )


def overdue(pace: Pace) -> Alert:
    """Connections that are held longer than the threshold by a request, task or job that still runs."""
    series = f'{family(semconv.LEAKS)}{{{label(semconv.LEAK_KIND)}="overdue"}}'
    return Alert(
        name="LeaseOverdue",
        expression=f"{events(series, BY_POOL, '15m', pace)} > 0",
        pending=pace("0s"),
        urgency=Urgency.TICKET,
        finding=LONG_HOLD,
        summary=f"<value> connections of the {WHERE} are held longer than the leak threshold",
        description="The holders still run: in a slow query, in a call to another service, or waiting for a lock. The "
        "event `poolscope.connection.leak` has the code that each one currently executes. A connection that returns "
        "later is reported as resolved.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def n_plus_one(pace: Pace) -> Alert:
    """N+1 loops in a request that had none at this time yesterday, as after a deploy."""
    version = label(VERSION)
    series = family(semconv.REPEATED_QUERIES)
    now = events(series, f"{SERVICE}, {version}, {UNIT}", "15m", pace)
    before = f"sum by ({SERVICE}, {UNIT}) (increase({series}[{pace('6h')}] offset {pace('1d')}))"
    return Alert(
        name="NPlusOneFound",
        expression=f"{now} >= {REPEATED_QUERIES}\nunless on ({SERVICE}, {UNIT})\n{before} >= {REPEATED_QUERIES}",
        pending=pace("0s"),
        urgency=Urgency.TICKET,
        finding=N_PLUS_ONE,
        summary=f"<{UNIT}> of <service_name> ran <value> queries in N+1 loops within 15 minutes",
        description="It ran no such loop at this time yesterday: look at what this version changed. The event "
        "`poolscope.unit_of_work.n_plus_one` has the statement and the line that repeats it. After a day the loop "
        "counts as known, and the alert ends.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.REQUESTS,
        variables=SERVICE_VARIABLES,
    )


def nested(pace: Pace) -> Alert:
    """Units of work that check out a second connection of the same pool, which can deadlock."""
    return Alert(
        name="NestedCheckout",
        expression=f"{events(family(semconv.NESTED_CHECKOUTS), BY_POOL, '15m', pace)} > 0",
        pending=pace("0s"),
        urgency=Urgency.TICKET,
        finding=NESTED_CHECKOUT,
        summary=f"<value> requests checked out a second connection of the {WHERE} while holding one",
        description="If as many of these requests run at once as the pool has connections, each waits for another one "
        "until the timeout (deadlock). The event `poolscope.unit_of_work.nested_checkout` has both lines.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.FINDINGS,
        variables=POOL_VARIABLES,
    )


def idle_in_transaction(pace: Pace) -> Alert:
    """The share of the pool that open transactions hold while they run no query."""
    held = rate(
        f'{family(semconv.HOLD_PHASE_TIME)}{{{label(semconv.HOLD_PHASE)}="idle_in_transaction"}}', BY_POOL, "5m", pace
    )
    limit = f"sum by ({SERVICE}, {POOL}) ({family(semconv.CONNECTION_MAX)})"
    return Alert(
        name="HeldIdleInTransaction",
        expression=f"{held} / {limit} > {IDLE_IN_TRANSACTION_SHARE}",
        pending=pace("5m"),
        urgency=Urgency.TICKET,
        finding=IDLE_IN_TRANSACTION,
        summary=f"Open transactions that run no query hold <value> of the {WHERE}",
        description="These connections wait for the application: for a call to another service, or for work between "
        "two statements. Commit before that work, so that other requests can use the connections.",
        value_format=ValueFormat.SHARE,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def blocked_event_loop(pace: Pace) -> Alert:
    """Event loops that use pools and are late, by the share of heartbeats."""
    late = share_too_slow(semconv.EVENT_LOOP_LAG, pace.loop_lag, f"{SERVICE}, {INSTANCE}", "5m", pace)
    return Alert(
        name="EventLoopBlocked",
        expression=f"max by ({SERVICE}) ({late}) > {LATE_SHARE}",
        pending=pace("2m"),
        urgency=Urgency.TICKET,
        finding=BLOCKED_EVENT_LOOP,
        summary=f"<value> of the heartbeats of event loops of <service_name> are late by more than {pace.loop_lag:g} s",
        description="Synchronous work keeps every request of that process waiting, and the connections that they hold. "
        "The event `poolscope.event_loop.blocked` has the line, and what it held up.",
        value_format=ValueFormat.SHARE,
        dashboard=links.REQUESTS,
        variables=SERVICE_VARIABLES,
    )
