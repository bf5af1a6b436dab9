"""
Jobs that no framework knows: a script's main program, a job of an executor, a thread's target.

Each becomes a unit of work of its own with its first checkout outside of any other, so that what uses no pool costs
nothing. It is not in `CURRENT_UNIT`: to whatever begins a unit of work, there is none around it.
"""

from __future__ import annotations

import sys
import weakref
from itertools import islice
from typing import TYPE_CHECKING, Final

from poolscope.core.execution import running_thread
from poolscope.core.guard import guard
from poolscope.core.jobs import local_of, outwards
from poolscope.core.libraries import is_in
from poolscope.core.sql.repetition import EXPECTED_REPETITION
from poolscope.core.work import CURRENT_UNIT, EXPECTED_LONG_HOLD
from poolscope.core.work_scope import reset

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar, Token
    from types import FrameType

    from poolscope.core.execution import TaskReference, ThreadToken
    from poolscope.core.lease import Lease
    from poolscope.core.work import UnitOfWork, Units
    from poolscope.types import LibraryObject

    Excuses = tuple[str | None, str | None]

# What the application declares to be intended.
_EXCUSES: Final = (EXPECTED_LONG_HOLD, EXPECTED_REPETITION)
# Where a loop runs one task to its end: a file, a function in it, and the name that it has for the task.
_RUNS_TASK: Final = (
    ("/asyncio/base_events.py", "run_until_complete", "future"),
    ("/asyncio/runners.py", "run", "task"),
)

_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_PLAIN_MODULES: Final = frozenset({"datetime", "decimal", "uuid"})
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})
# What has more parts is not looked at to its end: a connection may be in it.
_MOST_PARTS: Final = 1000


class LazyJob:
    """
    A job, which may become a unit of work.

    Of an event loop that it runs, only the task that the loop was started for is part of it: others may be services in
    the background, with an end of their own.

    Args:
        units: Where units of work begin and end.
        name: Says what it is called, when that is needed; None if it is no job after all.
    """

    __slots__ = ("_loop", "_name", "_process", "_task", "_units", "unit")

    def __init__(self, units: Units, name: Callable[[], str | None]) -> None:
        self._units = units
        self._name: Callable[[], str | None] | None = name
        self._process = units.process
        self._loop: weakref.ref[LibraryObject] | None = None
        self._task: TaskReference | None = None
        self.unit: UnitOfWork | None = None

    def take(self, lease: Lease) -> None:
        """
        A checkout that belongs to no other unit of work is the job's, unless it is none, or has finished.

        Args:
            lease: The checkout, in the thread that runs the job.
        """
        pool = lease.pool
        unit = self._begun(lease)
        if unit is None:
            pool.unattributed.add()
            return
        lease.unit = unit
        lease.usage = usage = unit.usage_of(pool)
        usage.repetitions.may_last = True
        if usage.leases:
            pool.nested(lease, usage)

    def _begun(self, lease: Lease) -> UnitOfWork | None:
        try:
            return self._unit_for(lease)
        except Exception:  # noqa: BLE001 - ours
            guard.caught("job.begin")
            return None

    def end(self) -> None:
        """The job has finished, and with it the unit of work, if one began. It never raises."""
        unit = self.unit
        if unit is None or self._process is not self._units.process:  # in a child process it is the parent's
            return
        try:
            self._units.end(unit)
        except Exception:  # noqa: BLE001 - ours
            guard.caught("job.end")
        finally:
            unit.ended = True

    def _unit_for(self, lease: Lease) -> UnitOfWork | None:
        units = self._units
        if units.closed:
            return None
        if self._process is not units.process:  # a child process goes on with it
            self._process, self.unit = units.process, None
        unit = self.unit
        if unit is not None:
            return unit if not unit.ended and self._runs(lease) else None
        name = self._name
        if name is None or not self._runs(lease):
            return None
        known = name()
        if known is None:
            self._name = None
            return None
        self.unit = unit = units.begin_job(known)
        return unit

    def _runs(self, lease: Lease) -> bool:
        events = sys.modules.get("asyncio.events")
        loop = events._get_running_loop() if events is not None else None  # noqa: SLF001 - as in `running_task`
        if loop is None or lease.task is None:
            return loop is None
        task = self._task() if self._task is not None else None
        if self._loop is None or self._loop() is not loop or (self._task is not None and (task is None or task.done())):
            task = _task_that_is_run(sys._getframe(1))  # noqa: SLF001 - documented
            self._loop = weakref.ref(loop)
            self._task = weakref.ref(task) if task is not None else None
        return self._task is lease.task


