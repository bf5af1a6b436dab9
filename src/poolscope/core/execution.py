"""Who runs the code: the thread, and the asyncio task where there is one; and what either executes now."""

from __future__ import annotations

import gc
import sys
import weakref
from threading import get_ident, local
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.libraries import KNOWN
from poolscope.core.origin import keep

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from poolscope.core.lazy_jobs import LazyJob
    from poolscope.core.lease import Lease
    from poolscope.core.origin import RawStack
    from poolscope.types import LibraryObject

TaskReference = weakref.ref[Any]
Frames = dict[int, "FrameType"]

# Coroutines that await one another; a chain longer than that is cut at its inner end.
_LONGEST_CHAIN: Final = 500
_WRAPPERS: Final = frozenset({"coroutine_wrapper", "async_generator_asend", "async_generator_athrow"})


def running_task() -> TaskReference | None:
    """
    The asyncio task that runs in this thread, held weakly. asyncio is not imported for it.

    Returns:
        Its reference, the same object for the same task; None outside of a task.
    """
    events = sys.modules.get("asyncio.events")
    if events is None:
        return None
    loop = events._get_running_loop()  # noqa: SLF001 - documented, and the only one that does not raise
    return task_in(loop) if loop is not None else None


def task_in(loop: LibraryObject) -> TaskReference | None:
    """
    The task that an event loop runs now, held weakly.

    Args:
        loop: The event loop that runs in this thread.

    Returns:
        Its reference, the same object for the same task; None when the loop runs something else.
    """
    task = sys.modules["asyncio.tasks"].current_task(loop)
    return weakref.ref(task) if task is not None else None


class ThreadReference(weakref.ref["ThreadToken"]):
    """A weak reference to a thread's token that knows the thread's identifier, also after the thread has finished."""

    __slots__ = ("ident",)
    ident: int


class ThreadToken:
    """
    A thread's token: it exists as long as the thread does.

    Another thread may get a thread's identifier as soon as that one has finished; a weak reference to the token then
    stays dead.
    """

    __slots__ = ("__weakref__", "checkout", "job", "reference")

    def __init__(self) -> None:
        self.reference = ThreadReference(self)
        self.reference.ident = get_ident()
        #: The checkout that one hook of an adapter passes to the next, where no other code of this thread runs between.
        self.checkout: Lease | None = None
        #: The job that this thread runs, to which its checkouts outside of any other unit of work belong.
        self.job: LazyJob | None = None


#: For a thread that is not known: dead, and with an identifier that no thread has.
NO_THREAD: Final = ThreadToken().reference
NO_THREAD.ident = 0


class _ThreadTokens(local):
    thread_token: ThreadToken


#: Its attribute `thread_token`, once `running_thread` has been called in a thread, is that thread's token.
THREAD_TOKENS: Final = _ThreadTokens()


def running_thread() -> ThreadToken:
    """The token of this thread; hold its reference, not itself."""
    try:
        return THREAD_TOKENS.thread_token
    except AttributeError:
        thread_token = THREAD_TOKENS.thread_token = ThreadToken()
        return thread_token


_frames_now: Callable[[], Frames] = sys._current_frames  # noqa: SLF001 - documented

if sys.version_info[:2] == (3, 11):
    from operator import call

    _current_frames = _frames_now

    def _frames_now() -> Frames:
        # It makes the frames under a lock of the interpreter. The garbage collector may run there, and waits for that
        # lock for ever where it finds a `threading.local`, as some pools have (python/cpython#106883). The three calls
        # are one step of C code: no other thread runs in between, nor sees the collector disabled.
        if not gc.isenabled():
            return _current_frames()
        try:
            _, frames, _ = map(call, (gc.disable, _current_frames, gc.enable))
        except BaseException:  # out of memory, or an audit hook's
            gc.enable()
            raise
        return frames


class ThreadsNow:
    """
    The frames that all threads execute now, by the thread's identifier; emptied afterwards. A context manager.

    The frame of the caller is among them and refers to them. Not emptied, that is a reference cycle, which keeps
    everything on its stack until the garbage collector runs.
    """

    def __enter__(self) -> Frames:
        self._frames = _frames_now()
        return self._frames

    def __exit__(self, *_: object) -> None:
        self._frames.clear()


def stack_of_thread(thread: int, depth: int, frames: Frames | None = None) -> RawStack:
    """
    What a thread executes now, innermost frame first.

    Args:
        thread: Its identifier (`threading.get_ident`).
        depth: How many frames to keep.
        frames: What `ThreadsNow` returned; read anew when not given.

    Returns:
        The raw stack; empty when the thread has finished.
    """
    if frames is not None:
        return keep(frames.get(thread), depth)
    with ThreadsNow() as now:
        return keep(now.get(thread), depth)


def stack_of_task(reference: TaskReference, depth: int) -> RawStack | None:
    """
    What a suspended task waits for now: the frames of the coroutines that await one another, innermost first.

    Args:
        reference: The task.
        depth: How many frames to keep.

    Returns:
        The raw stack; empty when the task is done, None when it runs at this moment: its thread's stack has
        it.
    """
    task = reference()
    if task is None or task.done():
        return ()
    awaitable: Any = task.get_coro()
    if getattr(awaitable, "cr_running", False):
        return None
    chain: list[tuple[CodeType, int]] = []
    for _ in range(_LONGEST_CHAIN):
        if awaitable is None:
            break
        frame = _first_of(awaitable, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None:
            chain.append((frame.f_code, frame.f_lasti))
            chain.extend(reversed(keep(KNOWN.switches.inwards(frame), _LONGEST_CHAIN)))
        awaitable = _first_of(awaitable, "cr_await", "gi_yieldfrom", "ag_await") or _wrapped(awaitable)
    return tuple(reversed(chain))[:depth]


def _wrapped(awaitable: LibraryObject) -> LibraryObject:
    # What ``coroutine.__await__()`` and ``asynchronous_generator.asend()`` return does not say what it wraps.
    if type(awaitable).__name__ not in _WRAPPERS:
        return None
    return next(
        (thing for thing in gc.get_referents(awaitable) if hasattr(thing, "cr_frame") or hasattr(thing, "ag_frame")),
        None,
    )


def _first_of(thing: LibraryObject, *names: str) -> LibraryObject:
    return next((value for name in names if (value := getattr(thing, name, None)) is not None), None)
