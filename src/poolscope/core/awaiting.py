"""
Who waits for the running code: the tasks and threads that cannot go on before a task or thread does.

What a future calls when it is done says who waits for it: a task that awaits it, what `gather`, `wait`, `wait_for`,
`shield` and `as_completed` made of it, the group it is in, the future of another loop or thread. A thread runs the job
of a future; another one stands in its `result`, or joins the first. What the application does with a future besides is
not followed: who waits by other means is not known to wait.

The parent of a group that is not at the group's end does something else meanwhile. It counts as waiting while it waits
in an exchange between tasks (an event, a queue, a stream in memory), which is what its children are for; not while it
waits for a server.

Cold: for a second checkout of a unit of work, and for a diagnosis. Every walk is bounded.
"""

from __future__ import annotations

import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.execution import ThreadsNow, stack_of_task
from poolscope.core.guard import guard
from poolscope.core.jobs import called_loop, jobs_of, loop_that_submits, stands
from poolscope.core.libraries import KNOWN, Group, is_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.execution import Frames
    from poolscope.core.origin import Origins
    from poolscope.types import LibraryObject

# Tasks and futures that one walk visits; frames of a task looked at for the exchange that it stands in.
_MOST: Final = 300
_CHAIN: Final = 40


class Dependents:
    """
    Who waits for a task or thread, at one moment. Tasks are held strongly: keep it for no longer than it is looked at.

    Args:
        origins: What the application's files are; without it, no event or queue of the application counts.
    """

    def __init__(self, origins: Origins | None = None) -> None:
        #: Tasks that wait, the nearest first; the one that was asked about is none of them.
        self.tasks: list[Any] = []
        #: Tasks whose group is not over before, but that may do something else meanwhile.
        self.parents: list[Any] = []
        #: Identifiers of threads that wait.
        self.threads: list[int] = []
        self._origins = origins
        self._visited: dict[int, Any] = {}
        self._of_threads = False

    def waits(self, task: LibraryObject, thread: int) -> bool:
        """
        Whether a task, or a thread, is one that waits.

        Args:
            task: The task; None for code that runs outside of a loop.
            thread: The identifier of the thread.
        """
        if task is not None:
            return any(one is task for one in self.tasks)
        return thread in self.threads

    def is_parent(self, task: LibraryObject) -> bool:
        """Whether a task waits, or opened a group that is not over before."""
        return any(one is task for one in (*self.tasks, *self.parents))

    def look(self, task: LibraryObject, thread: int, frames: Frames) -> None:
        """
        Find those who wait.

        Args:
            task: The task that is asked about; None for code that runs outside of a loop.
            thread: The identifier of its thread.
            frames: The frames of all threads.
        """
        if task is not None:
            self._visited[id(task)] = task
            self._after(task, waiting=True)
            if called_loop(thread, frames, self._visited):
                self._add_thread(thread, frames)
        else:
            self._jobs_of(thread, frames)
        started = [] if task is not None else [thread]
        known = -1
        while (self._of_threads or started or self.threads) and known < len(self._visited) + len(self.threads):
            known = len(self._visited) + len(self.threads)
            for other, frame in tuple(frames.items()):
                waited_for = [*started, *self.threads]
                if other not in waited_for and stands(frame, waited_for, self._visited):
                    self._add_thread(other, frames)

    def _visit(self, future: LibraryObject, *, waiting: bool) -> None:
        # It is done no sooner than what was visited before; if it is a task, that waits.
        if id(future) in self._visited or len(self._visited) >= _MOST:
            return
        self._visited[id(future)] = future
        if _is_task(future):
            (self.tasks if waiting else self.parents).append(future)
        self._after(future, waiting=waiting)

    def _after(self, future: LibraryObject, *, waiting: bool) -> None:
        if not _is_future(future):
            self._of_threads = True
            for callback in tuple(getattr(future, "_done_callbacks", ())):
                self._follow(callback, waiting=waiting)
            return
        for callback, _ in tuple(getattr(future, "_callbacks", None) or ()):
            self._follow(callback, waiting=waiting)
        if _is_task(future):
            for known in KNOWN.waits:
                group = known.group_of(future) if known.group_of is not None else None
                if group is not None:
                    self._enclose(group, waiting=waiting)

    def _follow(self, callback: LibraryObject, *, waiting: bool) -> None:
        owner: LibraryObject = getattr(callback, "__self__", None)
        if _is_future(owner):
            if str(getattr(callback, "__name__", "")).endswith("wakeup"):
                self._visit(owner, waiting=waiting)
        elif hasattr(owner, "_parent_task"):  # a task group of asyncio
            self._enclose(
                Group(owner._parent_task, getattr(owner, "_on_completed_fut", None)),  # noqa: SLF001
                waiting=waiting,
            )
        else:
            for future in _set_by(callback):
                self._visit(future, waiting=waiting)

    def _enclose(self, group: Group, *, waiting: bool) -> None:
        parent = group.parent
        if not _is_task(parent):
            return
        at_end = group.end is not None and getattr(parent, "_fut_waiter", None) is group.end
        self._visit(parent, waiting=waiting and (at_end or _exchanges(parent, self._origins)))

    def _add_thread(self, thread: int, frames: Frames) -> None:
        self.threads.append(thread)
        self._jobs_of(thread, frames)

    def _jobs_of(self, thread: int, frames: Frames) -> None:
        for future in jobs_of(thread, frames):
            before = len(self.tasks)
            self._visit(future, waiting=True)
            if len(self.tasks) == before:
                self._visit_submitter(future, thread, frames)

    def _visit_submitter(self, future: LibraryObject, thread: int, frames: Frames) -> None:
        # A job may begin before its submitter has come to wait for it: some functions do nothing else next.
        for other, frame in tuple(frames.items()):
            loop = loop_that_submits(future, frame) if other != thread else None
            task = sys.modules["asyncio.tasks"].current_task(loop) if loop is not None else None
            if task is not None:
                self._visit(task, waiting=True)


