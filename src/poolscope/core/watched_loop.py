"""
One event loop that uses pools: its heartbeat, and what its thread was seen to execute while that was late: the loop's
own wait, or something that blocks it.
"""

from __future__ import annotations

import sys
import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.execution import task_in
from poolscope.core.guard import guard
from poolscope.core.libraries import KNOWN, is_in

if TYPE_CHECKING:
    from types import CodeType

    from poolscope.core import clock
    from poolscope.core.blocks import Block
    from poolscope.core.execution import TaskReference
    from poolscope.core.lease import Lease
    from poolscope.core.origin import RawStack
    from poolscope.types import LibraryObject

# Where the standard library's loops wait, and what runs them.
_WAITS: Final = (
    "/selectors.py",
    "/asyncio/base_events.py",
    "/asyncio/events.py",
    "/asyncio/runners.py",
    "/asyncio/selector_events.py",
    "/asyncio/proactor_events.py",
    "/asyncio/windows_events.py",
)
_CALLBACKS: Final = "/asyncio/events.py"
# From so many looks on that agree, a line is certain.
_CERTAIN: Final = 3
_MAJORITY: Final = 0.5


def is_waiting(stack: RawStack, outer: CodeType | None) -> bool:
    """
    Whether a loop's thread executes nothing but the loop itself: it waits in its selector, or is between two callbacks.

    Args:
        stack: What the thread executes, innermost first; empty when it has finished.
        outer: What the loop's callbacks are called from, where that is known. A loop that is compiled shows no frame of
            its own: it waits while the function that runs it is the innermost one.
    """
    if not stack:
        return True
    code = stack[0][0]
    return code is outer or is_in(code, *_WAITS, *KNOWN.loops)


def runs_callbacks(stack: RawStack) -> bool:
    """Whether a stack goes through a callback of one of the standard library's loops."""
    return any(code.co_name == "_run" and is_in(code, _CALLBACKS) for code, _ in stack)


def running_in(loop: LibraryObject) -> TaskReference | None:
    """The task that an event loop runs now, held weakly; None where it runs none, or that is not to be known."""
    if "asyncio.tasks" not in sys.modules:
        return None
    return guard.run("event_loops.task", lambda: task_in(loop), None)


def loop_of(lease: Lease) -> tuple[int | None, TaskReference | None]:
    """
    Which thread's event loop has to go on so that a lease is returned, or a pending checkout goes on, and in which
    task: its own, or the one of the request that a thread has checked it out for. None where it is none.
    """
    if lease.task is not None:
        return lease.thread, lease.task
    unit = lease.unit
    if unit is not None and unit.task is not None and unit.thread != lease.thread:
        return unit.thread, unit.task
    return None, None


class Samples:
    """What was seen of one block."""

    def __init__(self) -> None:
        #: How often the loop was seen to wait.
        self.waiting = 0
        self._stacks: dict[CodeType, tuple[int, RawStack]] = {}

    def add(self, stack: RawStack) -> None:
        """Something blocks the loop: from the application's innermost frame outwards."""
        count, _ = self._stacks.get(stack[0][0], (0, ()))
        self._stacks[stack[0][0]] = (count + 1, stack)

    def usual(self) -> tuple[RawStack, bool]:
        """
        What was seen in most looks, by function; empty when nothing was. And whether that is certain: it was seen three
        times and in half of all looks.
        """
        count, stack = max(self._stacks.values(), key=lambda seen: seen[0], default=(0, ()))
        looks = self.waiting + sum(seen for seen, _ in self._stacks.values())
        if count < _MAJORITY * looks:
            return (), False
        return stack, count >= _CERTAIN


class Beat:
    """One heartbeat: what a loop is asked to call."""

    __slots__ = ("_now", "outer", "ran", "sent", "thread")

    def __init__(self, now: clock.Clock) -> None:
        self._now = now
        self.sent = now()
        self.ran: float | None = None
        self.thread = 0
        self.outer: CodeType | None = None

    def __call__(self) -> None:
        """Be called by the loop."""
        self.thread = get_ident()
        self.outer = sys._getframe(1).f_code  # noqa: SLF001 - documented; what runs the loop's callbacks
        self.ran = self._now()  # last: whoever sees it may read the others


class WatchedLoop:
    """An event loop that uses pools; the background thread's."""

    def __init__(self, loop: LibraryObject, thread: int) -> None:
        self.reference: weakref.ref[Any] = weakref.ref(loop)
        self.thread = thread
        #: What runs its callbacks, once that is known.
        self.outer: CodeType | None = None
        #: Whether requests, tasks or jobs run in it: then others wait for it while it is blocked.
        self.serves = False
        self.busy_until = 0.0
        self.due_at = 0.0
        self.beat: Beat | None = None
        self.samples = Samples()
        self.block: Block | None = None
        #: When the block was last seen to last.
        self.looked_at = 0.0

    def forget_beat(self) -> None:
        """Begin anew, without a heartbeat."""
        self.beat = self.block = None
        self.samples = Samples()

    def end(self) -> None:
        """It does not run: what blocked it is over, though its heartbeat never came back."""
        if self.block is not None and self.block.ended is None:
            self.block.ended = max(self.looked_at, self.block.began)
            self.block.release()
        self.forget_beat()
