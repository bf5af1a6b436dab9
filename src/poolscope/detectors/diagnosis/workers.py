"""
Pools of worker threads: which of their threads wait for a connection, and who waits for one of their threads.

A crew is known by the names of its threads, which differ in a number at the end: a `concurrent.futures` executor's, or
anyio's worker threads, which all have one name. Whose job has not begun waits for the crew in whose queue the job is.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from poolscope.core.jobs import waited_for
from poolscope.core.libraries import KNOWN, is_in
from poolscope.detectors.diagnosis.describe import thread_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from poolscope.core.execution import Frames
    from poolscope.core.lease import Lease
    from poolscope.detectors.diagnosis.describe import Actor
    from poolscope.types import LibraryObject

_NUMBER: Final = re.compile(r"[-_ ]?(?<!\d)\d+$")
_JOBS: Final = "concurrent.futures"
# Innermost frames looked at: those of what waits are between the application's and the wait itself.
_INNERMOST: Final = 6
# Jobs of one queue that are looked at.
_MOST_JOBS: Final = 10_000
# From this share of a crew's threads on, whoever waits for one of them waits for the pool.
_MAJORITY: Final = 0.5


class Crew(NamedTuple):
    """
    A pool of worker threads most of which wait for a connection.

    Args:
        name: The name of its threads, without their numbers.
        threads: Identifiers of its threads.
        waiting: Their checkouts.
    """

    name: str
    threads: frozenset[int]
    waiting: tuple[Lease, ...]


def crews_of(pending: Iterable[Lease]) -> tuple[Crew, ...]:
    """
    The crews of which half of the threads or more wait for a connection.

    Args:
        pending: The checkouts that wait.
    """
    by_thread = {lease.thread: lease for lease in pending if lease.task is None}
    if not by_thread:
        return ()
    threads_of: dict[str, set[int]] = {}
    for thread, name in thread_names().items():
        threads_of.setdefault(_NUMBER.sub("", name), set()).add(thread)
    crews = (
        Crew(name, frozenset(threads), tuple(by_thread[thread] for thread in threads & by_thread.keys()))
        for name, threads in threads_of.items()
    )
    return tuple(crew for crew in crews if crew.waiting and len(crew.waiting) >= _MAJORITY * len(crew.threads))


def queued_jobs() -> Mapping[int, frozenset[int]]:
    """The ids of the jobs that executors have queued, each with the identifiers of the threads that may run it."""
    module = sys.modules.get("concurrent.futures.thread")
    queues: dict[int, tuple[LibraryObject, set[int]]] = {}
    # The executors' own list of their threads, to end them with the interpreter; its copy is atomic.
    for reference, queue in getattr(getattr(module, "_threads_queues", None), "data", {}).copy().items():
        thread = reference()
        if thread is not None:
            queues.setdefault(id(queue), (queue, set()))[1].add(thread.ident)
    return {job: frozenset(threads) for queue, threads in queues.values() for job in _jobs_in(queue)}


def _jobs_in(queue: LibraryObject) -> Iterator[int]:
    # A queue cannot be read without taking from it; until Python 3.12 what it refers to is a list of its items.
    for thing in gc.get_referents(queue):
        for item in thing[:_MOST_JOBS] if isinstance(thing, list) else (thing,):
            job = getattr(item, "future", None)
            if job is not None:
                yield id(job)


def crews_awaited(
    actor: Actor, frames: Frames, crews: tuple[Crew, ...], queued: Mapping[int, frozenset[int]]
) -> tuple[Crew, ...]:
    """
    The crews for one of whose threads a task or thread waits, to become free.

    Args:
        actor: The task or thread, with what it executes.
        frames: The current frame of each thread.
        crews: The crews that it may be.
        queued: The jobs that wait for a thread (`queued_jobs`).

    Returns:
        All of them where it waits in a limiter, whose threads are not known.
    """
    if not actor.stack:  # it has finished, or has gone on to something else
        return ()
    if any(
        function == code.co_name and is_in(code, file)
        for code, _ in actor.stack[:_INNERMOST]
        for file, function in KNOWN.worker_queues
    ):
        return crews
    task = actor.task() if actor.task is not None else None
    jobs = (
        waited_for(frames.get(actor.thread)) if actor.task is None else _jobs_behind(getattr(task, "_fut_waiter", None))
    )
    threads = frozenset[int]().union(*(queued.get(id(job), ()) for job in jobs))
    return tuple(crew for crew in crews if not threads.isdisjoint(crew.threads))


def _jobs_behind(future: LibraryObject) -> Iterator[LibraryObject]:
    # asyncio's future of an executor's job tells that job when it is cancelled: its callback knows the job.
    for callback in getattr(future, "_callbacks", None) or ():
        function = callback[0] if isinstance(callback, tuple) else callback
        for cell in getattr(function, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # a cell that is empty yet
                if type(cell.cell_contents).__module__.startswith(_JOBS):
                    yield cell.cell_contents
