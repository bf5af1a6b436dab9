"""
Servers, for applications of no framework that is hooked: waitress, gunicorn and wsgiref for WSGI, uvicorn for ASGI.

What a server calls is put into a middleware; a framework inside it names the request. Servers that run already keep
their application as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.frameworks import asgi, wsgi

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject

# Of gunicorn's workers those that call the application by WSGI; others, such as uvicorn's, have an ASGI application.
_WSGI_WORKERS: Final = frozenset(f"gunicorn.workers.{name}" for name in ("sync", "gthread", "base_async", "gtornado"))


class WaitressFramework:
    """Requests to waitress."""

    name = "waitress"
    servers = ("waitress",)
    module = "waitress.server"

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        patcher.require(module.BaseWSGIServer, ("__init__",))
        patcher.wrap(module.BaseWSGIServer, "__init__", _afterwards("application", wsgi.Middleware, pool_registry))

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


class GunicornFramework:
    """Requests to gunicorn's workers."""

    name = "gunicorn"
    servers = ("gunicorn",)
    module = "gunicorn.workers.base"

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        patcher.require(module.Worker, ("load_wsgi",))
        wrapper = _afterwards("wsgi", wsgi.Middleware, pool_registry)

        def load_wsgi(
            wrapped: Callable[..., LibraryObject], worker: LibraryObject, args: LibraryObject, kwargs: LibraryObject
        ) -> LibraryObject:
            if _WSGI_WORKERS.isdisjoint(kind.__module__ for kind in type(worker).__mro__):
                return wrapped(*args, **kwargs)
            return wrapper(wrapped, worker, args, kwargs)

        patcher.wrap(module.Worker, "load_wsgi", load_wsgi)

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


class WsgirefFramework:
    """Requests to the standard library's server, and to Django's development server."""

    name = "wsgiref"
    servers = ("wsgiref",)
    module = "wsgiref.handlers"

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        patcher.require(module.BaseHandler, ("run",))

        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            def run(self: LibraryObject, application: LibraryObject) -> LibraryObject:
                return original(self, wsgi.Middleware(application, pool_registry))

            return run

        patcher.replace(module.BaseHandler, "run", make)

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


class UvicornFramework:
    """Requests to uvicorn."""

    name = "uvicorn"
    servers = ("uvicorn",)
    module = "uvicorn.config"
    loops = ("/uvloop/__init__.py",)

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        patcher.require(module.Config, ("load",))
        patcher.wrap(module.Config, "load", _afterwards("loaded_app", asgi.Middleware, pool_registry))

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


def _afterwards(attribute: str, middleware: Callable[..., Any], pool_registry: PoolRegistry) -> Callable[..., Any]:
    def wrapper(
        wrapped: Callable[..., LibraryObject], server: LibraryObject, args: LibraryObject, kwargs: LibraryObject
    ) -> LibraryObject:
        result = wrapped(*args, **kwargs)
        guard.run(
            "servers.wrap",
            lambda: setattr(server, attribute, middleware(getattr(server, attribute), pool_registry)),
            None,
        )
        return result

    return wrapper


FRAMEWORKS: Final[tuple[Hook, ...]] = (WaitressFramework(), GunicornFramework(), WsgirefFramework(), UvicornFramework())
