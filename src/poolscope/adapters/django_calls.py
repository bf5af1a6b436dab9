"""
What Django does with a connection of its own while it is in use: statements, commits and rollbacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.calls import Calls
from poolscope.core.calls import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.core.types import LibraryObject
    from poolscope.hooks.patching import Patcher

_CURSOR: Final = ("_execute", "_executemany", "callproc")


class CallHooks:
    """
    Hooks Django's cursor wrapper and the ends of transactions.

    Args:
        wrapper: ``BaseDatabaseWrapper``.
    """

    def __init__(self, wrapper: type) -> None:
        from django.db.backends import utils  # noqa: PLC0415 - only where it is in use

        self._wrapper = wrapper
        self._cursor = utils.CursorWrapper

    def check(self, patcher: Patcher) -> None:
        """
        Make sure that all is there that is to be hooked.

        Raises:
            Refused: Something is missing.
        """
        patcher.require(self._cursor, _CURSOR)

    def hook(self, patcher: Patcher) -> None:
        """
        Put the hooks in.
        """
        patcher.replace(self._cursor, "_execute", _statement)
        patcher.replace(self._cursor, "_executemany", _many)
        patcher.replace(self._cursor, "callproc", _procedure)
        for name in ("_commit", "_rollback"):
            patcher.replace(self._wrapper, name, _CALLS.around)


def _statement(original: Callable[..., Any]) -> Callable[..., Any]:
    return _CALLS.around_statement(original, _wrapper_of, lambda _, args, __: (args[0], False, args[1]))


def _many(original: Callable[..., Any]) -> Callable[..., Any]:
    return _CALLS.around_statement(original, _wrapper_of, lambda _, args, __: (args[0], True, None))


def _procedure(original: Callable[..., Any]) -> Callable[..., Any]:
    return _CALLS.around_statement(original, _wrapper_of)


def _wrapper_of(cursor: LibraryObject) -> LibraryObject:
    return cursor.db


def _lease_of(wrapper: LibraryObject) -> Lease | None:
    carrier = wrapper.__dict__.get(KEY)
    lease: Lease | None = carrier.lease if carrier is not None else None
    return lease if lease is not None and lease.started_at is not None else None


def _is_in_transaction(wrapper: LibraryObject, opened: bool) -> bool:
    return opened and not wrapper.autocommit


_CALLS: Final = Calls("django.call", _lease_of, _is_in_transaction)
