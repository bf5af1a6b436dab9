"""
What a pooled oracledb connection does while it is out, by the Python layer above the driver's compiled core.

Statements pass through the cursors' ``execute``, ``executemany``, ``callproc`` and ``callfunc``, and through the
connection's ``fetch_df_all``; ends of transactions through ``commit`` and ``rollback``. Further fetches, pipelines and
LOBs do not pass here: they count as idle time. Whether a transaction is open the core says
(``transaction_in_progress``); in versions that do not pass that on, a statement opens one, as PEP 249 has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.calls import Calls, driver_lease

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.hooks.patching import Patcher

_STATEMENTS: Final = ("execute", "executemany", "callproc", "callfunc")
_ENDS: Final = ("commit", "rollback")
_FRAMES: Final = "fetch_df_all"


class CallHooks:
    """
    Hooks oracledb's cursors and connections.

    Args:
        module: oracledb.
    """

    def __init__(self, module: ModuleType) -> None:
        self._cursors = ((module.Cursor, _statement), (module.AsyncCursor, _statement_async))
        self._connections = (
            (module.Connection, _statement, _CALLS.around),
            (module.AsyncConnection, _statement_async, _CALLS.around_async),
        )

    def check(self, patcher: Patcher) -> None:
        """
        Make sure that all is there that is to be hooked.

        Raises:
            Refused: Something is missing.
        """
        for cursor, _ in self._cursors:
            patcher.require(cursor, _STATEMENTS)
        for connection, _, _ in self._connections:
            patcher.require(connection, _ENDS)

    def hook(self, patcher: Patcher) -> None:
        """
        Put the hooks in.
        """
        for cursor, make in self._cursors:
            for name in _STATEMENTS:
                patcher.replace(cursor, name, make)
        for connection, make, make_end in self._connections:
            for name in _ENDS:
                patcher.replace(connection, name, make_end)
            if _FRAMES in vars(connection):  # in newer versions
                patcher.replace(connection, _FRAMES, make)


def _statement(original: Callable[..., Any]) -> Callable[..., Any]:
    return _CALLS.around_statement(original, _connection_of)


def _statement_async(original: Callable[..., Any]) -> Callable[..., Any]:
    return _CALLS.around_statement_async(original, _connection_of)


def _connection_of(one: Any) -> Any:  # noqa: ANN401 - a cursor or a connection
    return getattr(one, "connection", one)


def _is_in_transaction(connection: Any, opened: bool) -> bool:  # noqa: ANN401 - `Calls`
    if connection._impl is None:
        return False
    if hasattr(type(connection), "transaction_in_progress"):
        return bool(connection.transaction_in_progress)
    return opened and not connection.autocommit


_CALLS: Final = Calls("oracledb.call", driver_lease, _is_in_transaction)
