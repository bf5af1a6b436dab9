"""
What a pooled psycopg connection does while it is out: its calls to the server.

Statements pass through the cursors' ``execute``, ``executemany``, ``stream`` and ``copy`` (``Connection.execute`` makes
a cursor), the ends of transactions through the connection's ``commit``, ``rollback`` and ``tpc_...`` and through
``Transaction``, the results of a pipeline through its ``sync`` and its end. Further fetches of a server-side cursor are
calls, but no statements.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.calls import libpq_in_transaction
from poolscope.adapters.common import DRIVER_KEY, begin_statement
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from types import ModuleType

    from poolscope.core.lease import Lease
    from poolscope.core.types import LibraryObject
    from poolscope.hooks.patching import Patcher

_ENDS: Final = ("commit", "rollback", "tpc_begin", "tpc_prepare", "tpc_commit", "tpc_rollback")
_STATEMENTS: Final = ("execute", "executemany", "stream", "copy")
_FETCH: Final = "_fetch_gen"


class CallHooks:
    """
    Hooks psycopg's cursors, connections and transactions.

    Args:
        module: psycopg.
    """

    def __init__(self, module: ModuleType) -> None:
        self._cursors: tuple[tuple[Any, tuple[str, ...]], ...] = (
            (module.Cursor, _STATEMENTS),
            (module.ServerCursor, ("execute",)),
        )
        self._async_cursors: tuple[tuple[Any, tuple[str, ...]], ...] = (
            (module.AsyncCursor, _STATEMENTS),
            (module.AsyncServerCursor, ("execute",)),
        )
        self._ends: tuple[tuple[Any, tuple[str, ...], Callable[..., Any]], ...] = (
            (module.Connection, _ENDS, _end_call),
            (module.AsyncConnection, _ENDS, _end_call_async),
            (module.Transaction, ("__enter__", "__exit__"), _part_call),
            (module.AsyncTransaction, ("__aenter__", "__aexit__"), _part_call_async),
            (module.Pipeline, ("sync", "__exit__"), _part_call),
            (module.AsyncPipeline, ("sync", "__aexit__"), _part_call_async),
            # Sync and async fetches alike: a generator that waits for the server, in a base of both.
            (_that_has(_FETCH, module.ServerCursor), (_FETCH,), _fetch),
        )

    def check(self, patcher: Patcher) -> None:
        """
        Make sure that all is there that is to be hooked.

        Raises:
            Refused: Something is missing.
        """
        for owner, names in (*self._cursors, *self._async_cursors):
            patcher.require(owner, names)
        for owner, names, _ in self._ends:
            patcher.require(owner, names)

    def hook(self, patcher: Patcher) -> None:
        """
        Put the hooks in.
        """
        for cursors, makers in ((self._cursors, _MAKERS), (self._async_cursors, _ASYNC_MAKERS)):
            for owner, names in cursors:
                for name in names:
                    patcher.replace(owner, name, makers[name])
        for owner, names, make in self._ends:
            for name in names:
                patcher.replace(owner, name, make)


def _execute(original: Callable[..., Any]) -> Callable[..., Any]:
    def execute(
        self: LibraryObject, query: LibraryObject, params: LibraryObject = None, **kwargs: LibraryObject
    ) -> LibraryObject:
        lease = _begin(self._conn, query, params)
        if lease is None:
            return original(self, query, params, **kwargs)
        try:
            return original(self, query, params, **kwargs)
        finally:
            _end(lease, self._conn)

    return execute


def _execute_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def execute(
        self: LibraryObject, query: LibraryObject, params: LibraryObject = None, **kwargs: LibraryObject
    ) -> LibraryObject:
        lease = _begin(self._conn, query, params)
        if lease is None:
            return await original(self, query, params, **kwargs)
        try:
            return await original(self, query, params, **kwargs)
        finally:
            _end(lease, self._conn)

    return execute


def _executemany(original: Callable[..., Any]) -> Callable[..., Any]:
    def executemany(
        self: LibraryObject, query: LibraryObject, params_seq: LibraryObject, **kwargs: LibraryObject
    ) -> LibraryObject:
        lease = _begin(self._conn, query, None, many=True)
        if lease is None:
            return original(self, query, params_seq, **kwargs)
        try:
            return original(self, query, params_seq, **kwargs)
        finally:
            _end(lease, self._conn)

    return executemany


def _executemany_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def executemany(
        self: LibraryObject, query: LibraryObject, params_seq: LibraryObject, **kwargs: LibraryObject
    ) -> LibraryObject:
        lease = _begin(self._conn, query, None, many=True)
        if lease is None:
            return await original(self, query, params_seq, **kwargs)
        try:
            return await original(self, query, params_seq, **kwargs)
        finally:
            _end(lease, self._conn)

    return executemany


def _stream(original: Callable[..., Any]) -> Callable[..., Any]:
    def stream(
        self: LibraryObject, query: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject
    ) -> Iterator[LibraryObject]:
        rows = original(self, query, *args, **kwargs)
        lease = _begin(self._conn, query, args[0] if args else None)
        if lease is None:
            yield from rows
            return
        try:
            while True:
                try:
                    row = next(rows)
                except StopIteration:
                    return
                finally:
                    _end(lease, self._conn)
                yield row
                _call_begins(lease)
        finally:
            rows.close()
            _end(lease, self._conn)

    return stream


def _stream_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def stream(
        self: LibraryObject, query: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject
    ) -> AsyncIterator[LibraryObject]:
        rows = original(self, query, *args, **kwargs)
        lease = _begin(self._conn, query, args[0] if args else None)
        try:
            while True:
                try:
                    row = await rows.__anext__()
                except StopAsyncIteration:
                    return
                finally:
                    _end(lease, self._conn)
                yield row
                _call_begins(lease)
        finally:
            await rows.aclose()
            _end(lease, self._conn)

    return stream


@contextmanager
def _copied(cursor: LibraryObject, statement: LibraryObject, copying: LibraryObject) -> Iterator[LibraryObject]:
    lease = _begin(cursor._conn, statement, None, many=True)
    try:
        with copying as copy:
            yield copy
    finally:
        _end(lease, cursor._conn)


@asynccontextmanager
async def _copied_async(
    cursor: LibraryObject, statement: LibraryObject, copying: LibraryObject
) -> AsyncIterator[LibraryObject]:
    lease = _begin(cursor._conn, statement, None, many=True)
    try:
        async with copying as copy:
            yield copy
    finally:
        _end(lease, cursor._conn)


def _copy(watched: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    def copy(
        self: LibraryObject, statement: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject
    ) -> LibraryObject:
        copying = original(self, statement, *args, **kwargs)
        return copying if _lease_of(self._conn) is None else watched(self, statement, copying)

    return copy


def _fetch(original: Callable[..., Any]) -> Callable[..., Any]:
    def _fetch_gen(self: LibraryObject, num: int | None) -> Generator[LibraryObject, LibraryObject, LibraryObject]:
        lease = _call_begins(_lease_of(self._conn))
        try:
            return (yield from original(self, num))
        finally:
            _end(lease, self._conn)

    return _fetch_gen


def _end_call(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        lease = _call_begins(_lease_of(self))
        try:
            return original(self, *args, **kwargs)
        finally:
            _end(lease, self)

    return call


def _end_call_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def call(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        lease = _call_begins(_lease_of(self))
        try:
            return await original(self, *args, **kwargs)
        finally:
            _end(lease, self)

    return call


def _part_call(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: LibraryObject, *args: LibraryObject) -> LibraryObject:
        lease = _call_begins(_lease_of(self._conn))
        try:
            return original(self, *args)
        finally:
            _end(lease, self._conn)

    return call


def _part_call_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def call(self: LibraryObject, *args: LibraryObject) -> LibraryObject:
        lease = _call_begins(_lease_of(self._conn))
        try:
            return await original(self, *args)
        finally:
            _end(lease, self._conn)

    return call


_Makers = dict[str, "Callable[[Callable[..., Any]], Callable[..., Any]]"]
_MAKERS: Final[_Makers] = {
    "execute": _execute,
    "executemany": _executemany,
    "stream": _stream,
    "copy": partial(_copy, _copied),
}
_ASYNC_MAKERS: Final[_Makers] = {
    "execute": _execute_async,
    "executemany": _executemany_async,
    "stream": _stream_async,
    "copy": partial(_copy, _copied_async),
}


def _that_has(name: str, kind: type) -> type:
    return next((base for base in kind.__mro__ if name in vars(base)), kind)


def _lease_of(connection: LibraryObject) -> Lease | None:
    carrier = connection.__dict__.get(DRIVER_KEY)
    return carrier.lease if carrier is not None else None


def _begin(
    connection: LibraryObject, query: LibraryObject, params: LibraryObject, *, many: bool = False
) -> Lease | None:
    carrier = connection.__dict__.get(DRIVER_KEY)
    if carrier is None:
        return None
    lease: Lease | None = carrier.lease
    if lease is not None:
        try:
            begin_statement(lease, query, many=many, parameters=params)
        except Exception:  # noqa: BLE001 - ours
            guard.caught("psycopg_pool.call")
    return lease


def _call_begins(lease: Lease | None) -> Lease | None:
    if lease is None or lease.running:
        return None
    lease.call_begins()
    return lease


def _end(lease: Lease | None, connection: LibraryObject) -> None:
    if lease is None or not lease.running:
        return
    try:
        lease.call_ends(in_transaction=libpq_in_transaction(connection.pgconn.transaction_status))
    except Exception:  # noqa: BLE001
        guard.caught("psycopg_pool.call")
