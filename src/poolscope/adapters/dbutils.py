"""
DBUtils' `PooledDB`, over any DB-API driver.

A caller holds a proxy of a "steady" connection, and returns that by closing or dropping the proxy. A shared connection
is one lease for each caller, and no statement counts for any of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters import libpq
from poolscope.adapters.address import is_cut_off
from poolscope.adapters.base import PointAdapter
from poolscope.adapters.dbutils_calls import (
    MAKING,
    Connected,
    Connecting,
    Making,
    Returned,
    SteadyState,
    ToughStatement,
)
from poolscope.adapters.identity import file_identity, first_of, identity
from poolscope.adapters.marks import CONNECTION_KEY, living
from poolscope.adapters.points import Call, Checkout, Close
from poolscope.adapters.stats import Stats
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

# Drivers by the module that makes connections -> the database, as the semantic conventions name it.
_SYSTEMS: Final = {
    **dict.fromkeys(("psycopg2", "psycopg", "pg8000"), "postgresql"),
    **dict.fromkeys(("pymysql", "MySQLdb", "mysql"), "mysql"),
    "oracledb": "oracle.db",
    "sqlite3": "sqlite",
    "pymssql": "microsoft.sql_server",
}

_PROXIES: Final = ("PooledDedicatedDBConnection", "PooledSharedDBConnection")
_STEADY: Final = "dbutils.steady_db:SteadyDBConnection"


def _why_replaced(steady: LibraryObject) -> str:
    return "recycled" if steady._maxusage and steady._usage >= steady._maxusage else "invalidated"


_REASONS: Final[dict[str, str | Callable[[FrameType], str | None]]] = {
    "cache": "overflow",
    # The pool's; or a steady connection's, for which whoever called it has the reason.
    "close": lambda frame: "disposed" if "_idle_cache" in vars(frame.f_locals["self"]) else None,
    **dict.fromkeys(("_ping_check", "commit", "rollback"), "invalidated"),
    "_cursor": lambda frame: _why_replaced(frame.f_locals["self"]),
    "tough_method": lambda frame: _why_replaced(frame.f_locals["con"]),
    "__del__": "disposed",
}


class DbutilsAdapter(PointAdapter):
    """Hooks DBUtils' pool."""

    name, module, versions = "dbutils", "dbutils.pooled_db", ">=3.0,<4"
    pool_classes = ("PooledDB",)
    library_modules = ("dbutils",)
    connect_arguments = ("_args", "_kwargs")
    rejection_errors = ("TooManyConnections",)
    points = (
        Making("PooledDB.__init__"),
        Making("PooledDB.steady_connection", known=False),
        Checkout("PooledDB.connection"),
        *(Returned(f"{proxy}.close") for proxy in _PROXIES),
        *(Returned(f"{proxy}.__del__", abandoned=True) for proxy in _PROXIES),
        Connecting(f"{_STEADY}._create"),
        Connected(f"{_STEADY}._store"),
        Close(f"{_STEADY}._close", reasons=_REASONS),
        ToughStatement("dbutils.steady_db:SteadyDBCursor._get_tough_method"),
        Call(f"{_STEADY}.begin", of_connection=True, opens=True),
        *(Call(f"{_STEADY}.{name}", of_connection=True) for name in ("commit", "rollback")),
    )
    has_pools_above = False

    @override
    def identify(self, library_pool: LibraryObject) -> Identity:
        creator, arguments = library_pool._creator, library_pool._args
        module = getattr(creator, "__module__" if callable(creator) else "__name__", "")
        system = _SYSTEMS.get(str(module).partition(".")[0], "other_sql")
        given, first = [library_pool._kwargs], arguments[0] if arguments else None
        if system == "postgresql":
            given.append(libpq.parse(first_of(given, "dsn", "conninfo") or first))
        given += [_reported_by(steady) for steady in library_pool._idle_cache[:1]]
        namespace = first_of(given, "dbname", "database", "db")
        if system == "sqlite":
            return file_identity(system, namespace or first)
        if is_cut_off(given[0]):
            return identity(system)
        address = first_of(given, "host", "unix_socket")
        return identity(system, namespace=namespace, address=address, port=first_of(given, "port"))

    @override
    def identify_by(self, library_pool: LibraryObject, connection: LibraryObject) -> Identity:  # noqa: ARG002 - a steady connection knows no pool
        return libpq.identify([_reported_by(connection)])

    @override
    def stats(self, library_pool: LibraryObject) -> Stats:
        idle, most_idle = len(library_pool._idle_cache), library_pool._maxcached or None
        if library_pool._maxshared:  # it does not count the callers that share
            return Stats(idle=idle, most_idle=most_idle)
        limit = library_pool._maxconnections or None
        return Stats(limit, idle, in_use=library_pool._connections, most_idle=most_idle)

    @override
    def idle(self, library_pool: LibraryObject) -> LibraryObject:
        return library_pool._idle_cache

    @override
    def open_ones(self, library_pool: LibraryObject) -> list[LibraryObject]:
        return [one for one, _ in self._open_states(library_pool)]

    @override
    def users(self, library_pool: LibraryObject) -> list[tuple[LibraryObject, Lease | None]]:
        states = self._open_states(library_pool)
        shared = [(one, lease) for one, state in states for lease in list(state.sharers.values())]
        return [*((one, state.lease) for one, state in states), *shared]

    def _open_states(self, library_pool: LibraryObject) -> list[tuple[LibraryObject, SteadyState]]:
        pool = self.pool_of(library_pool)
        known = [(one, one.__dict__.get(CONNECTION_KEY)) for one in living(self._marked)]
        return [(one, state) for one, state in known if state is not None and state.pool is pool and not one._closed]

    @override
    def physical(self, connection: LibraryObject) -> LibraryObject:
        return connection._con

    @override
    def in_transaction(self, connection: LibraryObject) -> bool | None:
        driver = connection._con
        # psycopg2; sqlite3, mysql-connector; oracledb; PyMySQL; and what PEP 249 says of the rest.
        status = getattr(driver, "get_transaction_status", None)
        if status is not None:
            return libpq.is_in_transaction(status())
        for name in ("in_transaction", "transaction_in_progress"):
            known = getattr(driver, name, None)
            if isinstance(known, bool):
                return known
        known = getattr(driver, "server_status", None)
        if isinstance(known, int):
            return bool(known & 1)  # MySQL's SERVER_STATUS_IN_TRANS
        return False if getattr(driver, "autocommit", None) is True else None

    @override
    def enter(self, library_pool: LibraryObject, connection: LibraryObject = None) -> Pool | None:
        return super().enter(library_pool, connection) if library_pool is not MAKING.get() else None

    @override
    def state(self, connection: LibraryObject, pool: Pool | None) -> SteadyState:
        state: SteadyState | None = connection.__dict__.get(CONNECTION_KEY)
        return state if state is not None else self.put(connection, SteadyState(pool))

    @override
    def belongs(self, connection: LibraryObject, pool: Pool) -> None:
        state = self.state(connection, pool)
        state.pool = pool
        while state.made:
            pool.created(*state.made.popitem()[1])

    @override
    def tie(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:
        steady = connection._con
        if library_pool._maxshared and hasattr(connection, "_shared_con"):
            state: SteadyState = steady.__dict__.get(CONNECTION_KEY) or self.state(steady, lease.pool)
            state.sharers[id(connection)] = lease
        else:
            super().tie(library_pool, steady, lease)

    @override
    def untie(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:  # noqa: ARG002
        steady = connection._con  # None once it was returned
        state: SteadyState | None = steady.__dict__.get(CONNECTION_KEY) if steady is not None else None
        if state is None:
            return None
        lease = state.lease
        if lease is None:
            return state.sharers.pop(id(connection), None)
        state.lease = None
        return lease

    @override
    def lost(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:  # noqa: ARG002
        state: SteadyState = connection._con.__dict__[CONNECTION_KEY]
        return state.lease or state.sharers.get(id(connection))

    @override
    def closing(self, hooked: LibraryObject, *args: LibraryObject) -> Pool | None:  # noqa: ARG002
        state: SteadyState | None = hooked.__dict__.get(CONNECTION_KEY)
        return state.pool if state is not None and not hooked._closed else None


def _reported_by(steady: LibraryObject) -> dict[str, Any]:
    # The connections of psycopg and psycopg2 know their server; others are not asked.
    return libpq.parameters_of(steady._con) if type(steady._con).__module__.startswith("psycopg") else {}


ADAPTER: Final = DbutilsAdapter()
