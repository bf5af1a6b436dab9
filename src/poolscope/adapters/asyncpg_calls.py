"""
What a pooled asyncpg connection does while it is out: its calls to the server.

Statements pass through the connection's ``execute`` (without arguments), ``_execute`` and ``_executemany``, through
prepared statements and cursors, and through COPY; beginnings and ends of transactions through ``Transaction``, whose
own statements are not counted. Further fetches of a cursor are calls, but no statements.
"""

from __future__ import annotations

import inspect
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.core.types import LibraryObject
    from poolscope.hooks.patching import Patcher

# What is hooked: the class, the method, whether it is a statement (or only a call), and whether for many rows.
_CONNECTION: Final = (("_execute", False), ("_executemany", True), ("_copy_out", True), ("_copy_in", True))
_CURSOR: Final = ("_bind_exec", "_bind")
_TRANSACTION: Final = ("start", "_Transaction__commit", "_Transaction__rollback")


class CallHooks:
    """
    Hooks asyncpg's connections, cursors, prepared statements and transactions.

    Args:
        lease_of: Finds the lease of a connection.
    """

    def __init__(self, lease_of: Callable[[Any], Lease | None]) -> None:
        from asyncpg import (  # noqa: PLC0415 - only where it is in use
            connection,
            connresource,
            cursor,
            prepared_stmt,
            transaction,
        )

        self._guarded = connresource.guarded
        self._calls = Calls("asyncpg.call", lease_of, lambda connection, _: connection._protocol.is_in_transaction())
        self._connection = connection.Connection
        self._cursor = cursor.BaseCursor
        self._prepared = prepared_stmt.PreparedStatement
        self._transaction = transaction.Transaction

    def check(self, patcher: Patcher) -> None:
        """
        Make sure that all is there that is to be hooked.

        Raises:
            Refused: Something is missing.
        """
        patcher.require(self._connection, ("execute", "copy_records_to_table", *(name for name, _ in _CONNECTION)))
        patcher.require(self._cursor, (*_CURSOR, "_exec"))
        patcher.require(self._prepared, ("_PreparedStatement__bind_execute", "executemany"))
        patcher.require(self._transaction, _TRANSACTION)

    def hook(self, patcher: Patcher) -> None:
        """
        Put the hooks in.
        """
        patcher.replace(self._connection, "execute", self._make_execute)
        for name, many in _CONNECTION:
            patcher.replace(self._connection, name, partial(self._make_text, many=many))
        patcher.replace(self._connection, "copy_records_to_table", self._make_copy)
        for name in _CURSOR:
            patcher.replace(self._cursor, name, self._make_query)
        patcher.replace(self._prepared, "_PreparedStatement__bind_execute", self._make_query)
        for name in ("executemany", "fetchmany"):
            if name in vars(self._prepared):
                patcher.replace(self._prepared, name, partial(self._make_query, many=True))
        patcher.replace(self._cursor, "_exec", self._make_call)
        for name in _TRANSACTION:
            patcher.replace(self._transaction, name, self._make_call)

    def _make_execute(self, original: Callable[..., Any]) -> Callable[..., Any]:
        calls = self._calls

        async def execute(
            self: LibraryObject, query: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject
        ) -> LibraryObject:
            # With arguments it goes through `_execute`.
            lease = calls.begin_statement(self, query) if not args else None
            if lease is None:
                return await original(self, query, *args, **kwargs)
            try:
                return await original(self, query, **kwargs)
            finally:
                calls.end(lease, self)

        return execute

    def _make_text(self, original: Callable[..., Any], *, many: bool) -> Callable[..., Any]:
        calls = self._calls

        async def call(
            self: LibraryObject, query: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject
        ) -> LibraryObject:
            lease = calls.begin_statement(self, query, many=many, parameters=args[0] if args else None)
            if lease is None:
                return await original(self, query, *args, **kwargs)
            try:
                return await original(self, query, *args, **kwargs)
            finally:
                calls.end(lease, self)

        return call

    def _make_copy(self, original: Callable[..., Any]) -> Callable[..., Any]:
        calls = self._calls

        async def copy_records_to_table(
            self: LibraryObject, table_name: LibraryObject, **kwargs: LibraryObject
        ) -> LibraryObject:
            lease = calls.begin_statement(self, f"COPY {table_name} FROM STDIN", many=True)
            if lease is None:
                return await original(self, table_name, **kwargs)
            try:
                return await original(self, table_name, **kwargs)
            finally:
                calls.end(lease, self)

        return copy_records_to_table

    def _make_query(self, original: Callable[..., Any], *, many: bool = False) -> Callable[..., Any]:
        calls = self._calls

        async def call(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            lease = calls.begin_statement(
                self._connection, self._query, many=many, parameters=args[0] if args else None
            )
            if lease is None:
                return await original(self, *args, **kwargs)
            try:
                return await original(self, *args, **kwargs)
            finally:
                calls.end(lease, self._connection)

        return self._as_guarded(original, call)

    def _make_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        calls = self._calls

        async def call(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            lease = calls.begin(self._connection)
            try:
                return await original(self, *args, **kwargs)
            finally:
                calls.end(lease, self._connection)

        return self._as_guarded(original, call)

    def _as_guarded(self, original: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
        """
        A method that asyncpg guards raises when it is called on a connection given back, not first when it is awaited.
        """
        if inspect.iscoroutinefunction(original):
            return call
        guarded: Callable[..., Any] = self._guarded(wraps(original)(call))
        return guarded
