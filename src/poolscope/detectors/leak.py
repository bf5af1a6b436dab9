"""
Leaks: connections that are checked out and will not be returned.

The kinds differ in how a leak is detected. `abandoned`: the garbage collector found it. `owner_finished`: the request,
task or thread that checked it out has finished, and nothing has used it since. `overdue`: it has been checked out for
longer than the threshold. What the application excused with `poolscope.expected_long_hold` is none, nor is what
listens for notifications (`poolscope.detectors.listener_hold`).
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.execution import ThreadsNow
from poolscope.core.finding_kind import Severity
from poolscope.core.guard import guard
from poolscope.core.pool_figures import DISPOSED
from poolscope.detectors.detector import Detector, Occurrence, Released, mark, place_of_lease
from poolscope.detectors.diagnosis.describe import (
    current_stack,
    finding_about,
    is_handed_on,
    is_left,
    lines_of,
    owner_of,
    place_of,
    seconds,
    statement_of,
    trace_id_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.execution import Frames
    from poolscope.core.finding import Evidence, Finding
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.detectors.detector import Context

ABANDONED: Final = "abandoned"
OWNER_FINISHED: Final = "owner_finished"
OVERDUE: Final = "overdue"

# How a leak ended.
RETURNED: Final = "returned"
GARBAGE_COLLECTED: Final = "garbage_collected"
CLOSED_WITH_POOL: Final = "closed_with_pool"
CLOSED: Final = "closed"

# How long after the end of a unit of work its connection may still be returned, or used by threads and tasks that it
# started, in seconds.
UNIT_GRACE: Final = 1.0
# The same for a thread or task outside of any unit, and for a job that no framework knows once its thread has finished:
# some only fetch a connection for others and end.
OWNER_GRACE: Final = 5.0

# What a unit of work of each kind is called.
_WORK: Final = {"http": "request", "rpc": "call", "task": "task", "job": "job"}


class LeakDetector(Detector[Released, "tuple[Lease, bool]"]):
    """
    Looks at everything that is checked out, about once a second. What the garbage collector finds is observed at once,
    and so is the return of what was reported. An observation is the lease, and whether it is a new leak.
    """

    kinds = (LEAK,)
    observes = Released

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._threshold = context.settings.leak_threshold
        self._on_leak = context.on_leak
        # Those that were reported one by one, and not only counted: the return of these is reported, too.
        self._reported: weakref.WeakSet[Lease] = weakref.WeakSet()

    def observe(self, event: Released) -> None:
        """A lease ended that was known as leaked, or that the application dropped."""
        lease = event.lease
        if lease.leak is not None:
            self.keep((lease, False))
        elif lease.abandoned:
            enter(lease, ABANDONED)
            self.keep((lease, True))

    def diagnose(self, seen: tuple[Lease, bool]) -> Iterator[Occurrence]:
        """A leak, or the end of one that was reported."""
        lease, is_new = seen
        if is_new:
            yield self._occurrence(lease)
        elif lease in self._reported:
            yield Occurrence(None, lambda _: resolved(lease))

    def look(self, pool: Pool) -> Iterator[Occurrence]:
        """The leaks of a pool that were not known before."""
        for lease in new_leaks(pool, self._threshold):
            guard.run("leak.on_leak", partial(self._on_leak, lease), None)
            yield self._occurrence(lease)

    def forget(self) -> None:
        """In a child process after a fork: what was observed and reported is the parent's."""
        super().forget()
        self._reported = weakref.WeakSet()

    def _occurrence(self, lease: Lease) -> Occurrence:
        def describe(repeated: int) -> Finding:
            self._reported.add(lease)
            return found(lease, repeated)

        return Occurrence(place_of_lease(LEAK, lease), describe)


def new_leaks(pool: Pool, threshold: float) -> list[Lease]:
    """
    The leaks of a pool that were not known before; from now on they are.

    Args:
        pool: The pool.
        threshold: The age from which a lease is overdue, in seconds; 0 for never.
    """
    unheld = pool.unheld()
    with ThreadsNow() as frames:
        found_now = {lease: _kind(lease, frames, threshold, lease in unheld) for lease in pool.leases.copy()}
    leaked = [lease for lease, kind in found_now.items() if kind is not None]
    for lease in leaked:
        enter(lease, str(found_now[lease]))
    return leaked


