"""
WSGI: a unit of work from the call to the ``close()`` of what it returned (PEP 3333). Test clients often leave that out:
then it ends when what was returned is collected or, once it has been read to its end, with the next request.
"""

from __future__ import annotations

import weakref
from functools import partial
from inspect import ismethod
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.work_scope import Unclosed, begin, finish
from poolscope.frameworks.naming import unmatched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.core.work_scope import WorkScope
    from poolscope.types import LibraryObject

_FILE_WRAPPER: Final = "wsgi.file_wrapper"
_UNKNOWN: Final = float("inf")


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
        return serve(self._pool_registry, environ, start_response, self._application)

    def __getattr__(self, name: str) -> LibraryObject:
        return getattr(self._application, name)


def make_call(pool_registry: PoolRegistry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes the ``__call__`` of an application class begin and end units of work."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def __call__(self: LibraryObject, environ: LibraryObject, start_response: LibraryObject) -> LibraryObject:
            return serve(pool_registry, environ, start_response, partial(original, self))

        return __call__

    return make


def serve(
    pool_registry: PoolRegistry, environ: LibraryObject, start_response: LibraryObject, call: Callable[..., Any]
) -> LibraryObject:
    """
    Serve one request as a unit of work, if it is not part of one.

    Args:
        pool_registry: The pool registry, where units of work begin.
        environ: The request.
        start_response: The server's.
        call: The application.

    Returns:
        What the application returned; or the same values, if reading them is part of the unit of work.
    """
    work_scope = body = None
    try:
        work_scope = begin(pool_registry, "http", unmatched(environ.get("REQUEST_METHOD")))
        if work_scope is None:
            return call(environ, start_response)
        start = _Start(start_response)
        body = call(environ, start)
        return _wrapped(work_scope, body, environ, start)
    except BaseException:
        if work_scope is not None:
            try:
                # An interrupt came between the application and the server, which will not close what it does not get.
                close = getattr(body, "close", None)
                if close is not None:
                    close()
            finally:
                work_scope.end()
        raise


def _wrapped(work_scope: WorkScope, body: LibraryObject, environ: LibraryObject, start: _Start) -> LibraryObject:
    try:
        return _body(work_scope, body, environ, start)
    except Exception:  # noqa: BLE001 - ours
        guard.caught("wsgi.body")
        return body


class _Start:
    """
    The server's ``start_response``; remembers the headers.

    Args:
        start_response: The server's.
    """

    def __init__(self, start_response: Callable[..., Any]) -> None:
        self._start_response = start_response
        self._headers: LibraryObject = ()

    def __call__(self, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        self._headers = args[1] if len(args) > 1 else ()
        return self._start_response(*args, **kwargs)

    def __getattr__(self, name: str) -> LibraryObject:
        return getattr(self._start_response, name)

    def length(self) -> float:
        """How many bytes the body has; infinity where that is not known."""
        for name, value in self._headers:
            if name.lower() == "content-length" and value.isdecimal():
                return int(value)
        return _UNKNOWN


def _body(work_scope: WorkScope, body: LibraryObject, environ: LibraryObject, start: _Start) -> LibraryObject:
    if isinstance(body, (list, tuple, bytes)):
        work_scope.end()  # nothing is computed any more when it is sent, and servers look at its length
        return body
    work_scope.leave()
    wrapper = environ.get(_FILE_WRAPPER)
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        return _file(work_scope, body)  # servers know it by its class
    return (_SizedBody if hasattr(body, "__len__") else _Body)(work_scope, body, start)


def _file(work_scope: WorkScope, body: LibraryObject) -> LibraryObject:
    closing = None  # where it is of no use, it is dropped after the unit's end: it would end that without its span
    try:
        closing = _Closing(work_scope, body)
        body.close = closing
    except (AttributeError, TypeError):  # its class has slots: it takes no attribute, and no weak reference
        work_scope.end()
    return body


class _Closing(Unclosed):
    """
    The ``close`` of a file. It does not keep the file: that is collected when it would be without it.

    Args:
        work_scope: The unit of work.
        file: What the application returned.
    """

    def __init__(self, work_scope: WorkScope, file: LibraryObject) -> None:
        close: Any = getattr(file, "close", None)
        is_its_own = ismethod(close) and close.__self__ is file
        self._close: Callable[[], Any] = weakref.WeakMethod(close) if is_its_own else lambda: close
        super().__init__(work_scope)  # last: what fails above leaves the unit of work alone

    def __call__(self) -> None:
        finish(self._work_scope, self._close())


class _Body(Unclosed):
    """What an application returned; computing each part of it is part of the unit of work."""

    def __init__(self, work_scope: WorkScope, body: LibraryObject, start: _Start) -> None:
        super().__init__(work_scope)
        self._start = start
        self._left: float | None = None  # of the body, in bytes
        self._body = body
        self._close = getattr(body, "close", None)
        self._parts: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> LibraryObject:
        try:
            try:
                self._work_scope.enter()
                if self._parts is None:
                    self._parts = iter(self._body)
                part = next(self._parts)
            except BaseException:
                self._work_scope.read()
                raise
            finally:
                self._work_scope.leave()
            guard.run("wsgi.length", lambda: self._count(len(part)), None)
            return part  # noqa: TRY300 - an interrupt may come here, too
        except BaseException:
            self._work_scope.leave()  # again, if that was interrupted
            raise

    def _count(self, length: int) -> None:
        if self._left is None:
            self._left = self._start.length()
        self._left -= length
        if self._left <= 0:
            self._work_scope.read(sent=False)

    def close(self) -> None:
        finish(self._work_scope, self._close)

    def __getattr__(self, name: str) -> LibraryObject:
        return getattr(self._body, name)


class _SizedBody(_Body):
    def __len__(self) -> int:
        return len(self._body)
