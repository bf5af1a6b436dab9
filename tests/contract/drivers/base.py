"""What the laws ask of a pool library: one driver for each kind of pool, sync and async alike."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from abc import ABC, abstractmethod
from concurrent.futures import Future
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, ClassVar

from examples.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.adapters.base import Capability

_NUMBERS = itertools.count(1)

#: Seconds that a call into a library may take before the test gives it up: only a call that hangs takes so long.
DEADLINE = 60.0


class Feature(Flag):
    """
    What a library's pool can do; a law that needs more is left out for it. What poolscope can measure of it is not
    said here: that is the adapter's `Capability`.
    """

    NONE = 0
    LIMIT = auto()  # it has a limit, and a checkout beyond it waits for the pool's timeout
    WAITS = auto()  # a checkout beyond its limit waits, until it is served, cancelled or timed out
    REJECTS = auto()  # a checkout beyond its limit is turned away at once
    CANCEL = auto()  # a checkout that waits can be cancelled
    INVALIDATE = auto()  # a connection that is checked out can be declared broken
    SOFT_INVALIDATE = auto()  # likewise, to be replaced at its next use
    DETACH = auto()  # a connection that is checked out can leave the pool for good
    DISPOSE = auto()  # the pool can be closed while connections are checked out; it works on afterwards
    ABANDON = auto()  # a connection that is dropped goes back to the pool, or is found missing
    REPEATED_RELEASE = auto()  # a second return is allowed
    POOLED = auto()  # a connection that is returned stays open
    MANY = auto()  # several callers can have one at once
    SHARED = auto()  # and it is the same connection
    STATEMENTS = auto()  # statements pass through the library, which cursors of SQLAlchemy's raw connections do not


class Handle:
    """
    What a caller holds; the only reference to the library's connection.

    Args:
        connection: The library's connection, or its proxy.
        call: Runs a function where this connection may be used.
    """

    __slots__ = ("__weakref__", "call", "connection")

    def __init__(self, connection: Any, call: Callable[..., Any]) -> None:
        self.connection = connection
        self.call = call


class PendingCheckout(ABC):
    """A checkout that was begun in a thread or task of its own."""

    _done: Future[Any]

    def over(self) -> bool:
        """Whether `wait` has nothing more to wait for."""
        return self._done.done()

    @abstractmethod
    def wait(self) -> Handle:
        """Its result: the handle, or the library's exception."""

    @abstractmethod
    def cancel(self) -> None:
        """Cancel it; where `Feature.CANCEL` is."""


