"""
aiopg's `Pool`: psycopg2's connections, in asyncio.

Connections are made one after the other, under the pool's condition, by whichever checkout finds none free; the pool's
timeout covers the wait and the connect. The pool keeps a reference to what it handed over: a connection that is dropped
is never found. One that the server ended is closed by the driver itself, below the pool.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters import libpq
from poolscope.adapters.base import Capability, PointAdapter
from poolscope.adapters.points import Checkin, Checkout, Close, Connect, Created, Statement, Sweep
from poolscope.adapters.points.brackets import library_frames, nothing
from poolscope.adapters.points.cold import ColdPoint
from poolscope.adapters.stats import Stats
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poolscope.adapters.points.brackets import After, Before
    from poolscope.core.lease import Lease
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

# The references to a connection that only its pool holds: the pool's, the list's, and the counting itself. No
# variable may hold it meanwhile: from Python 3.14 on, what that adds to the count depends on the code around it.
_LIBRARY_REFERENCES: Final = 3

_REASONS: Final[dict[str, str | Callable[[FrameType], str]]] = {
    "_fill_free_pool": "recycled",
    "release": lambda frame: "disposed" if frame.f_locals["self"]._closing else "in_transaction",
    "clear": "disposed",
    "terminate": "disposed",
    "wait_closed": "disposed",
    "_poll": "invalidated",
    "_fatal_error": "invalidated",
    "__exit__": "invalidated",
    "__del__": "abandoned",
}


class Lost(ColdPoint):
    """
    A connection tells those who wait for its notifications that there will be none. When it does so on an error, the
    server may have ended it.
    """

    measures = Capability.CLOSE

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def before(_: LibraryObject, __: tuple[Any, ...], ___: dict[str, Any]) -> None:
            connection = _of_frame("_ready", adapter)
            pool = adapter.closing(connection) if connection is not None and connection.closed else None
            if pool is not None:
                pool.closed("invalidated")

        return before, nothing


class AiopgAdapter(PointAdapter):
    """Hooks aiopg's pool."""

    name, module, versions = "aiopg", "aiopg", ">=1.3.5,<2"
    pool_classes = ("aiopg.pool:Pool",)
    library_modules = ("aiopg", "psycopg2")
    connect_arguments = ("_dsn", "_conn_kwargs")
    points = (
        Created("aiopg.pool:Pool.__init__"),
        Checkout("aiopg.pool:Pool._acquire"),
        Checkin("aiopg.pool:Pool.release"),
        Sweep("aiopg.pool:Pool.terminate"),
        Connect("aiopg.connection:Connection._connect"),
        Close("aiopg.connection:Connection.close", reasons=_REASONS),
        Lost("aiopg.utils:ClosableQueue.close"),
        *(Statement(f"aiopg.connection:Cursor.{name}") for name in ("execute", "callproc")),
    )
    timeout_errors = ("asyncio:TimeoutError",)

    @override
    def identify(self, library_pool: LibraryObject) -> Identity:
        return libpq.identify([library_pool._conn_kwargs, libpq.parse(library_pool._dsn)])

    @override
    def identify_by(self, library_pool: LibraryObject, connection: LibraryObject) -> Identity:  # noqa: ARG002
        return libpq.identify([libpq.parameters_of(connection.raw)])

    @override
    def backend_process_id(self, connection: LibraryObject) -> int:
        return int(connection.raw.get_backend_pid())

    @override
    def stats(self, library_pool: LibraryObject) -> Stats:
        return Stats(
            limit=library_pool.maxsize,
            idle=library_pool.freesize,
            in_use=len(library_pool._used),
            least_idle=library_pool.minsize,
            most_idle=library_pool.maxsize,
        )

    @override
    def held(self, library_pool: LibraryObject) -> set[LibraryObject]:
        used: set[LibraryObject] = library_pool._used
        return used

    @override
    def idle(self, library_pool: LibraryObject) -> LibraryObject:
        return library_pool._free

    @override
    def loop_of(self, library_pool: LibraryObject) -> LibraryObject:
        return library_pool._loop

    @override
    def is_open(self, library_pool: LibraryObject) -> bool:
        return not library_pool.closed  # it cannot be opened again

    @override
    def give_back(self, library_pool: LibraryObject, connection: LibraryObject) -> LibraryObject:
        return library_pool.release(connection)

    @override
    def unheld(self, library_pool: LibraryObject) -> list[Lease]:
        used = list(library_pool._used)
        found = []
        for place in range(len(used)):
            lease = self.lease_of(used[place])
            if lease is not None and sys.getrefcount(used[place]) <= _LIBRARY_REFERENCES:
                found.append(lease)
        return found

    @override
    def connects_for(self, hooked: LibraryObject) -> LibraryObject:  # noqa: ARG002
        # A connection knows no pool; who awaits it does.
        return _of_frame("_fill_free_pool", self)

    @override
    def connection_of(self, hooked: LibraryObject) -> LibraryObject:
        return hooked.connection

    @override
    def in_transaction(self, connection: LibraryObject) -> bool:
        return libpq.is_in_transaction(connection.raw.get_transaction_status())


def _of_frame(function: str, adapter: PointAdapter) -> LibraryObject:
    # The object whose method is running.
    frames = library_frames(adapter.library_modules)
    return next((frame.f_locals["self"] for frame in frames if frame.f_code.co_name == function), None)


ADAPTER: Final = AiopgAdapter()
