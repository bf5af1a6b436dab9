"""
peewee's pools (playhouse.pool), over PostgreSQL, MySQL and SQLite.

A thread has one connection at a time: ``connect`` checks one out, ``_connect`` takes it from the pool or makes it, and
``_close`` returns it. A checkout beyond the limit waits for the pool's ``timeout``, or is turned away where it has
none. The connections are those of any driver and may carry no marks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters import libpq
from poolscope.adapters.address import TORN, is_cut_off
from poolscope.adapters.base import PointAdapter
from poolscope.adapters.connections import ConnectionsById
from poolscope.adapters.identity import file_identity, first_of, identity
from poolscope.adapters.leases import keep_handed_over, recover_return
from poolscope.adapters.marks import LEASES_KEY
from poolscope.adapters.peewee_calls import Autoconnected, AutoconnectingCall, AutoconnectingStatement
from poolscope.adapters.points import Checkin, Checkout, Close, Connect, Created, Handover, Resize, Sweep
from poolscope.adapters.points.brackets import precede
from poolscope.adapters.points.cold import ColdPoint
from poolscope.adapters.points.url import Parsed
from poolscope.adapters.stats import Stats
from poolscope.core.lease import Outcome
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

    from poolscope.adapters.points.brackets import After, Before
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.types import LibraryObject

# The databases, each with a way of its own to connect -> the semantic conventions' name.
_SYSTEMS: Final = {"PostgresqlDatabase": "postgresql", "MySQLDatabase": "mysql", "SqliteDatabase": "sqlite"}

# What takes URLs apart, and the function that does.
_URLS: Final = "playhouse.db_url"
_PARSE: Final = "parseresult_to_dict"

# The pools that try a connection before they hand it over.
_TRYING: Final = ("_PooledMySQLDatabase", "_PooledPostgresqlDatabase", "_PooledSqliteDatabase")


def _why_returned(frame: FrameType) -> str:
    # It came back too old, or it could not be reset.
    here = frame.f_locals
    if here.get("close_conn"):
        return "closed"
    library_pool, used = here["self"], here["pool_conn"]
    is_stale = library_pool._stale_timeout and library_pool._is_stale(used.timestamp)
    return "recycled" if is_stale else "reset_failed"


_REASONS: Final[dict[str, str | Callable[[FrameType], str]]] = {
    "_connect": "recycled",
    "manual_close": "invalidated",
    "close_stale": "recycled",
    "close_idle": "disposed",
    "close_all": "disposed",
    "_close": _why_returned,
}


class Discard(ColdPoint):
    """A pool finds out whether a connection is closed, and forgets it if so."""

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def after(pool: Pool, is_closed: LibraryObject, _: BaseException | None) -> None:
            if is_closed:
                pool.closed("invalidated")

        return lambda library_pool, _, __: adapter.pool_of(library_pool), after


class OwnReturn(Checkin):
    """The running thread takes its own connection from the pool, which may make another one at once, and closes it."""

    @override
    def make(self, adapter: PointAdapter, original: Callable[..., Any]) -> Callable[..., Any]:
        component, untie, lost = f"{adapter.name}.checkin", adapter.untie, adapter.lost

        def end(library_pool: LibraryObject) -> None:
            lease = connection = None
            try:
                connection = library_pool._state.conn
                lease = untie(library_pool, connection)
                if lease is not None:
                    lease.released()
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_return(component, lease, lambda: lost(library_pool, connection))

        return precede(original, end)


class UrlParsed(Parsed):
    """A URL is taken apart, of which a database is made then."""

    @override
    def parts(self, result: LibraryObject) -> tuple[object, ...]:
        return tuple(result.get(key) for key in ("host", "port", "database"))


class PeeweeAdapter(ConnectionsById, PointAdapter):
    """Hooks peewee's pools."""

    name, module, versions = "peewee", "playhouse.pool", ">=4.5,<5"
    modules = (module, _URLS)
    pool_classes = ("PooledDatabase",)
    library_modules = ("peewee", "playhouse")
    points = (
        Created("PooledDatabase.__init__"),
        Resize("PooledDatabase.init"),
        Checkout("PooledDatabase.connect", when=lambda pool, _, __: pool._state.closed and not pool.deferred),
        Handover("PooledDatabase._connect"),
        Checkin("PooledDatabase._close"),
        OwnReturn("PooledDatabase.manual_close"),
        Sweep("PooledDatabase.close_stale", reason="closed"),
        *(Sweep(f"PooledDatabase.{name}") for name in ("close_all", "dispose")),
        *(Discard(f"{kind}._is_closed") for kind in _TRYING),
        *(Connect(f"peewee:{database}._connect") for database in _SYSTEMS),
        Close("PooledDatabase._close_raw", reasons=_REASONS),
        AutoconnectingStatement("peewee:Database._execute_cursor"),
        *(AutoconnectingCall(f"peewee:Database.{name}") for name in ("begin", "commit", "rollback")),
        *(AutoconnectingCall(f"peewee:{database}.begin") for database in _SYSTEMS),
        Autoconnected("peewee:Database.cursor"),
    )
    has_pools_above = False

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        if module.__name__ != _URLS:
            super().hook(module, patcher, pool_registry)
        elif _PARSE in vars(module):
            patcher.replace(module, _PARSE, partial(UrlParsed(_PARSE).make, self))

    def identify(self, library_pool: LibraryObject) -> Identity:
        """What a pool is, by the arguments that it was made with."""
        return _identify(library_pool)

    def identify_by(self, library_pool: LibraryObject, connection: LibraryObject) -> Identity | None:
        """What a pool is, by a connection of it."""
        is_libpq = type(connection).__module__.startswith("psycopg")
        return _identify(library_pool, libpq.parameters_of(connection)) if is_libpq else None

    def is_open(self, library_pool: LibraryObject) -> bool:
        """Whether a pool can be used: its database may be named later."""
        return not library_pool.deferred

    def stats(self, library_pool: LibraryObject) -> Stats:
        """The library's own account of a pool."""
        limit = library_pool._max_connections or None
        return Stats(limit, idle=len(library_pool._connections), in_use=len(library_pool._in_use), most_idle=limit)

    def held(self, library_pool: LibraryObject) -> list[LibraryObject]:
        """The connections that callers hold."""
        return [used.connection for used in list(library_pool._in_use.values())]

    def open_ones(self, library_pool: LibraryObject) -> list[LibraryObject]:
        """All open connections."""
        return [*self.held(library_pool), *(entry[-1] for entry in list(library_pool._connections))]

    def connects_with(self, library_pool: LibraryObject) -> LibraryObject:
        """What its connections are made with: the name of the database, or a URL, and arguments of the driver's."""
        database = library_pool.database
        return [{"dsn" if _is_url(database) else "database": database}, library_pool.connect_params]

    def outcome(self, library_pool: LibraryObject, lease: Lease, error: BaseException) -> Outcome:
        """How a checkout ended that raised: where the pool has no timeout, one beyond the limit is turned away."""
        if type(error).__name__ == "MaxConnectionsExceeded":
            return Outcome.TIMEOUT if library_pool._wait_timeout else Outcome.REJECTED
        return super().outcome(library_pool, lease, error)

    def failed(self, library_pool: LibraryObject, lease: Lease, error: BaseException, args: tuple[Any, ...]) -> None:
        """A checkout ended in an exception. Should that come after the handover, the thread keeps the connection."""
        super().failed(library_pool, lease, error, args)
        keep_handed_over(library_pool.__dict__.get(LEASES_KEY, {}), lease)

    def lease_of(self, connection: LibraryObject) -> Lease | None:
        """The lease of the connection that the running thread has of a database. Hot."""
        leases: dict[int, Lease] | None = connection.__dict__.get(LEASES_KEY)
        return leases.get(id(connection._state.conn)) if leases else None

    def give_back(self, library_pool: LibraryObject, connection: LibraryObject) -> LibraryObject:  # noqa: ARG002
        """Return what the running thread was to have."""
        return library_pool.close()

    def connects_for(self, hooked: LibraryObject) -> LibraryObject:
        """The pool that a database connects for: itself, where it is one."""
        return hooked if hasattr(hooked, "_pool_lock") else None

    def in_transaction(self, connection: LibraryObject) -> bool:
        """Whether a transaction is open on the connection that the running thread has of a database."""
        used = connection._state.conn
        if used is None:
            return False
        driver = getattr(connection, "_adapter", None)
        if driver is not None:
            return libpq.is_in_transaction(int(driver.txn_status(used)))
        status = getattr(used, "get_transaction_status", None)
        return bool(status()) if status is not None else bool(getattr(used, "in_transaction", False))


def _is_url(database: object) -> bool:
    return isinstance(database, str) and database.startswith("postgresql://")


def _identify(library_pool: LibraryObject, *more: dict[str, Any]) -> Identity:
    kinds = [kind.__name__ for kind in type(library_pool).__mro__]
    system = next((_SYSTEMS[kind] for kind in kinds if kind in _SYSTEMS), "other_sql")
    given = [library_pool.connect_params, *more]
    database = library_pool.database
    if TORN.has(first_of(given, "host"), first_of(given, "port"), database):
        return identity(system)
    if system == "sqlite":
        return file_identity(system, database)
    if system == "postgresql":
        return libpq.identify([libpq.parse(database) if _is_url(database) else {"dbname": database}, *given])
    address = first_of(given, "unix_socket") or first_of(given, "host") or "localhost"
    if is_cut_off({**given[0], "database": database}):
        return identity(system)
    return identity(system, namespace=database, address=address, port=first_of(given, "port"))


ADAPTER: Final = PeeweeAdapter()
