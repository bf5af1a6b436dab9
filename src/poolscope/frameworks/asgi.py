"""
ASGI: a unit of work from the call of an application until it returns, background tasks included.

Of a websocket each message is one, from its receipt until the application receives the next; the handshake is the
first. While the application holds a connection across messages, they are one together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.work import CURRENT_UNIT
from poolscope.core.work_scope import begin, inside_async
from poolscope.frameworks.naming import WEBSOCKET, unmatched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.core.work_scope import WorkScope
    from poolscope.types import LibraryObject

#: The key in a scope that says that the request is a unit of work already; scopes of mounted applications inherit it.
#: The context does not serve for that: it may be that of the request before on the same connection.
MARK: Final = "poolscope"

_HTTP: Final = "http"
_WEBSOCKET: Final = "websocket"


class Middleware:
    """
    Makes each request to an ASGI application a unit of work, where the application is of no framework that is hooked.

    Args:
        application: The application.
        pool_registry: The pool registry, where units of work begin.
    """

    def __init__(self, application: Callable[..., Any], pool_registry: PoolRegistry) -> None:
        self._application = application
        self._pool_registry = pool_registry

    async def __call__(self, scope: LibraryObject, receive: LibraryObject, send: LibraryObject) -> LibraryObject:
        """One request."""
        return await serve(self._pool_registry, scope, receive, lambda receive: self._application(scope, receive, send))

    def __getattr__(self, name: str) -> LibraryObject:
        return getattr(self._application, name)


def make_call(pool_registry: PoolRegistry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes the ``__call__`` of an application class begin and end units of work."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def __call__(
            self: LibraryObject, scope: LibraryObject, receive: LibraryObject, send: LibraryObject
        ) -> LibraryObject:
            return await serve(pool_registry, scope, receive, lambda receive: original(self, scope, receive, send))

        return __call__

    return make


async def serve(
    pool_registry: PoolRegistry,
    scope: LibraryObject,
    receive: LibraryObject,
    call: Callable[[LibraryObject], Awaitable[LibraryObject]],
) -> LibraryObject:
    """
    Serve one request as a unit of work, if it is not part of one.

    Args:
        pool_registry: The pool registry, where units of work begin.
        scope: The request.
        receive: Gives the application its messages.
        call: Calls the application; gets what gives it its messages.

    Returns:
        What the application returned.
    """
    kind = scope["type"]
    if kind == _HTTP and MARK not in scope:

        def answer() -> Awaitable[LibraryObject]:
            if CURRENT_UNIT.get() is not None:
                scope[MARK] = True
            return call(receive)

        name = unmatched(scope.get("method"))
        return await inside_async(lambda: begin(pool_registry, "http", name, outermost=False), answer)
    if kind == _WEBSOCKET and MARK not in scope:
        scope[MARK] = True
        messages = _Messages(pool_registry, receive)
        try:
            try:
                messages.begin()
                return await call(messages.receive)
            except GeneratorExit:
                messages.end(in_collection=True)
                raise
            finally:
                messages.end()
        except BaseException:
            messages.end()  # again, if that was interrupted
            raise
    return await call(receive)


class _Messages:
    """The messages of one websocket, each a unit of work."""

    def __init__(self, pool_registry: PoolRegistry, receive: Callable[[], Awaitable[Any]]) -> None:
        self._pool_registry = pool_registry
        self._receive = receive
        self._name = unmatched(WEBSOCKET)
        self._work_scope: WorkScope | None = None

    async def receive(self) -> LibraryObject:
        guard.run("asgi.message", self._pause, None)
        try:
            message = await self._receive()
        except Exception:  # the client is gone: what the application does then is part of a unit of work, too
            guard.run("asgi.message", self.begin, None)
            raise
        guard.run("asgi.message", self.begin, None)
        return message

    def end(self, *, in_collection: bool = False) -> None:
        work_scope = self._work_scope
        if work_scope is not None:
            self._name = work_scope.unit.name
            if in_collection:
                work_scope.end_in_collection()
            else:
                work_scope.end()
            self._work_scope = None

    def _pause(self) -> None:
        # A handshake is not over before the application has answered the message that opens it; what is held across
        # messages would look as if it were left behind.
        unit = self._work_scope.unit if self._work_scope is not None else None
        if unit is not None and not any(share.leases for share in unit.usages.values()):
            self.end()

    def begin(self) -> None:
        if self._work_scope is None:
            self._work_scope = begin(self._pool_registry, "http", self._name, outermost=False)
