"""
aiomysql's `Pool`.

Connections are made one after the other, under the pool's condition, by whichever checkout finds none free; nothing
but the caller's own timeout ends a wait. The pool keeps a reference to what it handed over: a connection that is
dropped is never found. Whether a transaction is open, the server reports with each answer.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.address import is_cut_off
from poolscope.adapters.base import Point, PointAdapter
from poolscope.adapters.identity import first_of, identity
from poolscope.adapters.points import Call, Checkin, Checkout, Close, Connect, Created, Fetch, Statement, Sweep
from poolscope.adapters.stats import Stats
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poolscope.core.lease import Lease
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

#: The pool that the running code makes a connection for.
_FILLING: Final[ContextVar[Any]] = ContextVar("poolscope_aiomysql_filling", default=None)

# The references to a connection that only its pool holds: the pool's, the list's, and the counting itself. No
# variable may hold it meanwhile: from Python 3.14 on, what that adds to the count depends on the code around it.
_LIBRARY_REFERENCES: Final = 3


class Fill(Point):
    """A pool may make connections: they are its own. Each checkout passes here."""

    @override
    def make(self, adapter: PointAdapter, original: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ARG002

        async def _fill_free_pool(self_: LibraryObject, override_min: bool) -> LibraryObject:
            outer = _FILLING.get()
            _FILLING.set(self_)
            try:
                return await original(self_, override_min)
            finally:
                _FILLING.set(outer)

        return _fill_free_pool


def _outdated(frame: FrameType) -> str:
    reader = frame.f_locals["conn"]._reader
    lost = reader.at_eof() or reader.exception() or getattr(reader, "eof_received", False)
    return "invalidated" if lost else "recycled"


_REASONS: Final[dict[str, str | Callable[[FrameType], str]]] = {
    "_fill_free_pool": _outdated,
    "release": lambda frame: "disposed" if frame.f_locals["self"]._closing else "in_transaction",
    "clear": "disposed",
    "terminate": "disposed",
    "wait_closed": "disposed",
    "_read_packet": "invalidated",
    "_read_bytes": "invalidated",
    "_close_on_cancel": "invalidated",
    "__del__": "abandoned",
}


class AiomysqlAdapter(PointAdapter):
    """Hooks aiomysql's pool."""

    name, module, versions = "aiomysql", "aiomysql", ">=0.2,<0.4"
    pool_classes = ("aiomysql.pool:Pool",)
    library_modules = ("aiomysql", "pymysql")
    connect_arguments = ("_conn_kwargs",)
    points = (
        Created("aiomysql.pool:Pool.__init__"),
        Checkout("aiomysql.pool:Pool._acquire"),
        Checkin("aiomysql.pool:Pool.release"),
        Sweep("aiomysql.pool:Pool.terminate"),
        Fill("aiomysql.pool:Pool._fill_free_pool"),
        Connect("aiomysql.connection:Connection._connect"),
        Close("aiomysql.connection:Connection.close", reasons=_REASONS),
        *(Statement(f"aiomysql.cursors:Cursor.{name}") for name in ("execute", "executemany", "callproc")),
        *(Call(f"aiomysql.connection:Connection.{name}") for name in ("begin", "commit", "rollback")),
        *(
            Fetch(f"aiomysql.cursors:SSCursor.{name}")
            for name in ("fetchone", "fetchmany", "fetchall", "scroll", "close")
        ),
    )

    def identify(self, library_pool: LibraryObject) -> Identity:
        """What a pool is, by its connect arguments."""
        given = [library_pool._conn_kwargs]
        if is_cut_off(given[0]):
            return identity("mysql")
        # What a file of options says, the first connection knows.
        otherwise = None if first_of(given, "read_default_file") else "localhost"
        address = first_of(given, "unix_socket") or first_of(given, "host") or otherwise
        return identity(
            "mysql", namespace=first_of(given, "db", "database"), address=address, port=first_of(given, "port")
        )

    def identify_by(self, library_pool: LibraryObject, connection: LibraryObject) -> Identity:  # noqa: ARG002
        """What a pool is, by a connection of it."""
        where = connection.unix_socket or connection.host
        return identity("mysql", namespace=connection.db, address=where, port=connection.port)

    def loop_of(self, library_pool: LibraryObject) -> LibraryObject:
        """The event loop that a pool was opened in."""
        return library_pool._loop

    def stats(self, library_pool: LibraryObject) -> Stats:
        """The library's own account of a pool."""
        return Stats(
            limit=library_pool.maxsize,
            idle=library_pool.freesize,
            in_use=len(library_pool._used),
            least_idle=library_pool.minsize,
            most_idle=library_pool.maxsize,
        )

    def held(self, library_pool: LibraryObject) -> set[LibraryObject]:
        """The connections that callers hold."""
        used: set[LibraryObject] = library_pool._used
        return used

    def idle(self, library_pool: LibraryObject) -> LibraryObject:
        """The open connections that no caller holds."""
        return library_pool._free

    def is_open(self, library_pool: LibraryObject) -> bool:
        """Whether a pool is still in use: a closed one cannot be opened again."""
        return not library_pool.closed

    def connection_of(self, hooked: LibraryObject) -> LibraryObject:
        """The connection of a cursor, or the connection itself."""
        return getattr(hooked, "_connection", hooked)

    def connects_for(self, hooked: LibraryObject) -> LibraryObject:  # noqa: ARG002 - a connection knows no pool
        """The pool that makes a connection."""
        return _FILLING.get()

    def in_transaction(self, connection: LibraryObject) -> bool:
        """Whether a transaction is open."""
        return not connection.closed and bool(connection.get_transaction_status())

    def give_back(self, library_pool: LibraryObject, connection: LibraryObject) -> LibraryObject:
        """Return a connection that no caller will have."""
        return library_pool.release(connection)

    def unheld(self, library_pool: LibraryObject) -> list[Lease]:
        """The leases whose connection no caller holds (CPython only)."""
        used = list(library_pool._used)
        found = []
        for place in range(len(used)):
            lease = self.lease_of(used[place])
            if lease is not None and sys.getrefcount(used[place]) <= _LIBRARY_REFERENCES:
                found.append(lease)
        return found


ADAPTER: Final = AiomysqlAdapter()
