"""Blocked event loops: for how long, at which line, and what they held up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.blocks import MOST_HELD_UP, NO_OVERLAP
from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP, BY_CHECKOUT
from poolscope.core.finding import Finding, UnitLabel
from poolscope.detectors.detector import Detector, Occurrence, Waited, mark
from poolscope.detectors.diagnosis.describe import lines_of, owner_of, place_of, seconds, thread_names, trace_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from poolscope.core.blocks import Block, Overlap
    from poolscope.core.finding import Evidence
    from poolscope.core.lease import Lease
    from poolscope.detectors.detector import Context


class BlockedEventLoopDetector(Detector[Waited, "Block"]):
    """Takes the blocks that are to be reported from `EventLoops`."""

    kinds = (BLOCKED_EVENT_LOOP,)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._now = context.now
        if context.event_loops is not None:
            context.event_loops.on_block = self.keep

    def diagnose(self, seen: Block) -> Iterator[Occurrence]:
        """One block; of one line the first is described."""
        duration = seen.seconds(self._now())
        by, held_up = seen.by, seen.held_up
        seen.release()
        for lease in (*held_up, *((by,) if by is not None else ())):
            mark(lease, BLOCKED_EVENT_LOOP)
        place = (BLOCKED_EVENT_LOOP, seen.stack[:1])
        yield Occurrence(place, lambda repeated: found(seen, duration, by, held_up, repeated))


def overlap_of(lease: Lease) -> Overlap:
    """How much of a hold its event loop was blocked by others; up to now for a lease that has not ended."""
    event_loops, began = lease.pool.event_loops, lease.acquired_at
    if event_loops is None or began is None:
        return NO_OVERLAP
    return event_loops.overlap_of(lease, began, lease.ended_at or lease.pool.now())


def explains(lease: Lease) -> bool:
    """
    Whether a hold took as long as it did since others blocked its event loop for half of it or more, at a line, and for
    so long at once that this is reported.
    """
    overlap, event_loops = overlap_of(lease), lease.pool.event_loops
    return overlap.explains and event_loops is not None and event_loops.reports(overlap.longest)


def evidence_of(lease: Lease) -> dict[str, Evidence]:
    """How much of a hold its event loop was blocked, and where; empty where it was not."""
    overlap = overlap_of(lease)
    if overlap.seconds <= 0:
        return {}
    place = {"event_loop_blocked_at": place_of(overlap.stack)} if overlap.stack else {}
    return {"event_loop_blocked": overlap.seconds, **place}


def found(block: Block, duration: float, by: Lease | None, held_up: Sequence[Lease], repeated: int = 0) -> Finding:
    """
    Put a block in words.

    Args:
        block: The block.
        duration: For how long it lasts or lasted, in seconds.
        by: A lease or pending checkout of the task that blocks, if it has one.
        held_up: Leases and pending checkouts of the loop's other tasks.
        repeated: How many more of its line were found since the last report.
    """
    kind = KINDS[BLOCKED_EVENT_LOOP]
    threads = thread_names()
    fix = kind.fix_for(BY_CHECKOUT if block.is_checkout else "")
    thread = threads.get(block.thread, str(block.thread))
    lasts = "was blocked for" if block.ended is not None else "has been blocked for"
    what = "a synchronous checkout" if block.is_checkout else "synchronous work"
    whose = f" of {owner_of(by, threads)}" if by is not None else ""
    count = f"{len(held_up)} or more" if len(held_up) >= MOST_HELD_UP else str(len(held_up))
    summary = (
        f"the event loop of thread {thread} {lasts} {seconds(duration)} by {what}{whose} at {place_of(block.stack)}; "
        f"{_what_is(held_up, count)}"
    )
    lines = lines_of(block.stack)
    holders = [_line(lease, threads) for lease in held_up]
    report = (summary, *(f"      executing: {line}" for line in lines), *(f"  held up: {one}" for one in holders))
    pool = by.pool if by is not None else held_up[0].pool if held_up else None
    return Finding(
        kind,
        kind.severity,
        summary,
        fix,
        pool=pool.identity if pool is not None else None,
        evidence={
            "blocked": duration,
            "event_loop_thread": thread,
            "stack": lines,
            "held_up": len(held_up),
            "holders": holders,
            "repeated": repeated,
        },
        unit=UnitLabel(by.unit.kind, by.unit.name) if by is not None and by.unit is not None else None,
        origin=block.stack[0],
        trace=trace_of(by) if by is not None else None,
        report="\n".join((*report, f"fix: {fix}")),
    )


def _what_is(held_up: Sequence[Lease], count: str) -> str:
    if not held_up:
        return "no other task of it had a connection or waited for one"
    pools = sorted({lease.pool.identity.name for lease in held_up})
    return f"it held up {count} {'lease or checkout' if count == '1' else 'leases and checkouts'} of {', '.join(pools)}"


def _line(lease: Lease, threads: dict[int, str]) -> str:
    does = "waits for" if lease.acquired_at is None else "holds"
    return (
        f"{owner_of(lease, threads)} {does} a connection of {lease.pool.identity.name}, from {place_of(lease.origin)}"
    )
