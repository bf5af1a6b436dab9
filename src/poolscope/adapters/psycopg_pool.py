"""
psycopg's pools: `ConnectionPool`, `NullConnectionPool` and both async ones.

The null pools inherit ``getconn`` and ``putconn``, so the hooks sit on the two base classes. Connections are made by
the pool's workers: the time of a connect belongs to the ask that gets the new connection, as far as it lasted during
the ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.base import Capability
from poolscope.adapters.common import (
    ASK,
    DRIVER_KEY,
    LEASE_FINDERS,
    Adapter,
    being_imported,
    connect_begins,
    connect_fails,
    existing,
    limit_changed,
    remember_name,
)
from poolscope.adapters.libpq import learn_from
from poolscope.adapters.marks import SOURCE_KEY
from poolscope.adapters.psycopg_calls import CallHooks
from poolscope.adapters.psycopg_pool_early import hook_early_close
from poolscope.adapters.psycopg_pool_source import (
    Carrier,
    PsycopgSource,
    close_reason,
    identify,
)
from poolscope.core.calls import KEY
from poolscope.core.guard import guard
from poolscope.core.types import LibraryObject, override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.core.pool_registry import Ledger
    from poolscope.hooks.patching import Patcher

_POOL: Final = (
    "__init__",
    "getconn",
    "putconn",
    "_connect",
    "_check_connection",
    "_getconn_unchecked",
    "resize",
    "_open",
)


class PsycopgPoolAdapter(Adapter):
    """
    Hooks psycopg's pools.
    """

    name = "psycopg_pool"
    module = "psycopg_pool"
    versions = ">=3.2,<4"
    capabilities = (
        Capability.WAIT
        | Capability.WAIT_PHASES
        | Capability.USE
        | Capability.USE_PHASES
        | Capability.LIMIT
        | Capability.IDLE
        | Capability.CREATE
        | Capability.CLOSE
        | Capability.TIMEOUT
        | Capability.DRIFT
        | Capability.ABANDONED
    )

    def hook(self, module: ModuleType, patcher: Patcher, ledger: Ledger) -> None:
        """
        Put the hooks in.
        """
        import psycopg  # noqa: PLC0415 - the library is imported only where it is in use

        pools = (module.ConnectionPool, module.AsyncConnectionPool)
        null_pools = (module.NullConnectionPool, module.AsyncNullConnectionPool)
        for pool in pools:
            patcher.require(pool, _POOL)
        for pool in null_pools:
            patcher.require(pool, ("resize",))
        calls = CallHooks(psycopg)
        calls.check(patcher)
        self._ledger = ledger
        self.timeouts = (module.PoolTimeout,)
        self.rejections = (module.TooManyRequests,)
        self._null_pools = null_pools
        for pool, is_async in zip(pools, (False, True), strict=True):
            for name, (plain, asynchronous) in self._makers().items():
                patcher.replace(pool, name, asynchronous if is_async else plain)
            patcher.wrap(pool, "__init__", _made)
            patcher.wrap(pool, "_open", self._opened)
            if "_close_connection" in vars(pool):
                patcher.replace(pool, "_close_connection", self._make_close)
            else:
                hook_early_close(patcher, psycopg.AsyncConnection if is_async else psycopg.Connection)
        for pool in (*pools, *null_pools):
            patcher.wrap(pool, "resize", self._resize_async if pool.__name__.startswith("Async") else self._resize)
        calls.hook(patcher)
        LEASE_FINDERS[self.name] = _lease_of
        if not being_imported(module):
            self._find((*pools, psycopg.Connection, psycopg.AsyncConnection), pools)

    @override
    def release(self) -> None:
        LEASE_FINDERS.pop(self.name, None)
        super().release()

    @override
    def identify(self, pool: LibraryObject) -> Identity:
        return identify(pool)

    @override
    def source(self, pool: LibraryObject) -> PsycopgSource:
        return PsycopgSource.of(pool)

    @override
    def held(self, pool: LibraryObject) -> list[LibraryObject]:
        return [carrier for carrier in PsycopgSource.of(pool).carriers.copy() if _is_out(carrier, pool)]

    @override
    def entered(self, pool: LibraryObject, tracked: Pool, held: list[LibraryObject]) -> None:
        for carrier in held:
            if _is_out(carrier, pool) and carrier.lease is None:
                carrier.lease = tracked.adopt(tracked.now())

    @override
    def forget(self, anchor: LibraryObject) -> None:
        source: PsycopgSource | None = anchor.__dict__.pop(SOURCE_KEY, None)
        for carrier in source.carriers.copy() if source is not None else ():
            connection = carrier.reference()
            if connection is not None:
                connection.__dict__.pop(DRIVER_KEY, None)
        if source is not None:
            source.carriers.clear()

    # Pools: cold

    def _opened(
        self, wrapped: Callable[..., LibraryObject], pool: LibraryObject, args: LibraryObject, kwargs: LibraryObject
    ) -> LibraryObject:
        self.know(pool)
        return wrapped(*args, **kwargs)

    def _resize(
        self, wrapped: Callable[..., LibraryObject], pool: LibraryObject, args: LibraryObject, kwargs: LibraryObject
    ) -> LibraryObject:
        try:
            return wrapped(*args, **kwargs)
        finally:
            self._resized(pool)

    async def _resize_async(
        self, wrapped: Callable[..., LibraryObject], pool: LibraryObject, args: LibraryObject, kwargs: LibraryObject
    ) -> LibraryObject:
        try:
            return await wrapped(*args, **kwargs)
        finally:
            self._resized(pool)

    def _resized(self, pool: LibraryObject) -> None:
        tracked = self.tracked(pool)
        if tracked is not None:
            guard.run("psycopg_pool.resize", lambda: limit_changed(tracked), None)

    def _find(self, kinds: tuple[type, ...], pools: tuple[type, ...]) -> None:
        found = existing(kinds)
        for thing in found:
            pool = getattr(thing, "_pool", None)
            if not isinstance(thing, pools) and isinstance(pool, pools) and DRIVER_KEY not in thing.__dict__:
                guard.run("psycopg_pool.find", lambda thing=thing, pool=pool: self._tie(pool, thing), None)  # type: ignore[misc]
        for thing in found:
            if isinstance(thing, pools) and not getattr(thing, "closed", True):
                self.know(thing)

    def _tie(self, pool: LibraryObject, connection: LibraryObject, began: float = 0.0, ended: float = 0.0) -> Carrier:
        self._pools.add(pool)
        return PsycopgSource.of(pool).tie(connection, began, ended)

    # The hot path

    def _makers(self) -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
        return {
            "getconn": (self._make_getconn, self._make_getconn_async),
            "putconn": (self._make_putconn, self._make_putconn_async),
            "_check_connection": (self._make_check, self._make_check_async),
            "_connect": (self._make_connect, self._make_connect_async),
        }

    def _make_getconn(self, original: Callable[..., Any]) -> Callable[..., Any]:
        ask, lend, inside = self.ask, self._lend, self._asks_inside

        def getconn(self: LibraryObject, timeout: float | None = None) -> LibraryObject:
            lease = ask(self, self.__dict__)
            if lease is None:
                return original(self, timeout)
            outer = inside(self, lease)
            try:
                connection = original(self, timeout)
            except BaseException as error:
                adapter.failed(lease, error)
                raise
            finally:
                if outer is not self:
                    ASK.set(outer)
            lend(self, connection, lease)
            return connection

        adapter = self
        return getconn

    def _make_getconn_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        ask, lend, inside = self.ask, self._lend, self._asks_inside

        async def getconn(self: LibraryObject, timeout: float | None = None) -> LibraryObject:
            lease = ask(self, self.__dict__)
            if lease is None:
                return await original(self, timeout)
            outer = inside(self, lease)
            try:
                connection = await original(self, timeout)
            except BaseException as error:
                adapter.failed(lease, error)
                raise
            finally:
                if outer is not self:
                    ASK.set(outer)
            lend(self, connection, lease)
            return connection

        adapter = self
        return getconn

    def _asks_inside(self, pool: LibraryObject, lease: Lease) -> LibraryObject:
        # Connects (null pools) and checks happen inside the ask only where there are any: else the pool itself is
        # returned, for "nothing to put back".
        if pool._check is None and not isinstance(pool, self._null_pools):
            return pool
        outer = ASK.get()
        ASK.set(lease)
        return outer

    def _lend(self, pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:
        try:
            carrier: Carrier = connection.__dict__.get(DRIVER_KEY) or self._tie(pool, connection)
            if carrier.ended:
                if carrier.ended > lease.asked_at and lease.got_at is None:
                    lease.connected(carrier.ended - max(carrier.began, lease.asked_at))
                carrier.ended = 0.0  # who gets it next did not wait for its connect
            lease.backend_process_id = carrier.backend
            lease.grant()
            earlier, carrier.lease = carrier.lease, lease
            if earlier is not None:  # adopted while it was being given back, which was not seen
                earlier.end()
        except Exception:  # noqa: BLE001 - ours
            guard.caught("psycopg_pool.grant")

    def _make_putconn(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def putconn(self: LibraryObject, conn: LibraryObject) -> LibraryObject:
            _give_back(self, conn)
            return original(self, conn)

        return putconn

    def _make_putconn_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def putconn(self: LibraryObject, conn: LibraryObject) -> LibraryObject:
            _give_back(self, conn)
            return await original(self, conn)

        return putconn

    def _make_check(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _check_connection(self: LibraryObject, conn: LibraryObject) -> LibraryObject:
            lease = _validating(self, conn) if self._check is not None else None
            if lease is None:
                return original(self, conn)
            try:
                return original(self, conn)
            except BaseException:
                lease.invalid()
                raise

        return _check_connection

    def _make_check_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def _check_connection(self: LibraryObject, conn: LibraryObject) -> LibraryObject:
            lease = _validating(self, conn) if self._check is not None else None
            if lease is None:
                return await original(self, conn)
            try:
                return await original(self, conn)
            except BaseException:
                lease.invalid()
                raise

        return _check_connection

    # Physical connections: cold

    def _make_connect(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def _connect(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            tracked = adapter.tracked(self) or adapter.know(self)
            if tracked is None:
                return original(self, *args, **kwargs)
            lease, began = connect_begins(tracked)
            try:
                connection = original(self, *args, **kwargs)
            except BaseException as error:
                connect_fails(tracked, lease, began, error)
                raise
            adapter.connected(self, tracked, connection, lease, began)
            return connection

        return _connect

    def _make_connect_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        async def _connect(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            tracked = adapter.tracked(self) or adapter.know(self)
            if tracked is None:
                return await original(self, *args, **kwargs)
            lease, began = connect_begins(tracked)
            try:
                connection = await original(self, *args, **kwargs)
            except BaseException as error:
                connect_fails(tracked, lease, began, error)
                raise
            adapter.connected(self, tracked, connection, lease, began)
            return connection

        return _connect

    def connected(
        self, pool: LibraryObject, tracked: Pool, connection: LibraryObject, lease: Lease | None, began: float
    ) -> None:
        """
        A connection was made.
        """
        try:
            ended = tracked.now()
            tracked.created(ended - began, lease)
            self._tie(pool, connection, began, ended)
            learn_from(tracked, connection)
        except Exception:  # noqa: BLE001
            guard.caught("psycopg_pool.connect")

    def _make_close(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def _close_connection(self: LibraryObject, conn: LibraryObject) -> LibraryObject:
            tracked = adapter.tracked(self)
            carrier = conn.__dict__.get(DRIVER_KEY)
            if tracked is not None and carrier is not None and not carrier.closed:
                carrier.closed = True
                tracked.closed(guard.run("psycopg_pool.close", close_reason, "closed"))
            return original(self, conn)

        return _close_connection


def _made(
    wrapped: Callable[..., LibraryObject], pool: LibraryObject, args: LibraryObject, kwargs: LibraryObject
) -> LibraryObject:
    guard.run("psycopg_pool.made", lambda: remember_name(pool), None)
    return wrapped(*args, **kwargs)


def _give_back(pool: LibraryObject, connection: LibraryObject) -> None:
    try:
        carrier: Carrier | None = connection.__dict__.get(DRIVER_KEY)
        # A connection of another pool, or none, is refused by the library: it stays out.
        if carrier is not None and connection._pool is pool:
            lease, carrier.lease = carrier.lease, None
            if lease is not None:
                lease.end()
    except AttributeError:
        return  # not a connection at all
    except Exception:  # noqa: BLE001 - ours
        guard.caught("psycopg_pool.putconn")


def _validating(pool: LibraryObject, connection: LibraryObject) -> Lease | None:
    lease = ASK.get()
    if lease is None or pool.__dict__.get(KEY) is not lease.pool or lease.got_at is not None:
        return None
    try:
        carrier: Carrier | None = connection.__dict__.get(DRIVER_KEY)
        if carrier is not None and carrier.ended > lease.asked_at and not lease.connect_time:
            lease.connected(carrier.ended - max(carrier.began, lease.asked_at))
        lease.got()
    except Exception:  # noqa: BLE001 - ours
        guard.caught("psycopg_pool.check")
    return lease


def _lease_of(connection: LibraryObject) -> Lease | None:
    carrier = getattr(connection, "__dict__", {}).get(DRIVER_KEY)
    return carrier.lease if isinstance(carrier, Carrier) else None


def _is_out(carrier: Carrier, pool: LibraryObject) -> bool:
    connection = carrier.reference()
    return connection is not None and connection._pool is pool


ADAPTER: Final = PsycopgPoolAdapter()
