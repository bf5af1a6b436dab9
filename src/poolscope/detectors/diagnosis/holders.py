"""
Who holds the connections of a pool: since when, doing what, checked out where, and what each
executes at this moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolscope.detectors.diagnosis.describe import (
    lines_of,
    of_application,
    owner_of,
    place_of,
    seconds,
    statement_of,
    trace_id_of,
)
from poolscope.detectors.diagnosis.picture import DEPTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolscope.detectors.diagnosis.picture import Held

#: How many holders are named; the rest is counted.
MOST_HOLDERS: Final = 30
#: How long a report of them may become, in characters; holders beyond it are counted.
LONGEST_REPORT: Final = 32_000
# Characters of a statement and of a holder's line.
_LONGEST_STATEMENT: Final = 200
_LONGEST_LINE: Final = 1_000
#: What a connection is doing now, in words.
PHASES: Final = {"query": "running a query", "idle_in_transaction": "idle in a transaction", "idle": "idle"}


def line_of(held: Held, threads: dict[int, str]) -> str:
    """
    All that is known of a lease, in one line.

    Args:
        held: The lease.
        threads: Names of threads by their identifiers.
    """
    lease = held.lease
    parts = [
        f"{seconds(held.age)} by {owner_of(lease, threads)}, {PHASES[held.phase]}",
        blocked_part(held),
        f"checked out at {place_of(lease.origin)}",
        f"currently executing {place_of(held.stack)}" if held.stack else "",
        f"last ran {statement_of(lease)[:_LONGEST_STATEMENT]}" if lease.statement else "no query yet",
        f"leaked ({lease.leak})" if lease.leak else "",
        f"expected ({lease.excuse})" if lease.excuse else "",
        f"backend {lease.backend_process_id}" if lease.backend_process_id else "",
        f"trace {trace_id_of(lease)}" if lease.trace is not None else "",
    ]
    return "; ".join(part for part in parts if part)[:_LONGEST_LINE]


def blocked_part(held: Held) -> str:
    """How much of a hold its event loop was blocked by others, and where; empty where it was not."""
    lease = held.lease
    event_loops, began = lease.pool.event_loops, lease.acquired_at
    if event_loops is None or began is None:
        return ""
    overlap = event_loops.overlap_of(lease, began, began + held.age)
    place = f" at {place_of(overlap.stack)}" if overlap.stack else ""
    return f"its event loop was blocked{place} for {seconds(overlap.seconds)} of it" if overlap.seconds > 0 else ""


def stacks_of(held: Held) -> list[str]:
    """Where a lease was checked out and what its holder executes, a line for each frame."""
    origin = of_application(held.lease, held.lease.origin)
    lines = [
        *(f"      checked out:         {line}" for line in lines_of(origin[:DEPTH])),
        *(f"      currently executing: {line}" for line in lines_of(held.stack)),
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


def described(holders: Sequence[Held], count: int, threads: dict[int, str], room: int) -> Described:
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
    for held in holders[:MOST_HOLDERS]:
        line = line_of(held, threads)
        lines = [f"  held {line}", *stacks_of(held)]
        room -= sum(len(one) + 1 for one in lines)
        if room < 0:
            break
        each.append(line)
        report += lines
    omitted = max(0, count - len(each))
    return Described(each, [*report, f"and {omitted} more"] if omitted else report, omitted)