def _task_that_is_run(frame: FrameType | None) -> LibraryObject:
    # The one that the running loop was started for; None where it was started for ever.
    for each in outwards(frame):
        for file, function, name in _RUNS_TASK:
            if each.f_code.co_name == function and is_in(each.f_code, file):
                task = local_of(each, name)
                return task if hasattr(task, "get_coro") else None
    return None


def _hand_on(unit: UnitOfWork, result: LibraryObject) -> None:
    if any(usage.leases for usage in list(unit.usages.values())):
        unit.hands_on = not _is_data(result)


def _is_data(result: LibraryObject) -> bool:
    # Whether no connection is in it: numbers, texts and times, and lists, tuples, sets and dicts of these.
    parts = [result]
    for _ in range(_MOST_PARTS):
        if not parts:
            return True
        part = parts.pop()
        kind = type(part)
        if kind is dict:
            parts += (*islice(part, _MOST_PARTS), *islice(part.values(), _MOST_PARTS))
        elif kind in _CONTAINERS:
            parts += islice(part, _MOST_PARTS)
        elif kind not in _PLAIN and kind.__module__ not in _PLAIN_MODULES:
            return False
    return False


def excuses_here() -> Excuses | None:
    """What the running code declares to be intended, long holds and repetitions; None where it declares nothing."""
    excuses = (EXPECTED_LONG_HOLD.get(), EXPECTED_REPETITION.get())
    return excuses if excuses != (None, None) else None


class LazyJobScope:
    """
    Where a job runs, from `enter` to `leave`; neither raises.

    Args:
        job: The job.
        unit: The unit of work that started it and that it belongs to, until that ends; None where there is none.
        excuses: What is declared where it was started (`excuses_here`); None where nothing is.
    """

    __slots__ = ("_before", "_excuses", "_job", "_thread_token", "_token", "_tokens", "_unit")

    def __init__(self, job: LazyJob, unit: UnitOfWork | None, excuses: Excuses | None = None) -> None:
        self._job = job
        self._unit = unit
        self._excuses = excuses
        self._tokens: list[tuple[ContextVar[str | None], Token[str | None]]] = []
        self._before: LazyJob | None = None
        self._thread_token: ThreadToken | None = None
        self._token: Token[UnitOfWork | None] | None = None

    def enter(self) -> None:
        """The job begins, in this thread."""
        try:
            self._enter()
        except Exception:  # noqa: BLE001 - ours
            guard.caught("job.enter")

    def returns(self, result: LibraryObject) -> None:
        """It returns something; if a connection that it holds may be in that, others have it from here on."""
        unit = self._job.unit
        if unit is not None:
            guard.run("job.returns", lambda: _hand_on(unit, result), None)

    def leave(self) -> None:
        """It is over."""
        try:
            self._leave()
        except Exception:  # noqa: BLE001 - ours
            guard.caught("job.leave")
        finally:
            self._job.end()

    def _enter(self) -> None:
        thread_token = running_thread()
        self._before = thread_token.job
        self._thread_token = thread_token
        thread_token.job = self._job
        # Also where there is none: an executor's thread has that of the request that it was started in.
        self._token = CURRENT_UNIT.set(self._unit)
        for variable, text in zip(_EXCUSES, self._excuses or (), strict=False):
            self._tokens.append((variable, variable.set(text)))

    def _leave(self) -> None:
        # Each is forgotten once it is done: an interrupt may come before, and this is called again then.
        while self._tokens:
            reset(*self._tokens[-1])
            self._tokens.pop()
        if self._token is not None:
            reset(CURRENT_UNIT, self._token)
            self._token = None
        if self._thread_token is not None:
            self._thread_token.job = self._before
            self._thread_token = None
