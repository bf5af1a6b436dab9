"""
Django's own connections: one for each thread and alias, persistent (CONN_MAX_AGE) or made anew for each request.

All connections of an alias count as one pool without a limit. A lease runs from the first use of a connection to its
close, or, where it persists, to the end of the request (``close_if_unusable_or_obsolete``). With Django's ``pool``
option the pool is psycopg's, and that adapter's: from here it only gets the alias as its name.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.base import Capability
from poolscope.adapters.common import (
    ASK,
    NAMERS,
    Adapter,
    WeakSource,
    being_imported,
    connect_begins,
    connect_ends,
    connect_fails,
    database_file,
    existing,
    identity,
)
from poolscope.adapters.django_calls import CallHooks
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

_WRAPPER: Final = ("ensure_connection", "connect", "close", "close_if_unusable_or_obsolete", "_commit", "_rollback")
_SYSTEMS: Final = {"oracle": "oracle.db"}
_NO_DATABASE: Final = "__no_db__"
_MOST_FRAMES: Final = 4


class Alias:
    """
    An alias of ``DATABASES``, which stands for the pool that Django does not have.

    Args:
        wrapper: A connection of it.
    """

    def __init__(self, wrapper: LibraryObject) -> None:
        self.name: str = wrapper.alias
        self.vendor: str = wrapper.vendor
        self.settings: dict[str, Any] = wrapper.settings_dict
        self.carriers: set[Carrier] = set()


class Carrier:
    """
    What ties a thread's connection (Django's wrapper) to its lease.

    Args:
        wrapper: The wrapper.
        alias: Its alias; None when another adapter watches its pool.
    """

    __slots__ = ("__weakref__", "alias", "ending", "is_open", "lease", "reference")

    def __init__(self, wrapper: LibraryObject, alias: Alias | None) -> None:
        self.lease: Lease | None = None
        self.alias = alias
        self.ending = False
        self.is_open = wrapper.connection is not None
        self.reference = weakref.ref(wrapper, self._gone)
        if alias is not None:
            alias.carriers.add(self)

    def _gone(self, _: object) -> None:
        # The thread is over, and its wrapper with it; this may run inside the garbage collector.
        alias, lease = self.alias, self.lease
        if alias is None:
            return
        alias.carriers.discard(self)
        tracked: Pool | None = alias.__dict__.get(KEY)
        if tracked is not None and self.is_open:
            tracked.closed("abandoned")
        if lease is not None:
            self.lease = None
            lease.end(abandoned=True)


class DjangoAdapter(Adapter):
    """
    Hooks Django's database wrappers.
    """

    name = "django"
    nameable = False
    module = "django.db.backends.base.base"
    versions = ">=4.2,<7"
    capabilities = (
        Capability.WAIT
        | Capability.WAIT_PHASES
        | Capability.USE
        | Capability.USE_PHASES
        | Capability.IDLE
        | Capability.CREATE
        | Capability.CLOSE
        | Capability.ABANDONED
    )

    def __init__(self) -> None:
        super().__init__()
        # An alias lives as long as a thread has a connection of it; its series go on under the same name.
        self._aliases: weakref.WeakValueDictionary[str, Alias] = weakref.WeakValueDictionary()

    def hook(self, module: ModuleType, patcher: Patcher, ledger: Ledger) -> None:
        """
        Put the hooks in.
        """
        wrapper = module.BaseDatabaseWrapper
        patcher.require(wrapper, _WRAPPER)
        calls = CallHooks(wrapper)
        calls.check(patcher)
        self._ledger = ledger
        patcher.replace(wrapper, "ensure_connection", self._make_ensure)
        patcher.replace(wrapper, "connect", self._make_connect)
        patcher.replace(wrapper, "close", self._make_close)
        patcher.replace(wrapper, "close_if_unusable_or_obsolete", self._make_request_end)
        calls.hook(patcher)
        NAMERS[self.name] = _alias_of
        if not being_imported(module):
            for found in existing((wrapper,)):
                guard.run("django.find", lambda found=found: self._find(found), None)  # type: ignore[misc]

    @override
    def release(self) -> None:
        NAMERS.pop(self.name, None)
        for alias in list(self._aliases.values()):
            self.forget(alias)
        self._aliases = weakref.WeakValueDictionary()
        super().release()

    def identify(self, pool: Alias) -> Identity:
        """
        See `Adapter.identify`. The alias is the name; of the settings no user name, password or option is read.
        """
        settings = pool.settings
        namespace = str(settings.get("NAME") or "") or None
        if pool.vendor == "sqlite":
            return identity("sqlite", name=pool.name, namespace=database_file(namespace))
        system = _SYSTEMS.get(pool.vendor, pool.vendor)
        address = settings.get("HOST") or None
        return identity(system, name=pool.name, namespace=namespace, address=address, port=settings.get("PORT") or None)

    @override
    def source(self, pool: Alias) -> DjangoSource:
        return DjangoSource(pool)

    @override
    def forget(self, anchor: LibraryObject) -> None:
        for carrier in anchor.carriers.copy():
            wrapper = carrier.reference()
            if wrapper is not None:
                wrapper.__dict__.pop(KEY, None)
        anchor.carriers.clear()

    # Wrappers: cold -------------------------------------------------------------------------------------------------

    def tie(self, wrapper: LibraryObject) -> Carrier:
        """
        Make a wrapper's carrier.
        """
        alias = None
        if wrapper.alias != _NO_DATABASE and not wrapper.settings_dict.get("OPTIONS", {}).get("pool"):
            alias = self._aliases.get(wrapper.alias) or self._aliases.setdefault(wrapper.alias, Alias(wrapper))
        carrier = Carrier(wrapper, alias)
        wrapper.__dict__[KEY] = carrier
        return carrier

    def _find(self, wrapper: LibraryObject) -> None:
        if wrapper.connection is None or wrapper.settings_dict.get("CONN_MAX_AGE") != 0:
            return  # whether a persistent connection is in use shows at its next use
        carrier = self.tie(wrapper)
        tracked = self.know(carrier.alias) if carrier.alias is not None else None
        if tracked is not None:
            carrier.lease = tracked.adopt(tracked.now())

    # The hot path ---------------------------------------------------------------------------------------------------

    def _make_ensure(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def ensure_connection(self: LibraryObject) -> LibraryObject:
            carrier = self.__dict__.get(KEY)
            if carrier is not None and (carrier.lease is not None or carrier.alias is None or carrier.ending):
                return original(self)
            return adapter.begin(self, carrier, original)

        return ensure_connection

    def begin(
        self, wrapper: LibraryObject, carrier: Carrier | None, original: Callable[..., LibraryObject]
    ) -> LibraryObject:
        """
        The first use of a connection in a request, or its connect.
        """
        try:
            carrier = carrier or (self.tie(wrapper) if self._ledger is not None else None)
            lease = (
                self.ask(carrier.alias, carrier.alias.__dict__)
                if carrier is not None and carrier.alias is not None
                else None
            )
        except Exception:  # noqa: BLE001 - ours
            guard.caught("django.ask")
            lease = None
        if carrier is None or lease is None:
            return original(wrapper)
        carrier.lease = lease
        lease.carrier = carrier  # found also when its wrapper vanishes in a cycle of references
        outer = ASK.get()
        ASK.set(lease)
        try:
            result = original(wrapper)
        except BaseException as error:
            carrier.lease = None
            self.failed(lease, error)
            raise
        finally:
            ASK.set(outer)
        try:
            lease.grant()
        except Exception:  # noqa: BLE001
            guard.caught("django.grant")
        return result

    def _make_request_end(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def close_if_unusable_or_obsolete(self: LibraryObject) -> LibraryObject:
            carrier = self.__dict__.get(KEY)
            if carrier is None or carrier.alias is None:
                return original(self)
            carrier.ending = True
            try:
                return original(self)
            finally:
                carrier.ending = False
                if not self.in_atomic_block:
                    _end(carrier)

        return close_if_unusable_or_obsolete

    def _make_close(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def close(self: LibraryObject) -> LibraryObject:
            carrier = self.__dict__.get(KEY)
            if carrier is None or carrier.alias is None or self.connection is None or self.closed_in_transaction:
                return original(self)
            reason = guard.run("django.close", lambda: _close_reason(self), "closed")
            _end(carrier)
            try:
                return original(self)
            finally:
                tracked = carrier.alias.__dict__.get(KEY)
                if tracked is not None:
                    carrier.is_open = False
                    tracked.closed(reason)

        return close

    def _make_connect(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        def connect(self: LibraryObject) -> LibraryObject:
            carrier = self.__dict__.get(KEY)
            tracked = adapter.tracked(carrier.alias) if carrier is not None and carrier.alias is not None else None
            if tracked is None:
                return original(self)
            lease, began = connect_begins(tracked)
            try:
                result = original(self)
            except BaseException as error:
                connect_fails(tracked, lease, began, error)
                raise
            connect_ends(tracked, lease, began)
            carrier.is_open = True
            if lease is not None:
                lease.backend_process_id = guard.run("django.backend", lambda: _backend(self), None)
            return result

        return connect


class DjangoSource(WeakSource):
    """
    The connections of an alias.
    """

    @override
    def idle(self) -> int:
        alias = self.reference()
        carriers = alias.carriers.copy() if alias is not None else ()
        return sum(1 for carrier in carriers if carrier.lease is None and carrier.is_open)


def _end(carrier: Carrier) -> None:
    lease, carrier.lease = carrier.lease, None
    if lease is not None:
        try:
            lease.end()
        except Exception:  # noqa: BLE001 - ours
            guard.caught("django.end")


def _close_reason(wrapper: LibraryObject) -> str:
    frame: Any = sys._getframe(4)
    for _ in range(_MOST_FRAMES):
        name = frame.f_code.co_name if frame is not None else ""
        if name == "close_if_health_check_failed":
            return "failed_validation"
        if name == "close_if_unusable_or_obsolete":
            if wrapper.errors_occurred:
                return "invalidated"
            if wrapper.autocommit != wrapper.settings_dict["AUTOCOMMIT"]:
                return "reset_failed"
            return "recycled" if wrapper.settings_dict.get("CONN_MAX_AGE") else "not_pooled"
        frame = frame.f_back if frame is not None else None
    return "closed"


def _backend(wrapper: LibraryObject) -> int | None:
    info = getattr(wrapper.connection, "info", None)
    pid = getattr(info, "backend_pid", None)
    return int(pid) if pid is not None else None


def _alias_of(pool: LibraryObject) -> str | None:
    backend = sys.modules.get("django.db.backends.postgresql.base")
    pools: dict[str, Any] = getattr(getattr(backend, "DatabaseWrapper", None), "_connection_pools", {})
    return next((alias for alias, known in list(pools.items()) if known is pool), None)


ADAPTER: Final = DjangoAdapter()
