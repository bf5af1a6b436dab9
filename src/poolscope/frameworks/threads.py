"""
Threads, and jobs of thread pools.

What a unit of work starts belongs to it, until it ends, if the setting says so: a new thread, and a thread of an
executor, has no part of the context of whoever started it. asyncio's ``to_thread`` and asgiref's ``sync_to_async``
carry it over by themselves; a bare `threading.Thread`, ``submit`` and ``run_in_executor`` do not. What the application
declares to be intended is carried in any case, and nothing else. Outside of any unit of work, a thread whose target is
the application's is a job of its own, and so is each job of an executor.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.calls import KEY
from poolscope.core.guard import guard
from poolscope.core.lazy_jobs import LazyJob, LazyJobScope, excuses_here
from poolscope.core.work_scope import current
from poolscope.frameworks.naming import name_of_job, name_of_runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.lazy_jobs import Excuses
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.core.work import UnitOfWork
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject

_INTERPRETERS: Final = "concurrent.futures.interpreter"


class ThreadsFramework:
    """Threads."""

    name = "threads"
    module = "threading"

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        # Not `run`, which classes of the application replace.
        patcher.require(module.Thread, ("start", "_bootstrap_inner"))
        patcher.replace(module.Thread, "start", _make_start(pool_registry))
        patcher.replace(module.Thread, "_bootstrap_inner", _make_bootstrap(pool_registry))

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


class ExecutorsFramework:
    """Jobs of `concurrent.futures.ThreadPoolExecutor`."""

    name = "executors"
    module = "concurrent.futures.thread"

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        patcher.require(module.ThreadPoolExecutor, ("submit",))
        patcher.replace(module.ThreadPoolExecutor, "submit", _make_submit(pool_registry))

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


def _started_by(pool_registry: PoolRegistry) -> UnitOfWork | None:
    return current() if pool_registry.units.reach_threads else None


def _carried(pool_registry: PoolRegistry, thread: LibraryObject) -> tuple[UnitOfWork | None, Excuses | None] | None:
    unit, excuses = _started_by(pool_registry), excuses_here()
    if excuses is not None and _name_of_thread(pool_registry, thread) is None:
        excuses = None  # a library's, as a worker of an executor: it works for others later
    return (unit, excuses) if unit is not None or excuses is not None else None


def _make_start(pool_registry: PoolRegistry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def start(self: LibraryObject) -> LibraryObject:
            started_by = guard.run("threads.unit", lambda: _carried(pool_registry, self), None)
            if started_by is None:
                return original(self)
            marks: dict[str, Any] = self.__dict__
            try:
                marks.setdefault(KEY, started_by)  # a second start is the application's error, and changes nothing
                return original(self)
            finally:
                marks.pop(KEY, None)  # the thread, which has begun, took it; not where poolscope has stopped meanwhile

        return start

    return make


def _make_bootstrap(pool_registry: PoolRegistry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def _bootstrap_inner(self: LibraryObject) -> LibraryObject:
            scope = guard.run("threads.begin", lambda: _scope_of(pool_registry, self), None)
            if scope is None:
                return original(self)
            try:
                try:
                    scope.enter()
                    return original(self)
                finally:
                    scope.leave()
            except BaseException:
                scope.leave()  # again, if that was interrupted
                raise

        return _bootstrap_inner

    return make


def _scope_of(pool_registry: PoolRegistry, thread: LibraryObject) -> LazyJobScope:
    unit, excuses = thread.__dict__.pop(KEY, None) or (None, None)
    job = LazyJob(pool_registry.units, partial(_name_of_thread, pool_registry, thread))
    return LazyJobScope(job, unit, excuses)


def _name_of_thread(pool_registry: PoolRegistry, thread: LibraryObject) -> str | None:
    # A timer is a library's class, with the application's function.
    target = getattr(thread, "function", None) if isinstance(thread, threading.Timer) else vars(thread).get("_target")
    return name_of_runner(pool_registry, thread, threading.Thread, target)


def _make_submit(pool_registry: PoolRegistry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def submit(
            self: LibraryObject, fn: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject
        ) -> LibraryObject:
            job = guard.run("executors.job", lambda: _job_of(pool_registry, self, fn, args), fn)
            return original(self, job, *args, **kwargs)

        return submit

    return make


def _job_of(
    pool_registry: PoolRegistry, executor: LibraryObject, function: LibraryObject, args: tuple[LibraryObject, ...]
) -> LibraryObject:
    interpreters = sys.modules.get(_INTERPRETERS)
    if pool_registry.is_dormant() or (interpreters and isinstance(executor, interpreters.InterpreterPoolExecutor)):
        return function  # another interpreter does not share our objects
    job = LazyJob(pool_registry.units, partial(name_of_job, pool_registry, function, args))
    return _Submitted(function, LazyJobScope(job, _started_by(pool_registry), excuses_here()))


class _Submitted:
    """
    An executor's job.

    Args:
        function: The application's.
        scope: What it runs in.
    """

    __slots__ = ("_function", "_scope")

    def __init__(self, function: Callable[..., Any], scope: LazyJobScope) -> None:
        self._function = function
        self._scope = scope

    def __call__(self, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        scope = self._scope
        try:
            try:
                scope.enter()
                result = self._function(*args, **kwargs)
                scope.returns(result)
                return result
            finally:
                scope.leave()
        except BaseException:
            scope.leave()  # again, if that was interrupted
            raise
        finally:
            # An error that is kept keeps this frame, but need not keep what the job was given, as its scope does.
            del self, scope, args, kwargs


FRAMEWORKS: Final[tuple[Hook, ...]] = (ThreadsFramework(), ExecutorsFramework())
