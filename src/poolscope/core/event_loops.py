"""
Event loops that use pools: a heartbeat for each, its lag, and the line that blocks a loop.

The background thread asks each running loop to call something (`call_soon_threadsafe`); the lag is the time until it
does. While a loop does not, its thread is looked at several times. A loop becomes known when a connection is made in
it, and by the tasks that hold or wait for connections. It is held weakly, and nothing is called in it but a heartbeat.
"""

from __future__ import annotations

import sys
import time
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from poolscope.core import clock
from poolscope.core.blocks import NO_OVERLAP, SHORTEST, Block, Blocks, Overlap, is_synchronous
from poolscope.core.execution import ThreadsNow
from poolscope.core.guard import guard
from poolscope.core.histogram import Distribution
from poolscope.core.libraries import KNOWN
from poolscope.core.origin import keep
from poolscope.core.watched_loop import Beat, WatchedLoop, is_waiting, loop_of, running_in, runs_callbacks
from poolscope.core.work import CURRENT_UNIT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from types import CodeType

    from poolscope.core.execution import TaskReference
    from poolscope.core.lease import Lease
    from poolscope.core.origin import Origins, RawStack
    from poolscope.core.pool import Pool
    from poolscope.core.watched_loop import Samples
    from poolscope.types import LibraryObject

#: Seconds between two heartbeats of a loop that waits, and between two looks at who uses loops. While a loop has
#: connections checked out, or was late, it gets one with each run of the background thread.
INTERVAL: Final = 1.0
# How often, and in what distance in seconds, a blocked loop's thread is looked at.
_LOOKS: Final = 5
_DISTANCE: Final = 0.01
# A block that lasts is reported after so many seconds, before its end.
_LASTING: Final = 2.0
# A line that was seen only once or twice in a block is believed when it is seen again within so many seconds.
_AGAIN: Final = 60.0
# Frames of a thread that are looked at, and frames kept of an application.
_SEARCH: Final = 80
_DEPTH: Final = 5


