"""A thread that does what it is given, one after the other."""

from __future__ import annotations

import queue
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    _Todo = queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class Beside:
    """
    The thread. It ends with `end`, or when no code has this any more. An executor is none: its locks are those of all
    executors, and a test may stop a thread that holds one.

    Args:
        name: The thread's.
    """

    def __init__(self, name: str) -> None:
        self._todo: _Todo = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._todo,), name=name, daemon=True)
        self._thread.start()
        weakref.finalize(self, self._todo.put, None).atexit = False

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Have a function called there."""
        done: Future[Any] = Future()
        self._todo.put((done, function))
        return done

    def end(self, timeout: float) -> None:
        """
        End the thread.

        Args:
            timeout: How long to wait for that, in seconds.
        """
        self._todo.put(None)
        self._thread.join(timeout)


def _work(orders: _Todo) -> None:
    while (todo := orders.get()) is not None:
        done, call = todo
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)
        del todo, done, call  # what it returned is the caller's
