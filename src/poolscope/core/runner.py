"""The background thread's own part: one thread, from its start to its end, and the runs that callers wait for."""

from __future__ import annotations

import _thread
import contextlib
import os
import queue
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two runs.
INTERVAL: Final = 0.2
#: Seconds to wait for a run that another caller has waited for, and given up.
LITTLE_PATIENCE: Final = 0.05
# Python 3.12 counts the system's threads at a fork, and a thread is joined a moment before the system has ended it.
_JOINED_EARLY: Final = sys.version_info[:2] == (3, 12)
_MOST_LOOKS, _BETWEEN_LOOKS = 50, 0.0002


#: Other threads of ours, which end soon by themselves; none of them forks.
helpers: Final[weakref.WeakSet[threading.Thread]] = weakref.WeakSet()

# What makes a lock, by its type.
_MAKERS: Final[dict[type, Callable[[], Any]]] = {_thread.LockType: threading.Lock, _thread.RLock: threading.RLock}


class Owner(Protocol):
    """Whose thread it is; held weakly, so that the thread ends with it."""

    def run(self, runner: Runner) -> None:
        """Do all there is to do."""

    def ended(self, runner: Runner) -> None:
        """The thread ends."""


class Request:
    """
    A run that a caller waits for.

    Args:
        then: Called after the tasks.
    """

    __slots__ = ("done", "then")

    def __init__(self, then: Callable[[], None] | None) -> None:
        self.then = then
        # A plain lock: other than an event, it may be waited for in a signal handler that has interrupted such a wait.
        self.done = threading.Lock()
        self.done.acquire(blocking=False)


class Runner:
    """
    One thread, from its start to its end.

    Args:
        owner: Whose it is.
    """

    def __init__(self, owner: Owner) -> None:
        # It may be put into from a signal handler. It is made with the thread: gevent replaces both at any time.
        self._wakes: Any = queue.SimpleQueue()
        self.leaving = False
        self.runs = 0
        self.gave_up_in = -1
        self.thread = threading.Thread(target=live, args=(weakref.ref(owner), self), name="poolscope", daemon=True)

    def wake(self) -> None:
        """Have a run now, and not only when it is time."""
        self._wakes.put(None)

    def wait(self) -> None:
        """Wait until it is time, or a caller wakes it."""
        with contextlib.suppress(queue.Empty):
            self._wakes.get(timeout=INTERVAL)
            while True:
                self._wakes.get_nowait()

    def patience(self, timeout: float) -> float:
        """How long to wait for it: hardly, where a caller has given up on what it still does."""
        return min(timeout, LITTLE_PATIENCE) if self.gave_up_in == self.runs else timeout

    def end(self, timeout: float) -> bool:
        """
        Have the thread end, and wait for it.

        Args:
            timeout: How long, in seconds.

        Returns:
            Whether it has ended. If not, it ends when it can, unless `leaving` is taken back before.
        """
        self.leaving = True
        self.wake()
        if self.thread is threading.current_thread():
            return True
        self.thread.join(timeout)
        if self.thread.is_alive():
            return False
        if _JOINED_EARLY:
            for _ in range(_MOST_LOOKS):
                if not os.path.exists(f"/proc/self/task/{self.thread.native_id}"):
                    break
                time.sleep(_BETWEEN_LOOKS)
        return True


def live(reference: weakref.ref[Owner], runner: Runner) -> None:
    """What the thread executes."""
    try:
        while not runner.leaving:
            runner.wait()
            owner = reference()
            if owner is None:
                return
            owner.run(runner)
            del owner
    finally:
        owner = reference()
        if owner is not None:
            owner.ended(runner)


def renew_locks(thing: object) -> None:
    """
    In a child process: make the locks of an object anew that are held, by a thread that is not there.

    Args:
        thing: What the background thread was inside of at the fork.
    """
    for name, value in tuple(getattr(thing, "__dict__", {}).items()):
        make = _MAKERS.get(type(value))
        if make is not None:
            if value.acquire(blocking=False):  # free, or held by the thread that is there
                value.release()
            else:
                setattr(thing, name, make())
