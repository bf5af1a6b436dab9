"""
Pools of worker threads: which of their threads wait for a connection, and who waits for one of their threads.

A crew is known by the names of its threads, which differ in a number at the end: a `concurrent.futures` executor's, or
anyio's worker threads, which all have one name.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from poolscope.core.libraries import KNOWN
from poolscope.detectors.diagnosis.describe import thread_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from poolscope.core.execution import Frames
    from poolscope.core.lease import Lease
    from poolscope.detectors.diagnosis.describe import Actor
    from poolscope.types import LibraryObject

_NUMBER: Final = re.compile(r"[-_ ]?\d+$")
# Where a thread waits for the result of an executor's job: how the file's name ends, and the function.
_RESULT: Final = ("concurrent/futures/_base.py", "result")
_JOBS: Final = "concurrent.futures"
# Innermost frames looked at: those of what waits are between the application's and the wait itself.
_INNERMOST: Final = 6


class Crew(NamedTuple):
    """
    A pool of worker threads of which some wait for a connection.

    Args:
        name: The name of its threads, without their numbers.
        threads: How many threads it has.
        waiting: Their checkouts.
    """

    name: str
    threads: int
    waiting: tuple[Lease, ...]


def crews_of(pending: Iterable[Lease]) -> tuple[Crew, ...]:
    """
    The crews of which a thread waits for a connection.

    Args:
        pending: The checkouts that wait.
    """
    by_thread = {lease.thread: lease for lease in pending if lease.task is None}
    if not by_thread:
        return ()
    crews: dict[str, list[int]] = {}
    for thread, name in thread_names().items():
        crews.setdefault(_NUMBER.sub("", name), []).append(thread)
    return tuple(
        Crew(name, len(threads), tuple(by_thread[thread] for thread in threads if thread in by_thread))
        for name, threads in crews.items()
        if not by_thread.keys().isdisjoint(threads)
    )


def queues_for_worker(actor: Actor, frames: Frames) -> bool:
    """
    Whether a task or thread waits for a worker thread to become free.

    Args:
        actor: The task or thread, with what it executes.
        frames: The current frame of each thread.
    """
    if any(
        _is(code.co_filename, code.co_name, known)
        for code, _ in actor.stack[:_INNERMOST]
        for known in KNOWN.worker_queues
    ):
        return True
    if actor.task is not None:
        return _is_queued(_job_behind(getattr(actor.task(), "_fut_waiter", None)))
    return _is_queued(_job_waited_for(frames.get(actor.thread)))


def _is(file: str, function: str, known: tuple[str, str]) -> bool:
    return function == known[1] and file.replace("\\", "/").endswith(known[0])


def _job_behind(future: LibraryObject) -> LibraryObject:
    # asyncio's future of an executor's job tells that job when it is cancelled: its callback knows the job.
    for callback in getattr(future, "_callbacks", None) or ():
        function = callback[0] if isinstance(callback, tuple) else callback
        for thing in _closed_over(function):
            if type(thing).__module__.startswith(_JOBS):
                return thing
    return None


def _closed_over(function: LibraryObject) -> Iterator[LibraryObject]:
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # a cell that is empty yet
            yield cell.cell_contents


def _job_waited_for(frame: FrameType | None) -> LibraryObject:
    for _ in range(_INNERMOST):
        if frame is None:
            break
        if _is(frame.f_code.co_filename, frame.f_code.co_name, _RESULT):
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None


def _is_queued(job: LibraryObject) -> bool:
    # Not by its methods: these take its lock.
    return getattr(job, "_state", None) == "PENDING"
