"""
An event loop as far as heartbeats see it: a thread that runs what it is asked to when the test says so. And how a test
knows of a real one that it goes on.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Any

from examples.lab.processes import wait_until
from poolscope import semconv
from tests.support.actors import ThreadActor, executes
from tests.support.scene import line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from tests.support.telemetry import Telemetry


class Task:
    """A task of a loop; it is suspended."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def get_loop(self) -> Loop:
        return self._loop

    def get_coro(self) -> None:
        return None

    def get_name(self) -> str:
        return "task of the test"

    def done(self) -> bool:
        return False


class Loop:
    """
    The loop; `event_loop` ends its thread.

    Args:
        pool: The pool that its tasks use.
    """

    def __init__(self, pool: Pool) -> None:
        self.running = True
        self.closed = False
        self.callbacks: list[Callable[[], None]] = []
        self.tasks: list[Task] = []
        self._pool = pool
        self._actor = ThreadActor()
        self._go_on = threading.Event()

    def stop(self) -> None:
        """Wait for its thread to end."""
        self._go_on.set()
        self._actor.ends()

    # What poolscope calls

    def is_running(self) -> bool:
        return self.running

    def is_closed(self) -> bool:
        return self.closed

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.callbacks.append(callback)

    # What the test does

    def do(self, job: Callable[[], Any]) -> Any:
        """Have the thread do something, and wait for it."""
        return self._actor.does(job)

    def turn(self) -> None:
        """Run what was to be run soon."""
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            self._actor.put(callback)  # from where the thread waits, as a loop does
        self.do(lambda: None)

    def begin_checkout(self, at: str = "view") -> Lease:
        """A task begins a checkout, at a line of the application."""
        task = Task(self)
        self.tasks.append(task)

        def hook() -> Lease:
            return self._pool.checkout()

        lease: Lease = self.do(lambda: line(at)(hook))
        lease.task = weakref.ref(task)
        return lease

    def checkout(self, at: str = "view") -> Lease:
        """A task checks out, at a line of the application."""
        lease = self.begin_checkout(at)
        self.do(lease.acquired)
        return lease

    def block(self, at: str = "work") -> None:
        """The thread executes a line of the application until `unblock`, and nothing else."""
        self._go_on.clear()
        self._actor.put(lambda: line(at)(self._go_on.wait))
        wait_until(lambda: executes(self._actor.thread, at), 60, "it executes it")

    def unblock(self) -> None:
        """The line has been executed."""
        self._go_on.set()
        self._actor.does(lambda: None)


@contextlib.contextmanager
def event_loop(pool: Pool) -> Iterator[Loop]:
    """A loop whose tasks use a pool; its thread ends with the block."""
    loop = Loop(pool)
    try:
        yield loop
    finally:
        loop.stop()


def wait_for_heartbeats(telemetry: Telemetry) -> None:
    """Wait for two heartbeats to come back, of which the second was sent meanwhile: no event loop is blocked."""

    def heartbeats() -> int:
        return telemetry.collect().counts(semconv.EVENT_LOOP_LAG).get("", 0)

    before = heartbeats()
    wait_until(lambda: heartbeats() >= before + 2, 60, "heartbeats to come back")
