"""
asgiref's ``sync_to_async``, through which asynchronous Django runs every query.

The thread that runs it has no frame of the application on its stack. The line of the coroutine that waits for it is
kept meanwhile, in the context that asgiref carries over. It begins no unit of work: those belong to Django.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.origin import ASKED_FROM

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

    from poolscope.core.origin import Trail
    from poolscope.core.pool_registry import Ledger
    from poolscope.core.types import LibraryObject
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook


class AsgirefBoundary:
    """
    Synchronous functions that coroutines wait for.
    """

    name = "asgiref"
    module = "asgiref.sync"

    def hook(self, module: ModuleType, patcher: Patcher, ledger: Ledger) -> None:
        """
        Put the hooks in.
        """
        patcher.require(module.SyncToAsync, ("__call__",))
        patcher.replace(module.SyncToAsync, "__call__", _make_call(ledger))

    def release(self) -> None:
        """
        Nothing: no object of the library has a mark.
        """


def _make_call(ledger: Ledger) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def __call__(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            __traceback_hide__ = True  # as asgiref's own: Django's error pages leave such frames out
            if ledger.asleep:
                return await original(self, *args, **kwargs)
            token = ASKED_FROM.set(_asked_from(ledger, sys._getframe(1)))  # noqa: SLF001 - documented
            try:
                return await original(self, *args, **kwargs)
            finally:
                with suppress(ValueError):  # closed in another context
                    ASKED_FROM.reset(token)

        return __call__

    return make


def _asked_from(ledger: Ledger, frame: FrameType) -> Trail:
    try:
        return ledger.asked_from(frame)
    except Exception:  # noqa: BLE001 - ours
        guard.caught("asgiref.place")
        return ()


BOUNDARIES: Final[tuple[Hook, ...]] = (AsgirefBoundary(),)
