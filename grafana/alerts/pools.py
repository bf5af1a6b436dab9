"""
Alerts on what the processes report: pools that saturate, waits, leaks, and habits that lead there.
"""

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
from grafana.alerts.model import Alert, Group, Shown, Urgency
from grafana.collector import INSTANCE, SERVICE, VERSION
from grafana.prometheus import family
from poolscope import semconv
from poolscope.core import finding

if TYPE_CHECKING:
    from grafana.alerts.model import Pace

# The objective that the waits are held against: this share of check-outs within this time, over 30 days.
OBJECTIVE: Final = 0.99
# How many times as fast as allowed the budget may burn: 2 % of it in an hour, 5 % in six. Source: The Site Reliability
# Workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".
FAST_BURN: Final = 14.4
SLOW_BURN: Final = 6
# So many check-outs of the long window must be beyond the objective: a job that opens one connection an hour burns
# nobody's budget.
FEWEST_SLOW: Final = 10
SATURATED_SHARE: Final = 0.1
IDLE_IN_TRANSACTION_SHARE: Final = 0.25
REPEATED_QUERIES: Final = 10
WHERE: Final = "pool <db_client_connection_pool_name> of <service_name>"


def groups(pace: Pace) -> tuple[Group, ...]:
    """
    The alerts on pools and on units of work.
    """
    return (
        Group("poolscope-pools", (saturated(pace), *burning(pace), timeouts(pace))),
        Group("poolscope-leaks", (leak(pace), overdue(pace))),
        Group("poolscope-habits", (n_plus_one(pace), nested(pace), idle_in_transaction(pace))),
    )


