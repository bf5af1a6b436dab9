"""Threads that work for others: which job a thread runs, and what a thread waits for. Cold; see `awaiting`."""

from __future__ import annotations

import sys
from threading import get_ident
from typing import TYPE_CHECKING, Final

from poolscope.core.libraries import KNOWN, is_in

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from types import FrameType

    from poolscope.core.execution import Frames
    from poolscope.core.libraries import Job
    from poolscope.types import LibraryObject

# Frames of a thread looked at for the job that it runs, and for what it waits for.
_DEEPEST: Final = 500
_INNERMOST: Final = 12

_FUTURES: Final = "/concurrent/futures/_base.py"
_ASYNC_FUTURES: Final = "/asyncio/futures.py"
_LOOP: Final = "/asyncio/base_events.py"
_RUN: Final = "run_until_complete"
_JOIN: Final = "join"
# Functions in which a thread waits: the file of each, and its local variable that says for what.
_WAITS: Final = {
    "result": (_FUTURES, "self"),
    "_result_or_cancel": (_FUTURES, "fut"),
    "result_iterator": (_FUTURES, "fs"),
    "wait": (_FUTURES, "fs"),
    "as_completed": (_FUTURES, "fs"),
    _RUN: (_LOOP, "future"),
    _JOIN: ("/threading.py", "self"),
}
# Functions of asyncio that pass on the future of a job, and the one of executors that makes it: the local variable of
# each that is the future.
_PASSES_ON: Final = {"wrap_future": "future", "_chain_future": "source"}
_SUBMITS: Final = {"submit": "f"}


def jobs_of(thread: int, frames: Frames) -> Iterator[LibraryObject]:
    """
    The futures that are done when a thread has done its job; several where a job runs another one meanwhile.

    Args:
        thread: The identifier of the thread.
        frames: The frames of all threads.
    """
    for frame in outwards(frames.get(thread), is_own=thread == get_ident()):
        for known in KNOWN.waits:
            for job in known.jobs:
                future = _future_of(job, frame)
                if future is not None:
                    yield future


def stands(frame: FrameType | None, threads: Container[int], futures: Container[int]) -> bool:
    """
    Whether a thread waits for one of some futures, or for the end of one of some threads.

    Args:
        frame: The thread's innermost frame.
        threads: Identifiers of threads.
        futures: Ids of futures.
    """
    for function, each in _waits_of(frame):
        if function == _JOIN:
            return any(getattr(one, "ident", None) in threads for one in each)
        if any(id(one) in futures for one in each):
            return True
    return False


def waited_for(frame: FrameType | None) -> Iterator[LibraryObject]:
    """
    What a thread waits for: futures, and threads that it joins.

    Args:
        frame: The thread's innermost frame.
    """
    for _, each in _waits_of(frame):
        yield from each


def _waits_of(frame: FrameType | None) -> Iterator[tuple[str, tuple[LibraryObject, ...]]]:
    # The functions in which a thread waits, the innermost first, and what for.
    for _ in range(_INNERMOST):
        if frame is None:
            break
        function = frame.f_code.co_name
        file, name = _WAITS.get(function, ("", ""))
        if file and is_in(frame.f_code, file):
            one = local_of(frame, name)
            yield function, tuple(one) if isinstance(one, (list, set, tuple, frozenset)) else (one,)
        frame = frame.f_back


def called_loop(thread: int, frames: Frames, futures: Container[int]) -> bool:
    """
    Whether what called an event loop, further out in a thread, waits for one of some futures.

    Args:
        thread: The identifier of the thread.
        frames: The frames of all threads.
        futures: Ids of futures.
    """
    return any(
        frame.f_code.co_name == _RUN and is_in(frame.f_code, _LOOP) and id(local_of(frame, "future")) in futures
        for frame in outwards(frames.get(thread), is_own=thread == get_ident())
    )


def loop_that_submits(future: LibraryObject, frame: FrameType | None) -> LibraryObject:
    """
    The loop whose task is about to wait for a job that it submits; None where a thread does something else.

    Args:
        future: The job's.
        frame: The thread's innermost frame.
    """
    submitters = [each for known in KNOWN.waits for each in known.submitters]
    is_this = False
    for _ in range(_INNERMOST):
        if frame is None:
            return None
        is_this = is_this or _submits(future, frame)
        for file, name, local in submitters:
            if (
                frame.f_code.co_name == name
                and is_in(frame.f_code, file)
                and (is_this or local_of(frame, local) is future)
            ):
                return local_of(frame, "loop") or future.get_loop()
        frame = frame.f_back
    return None


def _submits(future: LibraryObject, frame: FrameType) -> bool:
    function = frame.f_code.co_name
    if function in _PASSES_ON:
        return is_in(frame.f_code, _ASYNC_FUTURES) and local_of(frame, _PASSES_ON[function]) is future
    # An executor submits where its jobs run.
    return (
        function in _SUBMITS
        and any(is_in(frame.f_code, job.file) for known in KNOWN.waits for job in known.jobs)
        and local_of(frame, _SUBMITS[function]) is future
    )


def outwards(frame: FrameType | None, *, is_own: bool = True) -> Iterator[FrameType]:
    """
    A frame and those that called it.

    Args:
        frame: The innermost frame.
        is_own: Whether it is of the running thread: then those follow that wait for a switch back to them.
    """
    stack = None
    for _ in range(_DEEPEST):
        if frame is None:
            stack, frame = KNOWN.switches.outwards(stack) if is_own else (None, None)
            if frame is None:
                return
        yield frame
        frame = frame.f_back


def local_of(frame: FrameType, name: str) -> LibraryObject:
    """
    What a local variable of a library's function is; None where it has none of that name. Never of the application's: a
    function that has called `locals()` would find that empty.

    Args:
        frame: A frame of the function.
        name: The variable.
    """
    known = frame.f_locals
    value = known.get(name)
    if sys.version_info < (3, 13) and frame.f_code.co_flags & 1:  # of a function: a copy, which the frame would keep
        known.clear()
    return value


def _future_of(job: Job, frame: FrameType) -> LibraryObject:
    if frame.f_code.co_name != job.function or not is_in(frame.f_code, job.file):
        return None
    name, *attributes = job.future
    value = local_of(frame, name)
    for attribute in attributes:
        value = getattr(value, attribute, None)
    return value
