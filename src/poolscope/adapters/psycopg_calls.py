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
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.leases import recover_call
from poolscope.adapters.marks import CONNECTION_KEY
from poolscope.adapters.points import Call, Statement
from poolscope.adapters.points.calls import stop
from poolscope.adapters.statements import begin_statement
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from poolscope.adapters.base import Point, PointAdapter
    from poolscope.adapters.points.calls import BeginCall, EndCall
    from poolscope.core.lease import Lease
    from poolscope.types import LibraryObject

    Function = Callable[..., Any]
    Begun = tuple[LibraryObject, Lease] | None


@dataclass(frozen=True)
class CursorStatement(Statement):
    """
    A statement of a cursor. One that begins while another runs is no part of it: threads and tasks may share a
    connection, where their statements take turns.

    Args:
        where: See `Point`.
        many: Whether one call runs it for many rows.
    """

    _: KW_ONLY
    many: bool = False

    @override
    def begins(self, adapter: PointAdapter, name: str) -> BeginCall:  # noqa: ARG002
        component, many = f"{adapter.name}.call", self.many

        # What `connection_of` and `lease_of` do is spelt out: most of what an application calls passes here.
        def begin(hooked: LibraryObject, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Begun:
            lease = None
            try:
                connection = hooked._conn
                state = connection.__dict__.get(CONNECTION_KEY)
                if state is None or (lease := state.lease) is None:
                    return None
                query = args[0] if args else next(iter(kwargs.values()), "")
                parameters = None if many else args[1] if len(args) > 1 else kwargs.get("params") if kwargs else None
                if type(query) is str and lease.above is None:  # as most are
                    lease.statement_begins(query, many=many, parameters=parameters)
                else:
                    begin_statement(lease, query, many=many, parameters=parameters)
                return connection, lease
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_call(component, lease)
                return None

        return begin


class Stream(CursorStatement):
    """A statement whose rows are fetched one by one, by a generator."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        watched = _stream_async if inspect.isasyncgenfunction(inspect.unwrap(original)) else _stream
        return watched(original, self.begins(adapter, ""), self.ends(adapter), f"{adapter.name}.call")


def _stream(original: Function, begin: BeginCall, end: EndCall, component: str) -> Function:
    def stream(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> Iterator[LibraryObject]:
        rows = original(self_, *args, **kwargs)
        begun, runs = None, True
        try:
            try:
                begun = begin(self_, args, kwargs)
                if begun is None:
                    yield from rows
                    return
                for row in rows:
                    if runs:
                        end(begun)
                        runs = False
                    yield row
                    runs = _fetch_begins(begun, component)
            except BaseException:  # broken off: the cursor cancels what the server still does
                runs = runs or _fetch_begins(begun, component)
                rows.close()
                raise
            finally:
                if runs and begun is not None:
                    end(begun)
        except BaseException:
            stop(begun)
            raise

    return stream


def _stream_async(original: Function, begin: BeginCall, end: EndCall, component: str) -> Function:
    async def stream(
        self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject
    ) -> AsyncIterator[LibraryObject]:
        rows = original(self_, *args, **kwargs)
        begun, runs = None, True
        try:
            try:
                begun = begin(self_, args, kwargs)
                async for row in rows:
                    if runs and begun is not None:
                        end(begun)
                        runs = False
                    yield row
                    runs = _fetch_begins(begun, component)
            except BaseException:
                runs = runs or _fetch_begins(begun, component)
                await rows.aclose()
                raise
            finally:
                if runs and begun is not None:
                    end(begun)
        except BaseException:
            stop(begun)
            raise

    return stream


def _fetch_begins(begun: Begun, component: str) -> bool:
    # A further fetch is a call of its own; False where it is none, as on a connection that was returned.
    lease = begun[1] if begun is not None else None
    try:
        if lease is None or lease.running or lease.ended_at is not None:
            return False
        lease.call_begins()
        return True
    except BaseException:  # noqa: BLE001 - ours, or a signal handler's
        recover_call(component, lease)
        return False


class Copy(CursorStatement):
    """A COPY: a block, which the statement lasts for."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        begin, end = self.begins(adapter, ""), self.ends(adapter)
        watched = _copying_async if inspect.isasyncgenfunction(inspect.unwrap(original)) else _copying

        def copy(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            return watched(original(self_, *args, **kwargs), lambda: begin(self_, args, kwargs), end)

        return copy


@contextmanager
def _copying(block: LibraryObject, begin: Callable[[], Begun], end: EndCall) -> Iterator[LibraryObject]:
    begun = None
    try:
        try:
            begun = begin()
            with block as copy:
                yield copy
        finally:
            if begun is not None:
                end(begun)
    except BaseException:
        stop(begun)
        raise


@asynccontextmanager
async def _copying_async(
    block: LibraryObject, begin: Callable[[], Begun], end: EndCall
) -> AsyncIterator[LibraryObject]:
    begun = None
    try:
        try:
            begun = begin()
            async with block as copy:
                yield copy
        finally:
            if begun is not None:
                end(begun)
    except BaseException:
        stop(begun)
        raise


class Fetch(Call):
    """
    A further fetch of a server-side cursor, sync or async: a generator that waits for the server,
    in a base of both.
    """

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        begin, end = self.begins(adapter, ""), self.ends(adapter)

        def fetch(
            self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject
        ) -> Generator[LibraryObject, LibraryObject, LibraryObject]:
            begun = None
            try:
                try:
                    begun = begin(self_, args, kwargs)
                    return (yield from original(self_, *args, **kwargs))
                finally:
                    if begun is not None:
                        end(begun)
            except BaseException:
                stop(begun)
                raise

        return fetch


_TRANSACTION_ENDS: Final = ("commit", "rollback", "tpc_begin", "tpc_prepare", "tpc_commit", "tpc_rollback")


def _points(is_async: str, block: str) -> Iterator[Point]:
    for cursor in ("Cursor", "ServerCursor"):
        yield CursorStatement(f"psycopg:{is_async}{cursor}.execute")
    cursor = f"psycopg:{is_async}Cursor"
    yield CursorStatement(f"{cursor}.executemany", many=True)
    yield Stream(f"{cursor}.stream")
    yield Copy(f"{cursor}.copy", many=True)
    yield Fetch(f"psycopg:{is_async}ServerCursor._fetch_gen", inherited=True)
    for name in _TRANSACTION_ENDS:
        yield Call(f"psycopg:{is_async}Connection.{name}", of_connection=True)
    for name in (f"__{block}enter__", f"__{block}exit__"):
        yield Call(f"psycopg:{is_async}Transaction.{name}")
    for name in ("sync", f"__{block}exit__"):
        yield Call(f"psycopg:{is_async}Pipeline.{name}")


#: The points, sync and async.
CALLS: Final[tuple[Point, ...]] = (*_points("", ""), *_points("Async", "a"))
