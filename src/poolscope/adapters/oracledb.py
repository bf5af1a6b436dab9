"""
python-oracledb's pools, sync and async.

What is hooked is the Python layer above the driver's compiled core: a pooled `Connection` is made for each checkout and
closed, or collected, at its end. Further fetches of single rows, pipelines and LOBs pass none of the points: they count
as idle time.
Tested against a stand-in for that core, not against Oracle Database (docs/pools.md).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.base import PointAdapter
from poolscope.adapters.identity import identity
from poolscope.adapters.leases import LeaseReference
from poolscope.adapters.marks import KEY
from poolscope.adapters.points import Abandoned, Call, Checkin, Checkout, Created, Fetch, Statement
from poolscope.adapters.stats import Stats
from poolscope.core.failure import texts_of
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

# What the driver says when no connection came free in time: thin mode, thick mode.
_TIMEOUTS: Final = ("DPY-4005", "ORA-24496", "ORA-24457")


# Easy Connect: [[protocol:]//]host[:port]/[service][:server type][/instance][?parameters]; login and "@" are cut off by
# the driver, and by us should it not. What lies between a "?" and an "@" may be parameters, or part of a password.
_EASY: Final = re.compile(
    r"(?:[^?(]*@)?(?:\w+:)?(?://)?(?P<host>\[[^\[\]]*\]|[^/:?@()]+)(?::(?P<port>\d+))?/(?P<service>[^/:?@]*)[^@]*",
    re.DOTALL,
)
# A connect descriptor.
_HOST, _PORT, _SERVICE = (
    re.compile(rf"\(\s*{key}\s*=\s*([^()\s]+)\s*\)", re.IGNORECASE) for key in ("HOST", "PORT", "(?:SERVICE_NAME|SID)")
)

_CONNECTIONS: Final = ("Connection", "AsyncConnection")
_POOLS: Final = ("ConnectionPool", "AsyncConnectionPool")


class AwaitedCheckout(Checkout):
    """A pool returns a connection at once; the checkout begins when that is awaited."""

    @override
    def make(self, adapter: PointAdapter, original: Callable[..., Any]) -> Callable[..., Any]:

        async def connect(_: LibraryObject, connecting: LibraryObject) -> LibraryObject:
            return await connecting

        checkout = super().make(adapter, connect)

        def acquire(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            connection = original(self_, *args, **kwargs)
            connecting = getattr(connection, "_connect_coroutine", None)
            if connecting is not None:
                connection._connect_coroutine = checkout(self_, connecting)
            return connection

        return acquire


class OracledbAdapter(PointAdapter):
    """Hooks python-oracledb's pools."""

    name, module, versions = "oracledb", "oracledb", ">=2,<27"
    pool_classes = _POOLS
    library_modules = ("oracledb",)
    connect_arguments = ("dsn", "username")
    points = (
        # Before 26 both kinds of pool have these from one base, whose sync connections have nothing to await.
        *(Created(f"{pool}.__init__", inherited=True) for pool in _POOLS),
        Checkout("Connection.__init__", library_pool=lambda _, __, kwargs: kwargs.get("pool")),
        AwaitedCheckout("AsyncConnectionPool.acquire", inherited=True),
        Abandoned("Connection.__del__", inherited=True),
        *(Checkin(f"{connection}.close", of_connection=True) for connection in _CONNECTIONS),
        # In older versions the end of a block closes the connection by itself.
        Checkin("Connection.__exit__", of_connection=True),
        Checkin("AsyncConnection.__aexit__", of_connection=True),
        *(Checkin(f"{pool}.drop") for pool in _POOLS),
        *(
            Statement(f"{cursor}.{name}")
            for cursor in ("Cursor", "AsyncCursor")
            for name in ("execute", "executemany", "callproc", "callfunc")
        ),
        *(Fetch(f"{cursor}.{name}") for cursor in ("Cursor", "AsyncCursor") for name in ("fetchmany", "fetchall")),
        *(Statement(f"{connection}.fetch_df_all", optional=True) for connection in _CONNECTIONS),
        *(Call(f"{connection}.{name}") for connection in _CONNECTIONS for name in ("commit", "rollback")),
    )

    def identify(self, library_pool: LibraryObject) -> Identity:
        """What a pool is. Of the connect string only server, port and service are read."""
        dsn = guard.run("oracledb.dsn", lambda: str(library_pool._impl.dsn or ""), "")
        hosts, ports, service = _server(dsn)
        return identity(
            "oracle.db",
            name=getattr(library_pool, "_cache_name", None),
            namespace=service,
            address=list(dict.fromkeys(hosts)),
            port=ports,
        )

    def stats(self, library_pool: LibraryObject) -> Stats:
        """The library's own account of a pool."""
        core = library_pool._impl
        if core is None:
            return Stats()
        limit, busy = int(core.max), int(core.get_busy_count())
        idle = max(0, int(core.get_open_count()) - busy)
        return Stats(limit=limit, idle=idle, in_use=busy, least_idle=int(core.min), most_idle=limit)

    def is_open(self, library_pool: LibraryObject) -> bool:
        """Whether a pool is still in use: a closed one cannot be opened again."""
        return library_pool._impl is not None

    def outcome(self, library_pool: LibraryObject, lease: Lease, error: BaseException) -> Outcome:
        """How a checkout ended that raised: one class of exceptions stands for all that the driver reports."""
        if isinstance(error, Exception) and any(code in text for text in texts_of(error) for code in _TIMEOUTS):
            return Outcome.TIMEOUT
        return super().outcome(library_pool, lease, error)

    def held(self, library_pool: LibraryObject) -> list[LibraryObject]:
        """The connections that callers hold, as far as their checkouts were seen: the library keeps no list."""
        pool: Pool | None = library_pool.__dict__.get(KEY)
        references = [lease.carrier for lease in pool.leases.copy()] if pool is not None else []
        connections = [reference() for reference in references if reference is not None]
        return [connection for connection in connections if connection is not None]

    def tie(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:
        """A caller holds a connection by this lease. Hot."""
        super().tie(library_pool, connection, lease)
        # Async connections have no ``__del__``. The lease keeps the reference, so that it outlives the connection.
        lease.carrier = LeaseReference(connection, lease, "oracledb.collected")

    def forget_connection(self, connection: LibraryObject) -> None:
        """Take our marks off a connection."""
        lease = self.lease_of(connection)
        if lease is not None:
            lease.carrier = None
        super().forget_connection(connection)

    def connection_of(self, hooked: LibraryObject) -> LibraryObject:
        """The connection of a cursor, or the connection itself."""
        return getattr(hooked, "connection", hooked)

    def in_transaction(self, connection: LibraryObject) -> bool | None:
        """Whether a transaction is open; None in versions that do not pass on what the driver's core knows."""
        if connection._impl is None:
            return False
        if hasattr(type(connection), "transaction_in_progress"):
            return bool(connection.transaction_in_progress)
        return False if connection.autocommit else None


def _server(dsn: str) -> tuple[list[str], list[str], str | None]:
    # Servers, their ports and the service, of the two forms that name them; an alias of tnsnames.ora names none.
    if "(" in dsn:
        services = _SERVICE.findall(dsn)
        return _HOST.findall(dsn), _PORT.findall(dsn), services[0] if services else None
    easy = _EASY.fullmatch(dsn)
    if easy is None:
        return [], [], None
    return [easy["host"]], [easy["port"]] if easy["port"] else [], easy["service"] or None


ADAPTER: Final = OracledbAdapter()
