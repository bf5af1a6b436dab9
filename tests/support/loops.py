"""
An event loop as far as heartbeats see it: a thread that runs what it is asked to when the test says so. And how a test
knows of a real one that it goes on.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any

from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.core.execution import stack_of_thread
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
    The loop; `event_loop` starts it.

    Args:
        pool: The pool that its tasks use.
    """

    def __init__(self, pool: Pool) -> None:
        self.running = True
        self.closed = False
        self.callbacks: list[Callable[[], None]] = []
        self.tasks: list[Task] = []
        self._pool = pool
        self._jobs: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._go_on = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)

    def start(self) -> None:
        """Start its thread."""
        self._thread.start()

    def stop(self) -> None:
        """Wait for its thread to end."""
        self._go_on.set()
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._results.put(job())

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
        self._jobs.put(job)
        return self._results.get(timeout=60)

    def turn(self) -> None:
        """Run what was to be run soon."""
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            self.do(callback)

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
        self._jobs.put(lambda: line(at)(self._go_on.wait))
        wait_until(
            lambda: any(code.co_name == at for code, _ in stack_of_thread(self._ident(), 9)), 60, "it executes it"
        )

    def _ident(self) -> int:
        assert self._thread.ident is not None
        return self._thread.ident

    def unblock(self) -> None:
        """The line has been executed."""
        self._go_on.set()
        self._results.get(timeout=60)


@contextlib.contextmanager
def event_loop(pool: Pool) -> Iterator[Loop]:
    """A loop whose tasks use a pool; its thread ends with the block."""
    loop = Loop(pool)
    loop.start()
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
