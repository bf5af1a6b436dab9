"""
asgiref's ``sync_to_async``, through which asynchronous Django runs every query.

The thread that runs it has no frame of the application on its stack. The line of the coroutine that waits for it is
kept meanwhile, in the context that asgiref carries over. It begins no unit of work: those belong to Django.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.libraries import Job, Waits
from poolscope.core.origin import CALLED_FROM
from poolscope.core.work_scope import reset

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

    from poolscope.core.origin import PackedStack
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject


class AsgirefFramework:
    """Synchronous functions that coroutines wait for."""

    name = "asgiref"
    module = "asgiref.sync"
    library_modules = ("asgiref",)
    loops = ("/asgiref/current_thread_executor.py",)
    waits = Waits(
        jobs=(Job("/asgiref/current_thread_executor.py", "run", ("self", "future")),),
        submitters=(("/asgiref/sync.py", "__call__", ""),),
    )

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        patcher.require(module.SyncToAsync, ("__call__",))
        patcher.replace(module.SyncToAsync, "__call__", _make_call(pool_registry))

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


def _make_call(pool_registry: PoolRegistry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def __call__(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            __traceback_hide__ = True  # as asgiref's own: Django's error pages leave such frames out
            if pool_registry.dormant and pool_registry.is_dormant():
                return await original(self, *args, **kwargs)
            token = None
            try:
                token = CALLED_FROM.set(_called_from(pool_registry, sys._getframe(1)))  # noqa: SLF001 - documented
                result = await original(self, *args, **kwargs)
                CALLED_FROM.reset(token)
                return result  # noqa: TRY300 - an interrupt may come here, too
            except BaseException:
                reset(CALLED_FROM, token)  # it may be closed in another context
                raise

        return __call__

    return make


def _called_from(pool_registry: PoolRegistry, frame: FrameType) -> PackedStack:
    try:
        return pool_registry.called_from(frame)
    except Exception:  # noqa: BLE001 - ours
        guard.caught("asgiref.place")
        return ()


FRAMEWORKS: Final[tuple[Hook, ...]] = (AsgirefFramework(),)
