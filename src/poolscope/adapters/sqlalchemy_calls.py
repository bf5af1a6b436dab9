"""
What a SQLAlchemy connection does while it is out: its calls to the server.

Statements pass through the dialect's ``do_execute``, ``do_executemany`` and ``do_execute_no_params``, the ends of
transactions through ``do_commit`` and ``do_rollback`` (sqlalchemy/engine/default.py, the public interface ``Dialect``).
Hooking them costs a third of what a pair of cursor events does, leaves engines without events on their short way, and
sees errors too. Pre-pings, fetches from a cursor and what a driver does by itself do not pass here: they count as idle
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.core.calls import KEY
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.hooks.patching import Patcher
    from poolscope.types import LibraryObject

_STATEMENTS: Final = ("do_execute", "do_executemany")
_ENDS: Final = ("do_commit", "do_rollback")


class CallHooks:
    """
    Hooks the calls of dialect classes; each class once.

    Args:
        patcher: Applies patches and remembers the originals.
    """

    def __init__(self, patcher: Patcher) -> None:
        self._patcher = patcher

    def hook(self, dialect: type) -> None:
        """
        Hook a dialect class and those it inherits from, wherever one defines a call of its own.
        """
        for owner in dialect.__mro__:
            own = vars(owner)
            if owner.__module__ == "sqlalchemy.engine.interfaces":
                continue
            for name, make in _MAKERS.items():
                if name in own and not self._patcher.has(owner, name):
                    self._patcher.replace(owner, name, make)


def _statement(original: Callable[..., Any]) -> Callable[..., Any]:
    def do_execute(
        self: LibraryObject,
        cursor: LibraryObject,
        statement: LibraryObject,
        parameters: LibraryObject,
        context: LibraryObject = None,
    ) -> LibraryObject:
        lease = _begin(context, statement, parameters)
        if lease is None:
            return original(self, cursor, statement, parameters, context)
        try:
            return original(self, cursor, statement, parameters, context)
        finally:
            _end(lease, self, context)

    return do_execute


def _bare_statement(original: Callable[..., Any]) -> Callable[..., Any]:
    def do_execute_no_params(
        self: LibraryObject, cursor: LibraryObject, statement: LibraryObject, context: LibraryObject = None
    ) -> LibraryObject:
        lease = _begin(context, statement, None)
        if lease is None:
            return original(self, cursor, statement, context)
        try:
            return original(self, cursor, statement, context)
        finally:
            _end(lease, self, context)

    return do_execute_no_params


def _transaction_end(original: Callable[..., Any]) -> Callable[..., Any]:
    def do_end(self: LibraryObject, dbapi_connection: LibraryObject) -> LibraryObject:
        try:  # `_lease_of` spelt out
            lease = dbapi_connection._connection_record._poolscope or dbapi_connection.__dict__.get(KEY)
        except AttributeError:
            lease = None
        # With no transaction open a driver sends nothing: the reset of every bare check-in would pay for the timing.
        if lease is None or not lease.in_transaction or lease.running:
            return original(self, dbapi_connection)
        try:
            lease.call_begins()
        except Exception:  # noqa: BLE001 - ours
            guard.caught("sqlalchemy.call")
        try:
            return original(self, dbapi_connection)
        finally:
            try:
                lease.call_ends(in_transaction=False)
            except Exception:  # noqa: BLE001
                guard.caught("sqlalchemy.call")

    return do_end


_MAKERS: Final[dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = {
    **dict.fromkeys(_STATEMENTS, _statement),
    "do_execute_no_params": _bare_statement,
    **dict.fromkeys(_ENDS, _transaction_end),
}


def _begin(context: LibraryObject, statement: str, parameters: LibraryObject) -> Lease | None:
    # None when there is no lease, as at the dialect's start-up, or when a dialect's method calls its parent's.
    try:
        lease: Lease | None = _lease_of(context.root_connection._dbapi_connection)
    except AttributeError:
        return None
    if lease is None or lease.running:
        return None
    try:
        many = lease.usage is not None and bool(context.executemany)
        lease.statement_begins(statement, many=many, parameters=parameters)
    except Exception:  # noqa: BLE001 - ours
        guard.caught("sqlalchemy.call")
        return None
    return lease


def _end(lease: Lease, dialect: LibraryObject, context: LibraryObject) -> None:
    try:
        level = context.root_connection._execution_options.get("isolation_level")
        if level is None:
            level = getattr(dialect, "_on_connect_isolation_level", None)
        lease.call_ends(in_transaction=level != "AUTOCOMMIT")
    except Exception:  # noqa: BLE001
        guard.caught("sqlalchemy.call")


def _lease_of(fairy: LibraryObject) -> Lease | None:
    try:
        lease: Lease | None = fairy._connection_record._poolscope  # an attribute: see the adapter's hot path
        return lease if lease is not None else fairy.__dict__.get(KEY)
    except AttributeError:
        return None
