"""
python-oracledb's pools, sync and async.

What is hooked is the Python layer above the driver's compiled core: a pooled `Connection` is made for each ask and
closed, or collected, at its end. Tested against a stand-in for that core, not against Oracle Database (docs/pools.md).
"""

from __future__ import annotations

import re
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.base import Capability
from poolscope.adapters.calls import driver_lease
from poolscope.adapters.common import (
    DRIVER_KEY,
    LEASE_FINDERS,
    Adapter,
    WeakSource,
    being_imported,
    existing,
    identity,
)
from poolscope.adapters.oracledb_calls import CallHooks
from poolscope.core.guard import guard
from poolscope.core.lease import KEY, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Identity, Pool
    from poolscope.core.pool_registry import Ledger
    from poolscope.hooks.patching import Patcher

# What the driver says when no connection came free in time: thin mode, thick mode.
_TIMEOUTS: Final = ("DPY-4005", "ORA-24496", "ORA-24457")


# Easy Connect: [[protocol:]//]host[:port]/[service][:server type][/instance][?parameters]; login and "@" are cut off by
# the driver, and by us should it not.
_EASY: Final = re.compile(
    r"(?:.*@)?(?:\w+:)?(?://)?(?P<host>\[[^\]]*\]|[^/:?@()]+)(?::(?P<port>\d+))?/(?P<service>[^/:?@]*)[^@]*", re.DOTALL
)
# A connect descriptor.
_HOST, _PORT, _SERVICE = (
    re.compile(rf"\(\s*{key}\s*=\s*([^()\s]+)\s*\)", re.IGNORECASE) for key in ("HOST", "PORT", "(?:SERVICE_NAME|SID)")
)