def saturated(pace: Pace) -> Alert:
    """
    Every connection in use for a share of the time, in the worst instance.
    """
    per_instance = rate(family(semconv.SATURATION_TIME), f"{BY_POOL}, {INSTANCE}", "5m", pace)
    return Alert(
        name="PoolSaturated",
        expression=f"max by ({BY_POOL}) ({per_instance}) > {SATURATED_SHARE}",
        held=pace("2m"),
        urgency=Urgency.TICKET,
        finding=finding.POOL_TOO_SMALL,
        summary=f"The {WHERE} has no free connection <value> of the time",
        description="Every request of that time waited. Look first whether a leak or long holds fill the pool: a "
        "larger pool only delays those. If holds are short and arrivals many, the pool is too small.",
        shown=Shown.SHARE,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def burning(pace: Pace) -> tuple[Alert, Alert]:
    """
    Waits that use up the error budget, judged by a long window, and by a short one so that it ends when they end.
    """
    return (
        _burn(pace, "PoolWaitBurnsFast", FAST_BURN, windows=("1h", "5m"), held="2m", urgency=Urgency.PAGE),
        _burn(pace, "PoolWaitBurnsSlowly", SLOW_BURN, windows=("6h", "30m"), held="15m", urgency=Urgency.TICKET),
    )


def _burn(pace: Pace, name: str, factor: float, *, windows: tuple[str, str], held: str, urgency: Urgency) -> Alert:
    limit = f"{factor * (1 - OBJECTIVE):.3g}"
    long, short = (share_too_slow(semconv.WAIT_TIME, pace.wait_limit, BY_POOL, window, pace) for window in windows)
    number = f"{too_slow(semconv.WAIT_TIME, pace.wait_limit, BY_POOL, windows[0], pace)} * {pace.seconds(windows[0]):g}"
    return Alert(
        name=name,
        expression=f"{long} > {limit}\nand\n{short} > {limit}\nand\n{number} >= {FEWEST_SLOW}",
        held=pace(held),
        urgency=urgency,
        finding=finding.POOL_EXHAUSTED,
        summary=f"<value> of the check-outs from the {WHERE} fail or wait longer than {pace.wait_limit:g} s",
        description=f"The objective is {OBJECTIVE:.0%} within {pace.wait_limit:g} s; at this rate its budget is gone "
        f"within {30 / factor:.0f} days. The dashboard shows who waits and who holds.",
        shown=Shown.SHARE,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def timeouts(pace: Pace) -> Alert:
    """
    Requests that asked for a connection in vain.
    """
    return Alert(
        name="PoolTimeouts",
        expression=f"{events(family(semconv.TIMEOUTS), BY_POOL, '5m', pace)} > 0",
        held=pace("0s"),
        urgency=Urgency.PAGE,
        finding=finding.POOL_EXHAUSTED,
        summary=f"<value> requests got no connection from the {WHERE}",
        description="Users see errors. The event `poolscope.pool.exhausted` names every holder at that moment, oldest "
        "first, with route, line and last statement.",
        shown=Shown.NUMBER,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def leak(pace: Pace) -> Alert:
    """
    Connections that nobody will return: collected as garbage, or their request is over.
    """
    kind = label(semconv.LEAK_KIND)
    series = f'{family(semconv.LEAKS)}{{{kind}!="overdue"}}'
    return Alert(
        name="ConnectionLeak",
        expression=f"{events(series, f'{BY_POOL}, {kind}', '15m', pace)} > 0",
        held=pace("0s"),
        urgency=Urgency.PAGE,
        finding=finding.LEAK,
        summary=f"<value> connections leaked (<{kind}>) from the {WHERE}",
        description="The pool runs dry at this rate whatever its size, and a restart only buys time. The event "
        "`poolscope.connection.leak` has the line that took each connection.",
        shown=Shown.NUMBER,
        dashboard=links.FINDINGS,
        variables=POOL_VARIABLES,
    )


def overdue(pace: Pace) -> Alert:
    """
    Connections held past the threshold by somebody who still runs.
    """
    series = f'{family(semconv.LEAKS)}{{{label(semconv.LEAK_KIND)}="overdue"}}'
    return Alert(
        name="LeaseOverdue",
        expression=f"{events(series, BY_POOL, '15m', pace)} > 0",
        held=pace("0s"),
        urgency=Urgency.TICKET,
        finding=finding.LONG_HOLD,
        summary=f"<value> connections of the {WHERE} are held past the leak threshold",
        description="Their holders still run: a slow query, a call to another service, or a lock. The event "
        "`poolscope.connection.leak` has the stack at which each stands; one that comes back is reported as resolved.",
        shown=Shown.NUMBER,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def n_plus_one(pace: Pace) -> Alert:
    """
    N+1 loops in a request that had none at this time yesterday: what a deploy brought.
    """
    version = label(VERSION)
    series = family(semconv.REPEATED_QUERIES)
    now = events(series, f"{SERVICE}, {version}, {UNIT}", "15m", pace)
    before = f"sum by ({SERVICE}, {UNIT}) (increase({series}[{pace('6h')}] offset {pace('1d')}))"
    return Alert(
        name="NPlusOneFound",
        expression=f"{now} >= {REPEATED_QUERIES}\nunless on ({SERVICE}, {UNIT})\n{before} >= {REPEATED_QUERIES}",
        held=pace("0s"),
        urgency=Urgency.TICKET,
        finding=finding.N_PLUS_ONE,
        summary=f"<{UNIT}> of <service_name> spent <value> queries in loops within 15 minutes",
        description="Not so yesterday: look at what this version changed. The event "
        "`poolscope.unit_of_work.n_plus_one` has the statement and the line that repeats it. After a day it counts as "
        "known and the alert ends.",
        shown=Shown.NUMBER,
        dashboard=links.REQUESTS,
        variables=SERVICE_VARIABLES,
    )


def nested(pace: Pace) -> Alert:
    """
    Units of work that take a second connection of the same pool: a deadlock in waiting.
    """
    return Alert(
        name="NestedCheckout",
        expression=f"{events(family(semconv.NESTED_CHECKOUTS), BY_POOL, '15m', pace)} > 0",
        held=pace("0s"),
        urgency=Urgency.TICKET,
        finding=finding.NESTED_CHECKOUT,
        summary=f"<value> requests took a second connection of the {WHERE} while holding one",
        description="When as many such requests as there are connections run at once, each waits for another and none "
        "goes on until the timeout. The event `poolscope.unit_of_work.nested_checkout` has both lines.",
        shown=Shown.NUMBER,
        dashboard=links.FINDINGS,
        variables=POOL_VARIABLES,
    )


def idle_in_transaction(pace: Pace) -> Alert:
    """
    A share of the pool that is held by transactions in which no query runs.
    """
    held = rate(
        f'{family(semconv.USE_PHASE_TIME)}{{{label(semconv.USE_PHASE)}="idle_in_transaction"}}', BY_POOL, "5m", pace
    )
    limit = f"sum by ({SERVICE}, {POOL}) ({family(semconv.CONNECTION_MAX)})"
    return Alert(
        name="HeldIdleInTransaction",
        expression=f"{held} / {limit} > {IDLE_IN_TRANSACTION_SHARE}",
        held=pace("5m"),
        urgency=Urgency.TICKET,
        finding=finding.IDLE_IN_TRANSACTION,
        summary=f"<value> of the {WHERE} is held by open transactions that run no query",
        description="Connections wait for the application: a call to another service, or work between two statements. "
        "Commit before it, and they serve others.",
        shown=Shown.SHARE,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )
