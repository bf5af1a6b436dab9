"""
Django's own connections: one for each thread and alias, persistent (CONN_MAX_AGE) or made anew for each request.

All connections of an alias count as one pool without a limit. A lease runs from the first use of a connection to its
close, or, where it persists, to the end of the request (``close_if_unusable_or_obsolete``). With Django's ``pool``
option the pool is psycopg's, and that adapter's: from here it only gets the alias as its name.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.address import is_cut_off, is_plain, text_of
from poolscope.adapters.base import Capability, PointAdapter
from poolscope.adapters.connects import PENDING_CHECKOUT
from poolscope.adapters.django_chunks import BACKEND, make_chunked_cursor
from poolscope.adapters.django_loaders import LOADERS
from poolscope.adapters.django_state import Alias, WrapperState, alias_of
from poolscope.adapters.identity import NAMERS, file_identity, identity
from poolscope.adapters.leases import recover
from poolscope.adapters.marks import CONNECTION_KEY
from poolscope.adapters.points import Call, Checkin, Checkout, Close, Connect, Statement
from poolscope.adapters.points.checkout import begins, fails
from poolscope.adapters.stats import Stats
from poolscope.core.execution import running_thread
from poolscope.core.guard import guard
from poolscope.core.pool_identity import Stranded
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

    from poolscope.adapters.base import Function
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.types import LibraryObject

_WRAPPER: Final = "BaseDatabaseWrapper"
_CURSOR: Final = "django.db.backends.utils:CursorWrapper"
_MOST_LOSSES: Final = 200


class FirstUse(Checkout):
    """The first use of a connection in a request, which connects where it has to. Each cursor passes here."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        # As if the alias were the pool. What a plain `Checkout` does is spelt out: by its hook it costs a fifth more.
        begin, failed, pool_registry = begins(self, adapter), fails(self, adapter), adapter.pool_registry
        frame = sys._getframe
        current, enter, tie = PENDING_CHECKOUT.get, PENDING_CHECKOUT.set, adapter.tie
        state_of: Callable[[LibraryObject, None], Any] = adapter.state

        def ensure_connection(self_: LibraryObject) -> LibraryObject:
            state: WrapperState | None = self_.__dict__.get(CONNECTION_KEY)
            if state is not None and (state.lease is not None or state.alias is None or state.is_django):
                return original(self_)
            if state is None and adapter.pool_registry is pool_registry:
                state = guard.run("django.state", functools.partial(state_of, self_, None), None)
            # One that was closed inside of a transaction is not connected anew before that ends.
            if state is None or state.alias is None or (self_.closed_in_transaction and self_.connection is not None):
                return original(self_)
            lease, outer = None, current()
            is_connected = False
            try:
                lease = begin(state.alias, (), {})
                if lease is None:
                    return original(self_)
                enter(lease)
                state.is_django = True
                caller = frame().f_back  # None where the interpreter itself calls, as it does a thread's function
                if caller is not None and caller.f_code.co_name == "get_autocommit":
                    guard.run("django.atomic", functools.partial(_place, lease, caller), None)
                original(self_)  # which returns nothing
                is_connected = True
                state.is_django = False
                enter(outer)
                tie(state.alias, self_, lease)
                lease.acquired()
            except BaseException as error:
                state.is_django = False
                enter(outer)
                if lease is None:
                    raise
                if not is_connected:
                    failed(state.alias, (), {}, lease, error)
                    raise
                adapter.lost(state.alias, self_)
                recover("django.checkout", lease)
            return None

        return ensure_connection


def _place(lease: Lease, frame: FrameType) -> None:
    # A transaction begins. Where a decorator begins it, or ATOMIC_REQUESTS, the function that it is for is yet to be
    # called: what is on the stack, as a middleware, has nothing to do with it.
    origins = lease.pool.origins
    lease.packed_stack = (origins.decorated(frame) if origins is not None else ()) or lease.packed_stack


class RequestEnd(Checkin):
    """The end of a request, at which Django may close the connection. An open transaction goes on, with its lease."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        end = self.ends(adapter)

        def close_if_unusable_or_obsolete(self_: LibraryObject) -> LibraryObject:
            state: WrapperState | None = self_.__dict__.get(CONNECTION_KEY)
            if state is None or state.alias is None or state.is_django or self_.in_atomic_block:
                return original(self_)
            try:
                state.is_django = True
                if state.lease is not None:
                    end(self_)
                return original(self_)
            finally:
                state.is_django = False

        return close_if_unusable_or_obsolete


class ClosingReturn(Close):
    """A connection is closed, which returns it too."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        (closing, _), end = self.hooks(adapter), Checkin(self.where).ends(adapter)

        def close(self_: LibraryObject) -> LibraryObject:
            state: WrapperState | None = self_.__dict__.get(CONNECTION_KEY)
            if state is not None and state.pool is not None:
                try:
                    closing(self_, (), {})
                except Exception:  # noqa: BLE001 - ours
                    guard.caught("django.close")
            if state is not None and state.lease is not None:
                end(self_)
            return original(self_)

        return close


def _why_at_request_end(frame: FrameType) -> str:
    wrapper = frame.f_locals["self"]
    if wrapper.errors_occurred:
        return "invalidated"
    if wrapper.autocommit != wrapper.settings_dict["AUTOCOMMIT"]:
        return "reset_failed"
    return "recycled" if wrapper.settings_dict.get("CONN_MAX_AGE") else "not_pooled"


_REASONS: Final[dict[str, str | Callable[[FrameType], str]]] = {
    "close_if_health_check_failed": "failed_validation",
    "close_if_unusable_or_obsolete": _why_at_request_end,
}


class DjangoAdapter(PointAdapter):
    """Hooks Django's database wrappers."""

    name, module, versions = "django", "django.db.backends.base.base", ">=4.2,<7"
    modules = (module, BACKEND)
    pool_classes, library_modules = (_WRAPPER,), ("django.db", "django.utils.asyncio")
    lazy_loaders = LOADERS
    nameable = has_pools_above = False
    points = (
        FirstUse(f"{_WRAPPER}.ensure_connection"),
        Connect(f"{_WRAPPER}.connect"),
        RequestEnd(f"{_WRAPPER}.close_if_unusable_or_obsolete", of_connection=True),
        ClosingReturn(f"{_WRAPPER}.close", reasons=_REASONS),
        Statement(f"{_CURSOR}._execute", describe=lambda _, args, __: (args[0], False, args[1])),
        Statement(f"{_CURSOR}._executemany", describe=lambda _, args, __: (args[0], True, None)),
        Statement(f"{_CURSOR}.callproc"),
        *(Call(f"{_WRAPPER}.{name}", of_connection=True) for name in ("_commit", "_rollback")),
    )
    stats_measure, also_measures = Capability.IDLE, Capability.ABANDONED

    def __init__(self) -> None:
        super().__init__()
        self._aliases: weakref.WeakValueDictionary[str, Alias] = weakref.WeakValueDictionary()
        # An alias goes with its last connection; but where that was lost, it is still reported, and at zero.
        self._reported: deque[Alias] = deque(maxlen=_MOST_LOSSES)
        self._states: set[WrapperState] = set()

    @override
    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        if module.__name__ == BACKEND:
            patcher.require(module.DatabaseWrapper, ("chunked_cursor",))
            patcher.replace(module.DatabaseWrapper, "chunked_cursor", make_chunked_cursor(self.lease_of))
            return
        super().hook(module, patcher, pool_registry)
        NAMERS[self.name] = alias_of

    @override
    def release(self) -> None:
        NAMERS.pop(self.name, None)
        super().release()
        self._reported.clear()
        while self._states:  # also of connections that are of no alias
            wrapper = self._states.pop().reference()
            guard.run("django.forget", lambda wrapper=wrapper: self.forget_connection(wrapper), None)  # type: ignore[misc]

    @override
    def found(self, library_pools: list[LibraryObject]) -> None:
        # What is found are wrappers.
        open_ones = [one for one in library_pools if one.connection is not None]
        states = [guard.run("django.find", lambda one=one: self.state(one, None), None) for one in open_ones]  # type: ignore[misc]
        super().found(list({state.alias for state in states if state is not None and state.alias is not None}))

    @override
    def identify(self, library_pool: Alias) -> Identity:
        # The alias is the name; of the settings no user name, password or option is read.
        settings = library_pool.settings
        namespace = settings.get("NAME")
        if library_pool.vendor == "sqlite":
            return file_identity("sqlite", namespace, name=library_pool.name)
        system = "oracle.db" if library_pool.vendor == "oracle" else library_pool.vendor
        address, port = settings.get("HOST"), settings.get("PORT")
        # Most settings are made of a URL by other code. Where its password tears it, none connects to what is left.
        is_plainly = not address or is_plain(text_of(address) or "")
        if is_cut_off(settings) or not (is_plainly or self._has_connected(library_pool)):
            return identity(system, name=library_pool.name)
        return identity(system, name=library_pool.name, namespace=namespace, address=address, port=port)

    def _has_connected(self, alias: Alias) -> bool:
        wrappers = [state.reference() for state in self._states_of(alias)]
        return any(wrapper is not None and wrapper.connection is not None for wrapper in wrappers)

    @override
    def identify_by(self, library_pool: Alias, connection: LibraryObject) -> Identity:  # noqa: ARG002 - it is open
        return self.identify(library_pool)

    @override
    def entered(self, library_pool: LibraryObject, pool: Pool, held: list[LibraryObject]) -> None:
        pool.closed_by = "connection.close() or close_old_connections() of django.db, in a finally block"
        super().entered(library_pool, pool, held)

    @override
    def stats(self, library_pool: Alias) -> Stats:
        return Stats(idle=sum(one.lease is None and one.pool is not None for one in self._states_of(library_pool)))

    @override
    def held(self, library_pool: Alias) -> list[LibraryObject]:
        # Whether a persistent connection is in use shows at its next use.
        wrappers = [one.reference() for one in self._states_of(library_pool) if not one.is_django]
        open_ones = [one for one in wrappers if one is not None and one.connection is not None]
        return [one for one in open_ones if one.settings_dict.get("CONN_MAX_AGE") == 0]

    @override
    def open_ones(self, library_pool: Alias) -> list[LibraryObject]:
        wrappers = [one.reference() for one in self._states_of(library_pool) if one.pool is not None]
        return [one for one in wrappers if one is not None]

    @override
    def users(self, library_pool: Alias) -> list[tuple[LibraryObject, Lease | None]]:
        return [(one, self.lease_of(one)) for one in self.open_ones(library_pool)]

    @override
    def physical(self, connection: LibraryObject) -> LibraryObject:
        return connection.connection

    @override
    def state(self, connection: LibraryObject, pool: Pool | None) -> WrapperState:  # noqa: ARG002 - not known yet
        state: WrapperState | None = connection.__dict__.get(CONNECTION_KEY)
        if state is None:
            alias = None
            if connection.alias != "__no_db__" and not connection.settings_dict.get("OPTIONS", {}).get("pool"):
                alias = self._aliases.get(connection.alias)
                alias = alias or self._aliases.setdefault(connection.alias, Alias(connection))
            fresh = WrapperState(connection, alias, self._states, self._reported)
            state = connection.__dict__.setdefault(CONNECTION_KEY, fresh)
            if self.pool_registry is None:  # released meanwhile
                self.forget_connection(connection)
            if connection.__dict__.get(CONNECTION_KEY) is not fresh:  # or another thread was faster
                self._states.discard(fresh)
        return state

    @override
    def tie(self, library_pool: Alias, connection: LibraryObject, lease: Lease) -> None:  # noqa: ARG002
        state: WrapperState = connection.__dict__.get(CONNECTION_KEY) or self.state(connection, None)
        if state.lease is not None:  # adopted just now
            state.lease.released()
        state.lease, state.pool = lease, lease.pool  # it may have been open before it was first seen
        lease.backend_process_id = state.backend_process_id

    @override
    def lost(self, library_pool: Alias, connection: LibraryObject) -> Lease | None:  # noqa: ARG002
        # With its lease a connection would never be checked out anew.
        state: WrapperState | None = connection.__dict__.get(CONNECTION_KEY)
        if state is None:
            return None
        lease, state.lease = state.lease, None
        return lease

    @override
    def connection_of(self, hooked: LibraryObject) -> LibraryObject:
        return hooked.db

    @override
    def connects_for(self, hooked: LibraryObject) -> Alias | None:
        return getattr(hooked.__dict__.get(CONNECTION_KEY), "alias", None)

    @override
    def connected(
        self, library_pool: LibraryObject, pool: Pool, connection: LibraryObject, lease: Lease | None
    ) -> None:
        super().connected(library_pool, pool, connection, lease)
        connection.__dict__[CONNECTION_KEY].owner = running_thread().reference

    @override
    def stranded(self, library_pool: Alias) -> list[Stranded]:
        # Each thread has a connection of its own, which no other one takes unless it may.
        kept_by = f"CONN_MAX_AGE={library_pool.settings.get('CONN_MAX_AGE')}"
        idle = [one for one in self._states_of(library_pool) if one.lease is None and one.pool is not None]
        over = [(one, one.reference()) for one in idle if one.owner is not None and one.owner() is None]
        return [
            Stranded(one.backend_process_id, kept_by)
            for one, wrapper in over
            if wrapper is not None and not getattr(wrapper, "_thread_sharing_count", 0)
        ]

    @override
    def backend_process_id(self, connection: LibraryObject) -> int | None:
        process = getattr(getattr(connection.connection, "info", None), "backend_pid", None)
        return int(process) if process is not None else None

    @override
    def in_transaction(self, connection: LibraryObject) -> bool | None:
        return False if connection.autocommit else None

    def _states_of(self, alias: Alias) -> list[WrapperState]:
        states = [state for state in self._states.copy() if state.alias is alias]
        for state in states:
            if state.reference() is None:
                state.collected()
        return states


ADAPTER: Final = DjangoAdapter()