def _kind(lease: Lease, frames: Frames, threshold: float, is_unheld: bool) -> str | None:
    if lease.leak is not None or lease.excuse is not None or lease.acquired_at is None or lease.silent:
        return None
    if lease.listens:
        return None  # by design: another finding
    if is_unheld:
        return ABANDONED
    if not lease.adopted and not lease.running and _owner_is_over(lease, frames):
        since = lease.pool.now() - max(lease.last_used, lease.over_since)
        if since >= _grace(lease):
            return OWNER_FINISHED
    return OVERDUE if threshold and lease.age() >= threshold else None


def enter(lease: Lease, kind: str) -> None:
    """
    Enter a leak into the lease, its pool and its unit of work. Safe inside a garbage collection.

    Args:
        lease: The lease, still checked out, or just found by the garbage collector.
        kind: How it is known.
    """
    lease.leak = kind
    lease.noted = True
    lease.pool.leaks[kind].add(1)
    mark(lease, LEAK)


def found(lease: Lease, repeated: int) -> Finding:
    """
    Put a leak that was entered in words.

    Args:
        lease: The lease.
        repeated: How many more of its place were found since the last report.
    """
    kind = str(lease.leak)
    how = {
        ABANDONED: "was garbage-collected without being returned",
        OWNER_FINISHED: f"was not returned, although the {_work_of(lease)} that checked it out has finished",
        OVERDUE: f"has been checked out for {seconds(lease.held())}",
    }[kind]
    is_overdue = kind == OVERDUE
    location = lines_of(current_stack(lease)) if is_overdue else []
    return finding_about(
        lease,
        LEAK,
        f"a connection of pool {lease.pool.identity.name}, checked out by {owner_of(lease)} "
        f"at {place_of(lease.origin)}, {how}",
        {**_evidence(lease), "current_location": location, "repeated": repeated},
        # It may just take long: a suspicion, where the others are certain.
        severity=Severity.WARNING if is_overdue else None,
        fix=KINDS[LEAK].fix_for(kind),
    )


def resolved(lease: Lease) -> Finding:
    """A connection that was reported as leaked was returned after all, garbage-collected, or closed."""
    ending = ending_of(lease)
    how = {
        RETURNED: "was returned",
        GARBAGE_COLLECTED: "was garbage-collected",
        CLOSED_WITH_POOL: "was not returned: it was closed with its pool,",
        CLOSED: "was not returned: it was closed",
    }[ending]
    return finding_about(
        lease,
        LEAK,
        f"the connection of pool {lease.pool.identity.name}, checked out by {owner_of(lease)} "
        f"at {place_of(lease.origin)} and reported as leaked ({lease.leak}), {how} after {seconds(lease.held())}",
        {**_evidence(lease), "ending": ending},
        severity=Severity.INFO,
        fix=KINDS[LEAK].fix_for(OVERDUE if ending == RETURNED else ""),
        resolved=True,
    )


def ending_of(lease: Lease) -> str:
    """How a lease ended: by a return, by the garbage collector, or because its connection was closed."""
    if lease.abandoned:
        return GARBAGE_COLLECTED
    if lease.closed is None:
        return RETURNED
    return CLOSED_WITH_POOL if lease.closed == DISPOSED else CLOSED


def _evidence(lease: Lease) -> dict[str, Evidence]:
    evidence: dict[str, Evidence] = {
        "leak_kind": str(lease.leak),
        "age": lease.held(),
        "owner": owner_of(lease),
        "phase": lease.phase,
        "checkout_stack": lines_of(lease.origin),
        "statement": statement_of(lease),
        "trace_id": trace_id_of(lease),
    }
    if lease.backend_process_id is not None:
        evidence["backend_process_id"] = lease.backend_process_id
    return evidence


def _work_of(lease: Lease) -> str:
    if lease.unit is not None:
        return _WORK.get(lease.unit.kind, "unit of work")
    return "task" if lease.task is not None else "thread"


def _grace(lease: Lease) -> float:
    unit = lease.unit
    if unit is None or (unit.by_default and lease.thread_reference() is None):
        return OWNER_GRACE
    return UNIT_GRACE


def _owner_is_over(lease: Lease, frames: Frames) -> bool:
    unit = lease.unit
    if is_handed_on(lease):
        over = False
    elif unit is not None and (unit.ended or not unit.by_default):
        # What it started may go on after its end, and return what it holds.
        over = unit.ended and is_left(lease, frames)
    elif lease.task is not None:
        task = lease.task()
        over = task is None or task.done()
    else:
        over = lease.thread_reference() is None
    if over and not lease.over_since:
        lease.over_since = lease.pool.now()
    return over
