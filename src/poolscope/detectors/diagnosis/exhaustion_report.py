"""
The exhaustion report: when a checkout times out or waits for too long, all holders, each with the line that checked out
and the line that it executes at this moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.detectors.diagnosis.describe import finding_about, owner_of, thread_names
from poolscope.detectors.diagnosis.holders import LONGEST_REPORT, described, holders_of
from poolscope.detectors.diagnosis.load import CheckedOut
from poolscope.detectors.diagnosis.outcomes import ending_of, outcome_of

if TYPE_CHECKING:
    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.detectors.diagnosis.cause import Cause
    from poolscope.detectors.diagnosis.holders import Holder


@dataclass(frozen=True)
class Snapshot:
    """
    A pool at the moment a checkout timed out: raw, to be put in words by the background thread.

    Args:
        pool: The pool.
        waiter: The checkout that waited.
        waited: For how long, in seconds.
        pending: How many waited.
        used: How many connections were checked out.
        holders: Who held them.
        out: What they did, all together.
    """

    pool: Pool
    waiter: Lease
    waited: float
    pending: int
    used: int
    holders: tuple[Holder, ...]
    out: CheckedOut

    @classmethod
    def take(cls, waiter: Lease) -> Snapshot:
        """
        Look at the waiter's pool now. It takes some ten microseconds a holder; the caller has
        waited for far longer.
        """
        pool = waiter.pool
        waited = (waiter.ended_at or pool.now()) - waiter.requested_at
        pending = len(pool.pending) + (waiter.ended_at is not None)
        return cls(
            pool, waiter, waited, pending, len(pool.leases), holders_of(pool, waiter), CheckedOut.of(pool, waiter)
        )


def report(snapshot: Snapshot, cause: Cause, repeated: int = 0) -> Finding:
    """
    Put a snapshot in words.

    Args:
        snapshot: The pool at that moment.
        cause: Why it is exhausted.
        repeated: How many more timeouts were counted since the last report.
    """
    pool, waiter = snapshot.pool, snapshot.waiter
    threads = thread_names()
    limit = f"{snapshot.used} of {pool.limit} in use" if pool.limit is not None else f"{snapshot.used} in use, no limit"
    is_full = pool.limit is not None and snapshot.used >= pool.limit
    state = "is exhausted" if is_full else "provides no connection"
    summary = (
        f"pool {pool.identity.name} {state} ({limit}, {snapshot.pending} waiting): "
        f"{owner_of(waiter, threads)} {ending_of(waiter, snapshot.waited)}; {cause.summary}"
    )
    room = LONGEST_REPORT - len(summary) - len(cause.fix)
    holders = described(snapshot.holders, snapshot.used, threads, room)
    figures = {name: value for name, value in cause.evidence.items() if name != "limit" or pool.limit is not None}
    return finding_about(
        waiter,
        POOL_EXHAUSTED,
        summary,
        {
            **figures,
            "cause": cause.id,
            "outcome": outcome_of(waiter),
            "used": snapshot.used,
            "pending": snapshot.pending,
            "waited": snapshot.waited,
            "holders": holders.each,
            "holders_omitted": holders.omitted,
            "repeated": repeated,
        },
        fix=cause.fix,
        report="\n".join((summary, *holders.report, f"fix: {cause.fix}")),
    )
