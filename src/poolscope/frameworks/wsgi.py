"""WSGI: a unit of work from the call to the ``close()`` of what it returned (PEP 3333)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.work_scope import begin
from poolscope.frameworks.naming import unmatched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.core.work_scope import WorkScope
    from poolscope.types import LibraryObject

_FILE_WRAPPER: Final = "wsgi.file_wrapper"


class Middleware:
    """
    Makes each request to a WSGI application a unit of work, where the application is of no framework that is hooked.

    Args:
        application: The application.
        pool_registry: The pool registry, where units of work begin.
    """

    def __init__(self, application: Callable[..., Any], pool_registry: PoolRegistry) -> None:
        self._application = application
        self._pool_registry = pool_registry

    def __call__(self, environ: LibraryObject, start_response: LibraryObject) -> LibraryObject:
        """One request."""
        return serve(self._pool_registry, environ, lambda: self._application(environ, start_response))

    def __getattr__(self, name: str) -> LibraryObject:
        return getattr(self._application, name)


def make_call(pool_registry: PoolRegistry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes the ``__call__`` of an application class begin and end units of work."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def __call__(self: LibraryObject, environ: LibraryObject, start_response: LibraryObject) -> LibraryObject:
            return serve(pool_registry, environ, lambda: original(self, environ, start_response))

        return __call__

    return make


def serve(pool_registry: PoolRegistry, environ: LibraryObject, call: Callable[[], LibraryObject]) -> LibraryObject:
    """
    Serve one request as a unit of work, if it is not part of one.

    Args:
        pool_registry: The pool registry, where units of work begin.
        environ: The request.
        call: Calls the application.

    Returns:
        What the application returned; or the same values, if reading them is part of the unit of work.
    """
    work_scope = begin(pool_registry, "http", unmatched(environ.get("REQUEST_METHOD")))
    if work_scope is None:
        return call()
    try:
        body = call()
    except BaseException:
        work_scope.end()
        raise
    return guard.run("wsgi.body", lambda: _body(work_scope, body, environ), body)


def _body(work_scope: WorkScope, body: LibraryObject, environ: LibraryObject) -> LibraryObject:
    if isinstance(body, (list, tuple, bytes)):
        work_scope.end()  # nothing is computed any more when it is sent, and servers look at its length
        return body
    work_scope.leave()
    wrapper = environ.get(_FILE_WRAPPER)
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        return _file(work_scope, body)  # servers know it by its class
    return _SizedBody(work_scope, body) if hasattr(body, "__len__") else _Body(work_scope, body)


def _file(work_scope: WorkScope, body: LibraryObject) -> LibraryObject:
    closing = _Body(work_scope, body).close
    try:
        body.close = closing
    except AttributeError:
        work_scope.end()
    return body


class _Body:
    """What an application returned; computing each part of it is part of the unit of work."""

    def __init__(self, work_scope: WorkScope, body: LibraryObject) -> None:
        self._work_scope = work_scope
        self._body = body
        self._close = getattr(body, "close", None)
        self._parts: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> LibraryObject:
        self._work_scope.enter()
        try:
            if self._parts is None:
                self._parts = iter(self._body)
            return next(self._parts)
        finally:
            self._work_scope.leave()

    def close(self) -> None:
        self._work_scope.enter()
        try:
            if self._close is not None:
                self._close()
        finally:
            self._work_scope.end()

    def __getattr__(self, name: str) -> LibraryObject:
        return getattr(self._body, name)


class _SizedBody(_Body):
    def __len__(self) -> int:
        return len(self._body)