class EventLoops:
    """
    All loops that use pools.

    Args:
        now: The clock.
        bounds: Upper bounds of the histogram of lags, in seconds.
        origins: What tells the application's frames from those of libraries.
        heartbeat: Whether loops get heartbeats at all.
        threshold: From how many seconds on a block is reported; 0: never.
        on_block: Called in the background thread with each block that is to be reported.
        sleep: Waits, between two looks at a thread.
    """

    def __init__(
        self,
        now: clock.Clock = clock.monotonic,
        *,
        bounds: Sequence[float] = (),
        origins: Origins | None = None,
        heartbeat: bool = True,
        threshold: float = 0.25,
        on_block: Callable[[Block], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.on_block = on_block
        #: The kind of histogram to keep; to be set before the first tick.
        self.distribution: type[Distribution[Any]] = Distribution
        self._now = now
        self._bounds = tuple(bounds)
        self._origins = origins
        self._heartbeat = heartbeat
        self._threshold = threshold
        self._sleep = sleep
        self._start()

    def _start(self) -> None:
        self.lag: Distribution[Any] | None = None
        self._blocks = Blocks()
        self._loops: dict[int, WatchedLoop] = {}
        self._seen_once: dict[CodeType, float] = {}
        self._looked_at = float("-inf")

    def stop(self) -> None:
        """Poolscope ends: nothing of it is called in any loop from now on."""
        self._heartbeat = False

    def forget(self) -> None:
        """In a child process after a fork: the parent's loops do not run here."""
        self._start()

    # In the application's threads, on rare paths

    def connected(self) -> None:
        """A connection was made: if the running code is in an event loop, it uses pools."""
        events = sys.modules.get("asyncio.events")
        loop = events._get_running_loop() if events is not None and self._heartbeat else None  # noqa: SLF001 - see `running_task`
        if loop is not None:
            watched = self._watched(loop, get_ident())
            watched.serves = watched.serves or CURRENT_UNIT.get() is not None

    def waited(self, checkout: Lease) -> None:
        """
        A checkout of a task has waited, and has a connection or failed; its own thread calls this.

        A synchronous one has blocked its loop meanwhile. Of any other, the time in which the loop was blocked becomes
        the phase ``resume`` of its wait.

        Args:
            checkout: The checkout.
        """
        began, ended = checkout.requested_at, checkout.acquired_at or checkout.ended_at or self._now()
        if ended - began < SHORTEST or not self._heartbeat:
            return
        if KNOWN.switches.outwards(None)[1] is None:
            frame = sys._getframe(1)  # noqa: SLF001 - documented
            stack = keep(frame, _SEARCH)
            if is_synchronous(checkout, stack) and not self._went_on(checkout.thread, began, ended):
                self._blocks.add(Block(checkout.thread, began, ended, checkout.origin, checkout.task, is_checkout=True))
                return
        blocked = self.overlap(checkout.thread, began, ended, checkout.task).seconds
        checkout.resume_time = min(blocked, checkout.wait_phases()["queue"])
        checkout.pool.resumed.add(checkout.resume_time)

    # Anywhere

    def overlap(
        self,
        thread: int,
        began: float,
        ended: float,
        task: TaskReference | None = None,
        more: Iterable[Block] = (),
    ) -> Overlap:
        """
        How much of a span of time the loop of a thread was blocked; none where no loop is known there.

        Args:
            thread: The identifier of the loop's thread: of a lease that a task checked out, `Lease.thread`.
            began: The beginning of the span, in seconds of the clock.
            ended: Its end.
            task: A task whose own blocks do not count.
            more: Blocks that are known otherwise, as by `by_checkout`.
        """
        late = [block for block in map(self._late_beat, list(self._loops.values())) if block is not None]
        return self._blocks.overlap(thread, began, ended, task=task, more=(*late, *more))

    def overlap_of(self, lease: Lease, began: float, ended: float, more: Iterable[Block] = ()) -> Overlap:
        """
        The same for the loop that a lease or a pending checkout depends on: its task's, else that of the request which
        a thread has checked it out for. What the task itself does counts as none.
        """
        thread, task = loop_of(lease)
        return self.overlap(thread, began, ended, task, more) if thread is not None else NO_OVERLAP

    def reports(self, seconds: float) -> bool:
        """Whether a block of that length is reported."""
        return 0 < self._threshold <= seconds

    def by_checkout(self, pending: Lease) -> Block | None:
        """
        The block that a pending checkout is, if it is a synchronous one in an event loop: its task has not given way
        since it began.
        """
        task = pending.task() if pending.task is not None else None
        began, now = pending.requested_at, self._now()
        if (
            pending.acquired_at is not None
            or pending.ended_at is not None  # `waited` has seen to it
            or now - began < SHORTEST
            or not getattr(getattr(task, "get_coro", _nothing)(), "cr_running", False)
            or self._went_on(pending.thread, began, now)
        ):
            return None
        return Block(pending.thread, began, None, pending.origin, pending.task, is_checkout=True)

    def _went_on(self, thread: int, began: float, ended: float) -> bool:
        # Whether a loop ran a heartbeat within a span of time.
        beats = [watched.beat for watched in list(self._loops.values()) if watched.thread == thread]
        latest = [beat.ran for beat in beats if beat is not None and beat.ran is not None]
        return any(began < ran < ended for ran in latest) or self._blocks.ran(thread, began, ended)

    def _late_beat(self, watched: WatchedLoop) -> Block | None:
        # What the background thread has not looked at yet.
        beat = watched.beat
        if beat is None or watched.block is not None:
            return None
        block = Block(watched.thread, beat.sent, beat.ran)
        return block if block.seconds(self._now()) >= SHORTEST else None

    # In the background thread

    def tick(self, pools: Collection[Pool]) -> None:
        """
        Send heartbeats, measure those that came back, and look at the loops that are late.

        Args:
            pools: Every pool of the process.
        """
        if not self._heartbeat:
            return
        now = self._now()
        if now - self._looked_at >= INTERVAL:
            self._looked_at = now
            guard.run("event_loops.find", lambda: self._find(pools, now), None)
        late = []
        for identity in list(self._loops):
            watched = self._loops[identity]
            loop = watched.reference()
            if loop is None or loop.is_closed():
                self._loops.pop(identity, None)
                watched.end()
            elif watched.thread == get_ident() or not loop.is_running():
                watched.end()
            elif guard.run("event_loops.beat", lambda: self._attend(watched, loop), default=False):  # noqa: B023 - run at once
                late.append((watched, loop))
        if late:
            guard.run("event_loops.look", lambda: self._look(late, pools), None)

    def _watched(self, loop: LibraryObject, thread: int) -> WatchedLoop:
        watched = self._loops.get(id(loop))
        if watched is None or watched.reference() is not loop:
            watched = self._loops[id(loop)] = WatchedLoop(loop, thread)
        return watched

    def _find(self, pools: Iterable[Pool], now: float) -> None:
        for pool in pools:
            for lease in (*pool.pending.copy(), *pool.leases.copy()):
                task = lease.task() if lease.task is not None else None
                get_loop = getattr(task, "get_loop", None)
                if get_loop is not None:
                    watched = self._watched(get_loop(), lease.thread)
                    watched.busy_until = now + INTERVAL
                    watched.serves = watched.serves or lease.unit is not None
        self._seen_once = {code: moment for code, moment in self._seen_once.items() if now - moment <= _AGAIN}

    def _attend(self, watched: WatchedLoop, loop: LibraryObject) -> bool:
        # Whether its heartbeat is late.
        now, beat = self._now(), watched.beat
        if beat is not None:
            if beat.ran is None:
                return now - beat.sent >= SHORTEST
            self._came_back(watched, beat, beat.ran)
        if now < watched.due_at:
            return False
        watched.beat = Beat(self._now)
        try:
            loop.call_soon_threadsafe(watched.beat)
        except RuntimeError:  # it was closed meanwhile
            watched.forget_beat()
        return False

    def _came_back(self, watched: WatchedLoop, beat: Beat, ran: float) -> None:
        lag, block, samples = ran - beat.sent, watched.block, watched.samples
        watched.thread, watched.outer = beat.thread, beat.outer
        watched.forget_beat()
        is_busy = self._now() < watched.busy_until or lag >= SHORTEST
        watched.due_at = beat.sent + (0.0 if is_busy else INTERVAL)
        if self.lag is None:
            self.lag = self.distribution(self._bounds)
        self.lag.record(lag)
        self._blocks.beat(watched.thread, beat.sent, ran)
        if block is not None:
            block.ended = ran
            block.stack = self._believed(samples)
            self._report(watched, block)
            if not block.reported:
                block.release()
        elif lag >= SHORTEST:
            self._blocks.add(Block(watched.thread, beat.sent, ran))

    def _believed(self, samples: Samples) -> RawStack:
        stack, certain = samples.usual()
        if certain or not stack:
            return stack
        # It ended while it was looked at: it may have been long, or all of the process was slow. Twice is no accident.
        code = stack[0][0]
        if self._seen_once.pop(code, None) is not None:
            return stack
        self._seen_once[code] = self._now()
        return ()

    def _look(self, late: Sequence[tuple[WatchedLoop, LibraryObject]], pools: Iterable[Pool]) -> None:
        looks = _LOOKS if any(watched.block is None for watched, _ in late) else 1
        for number in range(looks):
            if number:
                self._sleep(_DISTANCE)
            with ThreadsNow() as frames:
                for watched, loop in late:
                    self._look_at(watched, loop, keep(frames.get(watched.thread), _SEARCH))
        for watched, loop in late:
            beat, block = watched.beat, watched.block
            if beat is None:
                continue
            if block is None:
                block = watched.block = Block(watched.thread, beat.sent, task=running_in(loop))
                block.hold_up(pools)
                self._blocks.add(block)
            block.ended, watched.looked_at = beat.ran, self._now()
            stack, certain = watched.samples.usual()
            block.stack = stack if certain else ()
            if block.seconds(self._now()) >= _LASTING:
                self._report(watched, block)

    def _look_at(self, watched: WatchedLoop, loop: LibraryObject, stack: RawStack) -> None:
        beat = watched.beat
        if beat is None or beat.ran is not None or not loop.is_running():
            return
        if is_waiting(stack, watched.outer) or (watched.outer is None and not runs_callbacks(stack)):
            watched.samples.waiting += 1
        else:
            watched.samples.add(self._origins.trim(stack)[:_DEPTH] if self._origins is not None else stack[:_DEPTH])

    def _report(self, watched: WatchedLoop, block: Block) -> None:
        if (
            not block.reported
            and self.on_block is not None
            and self.reports(block.seconds(self._now()))
            and block.stack
            and (watched.serves or block.held_up)
        ):
            block.reported = True
            self.on_block(block)


def _nothing() -> None:
    return None
