"""
Rows that Django fetches in chunks, as ``QuerySet.iterator()`` does on PostgreSQL.

A server-side cursor is made for them, whose wrapper passes all but statements on to the driver's cursor: the wrapper
gets fetches of its own, which are calls to the server. All other cursors have their rows by the end of their statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.leases import begin_fetch, end_fetch
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.types import LibraryObject

    Function = Callable[..., Any]

#: Where a database wrapper makes server-side cursors.
BACKEND: Final = "django.db.backends.postgresql.base"

_COMPONENT: Final = "django.call"
_FETCHES: Final = ("fetchone", "fetchmany", "fetchall")


def make_chunked_cursor(lease_of: Callable[[LibraryObject], Lease | None]) -> Callable[[Function], Function]:
    """
    Makes the ``chunked_cursor`` of a database wrapper give cursors whose fetches are seen.

    Args:
        lease_of: Finds the lease of a database wrapper.
    """

    def make(original: Function) -> Function:
        def chunked_cursor(self: LibraryObject) -> LibraryObject:
            cursor = original(self)
            try:
                lease = lease_of(self)
                if lease is not None:
                    for name in _FETCHES:
                        setattr(cursor, name, _fetch(getattr(cursor, name), lease))
            except Exception:  # noqa: BLE001 - ours
                guard.caught(_COMPONENT)
            return cursor

        return chunked_cursor

    return make


def _fetch(original: Function, lease: Lease) -> Function:
    def fetch(*args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        begun = begin_fetch(_COMPONENT, lambda: lease)
        try:
            return original(*args, **kwargs)
        finally:
            end_fetch(_COMPONENT, begun)

    return fetch
