"""Where mysql-connector's pools are hooked, sync and async, and what is known of their connections."""

from __future__ import annotations

import inspect
import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.base import Capability, Point
from poolscope.adapters.connects import PENDING_CHECKOUT, limit_changed
from poolscope.adapters.leases import ConnectionState, LeaseReference, defer
from poolscope.adapters.marks import CONNECTION_KEY, KEY, LOST_KEY
from poolscope.adapters.points import Call, Checkin, Checkout, Close, Connect, Created, Fetch, Statement
from poolscope.adapters.points.brackets import precede
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poolscope.adapters.base import PointAdapter
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.types import LibraryObject


class PooledState(ConnectionState):
    """
    What is known of a connection in a pool.

    Args:
        pool: Ours.
        library_pool: The library's.
    """

    __slots__ = ("library_pool",)

    def __init__(self, pool: Pool, library_pool: LibraryObject) -> None:
        super().__init__(pool)
        self.library_pool = weakref.ref(library_pool)

    def lost(self, pool: Pool) -> None:
        """
        The connection was taken out and cannot come back: the pool has one less until another is added. The garbage
        collector may be running.
        """
        self.lease = None
        if self.pool is not None:
            self.pool = None
            pool.closed("abandoned")
        library_pool = self.library_pool()
        if library_pool is not None:
            library_pool.__dict__.setdefault(LOST_KEY, set()).add(self)
            if KEY not in library_pool.__dict__:  # poolscope was released meanwhile
                library_pool.__dict__.pop(LOST_KEY, None)
            limit_changed(pool)


class ProxyReference(LeaseReference):
    """
    A reference to the proxy that a caller holds.

    Args:
        proxy: The proxy.
        lease: Its lease.
        component: What an error of ours is counted as.
        state: Of its connection.
    """

    __slots__ = ("state",)

    def __init__(self, proxy: LibraryObject, lease: Lease, component: str, state: PooledState) -> None:  # noqa: ARG002
        self.lease, self.component, self.state = lease, component, state  # hot: super() costs as much again

    @override
    def collected(self) -> None:
        super().collected()
        self.state.lost(self.lease.pool)


class Addition(Connect):
    """A pool connects anew, unless it is given a connection that comes back, as each return does."""

    @override
    def make(self, adapter: PointAdapter, original: Callable[..., Any]) -> Callable[..., Any]:
        connect = super().make(adapter, original)

        def add(self_: LibraryObject, cnx: LibraryObject = None) -> LibraryObject:
            return original(self_, cnx) if cnx else connect(self_)

        async def add_async(self_: LibraryObject, cnx: LibraryObject = None) -> LibraryObject:
            return await (original(self_, cnx) if cnx else connect(self_))

        return add_async if inspect.iscoroutinefunction(inspect.unwrap(original)) else add


class Ping(Point):
    """Inside a checkout, the pool tries the connection that it took out: its own method. Each checkout passes here."""

    measures = Capability.WAIT_PHASES

    @override
    def make(self, adapter: PointAdapter, original: Callable[..., Any]) -> Callable[..., Any]:
        component = f"{adapter.name}.ping"

        def taken(connection: LibraryObject) -> None:
            lease = PENDING_CHECKOUT.get()
            if lease is None or lease.handed_over_at is not None:
                return
            try:
                state: PooledState | None = connection.__dict__.get(CONNECTION_KEY)
                library_pool = state.library_pool() if state is not None else None
                if library_pool is not None and library_pool.__dict__.get(KEY) is lease.pool:
                    lease.handed_over()
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                defer(component, lease)

        return precede(original, taken)


def _why_anew(frame: FrameType) -> str:
    connection = frame.f_locals["self"]
    library_pool = connection.__dict__[CONNECTION_KEY].library_pool()
    changed = library_pool is not None and connection.pool_config_version != library_pool._config_version
    return "recycled" if changed else "invalidated"


_REASONS: Final[dict[str, str | Callable[[FrameType], str]]] = {
    "_remove_connections": "disposed",
    "reconnect": _why_anew,
}


def points_of(package: str) -> tuple[Point, ...]:
    """
    Where the pool of a package is hooked; its connections and cursors exist in Python and on a C extension, which may
    be missing.

    Args:
        package: The package.
    """
    connections = {f"{package}.connection:MySQLConnection": False, f"{package}.connection_cext:CMySQLConnection": True}
    cursors = {f"{package}.cursor:MySQLCursor": False, f"{package}.cursor_cext:CMySQLCursor": True}
    cursors |= {f"{cursor}Prepared": optional for cursor, optional in cursors.items()}
    abstract = f"{package}.abstracts:MySQLConnectionAbstract"
    return (
        Created("MySQLConnectionPool.__init__"),
        Checkout("MySQLConnectionPool.get_connection"),
        Checkin("PooledMySQLConnection.close", of_connection=True),
        Addition("MySQLConnectionPool.add_connection", early=True),
        Connect(f"{abstract}.reconnect"),
        Call(f"{abstract}.start_transaction"),
        *(Call(f"{one}.{name}", optional=cext) for one, cext in connections.items() for name in ("commit", "rollback")),
        # Cursors that are not buffered, as most are, read each row when it is asked for; `get_row` calls `get_rows`.
        *(Fetch(f"{one}.get_rows", optional=cext, of_connection=True) for one, cext in connections.items()),
        *(Ping(f"{one}.is_connected", optional=cext) for one, cext in connections.items()),
        *(Close(f"{one}.disconnect", optional=cext, reasons=_REASONS) for one, cext in connections.items()),
        *(
            Statement(f"{cursor}.{name}", optional=cext)
            for cursor, cext in cursors.items()
            for name in ("execute", "executemany", "callproc")
        ),
    )
