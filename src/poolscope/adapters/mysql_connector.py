"""
mysql-connector's `MySQLConnectionPool`, sync and async.

It makes all connections at the start and never waits: a checkout that finds none is turned away. Each checkout pings
the connection that it takes out, and connects it anew where that fails or where the pool's configuration has changed.
What a caller holds is a new proxy each time; when that is dropped, its connection is lost to the pool for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.address import is_cut_off
from poolscope.adapters.base import Capability, PointAdapter
from poolscope.adapters.connects import limit_changed
from poolscope.adapters.identity import first_of, identity, learn
from poolscope.adapters.marks import CONNECTION_KEY, KEY, LOST_KEY
from poolscope.adapters.mysql_connector_points import PooledState, ProxyReference, points_of
from poolscope.adapters.stats import Stats
from poolscope.types import override

if TYPE_CHECKING:
    from types import FrameType

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

# What the library joins into the name of a pool without one (`generate_pool_name`); the user is among it.
_NAMED_AFTER: Final = ("host", "port", "user", "database")


class MysqlConnectorAdapter(PointAdapter):
    """Hooks mysql-connector's pool."""

    name, module, versions = "mysql-connector", "mysql.connector.pooling", ">=8.1,<27"
    pool_classes = ("MySQLConnectionPool",)
    library_modules = ("mysql",)
    connect_arguments = ("_cnx_config",)
    rejection_errors = ("PoolError",)
    also_measures = Capability.ABANDONED
    points = points_of("mysql.connector")

    @override
    def identify(self, library_pool: LibraryObject) -> Identity:
        given = [library_pool._cnx_config, *map(_parameters_of, self.idle(library_pool)[:1])]
        namespace = first_of(given, "database", "db")
        otherwise = None if first_of(given, "option_files", "read_default_file") else "localhost"
        address = first_of(given, "unix_socket") or first_of(given, "host") or otherwise
        # A pool always has a name; the one that the library makes up is not used. It keeps that with another user, too.
        made_up = "_".join(str(given[0][key]) for key in _NAMED_AFTER if key in given[0])
        name, host = library_pool._pool_name, given[0].get("host")
        if name == made_up or (name and host and name.startswith(f"{host}_")):
            name = None
        if is_cut_off(given[0]):
            return identity("mysql", name=name)
        return identity("mysql", name=name, namespace=namespace, address=address, port=first_of(given, "port"))

    @override
    def stats(self, library_pool: LibraryObject) -> Stats:
        lost = len(library_pool.__dict__.get(LOST_KEY, ()))
        return Stats(
            limit=max(0, library_pool._pool_size - lost),
            idle=library_pool._cnx_queue.qsize(),
            in_use=len(self.held(library_pool)),
            lost=lost,
        )

    @override
    def clears_connections(self, library_pool: LibraryObject) -> bool:
        return bool(getattr(library_pool, "_reset_session", True))

    @override
    def held(self, library_pool: LibraryObject) -> list[LibraryObject]:
        # The library keeps no list: those whose checkouts were seen.
        pool: Pool | None = library_pool.__dict__.get(KEY)
        references = [lease.carrier for lease in pool.leases.copy()] if pool is not None else []
        proxies = [reference() for reference in references if reference is not None]
        held = [proxy._cnx for proxy in proxies if proxy is not None and proxy._cnx_pool is library_pool]
        return [connection for connection in held if connection is not None]

    @override
    def idle(self, library_pool: LibraryObject) -> list[LibraryObject]:
        queue = library_pool._cnx_queue
        return list(queue.queue if hasattr(queue, "queue") else queue._queue)

    @override
    def is_open(self, library_pool: LibraryObject) -> bool:
        return bool(library_pool._cnx_config)

    @override
    def entered(self, library_pool: LibraryObject, pool: Pool, held: list[LibraryObject]) -> None:  # noqa: ARG002
        for connection in self.idle(library_pool):
            self.joined(library_pool, connection, pool)

    def joined(self, library_pool: LibraryObject, connection: LibraryObject, pool: Pool) -> PooledState:
        """The state of a connection of a pool."""
        state: PooledState | None = connection.__dict__.get(CONNECTION_KEY)
        return state if state is not None else self.put(connection, PooledState(pool, library_pool))

    @override
    def connects_for(self, hooked: LibraryObject) -> LibraryObject:
        state: PooledState | None = hooked.__dict__.get(CONNECTION_KEY)
        if state is not None:
            return state.library_pool()
        return hooked if hasattr(hooked, "_cnx_queue") else None

    @override
    def connected(
        self, library_pool: LibraryObject, pool: Pool, connection: LibraryObject, lease: Lease | None
    ) -> None:
        if connection is not library_pool:
            super().connected(library_pool, pool, connection, lease)
            return
        # The pool has put the new one among its idle ones.
        learn(pool, f"{self.name}.learn", lambda: self.identify(library_pool))
        self.entered(library_pool, pool, [])
        lost: set[PooledState] | None = library_pool.__dict__.get(LOST_KEY)
        if lost:
            lost.pop()
            limit_changed(pool)

    @override
    def tie(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:
        held = connection._cnx
        state = held.__dict__.get(CONNECTION_KEY) or self.joined(library_pool, held, lease.pool)
        if state.lease is not None:  # it was put back by other means than its proxy's close
            state.lease.released()
        state.lease = lease
        lease.backend_process_id = held.connection_id
        # The lease keeps the reference, so that it outlives the proxy and is dropped when the lease ends.
        lease.carrier = ProxyReference(connection, lease, "mysql-connector.collected", state)

    @override
    def untie(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:  # noqa: ARG002
        held = connection._cnx  # None at a second close, which the library answers with a new connection
        state: PooledState | None = held.__dict__.get(CONNECTION_KEY) if held is not None else None
        if state is None:
            return None
        lease, state.lease = state.lease, None
        return lease

    @override
    def lease_of(self, connection: LibraryObject) -> Lease | None:
        try:
            marks = getattr(connection, "__dict__", None)
            if type(marks) is not dict:
                return None
            state = marks.get(CONNECTION_KEY)
            if state is not None:
                lease: Lease | None = state.lease
                return lease
            return super().lease_of(marks.get("_cnx"))  # of a proxy
        except ReferenceError:  # cursors hold their connection weakly
            return None

    @override
    def forget_connection(self, connection: LibraryObject) -> None:
        lease = self.lease_of(connection)
        if lease is not None:
            lease.carrier = None
        super().forget_connection(connection)

    @override
    def forget_pool(self, anchor: LibraryObject) -> None:
        anchor.__dict__.pop(LOST_KEY, None)

    @override
    def connection_of(self, hooked: LibraryObject) -> LibraryObject:
        # The other name is that of cursors on the C extension in older versions.
        connection = getattr(hooked, "_connection", None)
        if connection is None:
            connection = getattr(hooked, "_cnx", None)
        return hooked if connection is None else connection

    @override
    def physical(self, connection: LibraryObject) -> LibraryObject:
        # The object connects anew where its connection is gone.
        return connection.connection_id

    @override
    def in_transaction(self, connection: LibraryObject) -> bool:
        return bool(connection.in_transaction)

    @override
    def failed(self, library_pool: LibraryObject, lease: Lease, error: BaseException, args: tuple[Any, ...]) -> None:
        super().failed(library_pool, lease, error, args)
        frame = _raised_in("get_connection", error)
        connection = frame.f_locals.get("cnx") if frame is not None else None
        if frame is None or connection is None or isinstance(error, frame.f_globals["InterfaceError"]):
            return  # it took none out, or put back what could not be connected anew
        self.joined(library_pool, connection, lease.pool).lost(lease.pool)


def _parameters_of(connection: LibraryObject) -> dict[str, LibraryObject]:
    # Where the connect arguments left the server to a file of options.
    return {"host": connection.server_host, "port": connection.server_port, "unix_socket": connection.unix_socket}


def _raised_in(name: str, error: BaseException) -> FrameType | None:
    # The library's function of that name, on the way of an exception.
    step = error.__traceback__
    while step is not None:
        frame = step.tb_frame
        if frame.f_code.co_name == name and str(frame.f_globals.get("__name__")).startswith("mysql."):
            return frame
        step = step.tb_next
    return None


ADAPTER: Final = MysqlConnectorAdapter()