class OracledbAdapter(Adapter):
    """
    Hooks python-oracledb's pools.
    """

    name = "oracledb"
    module = "oracledb"
    versions = ">=2,<27"
    capabilities = (
        Capability.WAIT
        | Capability.USE
        | Capability.USE_PHASES
        | Capability.LIMIT
        | Capability.IDLE
        | Capability.TIMEOUT
        | Capability.DRIFT
        | Capability.ABANDONED
    )

    def hook(self, module: ModuleType, patcher: Patcher, ledger: Ledger) -> None:
        """
        See `PoolAdapter.hook`.
        """
        patcher.require(module.Connection, ("__init__", "close", "__exit__"))
        patcher.require(module.AsyncConnection, ("close", "__aexit__"))
        patcher.require(module.ConnectionPool, ("drop",))
        patcher.require(module.AsyncConnectionPool, ("drop",))
        # Before 26 both kinds of pool have it from one base, whose sync connections have nothing to await.
        acquires = next(kind for kind in module.AsyncConnectionPool.__mro__ if "acquire" in vars(kind))
        calls = CallHooks(module)
        calls.check(patcher)
        self._ledger = ledger
        patcher.replace(module.Connection, "__init__", self._make_init)
        patcher.replace(module.Connection, "close", _make_close)
        patcher.replace(module.AsyncConnection, "close", _make_close)
        # In older versions the end of a block closes the connection by itself.
        patcher.replace(module.Connection, "__exit__", _make_exit)
        patcher.replace(module.AsyncConnection, "__aexit__", _make_exit)
        patcher.replace(acquires, "acquire", self._make_acquire_async)
        for pool in (module.ConnectionPool, module.AsyncConnectionPool):
            patcher.replace(pool, "drop", _make_drop)
            maker = next(kind for kind in pool.__mro__ if "__init__" in vars(kind))
            if not patcher.has(maker, "__init__"):
                patcher.wrap(maker, "__init__", self._made)
        calls.hook(patcher)
        LEASE_FINDERS[self.name] = driver_lease
        if not being_imported(module):
            for found in existing((module.ConnectionPool, module.AsyncConnectionPool)):
                if found._impl is not None:
                    self.know(found)

    def release(self) -> None:
        """
        See `PoolAdapter.release`.
        """
        LEASE_FINDERS.pop(self.name, None)
        super().release()

    def identify(self, pool: Any) -> Identity:  # noqa: ANN401
        """
        See `Adapter.identify`. Of the connect string only server, port and service are read.
        """
        dsn = guard.run("oracledb.dsn", lambda: str(pool._impl.dsn or ""), "")
        hosts, ports, service = _server(dsn)
        return identity(
            "oracle.db",
            name=getattr(pool, "_cache_name", None),
            namespace=service,
            address=",".join(dict.fromkeys(hosts)) or None,
            port=ports or None,
        )

    def source(self, pool: Any) -> OracledbSource:  # noqa: ANN401
        """
        See `Adapter.source`.
        """
        return OracledbSource(pool)

    def _made(self, wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        result = wrapped(*args, **kwargs)
        self.made(pool)
        return result

    def outcome(self, lease: Lease, error: BaseException) -> Outcome:
        """
        See `Adapter.outcome`.
        """
        if isinstance(error, Exception) and any(code in str(error) for code in _TIMEOUTS):
            return Outcome.TIMEOUT
        return super().outcome(lease, error)

    def lend(self, connection: Any, lease: Lease) -> None:  # noqa: ANN401
        """
        The caller has the connection.
        """
        try:
            lease.grant()
            # The reference is kept by the lease, which outlives the connection: so it is called when that is collected.
            lease.carrier = weakref.ref(connection, lambda _: lease.end(abandoned=True))
            connection.__dict__[DRIVER_KEY] = lease
        except Exception:  # noqa: BLE001 - ours
            guard.caught("oracledb.lend")

    def forget(self, anchor: Any) -> None:  # noqa: ANN401
        """
        See `Adapter.forget`.
        """
        tracked: Pool | None = anchor.__dict__.get(KEY)
        for lease in tracked.leases.copy() if tracked is not None else ():
            connection = lease.carrier() if lease.carrier is not None else None
            lease.carrier = None
            if connection is not None:
                connection.__dict__.pop(DRIVER_KEY, None)

    def _make_init(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            pool = kwargs.get("pool")
            lease = adapter.ask(pool, pool.__dict__) if pool is not None else None
            if lease is None:
                original(self, *args, **kwargs)
                return
            try:
                original(self, *args, **kwargs)
            except BaseException as error:
                adapter.failed(lease, error)
                raise
            adapter.lend(self, lease)

        return __init__

    def _make_acquire_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def acquire(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            connection = original(self, *args, **kwargs)
            connecting = getattr(connection, "_connect_coroutine", None)
            if connecting is not None:
                connection._connect_coroutine = adapter.awaited(self, connection, connecting)
            return connection

        return acquire

    async def awaited(self, pool: Any, connection: Any, connecting: Any) -> Any:  # noqa: ANN401
        """
        The wait for an async connection, which begins when it is awaited.
        """
        lease = self.ask(pool, pool.__dict__)
        if lease is None:
            return await connecting
        try:
            result = await connecting
        except BaseException as error:
            self.failed(lease, error)
            raise
        self.lend(connection, lease)
        return result


class OracledbSource(WeakSource):
    """
    One pool, held weakly.
    """

    def alive(self) -> bool:
        """
        See `PoolSource.alive`.
        """
        return self._core() is not None

    def limit(self) -> int | None:
        """
        See `PoolSource.limit`.
        """
        core = self._core()
        return int(core.max) if core is not None else None

    def idle_limits(self) -> tuple[int | None, int | None]:
        """
        See `PoolSource.idle_limits`.
        """
        core = self._core()
        return (int(core.min), int(core.max)) if core is not None else (None, None)

    def idle(self) -> int:
        """
        See `PoolSource.idle`.
        """
        core = self._core()
        return max(0, int(core.get_open_count()) - int(core.get_busy_count())) if core is not None else 0

    def in_use(self) -> int | None:
        """
        See `PoolSource.in_use`.
        """
        core = self._core()
        return int(core.get_busy_count()) if core is not None else None

    def _core(self) -> Any:  # noqa: ANN401
        pool = self.reference()
        return pool._impl if pool is not None else None


def _server(dsn: str) -> tuple[list[str], list[str], str | None]:
    # Servers, their ports and the service, of the two forms that name them; an alias of tnsnames.ora names none.
    if "(" in dsn:
        services = _SERVICE.findall(dsn)
        return _HOST.findall(dsn), _PORT.findall(dsn), services[0] if services else None
    easy = _EASY.fullmatch(dsn)
    if easy is None:
        return [], [], None
    return [easy["host"]], [easy["port"]] if easy["port"] else [], easy["service"] or None


def _make_close(original: Callable[..., Any]) -> Callable[..., Any]:
    def close(self: Any) -> Any:  # noqa: ANN401 - a coroutine of the async connection passes through
        _end(self)
        return original(self)

    return close


def _make_exit(original: Callable[..., Any]) -> Callable[..., Any]:
    def leave(self: Any, *raised: Any) -> Any:  # noqa: ANN401 - a coroutine of the async connection passes through
        _end(self)
        return original(self, *raised)

    return leave


def _make_drop(original: Callable[..., Any]) -> Callable[..., Any]:
    def drop(self: Any, connection: Any) -> Any:  # noqa: ANN401
        _end(connection)
        return original(self, connection)

    return drop


def _end(connection: Any) -> None:  # noqa: ANN401
    try:
        lease = connection.__dict__.pop(DRIVER_KEY, None)
        if lease is not None:
            # The frames: this function, the hook, and __del__ when nobody called close().
            lease.end(abandoned=sys._getframe(2).f_code.co_name == "__del__")
            lease.carrier = None
    except Exception:  # noqa: BLE001 - ours
        guard.caught("oracledb.close")


ADAPTER: Final = OracledbAdapter()
