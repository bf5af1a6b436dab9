"""
What a pooled psycopg connection does while a caller holds it: its calls to the server.

Statements pass through the cursors' ``execute``, ``executemany``, ``stream`` and ``copy`` (``Connection.execute`` makes
a cursor), the ends of transactions through the connection's ``commit``, ``rollback`` and ``tpc_...`` and through
``Transaction``, the results of a pipeline through its ``sync`` and its end. Further fetches of a server-side cursor are
calls, but no statements.
"""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.points import Call, Statement
from poolscope.adapters.statements import text_of
from poolscope.core.types import override

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from poolscope.adapters.base import Point, PointAdapter
    from poolscope.adapters.points.calls import EndCall
    from poolscope.core.lease import Lease
    from poolscope.core.types import LibraryObject

    Function = Callable[..., Any]
    Begun = tuple[LibraryObject, Lease] | None

_EXHAUSTED: Final = object()


class Stream(Statement):
    """
    A statement whose rows are fetched one by one, by a generator.
    """

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        begin, fetch, end = self.begins(adapter, ""), Call.begins(self, adapter, ""), self.ends(adapter)

        def stream(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> Iterator[LibraryObject]:
            rows = original(self_, *args, **kwargs)
            begun = begin(self_, args, kwargs)
            if begun is None:
                yield from rows
                return
            try:
                while (row := _timed(begun, end, next, rows, _EXHAUSTED)) is not _EXHAUSTED:
                    yield row
                    begun = fetch(self_, (), {})
            finally:
                _timed(fetch(self_, (), {}), end, rows.close)

        async def stream_async(
            self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject
        ) -> AsyncIterator[LibraryObject]:
            rows = original(self_, *args, **kwargs)
            begun = begin(self_, args, kwargs)
            try:
                while (row := await _timed_async(begun, end, anext, rows, _EXHAUSTED)) is not _EXHAUSTED:
                    yield row
                    begun = fetch(self_, (), {})
            finally:
                await _timed_async(fetch(self_, (), {}), end, rows.aclose)

        return stream_async if inspect.isasyncgenfunction(inspect.unwrap(original)) else stream


def _timed(begun: Begun, end: EndCall, step: Function, *args: LibraryObject) -> LibraryObject:
    try:
        return step(*args)
    finally:
        if begun is not None:
            end(*begun)


async def _timed_async(begun: Begun, end: EndCall, step: Function, *args: LibraryObject) -> LibraryObject:
    try:
        return await step(*args)
    finally:
        if begun is not None:
            end(*begun)


class Copy(Statement):
    """
    A COPY: a block, which the statement lasts for.
    """

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        begin, end = self.begins(adapter, ""), self.ends(adapter)
        watched = _copying_async if inspect.isasyncgenfunction(inspect.unwrap(original)) else _copying

        def copy(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            return watched(original(self_, *args, **kwargs), lambda: begin(self_, args, kwargs), end)

        return copy


@contextmanager
def _copying(block: LibraryObject, begin: Callable[[], Begun], end: EndCall) -> Iterator[LibraryObject]:
    begun = begin()
    try:
        with block as copy:
            yield copy
    finally:
        if begun is not None:
            end(*begun)


@asynccontextmanager
async def _copying_async(
    block: LibraryObject, begin: Callable[[], Begun], end: EndCall
) -> AsyncIterator[LibraryObject]:
    begun = begin()
    try:
        async with block as copy:
            yield copy
    finally:
        if begun is not None:
            end(*begun)


class Fetch(Call):
    """
    A further fetch of a server-side cursor, sync or async: a generator that waits for the server, in a base of both.
    """

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        begin, end = self.begins(adapter, ""), self.ends(adapter)

        def fetch(
            self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject
        ) -> Generator[LibraryObject, LibraryObject, LibraryObject]:
            begun = begin(self_, args, kwargs)
            try:
                return (yield from original(self_, *args, **kwargs))
            finally:
                if begun is not None:
                    end(*begun)

        return fetch


def _one(_: LibraryObject, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, bool, Any]:
    query = args[0] if args else kwargs.get("query", "")
    parameters = args[1] if len(args) > 1 else kwargs.get("params")
    return query if type(query) is str else text_of(query), False, parameters


def _many(_: LibraryObject, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, bool, Any]:
    query = args[0] if args else next(iter(kwargs.values()), "")
    return text_of(query), True, None


_TRANSACTION_ENDS: Final = ("commit", "rollback", "tpc_begin", "tpc_prepare", "tpc_commit", "tpc_rollback")


def _points(is_async: str, block: str) -> Iterator[Point]:
    for cursor in ("Cursor", "ServerCursor"):
        yield Statement(f"psycopg:{is_async}{cursor}.execute", describe=_one, nested=False)
    cursor = f"psycopg:{is_async}Cursor"
    yield Statement(f"{cursor}.executemany", describe=_many, nested=False)
    yield Stream(f"{cursor}.stream", describe=_one, nested=False)
    yield Copy(f"{cursor}.copy", describe=_many, nested=False)
    yield Fetch(f"psycopg:{is_async}ServerCursor._fetch_gen", inherited=True)
    for name in _TRANSACTION_ENDS:
        yield Call(f"psycopg:{is_async}Connection.{name}")
    for name in (f"__{block}enter__", f"__{block}exit__"):
        yield Call(f"psycopg:{is_async}Transaction.{name}")
    for name in ("sync", f"__{block}exit__"):
        yield Call(f"psycopg:{is_async}Pipeline.{name}")


#: The points, sync and async. Threads and tasks may share a connection; their statements take turns.
CALLS: Final[tuple[Point, ...]] = (*_points("", ""), *_points("Async", "a"))
