"""
Leaks: connections that are out and that nobody will return.

Told apart by how it is known. `abandoned`: the garbage collector found it. `owner_finished`: the request, task or
thread that checked it out is over, and nothing has used it since. `overdue`: it has been out for longer than the
threshold. What the application excused with `poolscope.expected_long_hold` is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.finding import LEAK, Finding, Severity
from poolscope.core.owner import ThreadsNow
from poolscope.detectors.diagnosis.describe import (
    is_left,
    lines_of,
    owner_of,
    place_of,
    seconds,
    stands_at,
    statement_of,
    trace_id_of,
    trace_of,
)

if TYPE_CHECKING:
    from poolscope.core.finding import Evidence
    from poolscope.core.lease import Lease
    from poolscope.core.owner import Frames
    from poolscope.core.pool import Pool

ABANDONED: Final = "abandoned"
OWNER_FINISHED: Final = "owner_finished"
OVERDUE: Final = "overdue"

# How long after the end of a unit of work its connection may still come back, or be used by what it left behind.
UNIT_GRACE: Final = 1.0
# The same for a thread or task outside of any unit: some only fetch a connection for others and end.
OWNER_GRACE: Final = 5.0

_CURE: Final = (
    "return it on every path: a with block around its use (engine.connect(), Session(), pool.connection(), "
    "pool.acquire()), or close() in a finally"
)
_CURE_OVERDUE: Final = (
    "if it is meant to be out for long, say so with poolscope.expected_long_hold(why); if not, return it on every path"
)


class LeakDetector:
    """
    Looks at everything that is out, about once a second.

    Args:
        threshold: The age from which a lease is overdue, in seconds; 0 for never.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def look(self, pool: Pool) -> list[Lease]:
        """
        The leaks of a pool that were not known before; entered, to be told of with `found`.
        """
        unheld = pool.unheld()
        with ThreadsNow() as frames:
            return [lease for lease in pool.leases.copy() if self._is_new(lease, frames, lease in unheld)]

    def _is_new(self, lease: Lease, frames: Frames, is_unheld: bool) -> bool:
        if lease.leak is not None or lease.excuse is not None or lease.started_at is None or lease.silent:
            return False
        kind = ABANDONED if is_unheld else self._kind(lease, frames)
        if kind is not None:
            enter(lease, kind)
        return kind is not None

    def _kind(self, lease: Lease, frames: Frames) -> str | None:
        if not lease.adopted and not lease.running and _owner_is_over(lease, frames):
            since = lease.pool.now() - max(lease.last_used, lease.over_since)
            if since >= (UNIT_GRACE if lease.unit is not None else OWNER_GRACE):
                return OWNER_FINISHED
        if self._threshold and lease.age() >= self._threshold:
            return OVERDUE
        return None


def enter(lease: Lease, kind: str) -> None:
    """
    Enter a leak into the lease, its pool and its unit of work. Safe inside a garbage collection.

    Args:
        lease: The lease, still out, or just found by the garbage collector.
        kind: How it is known.
    """
    lease.leak = kind
    lease.pool.leaks[kind].add(1)
    if lease.unit is not None:
        lease.unit.findings.add(LEAK)


def found(lease: Lease) -> Finding:
    """
    Tell of a leak that was entered.
    """
    kind = str(lease.leak)
    how = {
        ABANDONED: "was dropped without being returned; the garbage collector found it",
        OWNER_FINISHED: "is still out though who checked it out is over",
        OVERDUE: f"has been out for {seconds(lease.held())}",
    }[kind]
    summary = (
        f"a connection of pool {lease.pool.identity.name}, "
        f"checked out by {owner_of(lease)} at {place_of(lease.origin)}, {how}"
    )
    overdue = kind == OVERDUE
    return Finding(
        LEAK,
        Severity.WARNING if overdue else Severity.CRITICAL,
        summary,
        _CURE_OVERDUE if overdue else _CURE,
        pool=lease.pool,
        evidence=_evidence(lease, lines_of(stands_at(lease)) if overdue else []),
        unit=lease.unit,
        origin=lease.origin[0] if lease.origin else None,
        trace=trace_of(lease),
    )


def resolved(lease: Lease) -> Finding:
    """
    A connection that was reported as leaked came back after all.
    """
    how = "was found by the garbage collector" if lease.abandoned else "came back"
    summary = (
        f"the connection of pool {lease.pool.identity.name}, "
        f"checked out by {owner_of(lease)} at {place_of(lease.origin)} "
        f"and reported as leaked ({lease.leak}), {how} after {seconds(lease.held())}"
    )
    return Finding(
        LEAK,
        Severity.INFO,
        summary,
        _CURE if lease.abandoned else _CURE_OVERDUE,
        pool=lease.pool,
        evidence=_evidence(lease, []),
        unit=lease.unit,
        origin=lease.origin[0] if lease.origin else None,
        trace=trace_of(lease),
        resolved=True,
    )


def _evidence(lease: Lease, stands: list[str]) -> dict[str, Evidence]:
    evidence: dict[str, Evidence] = {
        "leak_kind": str(lease.leak),
        "age": lease.held(),
        "owner": owner_of(lease),
        "phase": lease.phase,
        "checkout_stack": lines_of(lease.origin),
        "stands_at": stands,
        "statement": statement_of(lease),
        "trace_id": trace_id_of(lease),
    }
    if lease.backend_process_id is not None:
        evidence["backend_process_id"] = lease.backend_process_id
    return {key: value for key, value in evidence.items() if value not in ("", [])}


def _owner_is_over(lease: Lease, frames: Frames) -> bool:
    if lease.unit is not None:
        # What it started may go on after its end, and give back what it holds.
        over = lease.unit.ended and is_left(lease, frames)
    elif lease.task is not None:
        task = lease.task()
        over = task is None or task.done()
    else:
        over = lease.thread_life() is None
    if over and not lease.over_since:
        lease.over_since = lease.pool.now()
    return over
