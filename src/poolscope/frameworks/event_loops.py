"""Event loops that are closed: what was opened in one is of no use in the next, as with one asyncio.run() per job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.core.failure import raised_by_a_signal
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject


class EventLoopsFramework:
    """asyncio's event loops. Those written in C cannot be hooked: their pools are looked at every second."""

    name = "asyncio"
    module = "asyncio.base_events"

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hook in."""
        patcher.require(module.BaseEventLoop, ("close",))
        patcher.replace(module.BaseEventLoop, "close", lambda original: _make_close(original, pool_registry))

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


def _make_close(original: Callable[..., Any], pool_registry: PoolRegistry) -> Callable[..., Any]:
    def close(self: LibraryObject) -> LibraryObject:
        try:
            return original(self)
        finally:
            # The garbage collector closes loops too: nothing here may log or wait for a lock.
            try:
                pool_registry.loop_closed()
            except Exception as error:
                if raised_by_a_signal(error):
                    raise
                guard.caught_quietly("asyncio.close")

    return close


FRAMEWORKS: Final[tuple[Hook, ...]] = (EventLoopsFramework(),)
