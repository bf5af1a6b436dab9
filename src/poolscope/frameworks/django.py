"""
Django: the handlers' ``__call__``, WSGI and ASGI, and those of its test clients.

Django closes old connections in ``request_finished``, which the response's ``close()`` sends; the request ends after
it. The test clients' handlers return the response object itself and close it before that, or, where it is streamed,
with its last chunk.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.origin import CALLED_FROM
from poolscope.core.work_scope import Unclosed, begin, finish, reset
from poolscope.frameworks import asgi, wsgi
from poolscope.frameworks.naming import matched, unmatched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import ModuleType

    from poolscope.core.origin import PackedStack
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.core.work_scope import WorkScope
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject

_HANDLERS: Final = "django.core.handlers."
_CLIENT: Final = "django.test.client"


class DjangoFramework:
    """Requests to Django."""

    name = "django"
    module = f"{_HANDLERS}base"
    modules = (module, f"{_HANDLERS}wsgi", f"{_HANDLERS}asgi", _CLIENT)

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        part = module.__name__.removeprefix(_HANDLERS)
        if part == _CLIENT:
            for handler in (module.ClientHandler, module.AsyncClientHandler):
                patcher.require(handler, ("__call__",))
            patcher.replace(module.ClientHandler, "__call__", _make_client(pool_registry))
            patcher.replace(module.AsyncClientHandler, "__call__", _make_async_client(pool_registry))
        elif part == "base":
            patcher.require(module.BaseHandler, ("resolve_request", "make_view_atomic"))
            patcher.replace(module.BaseHandler, "resolve_request", _make_resolve)
            patcher.replace(module.BaseHandler, "make_view_atomic", _make_atomic(pool_registry))
        elif part == "wsgi":
            patcher.require(module.WSGIHandler, ("__call__",))
            patcher.replace(module.WSGIHandler, "__call__", wsgi.make_call(pool_registry))
        else:
            patcher.require(module.ASGIHandler, ("__call__",))
            patcher.replace(module.ASGIHandler, "__call__", asgi.make_call(pool_registry))

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


def _make_resolve(original: Callable[..., Any]) -> Callable[..., Any]:
    def resolve_request(self: LibraryObject, request: LibraryObject) -> LibraryObject:
        match = original(self, request)
        guard.run("django.route", lambda: matched(f"/{match.route}"), None)
        return match

    return resolve_request


def _make_atomic(pool_registry: PoolRegistry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    # The transaction around a view begins before it, where no frame is the application's. A view that is a function is
    # found on the stack; where the view is a class, Django's own function is there.
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def make_view_atomic(self: LibraryObject, view: LibraryObject) -> LibraryObject:
            atomic = original(self, view)
            if atomic is view or not hasattr(view, "view_class"):
                return atomic

            @wraps(atomic)
            def on_behalf(request: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
                place: PackedStack = guard.run("django.view", lambda: _place_of(pool_registry, view, request), ())
                token = None
                try:
                    token = CALLED_FROM.set(place or CALLED_FROM.get())
                    result = atomic(request, *args, **kwargs)
                    CALLED_FROM.reset(token)
                    return result  # noqa: TRY300 - an interrupt may come here, too
                except BaseException:
                    reset(CALLED_FROM, token)
                    raise

            return on_behalf

        return make_view_atomic

    return make


def _place_of(pool_registry: PoolRegistry, view: LibraryObject, request: LibraryObject) -> PackedStack:
    # The method for the request; one that dispatches by itself, where there is none.
    for name in (str(request.method).lower(), "dispatch"):
        place = pool_registry.place_of(getattr(view.view_class, name, None))
        if place:
            return place
    return ()


def _make_client(pool_registry: PoolRegistry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def __call__(self: LibraryObject, environ: LibraryObject) -> LibraryObject:
            work_scope = None
            try:
                work_scope = begin(pool_registry, "http", unmatched(environ.get("REQUEST_METHOD")))
                response = original(self, environ)
                if work_scope is not None:
                    _followed(work_scope, response)
                return response  # noqa: TRY300 - an interrupt may come here, too
            except BaseException:
                if work_scope is not None:
                    work_scope.end()
                raise

        return __call__

    return make


def _make_async_client(pool_registry: PoolRegistry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def __call__(self: LibraryObject, scope: LibraryObject) -> LibraryObject:
            work_scope = None
            try:
                work_scope = begin(pool_registry, "http", unmatched(scope.get("method")))
                response = await original(self, scope)
                if work_scope is not None:
                    _followed(work_scope, response)
                return response  # noqa: TRY300 - an interrupt may come here, too
            except BaseException:
                if work_scope is not None:
                    work_scope.end()
                raise

        return __call__

    return make


def _followed(work_scope: WorkScope, response: LibraryObject) -> None:
    try:
        _follow(work_scope, response)
    except Exception:  # noqa: BLE001 - ours
        guard.caught("django.client")


def _follow(work_scope: WorkScope, response: LibraryObject) -> None:
    # A response that is not streamed is closed by now.
    if not getattr(response, "streaming", False):
        work_scope.end()
        return
    work_scope.leave()
    chunks = _AsyncChunks if getattr(response, "is_async", False) else _Chunks
    response.streaming_content = chunks(work_scope, response.streaming_content)
    response.close = partial(finish, work_scope, response.close)  # of one that is not read to its end


class _Chunks(Unclosed):
    # Without `close`: the response would call it before it sends `request_finished`.
    def __init__(self, work_scope: WorkScope, content: Iterator[Any]) -> None:
        super().__init__(work_scope)
        self._content = iter(content)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> LibraryObject:
        try:
            self._work_scope.enter()
            chunk = next(self._content)
            self._work_scope.leave()
            return chunk  # noqa: TRY300 - an interrupt may come here, too
        except BaseException:
            self._work_scope.end()
            raise


class _AsyncChunks(Unclosed):
    def __init__(self, work_scope: WorkScope, content: AsyncIterator[Any]) -> None:
        super().__init__(work_scope)
        self._content = aiter(content)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> LibraryObject:
        try:
            self._work_scope.enter()
            chunk = await anext(self._content)
            self._work_scope.leave()
            return chunk  # noqa: TRY300 - an interrupt may come here, too
        except BaseException:
            self._work_scope.end()
            raise


FRAMEWORKS: Final[tuple[Hook, ...]] = (DjangoFramework(),)
