"""
What a pooled mysql-connector connection does while it is out, and what becomes of it at an ask.

Statements pass through the cursors' ``execute``, ``executemany`` and ``callproc``, of the library's Python half and of
the one on its C extension. At each ask the library pings the connection, and connects it anew where that fails or where
the pool's configuration has changed since.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.calls import Calls
from poolscope.adapters.common import ASK, DRIVER_KEY, connect_begins, connect_ends, connect_fails
from poolscope.adapters.marks import CLOSED_KEY
from poolscope.core.guard import guard
from poolscope.core.lease import Lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.core.pool import Pool
    from poolscope.core.types import LibraryObject
    from poolscope.hooks.patching import Patcher

_STATEMENTS: Final = ("execute", "executemany", "callproc")
_CONNECTION: Final = ("is_connected", "commit", "rollback")
_ABSTRACT: Final = ("reconnect", "start_transaction")


class CallHooks:
    """
    Hooks mysql-connector's cursors and connections.

    Args:
        within: ``aio.`` for the async ones.
    """

    def __init__(self, within: str = "") -> None:
        self._abstract = _of(f"{within}abstracts", "MySQLConnectionAbstract")
        self._connections = [_of(f"{within}connection", "MySQLConnection")]
        self._cursors = [_of(f"{within}cursor", name) for name in ("MySQLCursor", "MySQLCursorPrepared")]
        self._statement, self._call, self._reconnect = _ASYNC_MAKERS if within else _MAKERS
        if within:
            return
        try:  # the half on the C extension, where that can be loaded
            self._connections.append(_of("connection_cext", "CMySQLConnection"))
            self._cursors += [_of("cursor_cext", "CMySQLCursor"), _of("cursor_cext", "CMySQLCursorPrepared")]
        except ImportError:
            pass

    def check(self, patcher: Patcher) -> None:
        """
        Make sure that all is there that is to be hooked.

        Raises:
            Refused: Something is missing.
        """
        patcher.require(self._abstract, _ABSTRACT)
        for one in self._connections:
            patcher.require(one, _CONNECTION)
        for one in self._cursors:
            patcher.require(one, ("execute", "executemany"))

    def hook(self, patcher: Patcher) -> None:
        """
        Put the hooks in.
        """
        for owner, name in self._statements():
            patcher.replace(owner, name, self._statement)
        for one in self._connections:
            patcher.replace(one, "is_connected", _make_is_connected)
            patcher.replace(one, "commit", self._call)
            patcher.replace(one, "rollback", self._call)
        patcher.replace(self._abstract, "start_transaction", self._call)
        patcher.replace(self._abstract, "reconnect", self._reconnect)

    def _statements(self) -> Iterator[tuple[Any, str]]:
        for owner in self._cursors:
            for name in _STATEMENTS:
                if name in vars(owner):
                    yield owner, name


def _of(module: str, name: str) -> LibraryObject:
    return getattr(importlib.import_module(f"mysql.connector.{module}"), name)


def lease_of(connection: LibraryObject) -> Lease | None:
    """
    The lease of a connection, or of the proxy that a pool hands out.
    """
    try:
        lease = connection.__dict__.get(DRIVER_KEY)
        if lease is None:
            within = connection.__dict__.get("_cnx")
            lease = within.__dict__.get(DRIVER_KEY) if within is not None else None
    except (AttributeError, ReferenceError):  # cursors hold their connection weakly
        return None
    return lease if isinstance(lease, Lease) else None


# At an ask: cold, since it goes to the server -----------------------------------------------------------------------


def _make_is_connected(original: Callable[..., Any]) -> Callable[..., Any]:
    def is_connected(self: LibraryObject) -> LibraryObject:
        lease = _asking()
        if lease is not None and lease.got_at is None:
            lease.got()  # the pool has taken it out, and validates it
        return original(self)

    return is_connected


def _make_reconnect(original: Callable[..., Any]) -> Callable[..., Any]:
    def reconnect(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        tracked = _replaced(self)
        if tracked is None:
            return original(self, *args, **kwargs)
        lease, began = connect_begins(tracked)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            connect_fails(tracked, lease, began, error)
            raise
        connect_ends(tracked, lease, began)
        self.__dict__.pop(CLOSED_KEY, None)
        return result

    return reconnect


def _make_reconnect_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def reconnect(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        tracked = _replaced(self)
        if tracked is None:
            return await original(self, *args, **kwargs)
        lease, began = connect_begins(tracked)
        try:
            result = await original(self, *args, **kwargs)
        except BaseException as error:
            connect_fails(tracked, lease, began, error)
            raise
        connect_ends(tracked, lease, began)
        self.__dict__.pop(CLOSED_KEY, None)
        return result

    return reconnect


def _replaced(connection: LibraryObject) -> Pool | None:
    # The pool of a connection that is to be connected anew.
    asking, lease = _asking(), lease_of(connection)
    tracked: Pool | None = asking.pool if asking is not None else lease.pool if lease is not None else None
    if tracked is not None:
        guard.run("mysql-connector.reconnect", lambda: _gone(connection, tracked, asking), None)
    return tracked


def _asking() -> Lease | None:
    # The ask of a pool of this library's, which is its carrier meanwhile; not one of a pool above.
    lease = ASK.get()
    return lease if lease is not None and hasattr(lease.carrier, "_cnx_queue") else None


def _gone(connection: LibraryObject, tracked: Pool, asking: Lease | None) -> None:
    if CLOSED_KEY in connection.__dict__:
        return
    connection.__dict__[CLOSED_KEY] = True
    pool = asking.carrier if asking is not None else None
    changed = pool is not None and connection.pool_config_version != pool._config_version
    tracked.closed("recycled" if changed else "invalidated")


# The hot path -------------------------------------------------------------------------------------------------------


def _make_statement(original: Callable[..., Any]) -> Callable[..., Any]:
    return _CALLS.around_statement(original, _connection_of)


def _make_statement_async(original: Callable[..., Any]) -> Callable[..., Any]:
    return _CALLS.around_statement_async(original, _connection_of)


def _connection_of(cursor: LibraryObject) -> LibraryObject:
    # The other name is that of cursors on the C extension in older versions.
    connection = getattr(cursor, "_connection", None)
    return connection if connection is not None else getattr(cursor, "_cnx", None)


_CALLS: Final = Calls("mysql-connector.call", lease_of, lambda connection, _: connection.in_transaction)

# What hooks a statement, a call without one, a reconnect.
_Makers = tuple["Callable[[Callable[..., Any]], Callable[..., Any]]", ...]
_MAKERS: Final[_Makers] = (_make_statement, _CALLS.around, _make_reconnect)
_ASYNC_MAKERS: Final[_Makers] = (_make_statement_async, _CALLS.around_async, _make_reconnect_async)
