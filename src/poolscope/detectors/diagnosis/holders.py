"""
Who holds the connections of a pool: since when, doing what, checked out where, and what each
executes at this moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolscope.core.execution import ThreadsNow
from poolscope.detectors.diagnosis.describe import (
    current_stack,
    lines_of,
    of_application,
    owner_of,
    place_of,
    seconds,
    statement_of,
    trace_id_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolscope.core.lease import Lease
    from poolscope.core.origin import RawStack
    from poolscope.core.pool import Pool

#: How many holders are named; the rest is counted.
MOST_HOLDERS: Final = 30
#: How long a report of them may become, in characters; holders beyond it are counted.
LONGEST_REPORT: Final = 32_000
# Frames of each stack, and characters of a statement and of a holder's line.
_DEPTH: Final = 3
_LONGEST_STATEMENT: Final = 200
_LONGEST_LINE: Final = 1_000
# What a connection is doing now, in words.
_PHASES: Final = {"query": "running a query", "idle_in_transaction": "idle in a transaction", "idle": "idle"}


@dataclass(frozen=True)
class Holder:
    """
    One who holds a connection, at one moment.

    Args:
        lease: The lease.
        age: Seconds since it started.
        phase: What its connection was doing.
        stack: What its holder was executing, raw.
    """

    lease: Lease
    age: float
    phase: str
    stack: RawStack

    def line(self, threads: dict[int, str]) -> str:
        """
        All that is known, in one line.

        Args:
            threads: Names of threads by their identifiers.
        """
        lease = self.lease
        parts = [
            f"{seconds(self.age)} by {owner_of(lease, threads)}, {_PHASES[self.phase]}",
            f"checked out at {place_of(lease.origin)}",
            f"currently executing {place_of(self.stack)}" if self.stack else "",
            f"last ran {statement_of(lease)[:_LONGEST_STATEMENT]}" if lease.statement else "no query yet",
            f"leaked ({lease.leak})" if lease.leak else "",
            f"backend {lease.backend_process_id}" if lease.backend_process_id else "",
            f"trace {trace_id_of(lease)}" if lease.trace is not None else "",
        ]
        return "; ".join(part for part in parts if part)[:_LONGEST_LINE]

    def stacks(self) -> list[str]:
        """Both stacks, a line for each frame."""
        origin = of_application(self.lease, self.lease.origin)
        lines = [
            *(f"      checked out:         {line}" for line in lines_of(origin[:_DEPTH])),
            *(f"      currently executing: {line}" for line in lines_of(self.stack)),
        ]
        return [line[:_LONGEST_LINE] for line in lines]


@dataclass(frozen=True)
class Described:
    """
    Holders in words, as many as there was room for.

    Args:
        each: One line for each.
        report: The same with both stacks, and the number of those left out.
        omitted: How many were left out.
    """

    each: list[str]
    report: list[str]
    omitted: int


def holders_of(pool: Pool, waiter: Lease | None = None) -> tuple[Holder, ...]:
    """
    Who holds connections of a pool now, the oldest first, `MOST_HOLDERS` at the most.

    Args:
        pool: The pool.
        waiter: The checkout that has just failed: its thread's frames belong to it and to no holder.
    """
    out = sorted(pool.leases.copy(), key=lambda lease: lease.acquired_at or lease.requested_at)[:MOST_HOLDERS]
    with ThreadsNow() as frames:
        return tuple(
            Holder(lease, lease.age(), lease.phase, current_stack(lease, _DEPTH, frames, waiter)) for lease in out
        )


def described(holders: Sequence[Holder], count: int, threads: dict[int, str], room: int) -> Described:
    """
    Put holders in words.

    Args:
        holders: The holders, the oldest first.
        count: How many there are, also those that are not among them.
        threads: Names of threads by their identifiers.
        room: How many characters there are for them.
    """
    each: list[str] = []
    report: list[str] = []
    for holder in holders:
        line = holder.line(threads)
        lines = [f"  held {line}", *holder.stacks()]
        room -= sum(len(one) + 1 for one in lines)
        if room < 0:
            break
        each.append(line)
        report += lines
    omitted = max(0, count - len(each))
    return Described(each, [*report, f"and {omitted} more"] if omitted else report, omitted)
