"""
Celery: from ``task_prerun`` to ``task_postrun``, which every kind of worker sends, also for tasks that fail.

A wrap of ``Task.__call__`` would never be called: Celery's tracer calls ``run`` itself.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.work_scope import WorkScope, begin
from poolscope.names import safe

if TYPE_CHECKING:
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject


# Of the tasks that the running code is inside of, the innermost last; None for one that is part of another. Not by the
# task's id: a retry has the same, and may begin in another thread before the attempt that asked for it has finished.
_WORK_SCOPES: Final[ContextVar[tuple[WorkScope | None, ...]]] = ContextVar("poolscope_celery", default=())


class CeleryFramework:
    """Tasks of Celery."""

    name = "celery"
    servers = ("celery", "billiard")
    module = "celery.signals"

    def __init__(self) -> None:
        self._signals: Any = None
        self._pool_registry: PoolRegistry | None = None

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
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
        if pool_registry is not None:
            name = safe(str(getattr(task, "name", None) or "<unnamed>"))
            _WORK_SCOPES.set((*_WORK_SCOPES.get(), begin(pool_registry, "task", name)))

    def _end(self, **_: LibraryObject) -> None:
        work_scopes = _WORK_SCOPES.get()
        if work_scopes:
            _WORK_SCOPES.set(work_scopes[:-1])
            if work_scopes[-1] is not None:
                guard.run("celery.end", work_scopes[-1].end, None)


FRAMEWORKS: Final[tuple[Hook, ...]] = (CeleryFramework(),)