def dependents_of(
    task: LibraryObject, thread: int, frames: Frames | None = None, origins: Origins | None = None
) -> Dependents:
    """
    Who cannot go on before a task or thread does: whoever waits for it, whoever waits for those, and so on.

    Args:
        task: An asyncio task; None for code that runs outside of a loop.
        thread: The identifier of its thread.
        frames: The frames of all threads (`ThreadsNow`); read anew when not given.
        origins: What the application's files are.

    Returns:
        What is known; those found so far where an error of ours ended it.
    """
    found = Dependents(origins)

    def look() -> None:
        if frames is not None:
            found.look(task, thread, frames)
            return
        with ThreadsNow() as now:
            found.look(task, thread, now)

    guard.run("awaiting", look, None)
    return found


def _is_future(thing: LibraryObject) -> bool:
    # As `asyncio.isfuture`, by the class alone: what an instance has may be code of the application.
    return hasattr(type(thing), "_asyncio_future_blocking")


def _is_task(thing: LibraryObject) -> bool:
    return _is_future(thing) and hasattr(type(thing), "get_coro")


def _set_by(callback: LibraryObject) -> Iterator[Any]:
    # The futures that a callback of asyncio's own sets, when all that it counts or the first of it is done.
    function: LibraryObject = callback
    if isinstance(callback, functools.partial):
        function, things = callback.func, list(callback.args)
    else:
        things = [_content(cell) for cell in getattr(callback, "__closure__", None) or ()]
        things.append(getattr(getattr(callback, "__self__", None), "_done", None))  # an iterator of `as_completed`
    if not str(getattr(function, "__module__", "")).startswith("asyncio."):
        return
    for thing in things:
        if _is_future(thing) or hasattr(thing, "_done_callbacks"):
            yield thing
        elif type(thing).__module__ == "asyncio.queues":
            yield from tuple(getattr(thing, "_getters", ()))


def _content(cell: LibraryObject) -> LibraryObject:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _exchanges(task: LibraryObject, origins: Origins | None) -> bool:
    # Whether a task stands in an exchange with others: a stream in memory, or an event or queue that the application
    # waits for. What a library waits for by an event of its own may be a server.
    waits = KNOWN.waits
    exchanges = tuple(file for known in waits for file in known.exchanges)
    events = tuple(file for known in waits for file in known.events)
    pauses = tuple(file for known in waits for file in known.pauses)
    is_event = False
    for code, _ in stack_of_task(weakref.ref(task), _CHAIN) or ():
        if is_in(code, *exchanges):
            return True
        if not is_in(code, *events, *pauses):
            return is_event and origins is not None and bool(origins.applications(((code, 0),)))
        is_event = is_in(code, *events)
    return False
