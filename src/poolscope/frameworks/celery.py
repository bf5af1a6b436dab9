"""
Celery: from ``task_prerun`` to ``task_postrun``, which every kind of worker sends, also for tasks that fail.

A wrap of ``Task.__call__`` would never be called: Celery's tracer calls ``run`` itself.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard, raised_by_a_signal
from poolscope.core.work_scope import WorkScope, begin
from poolscope.names import safe

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject

# Where Celery calls what its signals send.
_TRACE: Final = "celery.app.trace"
_SENDS: Final = ("send_prerun", "send_postrun")

# Of the tasks that the running code is inside of, the innermost last; None for one that is part of another. Not by the
# task's id: a retry has the same, and may begin in another thread before the attempt that asked for it has finished.
# Each with the number of tasks that Celery was inside of: what has no fewer at the beginning of another is left over.
_WORK_SCOPES: Final[ContextVar[tuple[tuple[int, WorkScope | None], ...]]] = ContextVar("poolscope_celery", default=())


class CeleryFramework:
    """Tasks of Celery."""

    name = "celery"
    servers = ("celery", "billiard")
    module = "celery.signals"
    modules = (module, _TRACE)

    def __init__(self) -> None:
        self._signals: Any = None
        self._pool_registry: PoolRegistry | None = None

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        if module.__name__ == _TRACE:
            patcher.require(module, _SENDS)
            for name in _SENDS:
                patcher.replace(module, name, _make_send)
            return
        patcher.require(module, ("task_prerun", "task_postrun"))
        self._signals = module
        self._pool_registry = pool_registry
        module.task_prerun.connect(self._begin, weak=False)
        module.task_postrun.connect(self._end, weak=False)

    def release(self) -> None:
        """Disconnect the receivers of signals."""
        signals, self._signals = self._signals, None
        if signals is not None:
            signals.task_prerun.disconnect(self._begin)
            signals.task_postrun.disconnect(self._end)

    def _begin(self, task: LibraryObject = None, **_: LibraryObject) -> None:
        pool_registry = self._pool_registry
        if pool_registry is None:
            return
        name = safe(str(getattr(task, "name", None) or "<unnamed>"))
        depth = _depth()
        while (outer := _WORK_SCOPES.get()) and outer[-1][0] >= depth > 0:
            _leave(outer)  # its end was interrupted before it reached us
        work_scope = None
        try:
            work_scope = begin(pool_registry, "task", name)
            _WORK_SCOPES.set((*outer, (depth, work_scope)))
        except BaseException:
            if work_scope is not None:
                work_scope.end()
            raise

    def _end(self, **_: LibraryObject) -> None:
        work_scopes = _WORK_SCOPES.get()
        if work_scopes:
            _leave(work_scopes)


def _leave(work_scopes: tuple[tuple[int, WorkScope | None], ...]) -> None:
    work_scope = work_scopes[-1][1]
    try:
        if work_scope is not None:
            work_scope.end()
    except BaseException:
        if work_scope is not None:
            work_scope.end()  # again: that was interrupted
        _WORK_SCOPES.set(work_scopes[:-1])
        raise
    _WORK_SCOPES.set(work_scopes[:-1])


def _depth() -> int:
    # The tasks that Celery is inside of, here, with the one that begins; 0 where it does not say.
    stack = getattr(sys.modules.get("celery._state"), "_task_stack", ())
    return guard.run("celery.depth", lambda: len(stack), 0)


def _make_send(original: Callable[..., Any]) -> Callable[..., Any]:
    # What a receiver raises, Celery's signals keep: a time limit that comes while ours runs would pass unnoticed.
    is_begin = getattr(getattr(original, "__self__", None), "name", None) == "task_prerun"

    def send(*args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        outer: LibraryObject = None
        try:
            outer = _WORK_SCOPES.get()
            results = original(*args, **kwargs)
            for receiver, result in results:
                if isinstance(getattr(receiver, "__self__", None), CeleryFramework) and raised_by_a_signal(result):
                    raise result  # noqa: TRY301 - it is what the signal handler raised
            return results  # noqa: TRY300 - an interrupt may come here, too
        except BaseException:
            if outer is not None:
                _settle(outer, begins=is_begin)
            raise

    return send


def _settle(outer: tuple[tuple[int, WorkScope | None], ...], *, begins: bool) -> None:
    # After an interrupt: Celery sends the end of a task in any case.
    if begins:
        if len(_WORK_SCOPES.get()) <= len(outer):
            _WORK_SCOPES.set((*outer, (_depth(), None)))
    elif outer and _WORK_SCOPES.get() is outer:
        _leave(outer)


FRAMEWORKS: Final[tuple[Hook, ...]] = (CeleryFramework(),)
