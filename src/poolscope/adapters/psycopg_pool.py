"""
psycopg's pools: `ConnectionPool`, `NullConnectionPool` and both async ones.

The null pools inherit ``getconn`` and ``putconn``, so most points are those of the two base classes. Connections are
made by the pool's workers: the time of a connect belongs to the checkout that gets the new connection, as far as it
lasted during the checkout. A connection that is returned is handed over to who waits by the thread that returns it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters import libpq
from poolscope.adapters.base import Capability, PointAdapter
from poolscope.adapters.identity import first_of, learn, name_by_framework
from poolscope.adapters.leases import end_earlier
from poolscope.adapters.libpq import IN_TRANSACTION
from poolscope.adapters.marks import ACCOUNT_KEY, CONNECTION_KEY
from poolscope.adapters.points import Checkin, Checkout, Close, Created, Opened, Resize
from poolscope.adapters.psycopg_calls import CALLS
from poolscope.adapters.psycopg_pool_connections import Account, PsycopgSource
from poolscope.adapters.psycopg_pool_points import REASONS, BackgroundConnect, Check, DirectClose
from poolscope.adapters.stats import Stats
from poolscope.core.guard import guard
from poolscope.types import override

if TYPE_CHECKING:
    from poolscope.adapters.psycopg_pool_connections import PooledConnection
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

# The name that the library gives a pool without one.
_UNNAMED: Final = re.compile(r"pool-\d+")

_POOLS: Final = ("ConnectionPool", "AsyncConnectionPool")
_NULL_POOLS: Final = ("NullConnectionPool", "AsyncNullConnectionPool")
_CONNECTIONS: Final = ("psycopg:Connection", "psycopg:AsyncConnection")


class PsycopgPoolAdapter(PointAdapter):
    """Hooks psycopg's pools."""

    name, module, versions = "psycopg_pool", "psycopg_pool", ">=3.2,<4"
    # Of connections, too: a pool does not refer to one that a caller holds.
    pool_classes = (*_POOLS, *_CONNECTIONS)
    library_modules = ("psycopg", "psycopg_pool")
    connect_arguments = ("conninfo", "kwargs")
    timeout_errors = ("PoolTimeout",)
    rejection_errors = ("TooManyRequests",)
    also_measures = Capability.ABANDONED
    points = (
        *(Created(f"{pool}.__init__", known=False) for pool in _POOLS),
        *(Opened(f"{pool}._open") for pool in _POOLS),
        *(Resize(f"{pool}.resize") for pool in (*_POOLS, *_NULL_POOLS)),
        *(Checkout(f"{pool}.getconn") for pool in _POOLS),
        *(Check(f"{pool}._check_connection") for pool in _POOLS),
        *(Checkin(f"{pool}.putconn") for pool in _POOLS),
        *(BackgroundConnect(f"{pool}._connect", early=True) for pool in _POOLS),
        *(Close(f"{pool}._close_connection", optional=True, reasons=REASONS) for pool in _POOLS),
        *(DirectClose(f"{connection}.close", reasons=REASONS) for connection in _CONNECTIONS),
        *CALLS,
    )

    # Pools

    @override
    def identify(self, library_pool: LibraryObject) -> Identity:
        name = name_by_framework(library_pool) if _UNNAMED.fullmatch(library_pool.name) else library_pool.name
        connections = list(library_pool._pool)[:1]
        return libpq.identify([*_arguments(library_pool), *(libpq.parameters_of(one) for one in connections)], name)

    @override
    def identify_by(self, library_pool: LibraryObject, connection: LibraryObject) -> Identity:  # noqa: ARG002
        return libpq.identify([libpq.parameters_of(connection)])

    @override
    def stats(self, library_pool: LibraryObject) -> Stats:
        account = Account.of(library_pool)
        pooling = self.keeps(library_pool)
        return Stats(
            limit=max(0, library_pool._max_size - account.lost) if library_pool._max_size else None,
            idle=len(library_pool._pool),
            in_use=account.in_use(),
            least_idle=library_pool._min_size if pooling else None,
            most_idle=library_pool._max_size if pooling else None,
            lost=account.lost,
        )

    @override
    def keeps(self, library_pool: LibraryObject) -> bool:
        return not any(kind.__name__ == "_BaseNullConnectionPool" for kind in type(library_pool).__mro__)

    @override
    def is_open(self, library_pool: LibraryObject) -> bool:
        return not library_pool._closed or not library_pool._opened

    @override
    def clears_connections(self, library_pool: LibraryObject) -> bool:
        return getattr(library_pool, "_reset", None) is not None  # the application's, which may do anything

    @override
    def open_ones(self, library_pool: LibraryObject) -> list[LibraryObject]:
        account: Account | None = library_pool.__dict__.get(ACCOUNT_KEY)
        references = account.connections.copy().values() if account is not None else ()
        return [connection for reference in references if (connection := reference()) is not None]

    @override
    def users(self, library_pool: LibraryObject) -> list[tuple[LibraryObject, Lease | None]]:
        account: Account | None = library_pool.__dict__.get(ACCOUNT_KEY)
        return [(connection, state.lease) for state, connection in account.held()] if account is not None else []

    @override
    def is_stopped(self, library_pool: LibraryObject) -> bool:
        # An open pool has workers. After a fork the interpreter marks the parent's threads as ended.
        if library_pool._closed or not self.keeps(library_pool):
            return False
        # It may be asked within a garbage collection: up to Python 3.12, `is_alive` takes a lock of `threading` where
        # the thread is no daemon, which this thread may hold just then. The library makes daemons.
        threads = [one for one in list(library_pool._workers) if getattr(one, "daemon", False)]
        return bool(threads) and not any(thread.is_alive() for thread in threads)

    @override
    def loop_of(self, library_pool: LibraryObject) -> LibraryObject:
        tasks = [one for one in list(library_pool._workers) if hasattr(one, "get_loop")]
        return tasks[0].get_loop() if tasks else None

    @override
    def source(self, anchor: LibraryObject) -> PsycopgSource:
        return PsycopgSource(self, anchor)

    @override
    def found(self, library_pools: list[LibraryObject]) -> None:
        for one in library_pools:
            library_pool = getattr(one, "_pool", None)
            if hasattr(library_pool, "_check_connection"):  # a connection that a caller holds
                guard.run("psycopg_pool.find", lambda one=one, pool=library_pool: self._state(pool, one), None)  # type: ignore[misc]
        # Those that are not open become known when they are opened.
        super().found([one for one in library_pools if hasattr(one, "putconn") and not getattr(one, "_closed", True)])

    @override
    def held(self, library_pool: LibraryObject) -> list[LibraryObject]:
        return [connection for _, connection in Account.of(library_pool).held()]

    @override
    def entered(self, library_pool: LibraryObject, pool: Pool, held: list[LibraryObject]) -> None:
        # The library keeps no list of what callers hold: what waits now may be held by a checkout that is under way.
        for connection in library_pool._pool.copy():
            self._state(library_pool, connection)
        # Some may have been returned meanwhile.
        super().entered(library_pool, pool, [connection for connection in held if connection._pool is library_pool])

    @override
    def forget(self, anchor: LibraryObject) -> None:
        account: Account | None = anchor.__dict__.pop(ACCOUNT_KEY, None)
        if account is None:
            return
        for reference in account.connections.copy().values():
            self.forget_connection(reference())
        account.connections.clear()

    # Connections

    def _state(self, library_pool: LibraryObject, connection: LibraryObject) -> PooledConnection:
        self._anchors.add(library_pool)
        self._marked.add(connection)
        state = Account.of(library_pool, keep=True).state(connection)
        if self.pool_registry is None:  # released meanwhile
            self._take_off(library_pool)
            self.forget_connection(connection)
        return state

    @override
    def connected(
        self,
        library_pool: LibraryObject,
        pool: Pool,
        connection: LibraryObject,
        lease: Lease | None,  # noqa: ARG002
    ) -> None:
        self._state(library_pool, connection)  # `tie` passes on to the lease what is known of it
        learn(pool, "psycopg_pool.learn", lambda: self.identify_by(library_pool, connection))

    @override
    def tie(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:
        state: PooledConnection | None = connection.__dict__.get(CONNECTION_KEY)
        if state is None:
            if self.pool_registry is None:  # poolscope was released during the checkout
                return
            state = self._state(library_pool, connection)
        if state.connect is not None:
            state.was_made_for(lease)
        lease.backend_process_id = state.backend_process_id
        earlier, state.lease = state.lease, lease
        if earlier is not None:
            end_earlier(earlier)

    @override
    def claim(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> bool:
        state = self._state(library_pool, connection)
        state.lease = state.lease or lease  # no other thread runs meanwhile: nothing is called
        return state.lease is lease

    @override
    def untie(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:
        marks = getattr(connection, "__dict__", None)
        state: PooledConnection | None = marks.get(CONNECTION_KEY) if marks else None
        # A connection of another pool, or of none, is refused by the library: its caller goes on holding it.
        if state is None or connection._pool is not library_pool:
            return None
        lease, state.lease = state.lease, None
        return lease

    @override
    def give_back(self, library_pool: LibraryObject, connection: LibraryObject) -> LibraryObject:
        return library_pool.putconn(connection)

    @override
    def closing(self, hooked: LibraryObject, *args: LibraryObject) -> Pool | None:
        connection = args[0] if args else hooked
        state: PooledConnection | None = connection.__dict__.get(CONNECTION_KEY)
        if state is None or state.closed:
            return None
        state.closed = True
        return self.pool_of(state.account.reference())

    @override
    def connection_of(self, hooked: LibraryObject) -> LibraryObject:
        return hooked._conn

    @override
    def in_transaction(self, connection: LibraryObject) -> bool:
        return connection.pgconn.transaction_status in IN_TRANSACTION


def _arguments(library_pool: LibraryObject) -> list[dict[str, LibraryObject]]:
    # They may be functions that make them (3.3): calling those could cost a network call.
    if callable(library_pool.conninfo) or callable(library_pool.kwargs):
        return []
    given = [library_pool.kwargs or {}, libpq.parse(library_pool.conninfo)]
    return given if first_of(given, "service") else [*given, guard.run("psycopg_pool.defaults", _defaults, {})]


def _defaults() -> dict[str, Any]:
    # libpq's own account of the environment.
    from psycopg.pq import Conninfo  # noqa: PLC0415 - the library is imported only where it is in use

    defaults = {option.keyword: option.val for option in Conninfo.get_defaults()}
    found = {key: (defaults.get(key.encode()) or b"").decode() for key in ("host", "hostaddr", "port", "dbname")}
    return {key: value for key, value in found.items() if value}


ADAPTER: Final = PsycopgPoolAdapter()