class Driver(ABC):
    """One kind of pool of one library. Every method may be called from the test's thread, also for an async library."""

    #: What the test is called.
    label: ClassVar[str]
    #: The adapter that the pool belongs to.
    adapter: ClassVar[str]
    features: ClassVar[Feature]
    #: Whether asks that are made at the same moment may hang in the library itself.
    stalls: ClassVar[bool] = False
    #: Whether several threads may ask at the same moment.
    threads: ClassVar[bool] = True
    #: Whether it needs a PostgreSQL.
    on_postgres: ClassVar[bool] = False
    #: Whether each caller is in a thread of its own.
    holds_in_threads: ClassVar[bool] = False
    #: Whether the library distinguishes a connection that is checked out from one that is not.
    tells_what_is_out: ClassVar[bool] = True

    def __init__(self) -> None:
        #: The pool's name, by which its points are found; engines of earlier tests may live on in cycles.
        self.pool = f"{self.label}-{next(_NUMBERS)}"
        self.is_open = False

    def start(self, where: Postgres | None, folder: Path, **options: Any) -> None:
        """`open`, for `stop` to undo."""
        self.open(where, folder, **options)
        self.is_open = True

    def stop(self) -> None:
        """`close`, where that has not been done."""
        if self.is_open:
            self.is_open = False
            self.close()

    @property
    @abstractmethod
    def capabilities(self) -> Capability:
        """What the adapter can measure."""

    @classmethod
    def missing(cls) -> str | None:
        """What is not installed that this driver needs, as the reason of a skip; None when all is there."""
        return None

    @abstractmethod
    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        """
        Make the pool.

        Args:
            where: The database, where `on_postgres` is.
            folder: For files of the test's own.
            size: The most connections.
            timeout: Seconds that a checkout waits at most.
            options: More, as the library understands it.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the pool and all that belongs to it."""

    @property
    @abstractmethod
    def limit(self) -> int | None:
        """The most connections the open pool allows; None without a limit."""

    @property
    @abstractmethod
    def timeout_error(self) -> str:
        """The qualified name of what the library raises when a checkout waited too long."""

    @property
    def refusal(self) -> str:
        """The qualified name of what a checkout beyond the limit ends in, if it ends: the timeout, or the rejection."""
        return self.timeout_error

    @abstractmethod
    def acquire(self) -> Handle:
        """Check a connection out."""

    @abstractmethod
    def begin(self) -> PendingCheckout:
        """Ask in a thread or task of its own."""

    @abstractmethod
    def release(self, handle: Handle) -> None:
        """Give the connection back."""

    @abstractmethod
    def query(self, handle: Handle) -> object:
        """
        Run ``select 1`` on the connection.

        Returns:
            Its answer.
        """

    def invalidate(self, handle: Handle, *, soft: bool = False) -> None:
        """Declare the connection broken."""
        raise NotImplementedError

    def detach(self, handle: Handle) -> None:
        """Take the connection out of the pool for good."""
        raise NotImplementedError

    def close_detached(self, handle: Handle) -> None:
        """Close a connection that was detached."""
        self.release(handle)

    def dispose(self) -> None:
        """Close the pool's connections; it works on afterwards."""
        raise NotImplementedError

    def abandon(self, handle: Handle) -> None:
        """Drop the connection without returning it, and let it be collected."""
        raise NotImplementedError

    def status(self) -> object:
        """The library's own account, for comparison with and without poolscope."""
        return None

    @abstractmethod
    def library_objects(self) -> list[Any]:
        """The library's pool, and what else must not outlive the driver because of us."""

    @abstractmethod
    def forget(self) -> None:
        """Drop every reference to the library's objects; after `close`."""


def drop(handle: Handle) -> None:
    """
    Let go of a connection and see it collected. One `gc.collect()` may not do: it does nothing while another thread
    is at it.
    """
    gone = weakref.ref(handle.connection)
    handle.connection = None
    wait_until(lambda: gc.collect() >= 0 and gone() is None, DEADLINE, "the dropped connection to be collected")
    gc.collect()  # what its finaliser let go of


class LoopThread:
    """An event loop in a thread, so that a law written for sync pools holds for async ones too."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="driver loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine there and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE)

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> TaskCheckout:
        """Start a task there."""
        return TaskCheckout(self.loop, coroutine)

    def close(self) -> None:
        """End the thread and close the loop."""
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE)
        self.loop.close()


class TaskCheckout(PendingCheckout):
    """A checkout in a task."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._loop = loop
        self._done = Future()
        self._started = threading.Event()
        loop.call_soon_threadsafe(self._start, coroutine)
        assert self._started.wait(DEADLINE)

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._finish)
        self._started.set()

    def _finish(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._done.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self._done.set_exception(error)
        else:
            self._done.set_result(task.result())

    def wait(self) -> Handle:
        try:
            return self._done.result(DEADLINE)  # type: ignore[no-any-return]
        finally:
            del self._task

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)


class ThreadCheckout(PendingCheckout):
    """A checkout in a thread."""

    def __init__(self, checkout: Callable[[], Handle]) -> None:
        self._done = Future()
        self._thread = threading.Thread(target=self._run, args=(checkout,), daemon=True)
        self._thread.start()

    def _run(self, checkout: Callable[[], Handle]) -> None:
        try:
            self._done.set_result(checkout())
        except BaseException as error:
            self._done.set_exception(error)

    def wait(self) -> Handle:
        result: Handle = self._done.result(DEADLINE)
        self._thread.join(DEADLINE)
        return result

    def cancel(self) -> None:
        raise NotImplementedError
