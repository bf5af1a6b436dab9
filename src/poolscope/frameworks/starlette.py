"""
Starlette, and FastAPI, which inherits from it.

The request ends when ``Starlette.__call__`` returns: after background tasks and dependencies with ``yield``. The routes
that handle it name it, each the more the further inside it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.work_scope import reset
from poolscope.frameworks.anyio import ANYIO
from poolscope.frameworks.asgi import make_call
from poolscope.frameworks.naming import MOUNTED_AT, matched

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject

_ROUTING: Final = "starlette.routing"


class StarletteFramework:
    """Requests to Starlette applications."""

    name = "starlette"
    module = "starlette.applications"
    modules = (module, _ROUTING)
    # Its synchronous routes and dependencies run in anyio's threads, of which a limiter allows so many at once.
    worker_queues = (("anyio/_backends/_asyncio.py", "acquire_on_behalf_of"),)
    waits = ANYIO

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        if module.__name__ != _ROUTING:
            application = _own(module.Starlette)
            patcher.require(application, ("__call__",))
            patcher.replace(application, "__call__", make_call(pool_registry))
            return
        for route in (module.Route, module.WebSocketRoute, module.Mount):
            patcher.require(route, ("handle",))
        patcher.replace(module.Route, "handle", _make_handle)
        patcher.replace(module.WebSocketRoute, "handle", _make_handle)
        patcher.replace(module.Mount, "handle", _make_mount)

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


class FastApiFramework:
    """The routes of FastAPI, which know their prefix only while they handle a request (0.137 and later)."""

    name = "fastapi"
    module = "fastapi.routing"

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:  # noqa: ARG002 - the interface
        """Put the hooks in."""
        if "handle" in vars(module.APIRoute):
            patcher.replace(module.APIRoute, "handle", _make_handle)

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


def _own(application: type) -> type:
    # Upstream's instrumentation puts a class of its own, which inherits, in the place of Starlette's.
    return next((owner for owner in application.__mro__ if "__call__" in vars(owner)), application)


def _make_handle(original: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(
        self: LibraryObject, scope: LibraryObject, receive: LibraryObject, send: LibraryObject
    ) -> LibraryObject:
        guard.run("starlette.route", lambda: matched(_template(self, scope)), None)
        return await original(self, scope, receive, send)

    return handle


def _make_mount(original: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(
        self: LibraryObject, scope: LibraryObject, receive: LibraryObject, send: LibraryObject
    ) -> LibraryObject:
        token = None
        try:
            token = MOUNTED_AT.set(MOUNTED_AT.get() + self.path)
            guard.run("starlette.route", lambda: matched("/{path}"), None)
            result = await original(self, scope, receive, send)
            MOUNTED_AT.reset(token)
            return result  # noqa: TRY300 - an interrupt may come here, too
        except BaseException:
            reset(MOUNTED_AT, token)
            raise

    return handle


def _template(route: LibraryObject, scope: LibraryObject) -> str:
    # A router that is included under a prefix does not change the route; the path with it is in the scope.
    effective = (scope.get("fastapi") or {}).get("effective_route_context")
    if effective is not None and getattr(effective, "original_route", None) is route:
        return str(effective.path)
    return str(route.path)


FRAMEWORKS: Final[tuple[Hook, ...]] = (StarletteFramework(), FastApiFramework())
