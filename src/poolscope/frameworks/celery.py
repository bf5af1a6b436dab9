"""
Celery: from ``task_prerun`` to ``task_postrun``, which every kind of worker sends, also for tasks that fail.

A wrap of ``Task.__call__`` would never be called: Celery's tracer calls ``run`` itself.
"""

from __future__ import annotations

import sys
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.failure import raised_by_a_signal
from poolscope.core.guard import guard
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


class _Entered:
    """
    A task that the running code is inside of.

    Args:
        depth: The number of tasks that Celery was inside of, with this one; 0 where it does not say.
    """

    __slots__ = ("__weakref__", "depth", "work_scope")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        #: None for a task that is part of another.
        self.work_scope: WorkScope | None = None


# The innermost last. Not by the task's id: a retry has the same, and may begin in another thread before the attempt
# that asked for it has finished. What has no fewer tasks around it at the beginning of another is left over.
_ENTERED: Final[ContextVar[tuple[_Entered, ...]]] = ContextVar("poolscope_celery", default=())

# The same of all threads: while there are any, their end is heard of, also once poolscope has stopped.
_ALL: Final[weakref.WeakSet[_Entered]] = weakref.WeakSet()


class CeleryFramework:
    """Tasks of Celery."""

    name = "celery"
    servers = ("celery", "billiard")
    module = "celery.signals"
    modules = (module, _TRACE)

    def __init__(self) -> None:
        self._signals: Any = None
        self._postrun: Any = None
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
        module.task_postrun.connect(self._end, weak=False)  # first: what begins is heard to end
        module.task_prerun.connect(self._begin, weak=False)

    def release(self) -> None:
        """Disconnect the receivers of signals; what hears of the ends of tasks, once the last has ended."""
        signals, self._signals = self._signals, None
        if signals is not None:
            self._postrun = signals.task_postrun
            signals.task_prerun.disconnect(self._begin)
            self._disconnect()

    def _is_released(self) -> bool:
        return self._signals is None

    def _disconnect(self) -> None:
        postrun = self._postrun
        if postrun is not None and self._is_released() and not len(_ALL):
            postrun.disconnect(self._end)
            if not self._is_released():  # it has started again meanwhile
                postrun.connect(self._end, weak=False)

    def _begin(self, task: LibraryObject = None, **_: LibraryObject) -> None:
        pool_registry = self._pool_registry
        if pool_registry is None or pool_registry.ended:
            return
        name = safe(str(getattr(task, "name", None) or "<unnamed>"))
        entered = _Entered(_depth())
        while (outer := _ENTERED.get()) and outer[-1].depth >= entered.depth > 0:
            _leave(outer)  # its end was interrupted before it reached us
        try:
            entered.work_scope = begin(pool_registry, "task", name)
            _enter(outer, entered)
            if self._is_released():  # meanwhile
                _leave((*outer, entered))
        except BaseException:
            if entered.work_scope is not None:
                entered.work_scope.end()
            raise

    def _end(self, **_: LibraryObject) -> None:
        inside = _ENTERED.get()
        # One that began while poolscope was away has more tasks around it than what is known.
        if inside and _depth() <= inside[-1].depth:
            _leave(inside)
        if self._is_released():
            guard.run("celery.release", self._disconnect, None)


def _enter(outer: tuple[_Entered, ...], entered: _Entered) -> None:
    _ALL.add(entered)
    _ENTERED.set((*outer, entered))


def _leave(inside: tuple[_Entered, ...]) -> None:
    entered = inside[-1]
    try:
        if entered.work_scope is not None:
            entered.work_scope.end()
    except BaseException:
        if entered.work_scope is not None:
            entered.work_scope.end()  # again: that was interrupted
        _ENTERED.set(inside[:-1])
        _ALL.discard(entered)
        raise
    _ENTERED.set(inside[:-1])
    _ALL.discard(entered)


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
            outer = _ENTERED.get()
            results = original(*args, **kwargs)
            for receiver, result in results:
                if isinstance(getattr(receiver, "__self__", None), CeleryFramework) and raised_by_a_signal(result):
                    raise result  # noqa: TRY301 - it is what the signal handler raised
            return results  # noqa: TRY300 - an interrupt may come here, too
        except BaseException:
            _settle(_ENTERED.get() if outer is None else outer, begins=is_begin)
            raise

    return send


def _settle(outer: tuple[_Entered, ...], *, begins: bool) -> None:
    # After an interrupt: Celery sends the end of a task in any case.
    if begins:
        if len(_ENTERED.get()) <= len(outer):
            _enter(outer, _Entered(_depth()))
    elif outer and _ENTERED.get() is outer:
        _leave(outer)


FRAMEWORKS: Final[tuple[Hook, ...]] = (CeleryFramework(),)
