"""
The blame report: when somebody waits in vain, or for too long, everybody who holds a connection, with where it was
checked out and where its holder stands at this moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolscope.core.finding import POOL_EXHAUSTED, Finding, Severity
from poolscope.core.lease import Outcome
from poolscope.core.owner import ThreadsNow
from poolscope.detectors.diagnosis.describe import (
    lines_of,
    of_application,
    owner_of,
    place_of,
    seconds,
    stands_at,
    statement_of,
    thread_names,
    trace_id_of,
    trace_of,
)
from poolscope.detectors.diagnosis.load import Out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolscope.core.lease import Lease
    from poolscope.core.origin import RawStack
    from poolscope.core.pool import Pool
    from poolscope.detectors.diagnosis.cause import Verdict

#: How many holders one report names; the rest is counted.
MOST_HOLDERS: Final = 30
#: How long a report may become, in characters; holders beyond it are counted.
LONGEST_REPORT: Final = 32_000
# Frames of each stack in the report, and characters of a statement and of a holder's line.
_DEPTH: Final = 3
_LONGEST_STATEMENT: Final = 200
_LONGEST_LINE: Final = 1_000


@dataclass(frozen=True)
class Holder:
    """
    One who holds, at the moment of the report.

    Args:
        lease: The lease.
        age: Seconds since it started.
        phase: What its connection was doing.
        stands: Where its holder stood, raw.
    """

    lease: Lease
    age: float
    phase: str
    stands: RawStack


@dataclass(frozen=True)
class Snapshot:
    """
    A pool at the moment somebody waited in vain: raw, to be put in words by the background thread.

    Args:
        pool: The pool.
        waiter: Who waited.
        waited: For how long, in seconds.
        pending: How many waited.
        used: How many connections were out.
        holders: Who held them, oldest first, `MOST_HOLDERS` at the most.
        out: What they did, all together.
    """

    pool: Pool
    waiter: Lease
    waited: float
    pending: int
    used: int
    holders: tuple[Holder, ...]
    out: Out

    @classmethod
    def take(cls, waiter: Lease) -> Snapshot:
        """
        Look at the waiter's pool now. It takes some ten microseconds a holder; the caller has waited for far longer.
        """
        pool = waiter.pool
        waited = (waiter.ended_at or pool.now()) - waiter.asked_at
        pending = len(pool.asking) + (waiter.ended_at is not None)
        return cls(pool, waiter, waited, pending, len(pool.leases), _holders(pool, waiter), Out.of(pool, waiter))


def report(snapshot: Snapshot, verdict: Verdict, repeated: int = 0) -> Finding:
    """
    Put a snapshot in words.

    Args:
        snapshot: The pool at that moment.
        verdict: Why it is exhausted.
        repeated: How often the same was found since the last report.
    """
    pool, waiter = snapshot.pool, snapshot.waiter
    threads = thread_names()
    gave_up = "gave up" if waiter.outcome is Outcome.TIMEOUT else "still waits"
    limit = f"{snapshot.used} of {pool.limit} in use" if pool.limit is not None else f"{snapshot.used} in use, no limit"
    full = pool.limit is not None and snapshot.used >= pool.limit
    state = "is exhausted" if full else "gives no connection"
    summary = (
        f"pool {pool.identity.name} {state} ({limit}, {snapshot.pending} waiting): "
        f"{owner_of(waiter, threads)} {gave_up} after {seconds(snapshot.waited)}; {verdict.summary}"
    )
    described, lines = _described(snapshot.holders, threads, LONGEST_REPORT - len(summary) - len(verdict.cure))
    omitted = snapshot.used - len(described)
    if omitted > 0:
        lines.append(f"and {omitted} more")
    figures = {key: value for key, value in verdict.evidence.items() if key != "limit" or pool.limit is not None}
    return Finding(
        POOL_EXHAUSTED,
        Severity.CRITICAL,
        summary,
        verdict.cure,
        pool=pool,
        evidence={
            **figures,
            "verdict": verdict.id,
            "used": snapshot.used,
            "pending": snapshot.pending,
            "waited": snapshot.waited,
            "holders": described,
            "holders_omitted": max(0, omitted),
            "repeated": repeated,
        },
        unit=waiter.unit,
        origin=waiter.origin[0] if waiter.origin else None,
        trace=trace_of(waiter),
        report="\n".join((summary, *lines, f"cure: {verdict.cure}")),
    )


def dump(pool: Pool) -> str:
    """
    Everybody who holds a connection of a pool now, in lines for people.
    """
    limit = pool.limit if pool.limit is not None else "unlimited"
    head = f"pool {pool.identity.name}: {len(pool.leases)} in use, limit {limit}, {len(pool.asking)} waiting"
    described, lines = _described(_holders(pool), thread_names(), LONGEST_REPORT - len(head))
    omitted = len(pool.leases) - len(described)
    return "\n".join((head, *lines, *([f"and {omitted} more"] if omitted > 0 else [])))


def _holders(pool: Pool, waiter: Lease | None = None) -> tuple[Holder, ...]:
    out = sorted(pool.leases.copy(), key=lambda lease: lease.started_at or lease.asked_at)[:MOST_HOLDERS]
    with ThreadsNow() as frames:
        return tuple(Holder(lease, lease.age(), lease.phase, stands_at(lease, _DEPTH, frames, waiter)) for lease in out)


def _described(holders: Sequence[Holder], threads: dict[int, str], room: int) -> tuple[list[str], list[str]]:
    # One line for each holder, and the same with both stacks; as many as there is room for.
    described: list[str] = []
    lines: list[str] = []
    for holder in holders:
        line = _holder_line(holder, threads)[:_LONGEST_LINE]
        more = [f"  held {line}", *(stack_line[:_LONGEST_LINE] for stack_line in _stack_lines(holder))]
        room -= sum(len(one) + 1 for one in more)
        if room < 0:
            break
        described.append(line)
        lines += more
    return described, lines


def _holder_line(holder: Holder, threads: dict[int, str]) -> str:
    lease = holder.lease
    parts = [
        f"{seconds(holder.age)} {holder.phase} by {owner_of(lease, threads)}",
        f"checked out at {place_of(lease.origin)}",
        f"now at {place_of(holder.stands)}" if holder.stands else "",
        f"last ran {statement_of(lease)[:_LONGEST_STATEMENT]}" if lease.statement else "ran nothing yet",
        f"leaked ({lease.leak})" if lease.leak else "",
        f"backend {lease.backend_process_id}" if lease.backend_process_id else "",
        f"trace {trace_id_of(lease)}" if lease.trace is not None else "",
    ]
    return "; ".join(part for part in parts if part)


def _stack_lines(holder: Holder) -> list[str]:
    origin = of_application(holder.lease, holder.lease.origin)
    return [
        *(f"      checked out: {line}" for line in lines_of(origin[:_DEPTH])),
        *(f"      stands at:   {line}" for line in lines_of(holder.stands)),
    ]
