"""The one background thread: it does what must not be done in the application's threads."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Final

from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two runs.
INTERVAL: Final = 0.2

_workers: Final[weakref.WeakSet[Worker]] = weakref.WeakSet()


class Worker:
    """
    Calls its tasks every `INTERVAL` from a daemon thread, which starts with the first `start()` and again after a fork.

    Args:
        tasks: What to call, in order; each under the guard.
    """

    def __init__(self, *tasks: tuple[str, Callable[[], None]]) -> None:
        self._tasks = tasks
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._running = threading.RLock()
        _workers.add(self)

    def start(self) -> None:
        """Start the thread if it does not run."""
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=_run, args=(weakref.ref(self), self._stop), name="poolscope", daemon=True
            )
            self._thread.start()

    def run_once(self) -> None:
        """Run all tasks once, now, in the calling thread; returns when they are done."""
        with self._running:
            for component, task in self._tasks:
                guard.run(component, task, None)

    def stop(self, timeout: float = 5.0) -> None:
        """
        Stop the thread and run all tasks a last time. A second call does nothing: a task may be the caller.

        Args:
            timeout: How long to wait for the current run, in seconds.
        """
        if self._stop.is_set():
            return
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        self.run_once()

    def after_fork(self) -> None:
        """In the child: the thread did not come along, and a lock may be held forever."""
        ran, self._thread = self._thread is not None, None
        self._running = threading.RLock()
        if ran:
            self.start()


def _run(reference: weakref.ref[Worker], stop: threading.Event) -> None:
    while not stop.wait(INTERVAL):
        worker = reference()
        if worker is None:
            return
        worker.run_once()
        del worker


def _after_fork() -> None:
    for worker in list(_workers):
        worker.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
