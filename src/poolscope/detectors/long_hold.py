"""
Long holds: a lease that kept its connection for long, and what it did with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.finding import IDLE_IN_TRANSACTION, LONG_HOLD, Finding, Severity
from poolscope.detectors.diagnosis.describe import lines_of, owner_of, place_of, seconds, statement_of, trace_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poolscope.core.lease import Lease

# From this share of the hold on the database was at work; below it something else was.
_MAJORITY: Final = 0.5

_CURES: Final = {
    "query": "make the query faster (an index, fewer rows), or move it to a background task or a replica",
    "idle_in_transaction": (
        "do the other work (a call to a service, rendering, sleeping) before the first query or after the commit"
    ),
    "idle": "check out as late and return as early as the queries allow; do the other work without a connection",
}


def phase_of(phases: Mapping[str, float]) -> str:
    """
    What a hold was mostly for, of its seconds by phase: ``query`` when the database worked for half of it or more,
    else whichever kind of idleness was longer.
    """
    if phases["query"] >= _MAJORITY * sum(phases.values()):
        return "query"
    return max(("idle_in_transaction", "idle"), key=lambda phase: phases[phase])


def kind_of(lease: Lease) -> str:
    """
    Which finding a long hold is: `IDLE_IN_TRANSACTION` when that is what it was mostly for, else `LONG_HOLD`.
    """
    return IDLE_IN_TRANSACTION if phase_of(lease.use_phases()) == "idle_in_transaction" else LONG_HOLD


def found(lease: Lease, suppressed: int) -> Finding:
    """
    Tell of a long hold.

    Args:
        lease: The lease, ended.
        suppressed: How often the same was found since it was last told of.
    """
    phases = lease.use_phases()
    phase, total = phase_of(phases), sum(phases.values())
    spent = {
        "query": f"{seconds(phases['query'])} of it in queries",
        "idle_in_transaction": f"{seconds(phases['idle_in_transaction'])} of it idle in a transaction",
        "idle": f"{seconds(phases['idle'])} of it without a query or a transaction",
    }[phase]
    summary = (
        f"{owner_of(lease)} held a connection of pool {lease.pool.identity.name} for {seconds(total)}, {spent}; "
        f"checked out at {place_of(lease.origin)}"
    )
    return Finding(
        kind_of(lease),
        Severity.WARNING,
        summary,
        _CURES[phase],
        pool=lease.pool,
        evidence={
            "held": total,
            **phases,
            "queries": lease.queries,
            "statement": statement_of(lease),
            "checkout_stack": lines_of(lease.origin),
            "repeated": suppressed,
        },
        unit=lease.unit,
        origin=lease.origin[0] if lease.origin else None,
        trace=trace_of(lease),
    )
