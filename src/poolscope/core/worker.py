"""
The one background thread: it does what must not be done in the application's threads.

It may get stuck: in a log handler whose stream is not read, in an exporter whose endpoint does not answer. So no
thread waits for it without a deadline, and what it does is done in no other thread: who needs it done asks for a run
and waits for a while. What is not done by then is left undone, and counted.

A child process inherits every lock that the thread holds at a fork, and no thread that would release it. So the thread
ends before a fork, and starts again when it is needed.
"""

from __future__ import annotations

import _thread
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.log_lines import log_lines
from poolscope.core.runner import LITTLE_PATIENCE, Request, Runner, helpers, live, renew_locks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_logger: Final = logging.getLogger("poolscope")

#: Seconds that the end of a process, of poolscope, or a flush waits for a run; tests have more of it.
PATIENCE = 1.0
#: Seconds that a fork waits for the thread to end.
FORK_PATIENCE = 1.0
# Seconds that a fork waits for another thread of ours, such as one that asks the server.
_HELPERS_PATIENCE: Final = 0.5
# Seconds until a thread that could not be started is tried again.
_RETRY_INTERVAL: Final = 1.0

_workers: Final[weakref.WeakSet[Worker]] = weakref.WeakSet()


class Worker:
    """
    Calls its tasks every `INTERVAL` from a daemon thread, which starts with the first `start()`.

    Args:
        tasks: What to call, in order; each under the guard.
        on_missing: Called when there is no thread any more although it should run, as after a fork: it is to
            call `start()` when there is something to do. Without it, the thread starts at once.
        is_needed: Whether it should start at once all the same.
    """

    def __init__(
        self,
        *tasks: tuple[str, Callable[[], None]],
        on_missing: Callable[[], None] | None = None,
        is_needed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tasks = tasks
        self._on_missing = on_missing
        self._is_needed = is_needed
        self._wanted = self._stopping = self._idle_child = False
        self._runner: Runner | None = None
        self._stuck: tuple[Any, ...] = ()
        self._left: weakref.ref[Runner] | None = None
        self._forks = 0
        self._try_at = float("-inf")
        self._failed = False
        self._renew()
        _workers.add(self)

    def _renew(self) -> None:
        self._requests: deque[Request] = deque()
        self._starting = threading.Lock()
        self._inline = threading.RLock()

    def start(self) -> bool:
        """
        Start the thread if it does not run; one that cannot be started is tried again by a call a second later.

        Returns:
            Whether it runs.
        """
        self._wanted = True
        return self._begin()

    def start_aside(self) -> None:
        """Have the thread started by another one: in a signal handler, which may have interrupted a start."""
        if self._wanted and self._runner is None:
            try:
                _thread.start_new_thread(self._begin, ())
            except RuntimeError:  # there is none to be had now
                return

    def is_leaving(self) -> bool:
        """Whether a task is to come to an end: a caller waits for the thread's end."""
        runner = self._runner
        return runner is not None and runner.leaving

    def run_once(self, timeout: float | None = None, then: Callable[[], None] | None = None) -> bool:
        """
        Have all tasks called once, from now on, and wait for that: in the thread where it runs or should, else here.

        Args:
            timeout: How long to wait, in seconds; `PATIENCE` when left out.
            then: Called after the tasks, in the same thread.

        Returns:
            Whether they were called. If not, they will be when the thread is no longer stuck.
        """
        runner = self._runner
        if runner is None and self._wanted:
            self._begin()
            runner = self._runner
            if runner is None and not self._forks:
                guard.count_quietly("worker.missing")
                return False
        timeout = PATIENCE if timeout is None else timeout
        if not self._wanted or (runner is not None and runner.thread is threading.current_thread()):
            return self._run_here(timeout, then)
        request = Request(then)
        self._requests.append(request)
        if runner is not None:
            runner.wake()
            timeout = runner.patience(timeout)
        if request.done.acquire(timeout=timeout):
            return True
        if runner is not None:
            runner.gave_up_in = runner.runs
        guard.count_quietly("worker.late")
        return False

    def stop(self, timeout: float | None = None) -> bool:
        """
        Have all tasks called a last time, and end the thread. A second call does nothing: a task may be the caller.

        Args:
            timeout: How long to wait, in seconds; `PATIENCE` when left out.

        Returns:
            Whether that is done. If not, the thread is stuck, and ends when it no longer is.
        """
        if not self._wanted or self._stopping:
            return True
        self._stopping = True
        try:
            done = self._idle_child or self.run_once(timeout)
        finally:
            self._wanted = self._stopping = False
            runner, self._runner = self._runner, None
            self._left = weakref.ref(runner) if runner is not None else None
        return (runner is None or runner.end(FORK_PATIENCE if done else LITTLE_PATIENCE)) and done

    def stuck(self) -> tuple[Any, ...]:
        """What the thread is inside of: the objects whose methods it executes, innermost first; none if it ended."""
        runner = self._runner or (self._left() if self._left is not None else None)
        if runner is None or not runner.thread.is_alive():
            return ()
        frame = sys._current_frames().get(runner.thread.ident or 0)  # noqa: SLF001 - documented
        found = []
        while frame is not None:
            code = frame.f_code
            if code.co_argcount and frame.f_code is not live.__code__:
                found.append(frame.f_locals.get(code.co_varnames[0]))
            frame = frame.f_back
        return tuple(found)

    def _run_here(self, timeout: float, then: Callable[[], None] | None) -> bool:
        if not self._inline.acquire(timeout=timeout):
            return False
        try:
            self._call((Request(then),), None)
        finally:
            self._inline.release()
        return True

    def _call(self, requests: Sequence[Request], runner: Runner | None) -> bool:
        for component, task in self._tasks:
            if runner is not None and runner.leaving:
                return False
            guard.run(component, task, None)
        for request in requests:
            if request.then is not None:
                guard.run("worker.then", request.then, None)
            request.done.release()
        return True

    # In the thread

    def run(self, runner: Runner) -> None:
        """Call the tasks, for all who have asked for it by now."""
        requests = _taken(self._requests)
        done = False
        try:
            done = self._call(requests, runner)
        finally:
            runner.runs += 1
            if not done:  # the next thread's
                self._requests.extendleft(reversed(requests))

    def ended(self, runner: Runner) -> None:
        """There is no thread any more."""
        if self._runner is runner:
            self._runner = None
            if self._wanted and not self._forks and not runner.leaving:
                self._missing()  # something raised what is no error, such as SystemExit; or a fork gave up on its end

    # Its start, and its end around a fork

    def _begin(self) -> bool:
        now = time.monotonic()
        if self._runner is not None:
            return True
        if now < self._try_at or not self._starting.acquire(blocking=False):
            return False  # or another thread starts it just now
        runner = None
        try:
            if not self._forks and self._runner is None:
                self._try_at = now + _RETRY_INTERVAL
                runner = Runner(self)
                runner.thread.start()
                self._try_at = float("-inf")
                self._runner = runner if runner.thread.is_alive() else None
                self._idle_child = False
                if not self._wanted:  # it was stopped meanwhile
                    self._runner = None
                elif self._requests:
                    runner.wake()
        except RuntimeError as error:
            # No thread is to be had, or the interpreter ends.
            if not self._failed and not self._stopping:
                self._failed = True
                text = "poolscope cannot start its thread, and tries again every second: %s"
                log_lines.write(_logger, logging.WARNING, text, error)
            return False
        finally:
            if runner is not None and self._runner is not runner:  # it was stopped, or an interrupt came
                runner.leaving = True
            self._starting.release()
        return self._runner is not None

    def _missing(self) -> None:
        if self._on_missing is not None:
            guard.run("worker.missing", self._on_missing, None)
        else:
            self._begin()

    def before_fork(self) -> None:
        """The thread ends, so that it has no lock. One that forks itself, or is stuck, stays."""
        self._forks += 1
        if self._starting.acquire(timeout=FORK_PATIENCE):  # another thread may be starting it
            self._starting.release()
        runner = self._runner
        if runner is not None and runner.thread is not threading.current_thread():
            timeout = runner.patience(FORK_PATIENCE)
            if runner.end(timeout):
                self._runner = None
            else:
                runner.gave_up_in = runner.runs
                self._stuck = self.stuck()

    def after_fork_in_parent(self) -> None:
        """It starts again when it is needed; one that was stuck goes on."""
        self._forks = max(0, self._forks - 1)
        if self._forks:
            return
        self._stuck = ()
        runner = self._runner
        if runner is not None:
            runner.leaving = False
        elif self._wanted:
            self._missing()
            if self._requests or self._is_needed():
                self.start_aside()

    def after_fork_in_child(self) -> None:
        """The thread did not come along, and a lock may be held for ever."""
        runner, self._runner = self._runner, None
        self._forks, self._stopping, self._idle_child, self._left = 0, False, True, None
        self._renew()
        stuck, self._stuck = self._stuck, ()
        for thing in stuck:
            guard.run("worker.locks", partial(renew_locks, thing), None)
        if runner is not None and runner.thread is threading.current_thread():
            runner.leaving = True  # it forked itself: it is the child's only thread, and no background thread any more
        elif self._wanted:
            self._missing()


def _taken(requests: deque[Request]) -> list[Request]:
    taken = []
    while requests:
        taken.append(requests.popleft())
    return taken


def _each(method: Callable[[Worker], None]) -> Callable[[], None]:
    def call() -> None:
        for worker in list(_workers):
            guard.run("worker.fork", partial(method, worker), None)
        if method is Worker.before_fork:  # last: the thread makes them, and waits for none
            for thread in list(helpers):  # one that a stuck thread has not started yet cannot be waited for
                guard.run("worker.fork", partial(thread.join, _HELPERS_PATIENCE), None)

    return call


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_each(Worker.before_fork),
        after_in_parent=_each(Worker.after_fork_in_parent),
        after_in_child=_each(Worker.after_fork_in_child),
    )
