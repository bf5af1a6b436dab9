"""
Why psycopg_pool 3.2.0 closes a connection: it has no ``_close_connection`` yet, and calls the connection's ``close``.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

from poolscope.adapters.common import DRIVER_KEY
from poolscope.adapters.psycopg_pool_source import REASONS
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.types import LibraryObject
    from poolscope.hooks.patching import Patcher


def hook_early_close(patcher: Patcher, kind: LibraryObject) -> None:
    """
    Hook a class of psycopg's connections, sync or async.
    """
    is_async = inspect.iscoroutinefunction(kind.close)
    patcher.replace(kind, "close", _make_close_async if is_async else _make_close)


def _make_close(original: Callable[..., Any]) -> Callable[..., Any]:
    def close(self: LibraryObject) -> LibraryObject:
        carrier = self.__dict__.get(DRIVER_KEY)
        if carrier is not None and not carrier.closed:
            carrier.close(guard.run("psycopg_pool.close", _reason, None))
        return original(self)

    return close


def _make_close_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def close(self: LibraryObject) -> LibraryObject:
        carrier = self.__dict__.get(DRIVER_KEY)
        if carrier is not None and not carrier.closed:
            carrier.close(guard.run("psycopg_pool.close", _reason, None))
        return await original(self)

    return close


def _reason() -> str | None:
    # The frames: this function, the guard, the hook.
    caller = sys._getframe(3)
    name = caller.f_code.co_name
    if name == "_maybe_close_connection":
        return "disposed"
    if "psycopg_pool" not in caller.f_globals.get("__name__", ""):
        return None
    return REASONS.get(name)
