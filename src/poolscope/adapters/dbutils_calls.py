"""
What a pooled DBUtils connection does while it is out, and what becomes of the driver's connection inside it.

What DBUtils pools are its own "steady" connections. They make their cursors' ``execute...`` and ``call...`` methods
themselves, and replace the driver's connection when it fails or was used often enough. Whether a transaction is open is
the driver's to say; where it does not, a statement opens one, as PEP 249 has it. A shared connection belongs to several
leases at once, none of which is told to have sent a statement.
"""

from __future__ import annotations

import sys
import weakref
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.calls import Calls, dbapi_statement, libpq_in_transaction
from poolscope.adapters.common import connect_begins, connect_ends
from poolscope.core.calls import KEY
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.types import LibraryObject
    from poolscope.hooks.patching import Patcher

_CONNECTION: Final = ("_create", "_store", "_close", "begin", "commit", "rollback")
_CURSOR: Final = ("_get_tough_method",)

# MySQL's SERVER_STATUS_IN_TRANS, as PyMySQL keeps it.
_IN_TRANSACTION: Final = 1

# The method that closes or replaces the driver's connection -> why; others ask `_reason`.
_REASONS: Final = {
    "_ping_check": "invalidated",
    "commit": "invalidated",
    "rollback": "invalidated",
    "__del__": "disposed",
}


class Made:
    """
    What is known of a steady connection.

    Args:
        tracked: The pool that it belongs to.
    """

    __slots__ = ("replacing", "tracked")

    def __init__(self, tracked: Pool) -> None:
        self.tracked = tracked
        #: By thread, for several may share the steady connection: a driver's connection that was made to replace its
        #: own and may yet be thrown away, the ask that it is made for, and the moment when its connect began.
        self.replacing: dict[int, tuple[Any, Lease | None, float]] = {}


class CallHooks:
    """
    Hooks DBUtils' steady connections and cursors.

    Args:
        module: ``dbutils.steady_db``.
    """

    def __init__(self, module: ModuleType) -> None:
        self._connection = module.SteadyDBConnection
        self._cursor = module.SteadyDBCursor
        self.made: weakref.WeakKeyDictionary[Any, Made] = weakref.WeakKeyDictionary()

    def check(self, patcher: Patcher) -> None:
        """
        Make sure that all is there that is to be hooked.

        Raises:
            Refused: Something is missing.
        """
        patcher.require(self._connection, _CONNECTION)
        patcher.require(self._cursor, _CURSOR)

    def hook(self, patcher: Patcher) -> None:
        """
        Put the hooks in.
        """
        patcher.replace(self._connection, "_create", self._make_create)
        patcher.replace(self._connection, "_store", self._make_store)
        patcher.replace(self._connection, "_close", self._make_close)
        patcher.replace(self._connection, "begin", partial(_CALLS.around, opens=True))
        for name in ("commit", "rollback"):
            patcher.replace(self._connection, name, _CALLS.around)
        patcher.replace(self._cursor, "_get_tough_method", _make_tough)

    # Replacing the driver's connection: cold

    def _make_create(self, original: Callable[..., Any]) -> Callable[..., Any]:
        made = self.made

        def _create(self: LibraryObject) -> LibraryObject:
            known = made.get(self)
            if known is None:
                return original(self)  # its first one: that is a connect of the pool's
            lease, began = connect_begins(known.tracked)
            connection = original(self)
            known.replacing[get_ident()] = (connection, lease, began)
            return connection

        return _create

    def _make_store(self, original: Callable[..., Any]) -> Callable[..., Any]:
        made = self.made

        def _store(self: LibraryObject, con: LibraryObject) -> LibraryObject:
            known = made.get(self)
            made_now = known.replacing.pop(get_ident(), None) if known is not None else None
            if known is not None and made_now is not None and made_now[0] is con:
                connect_ends(known.tracked, *made_now[1:])
            return original(self, con)

        return _store

    def _make_close(self, original: Callable[..., Any]) -> Callable[..., Any]:
        made = self.made

        def _close(self: LibraryObject) -> LibraryObject:
            known = made.get(self)
            if known is not None and not self._closed:
                known.tracked.closed(guard.run("dbutils.close", lambda: _reason(self), "closed"))
            return original(self)

        return _close


def _reason(steady: LibraryObject) -> str:
    # The frames: this function, the lambda, the guard, the hook.
    caller: Any = sys._getframe(4)
    name = caller.f_code.co_name
    if name == "close":
        closer = caller.f_back.f_code.co_name
        return {"cache": "overflow", "close": "disposed"}.get(closer, "closed")
    if name in _REASONS:
        return _REASONS[name]
    return "recycled" if steady._maxusage and steady._usage >= steady._maxusage else "invalidated"


# The hot path -------------------------------------------------------------------------------------------------------


def _make_tough(original: Callable[..., Any]) -> Callable[..., Any]:
    def _get_tough_method(self: LibraryObject, name: str) -> LibraryObject:
        method = original(self, name)
        lease = _lease_of(self._con)
        return method if lease is None else _counted(lease, self._con, method, name)

    return _get_tough_method


def _counted(
    lease: Lease, steady: LibraryObject, method: Callable[..., LibraryObject], name: str
) -> Callable[..., LibraryObject]:
    def tough_method(*args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        if lease.ended_at is not None:
            return method(*args, **kwargs)
        what = guard.run("dbutils.call", lambda: dbapi_statement(name, args, kwargs), None)
        if what is None:
            return method(*args, **kwargs)
        counted = _CALLS.begin_statement(steady, what[0], many=what[1], parameters=what[2])
        try:
            return method(*args, **kwargs)
        finally:
            _CALLS.end(counted, steady, opened=True)

    return tough_method


def _lease_of(steady: LibraryObject) -> Lease | None:
    leases: list[Lease] | None = steady.__dict__.get(KEY)
    return leases[-1] if leases else None


def _is_in_transaction(steady: LibraryObject, opened: bool) -> bool:
    connection = steady._con
    # psycopg2; sqlite3, mysql-connector; oracledb; PyMySQL; and what PEP 249 says of the rest.
    status = getattr(connection, "get_transaction_status", None)
    if status is not None:
        return libpq_in_transaction(status())
    for name in ("in_transaction", "transaction_in_progress"):
        told = getattr(connection, name, None)
        if isinstance(told, bool):
            return told
    told = getattr(connection, "server_status", None)
    if isinstance(told, int):
        return bool(told & _IN_TRANSACTION)
    return opened and getattr(connection, "autocommit", None) is not True


_CALLS: Final = Calls("dbutils.call", _lease_of, _is_in_transaction)
