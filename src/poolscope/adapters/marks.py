"""
Every key under which the ``__dict__`` of a library's object holds something of ours.

All of them start alike: after ``uninstrument()`` no object may have an attribute that does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.calls import KEY

if TYPE_CHECKING:
    import weakref

    from poolscope.types import LibraryObject

#: On a pool's anchor: the leases of connections that carry no marks, by the connection's id. On a connection of
#: psycopg2's: those of its pool.
LEASES_KEY: Final = "_poolscope_leases"

#: On a driver's connection: its `ConnectionState`. Not `KEY`: the proxies of a pool above may pass a look into their
#: ``__dict__`` on to the connection.
CONNECTION_KEY: Final = "_poolscope_connection"

#: On asyncpg's queue: its pool.
LIBRARY_POOL_KEY: Final = "_poolscope_pool"

#: On a pool of psycopg_pool: its `Account`.
ACCOUNT_KEY: Final = "_poolscope_account"

#: On a pool of mysql-connector: the `ConnectionState` of each connection that it lost.
LOST_KEY: Final = "_poolscope_lost"

#: On a pool of psycopg2: the connection class that the application gave it.
WATCHED_KEY: Final = "_poolscope_watched"

#: On a pool of SQLAlchemy: its connection records; on a record: the server's process id for its connection.
RECORDS_KEY: Final = "_poolscope_records"
BACKEND_KEY: Final = "_poolscope_backend"

__all__: Final = [
    "ACCOUNT_KEY",
    "BACKEND_KEY",
    "CONNECTION_KEY",
    "KEY",
    "LEASES_KEY",
    "LIBRARY_POOL_KEY",
    "LOST_KEY",
    "RECORDS_KEY",
    "WATCHED_KEY",
    "living",
]


def living(things: weakref.WeakSet[LibraryObject]) -> list[LibraryObject]:
    """What is in a set, at one go: another thread may add to it, which iteration does not allow."""
    references = things.data.copy()  # type: ignore[attr-defined]
    return [thing for reference in references if (thing := reference()) is not None]
