"""
Threads and jobs of thread pools that a unit of work starts: they belong to it, if the setting says so.

A new thread, and a thread of an executor, has no part of the context of whoever started it. asyncio's ``to_thread`` and
asgiref's ``sync_to_async`` carry it over by themselves; a bare `threading.Thread`, ``submit`` and ``run_in_executor``
do not. Nothing but the unit of work is carried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.work import CURRENT_UNIT
from poolscope.core.work_scope import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.core.work import UnitOfWork
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject

_POOL: Final = "concurrent.futures.thread"


class ThreadsFramework:
    """Threads and jobs of `concurrent.futures.ThreadPoolExecutor`."""

    name = "threads"
    module = "threading"
    modules = (module, _POOL)

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:  # noqa: ARG002 - the interface
        """Put the hooks in."""
        if module.__name__ == _POOL:
            patcher.require(module.ThreadPoolExecutor, ("submit",))
            patcher.replace(module.ThreadPoolExecutor, "submit", _make_submit)
        else:
            patcher.require(module.Thread, ("start",))
            patcher.replace(module.Thread, "start", _make_start)

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


def _make_submit(original: Callable[..., Any]) -> Callable[..., Any]:
    def submit(
        self: LibraryObject, fn: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject
    ) -> LibraryObject:
        unit = guard.run("threads.unit", current, None)
        return original(self, fn if unit is None else _Carried(unit, fn), *args, **kwargs)

    return submit


def _make_start(original: Callable[..., Any]) -> Callable[..., Any]:
    def start(self: LibraryObject) -> LibraryObject:
        unit = guard.run("threads.unit", current, None)
        if unit is not None and "run" not in vars(self):
            guard.run("threads.start", lambda: setattr(self, "run", _Run(unit, self)), None)
        return original(self)

    return start


class _Carried:
    """A function that runs as part of a unit of work, in another thread."""

    def __init__(self, unit: UnitOfWork, function: Callable[..., Any]) -> None:
        self._unit = unit
        self._function = function

    def __call__(self, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        token = CURRENT_UNIT.set(self._unit)
        try:
            return self._function(*args, **kwargs)
        finally:
            CURRENT_UNIT.reset(token)


class _Run:
    """Takes the place of one thread's ``run`` until it runs."""

    def __init__(self, unit: UnitOfWork, thread: LibraryObject) -> None:
        self._unit = unit
        self._thread = thread

    def __call__(self) -> None:
        del self._thread.run
        _Carried(self._unit, self._thread.run)()


FRAMEWORKS: Final[tuple[Hook, ...]] = (ThreadsFramework(),)
