"""gRPC servers, with threads and with asyncio: an interceptor around each method that exists."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.stepping import async_stepping, stepping
from poolscope.core.work_scope import begin, inside, inside_async
from poolscope.frameworks.naming import UNMATCHED

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.core.work_scope import Begins
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject

_AIO: Final = "grpc.aio"
# Of `interceptors` among the arguments of both `server` functions.
_POSITION: Final = 2
# A service and its method, by their names in a definition.
_METHOD: Final = re.compile(r"/?[\w.]+/\w+", re.ASCII)


class GrpcFramework:
    """Calls to gRPC servers that are made while it is hooked."""

    name = "grpc"
    servers = ("grpc",)
    module = "grpc"
    modules = (module, _AIO)

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        patcher.require(module, ("server", "ServerInterceptor"))
        base: Any = module.ServerInterceptor
        interceptor = (
            _async_interceptor(base, pool_registry) if module.__name__ == _AIO else _interceptor(base, pool_registry)
        )

        def server(
            wrapped: Callable[..., LibraryObject], _: LibraryObject, args: LibraryObject, kwargs: LibraryObject
        ) -> LibraryObject:
            positional, named = guard.run("grpc.server", lambda: _with(interceptor, args, kwargs), (args, kwargs))
            return wrapped(*positional, **named)

        patcher.wrap(module, "server", server)

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


def _with(
    interceptor: LibraryObject, args: tuple[LibraryObject, ...], kwargs: dict[str, LibraryObject]
) -> tuple[tuple[LibraryObject, ...], dict[str, LibraryObject]]:
    # By name where it is not given by position: upstream's instrumentation puts its own into the keywords, and the
    # signature of what it leaves in the place of `server` says nothing.
    if len(args) > _POSITION:
        theirs = args[_POSITION] or ()
        return (*args[:_POSITION], (interceptor, *theirs), *args[_POSITION + 1 :]), kwargs
    return args, {**kwargs, "interceptors": (interceptor, *(kwargs.get("interceptors") or ()))}


def _interceptor(base: LibraryObject, pool_registry: PoolRegistry) -> LibraryObject:
    class Interceptor(base):  # type: ignore[misc]
        def intercept_service(
            self, continuation: Callable[..., LibraryObject], details: LibraryObject
        ) -> LibraryObject:
            handler = continuation(details)
            return guard.run("grpc.handler", lambda: _wrapped(handler, details.method, pool_registry), handler)

    return Interceptor()


def _async_interceptor(base: LibraryObject, pool_registry: PoolRegistry) -> LibraryObject:
    class Interceptor(base):  # type: ignore[misc]
        async def intercept_service(
            self, continuation: Callable[..., LibraryObject], details: LibraryObject
        ) -> LibraryObject:
            handler = await continuation(details)
            return guard.run("grpc.handler", lambda: _wrapped(handler, details.method, pool_registry), handler)

    return Interceptor()


class _Handler:
    """A method's handler, with another function for it (`grpc.RpcMethodHandler`)."""

    def __init__(self, handler: LibraryObject, name: str, function: Callable[..., LibraryObject]) -> None:
        self._handler = handler
        setattr(self, name, function)

    def __getattr__(self, name: str) -> LibraryObject:
        return getattr(self._handler, name)


def _wrapped(handler: LibraryObject, method: str, pool_registry: PoolRegistry) -> LibraryObject:
    if handler is None:  # there is no such method; its name is whatever the client sent
        return None
    name = "_".join(
        "stream" if streaming else "unary" for streaming in (handler.request_streaming, handler.response_streaming)
    )
    function = getattr(handler, name)
    # A handler that takes any method gets it as the client sent it.
    unit_name = method.lstrip("/") if _METHOD.fullmatch(method) else UNMATCHED

    def begins() -> LibraryObject:
        return begin(pool_registry, "rpc", unit_name)

    return _Handler(handler, name, _inside(begins, function, streaming=handler.response_streaming))


def _inside(begins: Begins, function: Callable[..., Any], *, streaming: bool) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):
        return async_stepping(begins, function)
    if inspect.iscoroutinefunction(function):

        async def answer_later(request: LibraryObject, context: LibraryObject) -> LibraryObject:
            return await inside_async(begins, lambda: function(request, context))

        return answer_later
    if streaming:

        def answers(request: LibraryObject, context: LibraryObject) -> LibraryObject:
            yield from function(request, context)

        return stepping(begins, answers)

    def answer(request: LibraryObject, context: LibraryObject) -> LibraryObject:
        return inside(begins, lambda: function(request, context))

    return answer


FRAMEWORKS: Final[tuple[Hook, ...]] = (GrpcFramework(),)
