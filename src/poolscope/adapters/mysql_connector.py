"""
mysql-connector's `MySQLConnectionPool`.

It makes all connections at the start and never waits: an ask that finds none is turned away. What a caller gets is a
new proxy each time; when that is dropped, its connection is lost to the pool for ever.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.base import Capability
from poolscope.adapters.common import (
    ASK,
    DRIVER_KEY,
    LEASE_FINDERS,
    Adapter,
    WeakSource,
    being_imported,
    existing,
    first_of,
    identity,
    learn,
    limit_changed,
)
from poolscope.adapters.marks import CLOSED_KEY, SOURCE_KEY
from poolscope.adapters.mysql_connector_calls import CallHooks, lease_of
from poolscope.core.calls import KEY
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.core.types import LibraryObject, override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.lease import Lease
    from poolscope.core.pool_identity import Identity
    from poolscope.core.pool_registry import Ledger
    from poolscope.hooks.patching import Patcher

_POOL: Final = ("__init__", "get_connection", "add_connection", "_remove_connections")

# What the library joins into the name of a pool without one (`generate_pool_name`); the user is among it.
_NAMED_AFTER: Final = ("host", "port", "user", "database")


class Loan:
    """
    What ties a proxy to its lease.

    Args:
        proxy: What the caller got.
        lease: The lease.
        source: Of its pool.
    """

    __slots__ = ("__weakref__", "lease", "reference", "source")

    def __init__(self, proxy: LibraryObject, lease: Lease, source: ConnectorSource) -> None:
        self.lease = lease
        self.source = source
        self.reference = weakref.ref(proxy, self._gone)

    def _gone(self, _: object) -> None:
        # The caller dropped it; this may run inside the garbage collector.
        if self in self.source.loans:
            self.source.loans.discard(self)
            self.source.lost += 1
            self.lease.end(abandoned=True)
            self.lease.pool.closed("abandoned")
            limit_changed(self.lease.pool)


class MysqlConnectorAdapter(Adapter):
    """
    Hooks mysql-connector's pool.
    """

    name = "mysql-connector"
    module = "mysql.connector.pooling"
    versions = ">=8.1,<27"
    library_modules = ("mysql",)
    #: Where in the library its cursors and connections are; see `CallHooks`.
    within = ""
    capabilities = (
        Capability.WAIT
        | Capability.WAIT_PHASES
        | Capability.USE
        | Capability.USE_PHASES
        | Capability.LIMIT
        | Capability.IDLE
        | Capability.CREATE
        | Capability.CLOSE
        | Capability.DRIFT
        | Capability.ABANDONED
    )

    def hook(self, module: ModuleType, patcher: Patcher, ledger: Ledger) -> None:
        """
        Put the hooks in.
        """
        pool, proxy = module.MySQLConnectionPool, module.PooledMySQLConnection
        patcher.require(pool, _POOL)
        patcher.require(proxy, ("close",))
        patcher.require(module, ("PoolError", "InterfaceError"))
        calls = CallHooks(self.within)
        calls.check(patcher)
        self._ledger = ledger
        self._pool_error: type[Exception] = module.PoolError
        self._put_back: type[Exception] = module.InterfaceError
        patcher.wrap(pool, "__init__", self._made)
        patcher.replace(pool, "get_connection", self._make_get)
        patcher.replace(pool, "add_connection", self._make_add)
        patcher.replace(pool, "_remove_connections", self._make_remove)
        patcher.replace(proxy, "close", self._make_close)
        calls.hook(patcher)
        LEASE_FINDERS[self.name] = lease_of
        if not being_imported(module):
            for found in existing((pool,)):
                self.know(found)

    @override
    def release(self) -> None:
        LEASE_FINDERS.pop(self.name, None)
        super().release()

    def identify(self, pool: LibraryObject) -> Identity:
        """
        See `Adapter.identify`. A pool is always named; the name that the library makes up itself is not used.
        """
        given = [pool._cnx_config, *map(_told_by, list(self.queued(pool))[:1])]
        namespace = first_of(given, "database", "db")
        otherwise = None if first_of(given, "option_files", "read_default_file") else "localhost"
        address = first_of(given, "unix_socket") or first_of(given, "host") or otherwise
        made_up = "_".join(str(given[0][key]) for key in _NAMED_AFTER if key in given[0])
        name = pool._pool_name if pool._pool_name != made_up else None
        return identity("mysql", name=name, namespace=namespace, address=address, port=first_of(given, "port"))

    @override
    def source(self, pool: LibraryObject) -> ConnectorSource:
        source: ConnectorSource = pool.__dict__.setdefault(SOURCE_KEY, ConnectorSource(pool))
        return source

    @override
    def forget(self, anchor: LibraryObject) -> None:
        source = anchor.__dict__.pop(SOURCE_KEY, None)
        for loan in source.loans.copy() if source is not None else ():
            proxy = loan.reference()
            if proxy is not None:
                proxy.__dict__.pop(KEY, None)
                getattr(proxy._cnx, "__dict__", {}).pop(DRIVER_KEY, None)
        for connection in list(self.queued(anchor)):
            connection.__dict__.pop(CLOSED_KEY, None)
        if source is not None:
            source.loans.clear()

    def queued(self, pool: LibraryObject) -> LibraryObject:
        """
        The connections that a pool has.
        """
        return pool._cnx_queue.queue

    def outcome(self, lease: Lease, error: BaseException) -> Outcome:
        """
        See `Adapter.outcome`. One exception stands for all that a pool refuses.
        """
        if isinstance(error, self._pool_error) and "exhausted" in str(error):
            return Outcome.REJECTED
        return super().outcome(lease, error)

    def _made(
        self, wrapped: Callable[..., LibraryObject], pool: LibraryObject, args: LibraryObject, kwargs: LibraryObject
    ) -> LibraryObject:
        result = wrapped(*args, **kwargs)
        if pool._cnx_config:
            self.made(pool)
        return result

    def _make_get(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter, ask = self, self.ask

        def get_connection(self: LibraryObject) -> LibraryObject:
            lease = ask(self, self.__dict__)
            if lease is None:
                return original(self)
            outer = ASK.get()
            ASK.set(lease)
            lease.carrier = self
            try:
                proxy = original(self)
            except BaseException as error:
                adapter.not_lent(self, lease, error)
                raise
            finally:
                lease.carrier = None
                ASK.set(outer)
            adapter.lend(self, proxy, lease)
            return proxy

        return get_connection

    def lend(self, pool: LibraryObject, proxy: LibraryObject, lease: Lease) -> None:
        """
        The caller has a connection.
        """
        try:
            lease.grant()
            lease.backend_process_id = getattr(proxy._cnx, "connection_id", None)
            source = pool.__dict__[SOURCE_KEY]
            loan = Loan(proxy, lease, source)
            source.loans.add(loan)
            proxy.__dict__[KEY] = loan
            proxy._cnx.__dict__[DRIVER_KEY] = lease
        except Exception:  # noqa: BLE001 - ours
            guard.caught(f"{self.name}.get")

    def not_lent(self, pool: LibraryObject, lease: Lease, error: BaseException) -> None:
        """
        An ask failed. Of a connection that it had taken out by then the library keeps hold only if it could not be
        connected anew; cancelled in its ping, say, it is lost.
        """
        taken_out = lease.got_at is not None
        self.failed(lease, error)
        source: ConnectorSource | None = pool.__dict__.get(SOURCE_KEY)
        if source is None or not taken_out or isinstance(error, self._put_back):
            return
        source.lost += 1
        if not lease.connect_time:  # else its end was counted when it was to be connected anew
            lease.pool.closed("abandoned")
        guard.run(f"{self.name}.lost", lambda: limit_changed(lease.pool), None)

    def _make_add(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def add_connection(self: LibraryObject, cnx: LibraryObject = None) -> LibraryObject:
            ledger = adapter._ledger
            if cnx or ledger is None:
                return original(self, cnx)
            began = ledger.now()
            result = original(self, cnx)
            adapter.added(self, began)
            return result

        return add_connection

    def added(self, pool: LibraryObject, began: float) -> None:
        """
        A connection was made.
        """
        tracked = self.tracked(pool) or self.know(pool)
        if tracked is None:
            return
        learn(tracked, f"{self.name}.learn", lambda: self.identify(pool))
        tracked.created(tracked.now() - began)
        source = pool.__dict__.get(SOURCE_KEY)
        if source is not None and source.lost:
            source.lost -= 1  # it takes the place of one that was dropped
            limit_changed(tracked)

    def _make_remove(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def _remove_connections(self: LibraryObject) -> LibraryObject:
            count = original(self)
            adapter.removed(self, count)
            return count

        return _remove_connections

    def _make_close(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def close(self: LibraryObject) -> LibraryObject:
            give_back(self)
            return original(self)

        return close

    def removed(self, pool: LibraryObject, count: int) -> None:
        """
        The pool closed that many connections.
        """
        tracked = self.tracked(pool)
        if tracked is not None:
            for _ in range(count):
                tracked.closed("disposed")


class ConnectorSource(WeakSource):
    """
    One `MySQLConnectionPool`, held weakly.
    """

    def __init__(self, pool: LibraryObject) -> None:
        super().__init__(pool)
        self.loans: set[Loan] = set()
        #: Connections that were dropped and never came back.
        self.lost = 0

    def limit(self) -> int | None:
        """
        See `PoolSource.limit`: without what is lost.
        """
        pool = self.reference()
        return max(0, pool._pool_size - self.lost) if pool is not None else None

    @override
    def idle(self) -> int:
        pool = self.reference()
        return int(pool._cnx_queue.qsize()) if pool is not None else 0

    def in_use(self) -> int | None:
        """
        See `PoolSource.in_use`: the proxies that still have a connection.
        """
        proxies = [loan.reference() for loan in self.loans.copy()]
        return sum(1 for proxy in proxies if proxy is not None and proxy._cnx is not None)


def _told_by(connection: LibraryObject) -> dict[str, LibraryObject]:
    # Where the connect arguments left the server to a file of options.
    return {"host": connection.server_host, "port": connection.server_port, "unix_socket": connection.unix_socket}


def give_back(proxy: LibraryObject) -> None:
    """
    A proxy is closed: its connection goes back.
    """
    loan: Loan | None = proxy.__dict__.pop(KEY, None)
    if loan is not None:
        try:
            loan.source.loans.discard(loan)
            loan.lease.end()
            proxy._cnx.__dict__.pop(DRIVER_KEY, None)
        except Exception:  # noqa: BLE001 - ours
            guard.caught("mysql-connector.close")


ADAPTER: Final = MysqlConnectorAdapter()
