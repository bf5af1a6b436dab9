"""
What a pooled aiomysql connection does while it is out: its calls to the server.

Statements pass through the cursors' ``execute``, ``executemany`` and ``callproc``, beginnings and ends of transactions
through the connection's ``begin``, ``commit`` and ``rollback``. Whether a transaction is open the server tells with
each answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.calls import Calls, driver_lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.hooks.patching import Patcher

_CURSOR: Final = ("execute", "executemany", "callproc")
_TRANSACTION: Final = ("begin", "commit", "rollback")


class CallHooks:
    """
    Hooks aiomysql's cursors and connections.
    """

    def __init__(self) -> None:
        from aiomysql import connection, cursors  # noqa: PLC0415 - only where it is in use

        self._cursor = cursors.Cursor
        self._connection = connection.Connection

    def check(self, patcher: Patcher) -> None:
        """
        Make sure that all is there that is to be hooked.

        Raises:
            Refused: Something is missing.
        """
        patcher.require(self._cursor, _CURSOR)
        patcher.require(self._connection, _TRANSACTION)

    def hook(self, patcher: Patcher) -> None:
        """
        Put the hooks in.
        """
        for name in _CURSOR:
            patcher.replace(self._cursor, name, _statement)
        for name in _TRANSACTION:
            patcher.replace(self._connection, name, _CALLS.around_async)


def _statement(original: Callable[..., Any]) -> Callable[..., Any]:
    return _CALLS.around_statement_async(original, _connection_of)


def _connection_of(cursor: Any) -> Any:  # noqa: ANN401
    return cursor._connection


def _is_in_transaction(connection: Any, _: bool) -> bool:  # noqa: ANN401 - `Calls`
    return not connection.closed and bool(connection.get_transaction_status())


_CALLS: Final = Calls("aiomysql.call", driver_lease, _is_in_transaction)
