"""
A memory of recent blocks of event loops: when, for how long, and at which line; and how much of a hold or a wait they
took.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.core.execution import TaskReference
    from poolscope.core.lease import Lease
    from poolscope.core.origin import RawStack
    from poolscope.core.pool import Pool

#: A loop that comes back later than this was blocked, in seconds. Below lie the usual delays of threads and callbacks.
SHORTEST: Final = 0.05
#: Leases and pending checkouts that a block names.
MOST_HELD_UP: Final = 30
# Blocks and heartbeats kept; at five a second the latter last for two minutes.
_MOST_BLOCKS: Final = 500
_MOST_BEATS: Final = 2_000
# From so many heartbeats on, the share of late ones is an estimate.
_FEWEST_BEATS: Final = 3
# Where less than this share of the blocked time was seen to be at a line, it is not known what blocks.
_KNOWN: Final = 0.5
_MAJORITY: Final = 0.5
_AWAITABLE: Final = CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE


@dataclass(eq=False)
class Block:
    """
    A time in which an event loop ran nothing but one thing.

    Args:
        thread: The identifier of the loop's thread.
        began: Since when at least, in seconds of the clock.
        ended: Until when at least; None while it lasts.
        stack: What the thread executed, from the application's innermost frame outwards; empty where that is not known.
        task: The task that blocks, where that is known.
        is_checkout: Whether it is a synchronous checkout that waits.
        by: A lease or pending checkout of the task that blocks, if it has one; until it is reported.
        held_up: Leases and pending checkouts of the loop's other tasks; until it is reported.
        reported: Whether it has been reported.
    """

    thread: int
    began: float
    ended: float | None = None
    stack: RawStack = ()
    task: TaskReference | None = None
    is_checkout: bool = False
    by: Lease | None = None
    held_up: tuple[Lease, ...] = ()
    reported: bool = False

    def seconds(self, now: float) -> float:
        """How long it lasts, or lasted."""
        return max(0.0, (now if self.ended is None else self.ended) - self.began)

    def hold_up(self, pools: Iterable[Pool]) -> None:
        """See what it holds up, `MOST_HELD_UP` at the most."""
        found: list[Lease] = []
        for pool in pools:
            for lease in (*pool.pending.copy(), *pool.leases.copy()):
                if lease.task is None or lease.thread != self.thread:
                    continue
                if self.task is None or lease.task is not self.task:
                    found.append(lease)
                elif self.by is None or lease.acquired_at is None:
                    self.by, self.is_checkout = lease, lease.acquired_at is None
        self.held_up = tuple(sorted(found, key=lambda lease: lease.requested_at)[:MOST_HELD_UP])

    def release(self) -> None:
        """Keep no lease any longer: each refers to its pool, its request and its span."""
        self.by, self.held_up = None, ()


class Overlap(NamedTuple):
    """
    How much of a span of time an event loop was blocked.

    Args:
        seconds: For how long, at least.
        share: The share of the span, from 0 to 1: what was seen, or what the heartbeats within it estimate.
        stack: What blocked it most, from the application's innermost frame outwards; empty where that is not known.
        is_checkout: Whether that is a synchronous checkout that waits.
        longest: For how long that did so at once, in seconds; also beyond the span.
    """

    seconds: float = 0.0
    share: float = 0.0
    stack: RawStack = ()
    is_checkout: bool = False
    longest: float = 0.0

    @property
    def explains(self) -> bool:
        """Whether the span is so long because of what blocked the loop: for half of it or more, at a known line."""
        return self.share >= _MAJORITY and bool(self.stack)


# The part of a block that is within a span of time: its beginning and its end, and the block.
_Span = tuple[float, float, Block]

#: Of a span in which no loop was blocked.
NO_OVERLAP: Final = Overlap()


class Blocks:
    """The memory. Threads append, each by one atomic operation; readers copy."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque(maxlen=_MOST_BLOCKS)
        self._beats: deque[tuple[int, float, float]] = deque(maxlen=_MOST_BEATS)

    def add(self, block: Block) -> None:
        """Keep a block."""
        self._blocks.append(block)

    def beat(self, thread: int, sent: float, ran: float) -> None:
        """Keep a heartbeat: of which loop's thread, when it was sent and when the loop ran it."""
        self._beats.append((thread, sent, ran))

    def ran(self, thread: int, began: float, ended: float) -> bool:
        """Whether a loop ran a heartbeat within a span of time."""
        return any(of == thread and began < moment < ended for of, _, moment in self._beats.copy())

    def overlap(
        self, thread: int, began: float, ended: float, *, task: TaskReference | None = None, more: Iterable[Block] = ()
    ) -> Overlap:
        """
        How much of a span of time the loop of a thread was blocked.

        Args:
            thread: The identifier of the loop's thread.
            began: The beginning of the span, in seconds of the clock.
            ended: Its end.
            task: A task whose own blocks do not count, as they are its own work.
            more: Blocks that are not in memory yet.
        """
        own: list[_Span] = []
        others: list[_Span] = []
        for one in (*self._blocks.copy(), *more):
            start, end = max(began, one.began), ended if one.ended is None else min(ended, one.ended)
            if one.thread == thread and start < end:
                (own if task is not None and one.task is task else others).append((start, end, one))
        seconds = max(0.0, _union([*others, *own]) - _union(own))
        if not seconds:
            return NO_OVERLAP
        share = seconds / (ended - began)
        known = [one for one in others if one[2].stack]
        if _union(known) < _KNOWN * seconds:
            return Overlap(seconds, min(1.0, share))
        if not own:
            share = max(share, self._late(thread, began, ended))
        worst = _worst(known)
        return Overlap(seconds, min(1.0, share), worst.stack, worst.is_checkout, worst.seconds(ended))

    def _late(self, thread: int, began: float, ended: float) -> float:
        # Heartbeats are sent without regard to what the loop does: as many of them are late as it is blocked.
        beats = [ran - sent for of, sent, ran in self._beats.copy() if of == thread and began <= sent <= ended]
        return sum(lag >= SHORTEST for lag in beats) / len(beats) if len(beats) >= _FEWEST_BEATS else 0.0


def _union(spans: Iterable[_Span]) -> float:
    total, until = 0.0, float("-inf")
    for start, end in sorted((start, end) for start, end, _ in spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _worst(spans: Sequence[_Span]) -> Block:
    # Of one line all blocks count together.
    by_line: dict[object, float] = {}
    for start, end, block in spans:
        by_line[block.stack[:1]] = by_line.get(block.stack[:1], 0.0) + end - start
    return max(spans, key=lambda one: (by_line[one[2].stack[:1]], one[1] - one[0]))[2]


def is_synchronous(checkout: Lease, stack: RawStack) -> bool:
    """
    Whether a checkout keeps its thread until it has a connection: between the application's frame and the pool nothing
    is awaited.

    Args:
        checkout: A checkout that waits, or has just failed or succeeded.
        stack: What its thread executes at that moment, innermost first.
    """
    packed = checkout.packed_stack
    for code, _ in stack:
        if packed and code is packed[0]:
            return True
        if code.co_flags & _AWAITABLE:
            return False
    return False
