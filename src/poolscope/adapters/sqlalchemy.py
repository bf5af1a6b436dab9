"""
SQLAlchemy's pools: 1.4, 2.0 and 2.1, sync and async, every pool class.

Check-outs pass through the class method ``_ConnectionFairy._checkout`` (sqlalchemy/pool/base.py), whatever the pool
class and however the engine was imported or made; returns pass through ``_ConnectionRecord.checkin``, also those of
connections that the garbage collector found; only ``detach`` goes another way. The hooks sit on these classes, so they
apply at once to engines that exist already.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any, Final, cast

from poolscope.adapters.base import Capability
from poolscope.adapters.common import (
    NAMES,
    connect_begins,
    connect_ends,
    connect_fails,
    error_name,
    lease_below,
    named,
    remember_name,
)
from poolscope.adapters.greenlets import Greenlets
from poolscope.adapters.marks import BACKEND_KEY, RECORDS_KEY
from poolscope.adapters.sqlalchemy_calls import CallHooks
from poolscope.adapters.sqlalchemy_loaders import LOADERS
from poolscope.adapters.sqlalchemy_source import (
    Records,
    SqlAlchemySource,
    backend_process_id,
    close_reason,
    identify,
    lend_shared,
    take_back_shared,
)
from poolscope.core.calls import KEY
from poolscope.core.execution import THREAD_TOKENS, running_thread
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.hooks.patching import Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.types import LibraryObject

# The code of the pool's own timeout; a TimeoutError with another code, or out of the creator, is not ours.
_POOL_TIMEOUT: Final = "3o7r"

_RECORD: Final = ("checkout", "checkin", "_ConnectionRecord__connect", "_ConnectionRecord__close")
_FAIRY: Final = ("_checkout", "_checkin", "detach")


class SqlAlchemyAdapter:
    """
    Hooks SQLAlchemy's pools.
    """

    name = "sqlalchemy"
    module = "sqlalchemy"
    versions = ">=1.4.24,<2.2"
    library_modules = ("sqlalchemy", "aiosqlite")
    lazy_loaders = LOADERS
    switches = Greenlets()
    capabilities = (
        Capability.WAIT
        | Capability.WAIT_PHASES
        | Capability.USE
        | Capability.HOLD_PHASES
        | Capability.LIMIT
        | Capability.IDLE
        | Capability.CREATE
        | Capability.CLOSE
        | Capability.TIMEOUT
        | Capability.DRIFT
        | Capability.ABANDONED
    )

    def __init__(self) -> None:
        self._pool_registry: PoolRegistry | None = None
        self._calls: CallHooks | None = None
        self._pools: weakref.WeakSet[Any] = weakref.WeakSet()
        self._urls: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._timeout_error: type[Exception] = TimeoutError

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """
        See `PoolAdapter.hook`.
        """
        from sqlalchemy import exc  # noqa: PLC0415 - the library is imported only where it is in use
        from sqlalchemy.engine import Engine  # noqa: PLC0415
        from sqlalchemy.engine.default import DefaultDialect  # noqa: PLC0415
        from sqlalchemy.pool import base  # noqa: PLC0415

        record, fairy = base._ConnectionRecord, base._ConnectionFairy
        patcher.require(record, _RECORD)
        patcher.require(fairy, _FAIRY)
        patcher.require(Engine, ("__init__", "dispose"))
        if not hasattr(record, "dbapi_connection") and "dbapi_connection" not in vars(record):
            text = f"SQLAlchemy {module.__version__} is older than 1.4.24"
            raise Refused(text)
        self._pool_registry = pool_registry
        self._timeout_error = exc.TimeoutError
        self._calls = CallHooks(patcher)
        self._calls.hook(DefaultDialect)
        patcher.replace(fairy, "_checkout", self._make_fairy_checkout)
        patcher.replace(fairy, "detach", self._make_detach)
        patcher.replace(record, "checkout", self._make_record_checkout)
        patcher.replace(record, "checkin", self._make_checkin)
        patcher.replace(record, "_ConnectionRecord__connect", self._make_connect)
        patcher.replace(record, "_ConnectionRecord__close", self._make_close)
        patcher.wrap(Engine, "__init__", self._engine_made)
        patcher.wrap(Engine, "dispose", self._engine_disposed)
        if not getattr(module.__spec__, "_initializing", False):
            self._find(Engine, record)

    def release(self) -> None:
        """
        See `PoolAdapter.release`.
        """
        self._pool_registry = None
        self._calls = None
        for pool in list(self._pools):
            tracked: Pool | None = pool.__dict__.pop(KEY, None)
            for record in pool.__dict__.pop(RECORDS_KEY, ()):
                record.__dict__.pop(KEY, None)
                record.__dict__.pop(BACKEND_KEY, None)
            if tracked is not None and tracked.shared:
                take_back_shared(tracked)
        self._pools = weakref.WeakSet()
        self._urls = weakref.WeakKeyDictionary()

    # Engines and pools: cold

    def _engine_made(
        self, wrapped: Callable[..., LibraryObject], engine: LibraryObject, args: LibraryObject, kwargs: LibraryObject
    ) -> LibraryObject:
        result = wrapped(*args, **kwargs)
        guard.run("sqlalchemy.engine", lambda: self._know(engine), None)
        return result

    def _engine_disposed(
        self, wrapped: Callable[..., LibraryObject], engine: LibraryObject, args: LibraryObject, kwargs: LibraryObject
    ) -> LibraryObject:
        before = engine.pool
        try:
            return wrapped(*args, **kwargs)
        finally:
            guard.run("sqlalchemy.dispose", lambda: self._continue(before, engine), None)

    def _find(self, engine_class: type, record_class: type) -> None:
        # One walk over all objects, only when poolscope comes after SQLAlchemy; it takes 0.1 s for 700,000 of them.
        engines = []
        for thing in gc.get_objects():
            kind = type(thing)
            if kind is record_class:
                self._remember(thing)
            elif kind is engine_class or engine_class in kind.__mro__:
                engines.append(thing)
        for engine in engines:
            guard.run("sqlalchemy.engine", lambda engine=engine: self._know(engine), None)  # type: ignore[misc]

    def _remember(self, record: LibraryObject) -> None:
        pool = record._ConnectionRecord__pool
        Records.of(pool).add(record)
        self._pools.add(pool)
        record.__dict__.setdefault(KEY, None)
        record.__dict__.setdefault(BACKEND_KEY, None)

    def _know(self, engine: LibraryObject) -> None:
        pool = engine.pool
        self._urls[pool] = engine.url
        remember_name(pool)
        if self._pool_registry is not None and not self._pool_registry.still_dormant() and KEY not in pool.__dict__:
            self._track(pool)

    def _continue(self, before: LibraryObject, engine: LibraryObject) -> None:
        after = engine.pool
        if after is before or self._pool_registry is None:
            return
        self._urls[after] = engine.url
        if before in NAMES:
            NAMES[after] = NAMES[before]
        known: Pool | None = before.__dict__.get(KEY)
        if known is not None and KEY not in after.__dict__:
            self._enter(after, continues=known)

    def _track(self, pool: LibraryObject) -> Pool | None:
        return guard.run("sqlalchemy.track", lambda: self._enter(pool), None)

    def _enter(self, pool: LibraryObject, continues: Pool | None = None) -> Pool | None:
        pool_registry, calls = self._pool_registry, self._calls
        if pool_registry is None or calls is None:
            return None
        known: Pool | None = pool.__dict__.get(KEY)
        if known is not None:
            return known
        # No lock is held while the library is asked, and several threads may do so: see `Adapter.enter`.
        source = SqlAlchemySource(pool)
        what = named(pool, identify(pool, self._urls.get(pool)))
        calls.hook(type(pool._dialect))
        records = () if source.shared else Records.of(pool)
        held = [(record, record.fairy_ref) for record in records if record.fairy_ref is not None]
        self._pools.add(pool)
        tracked, first = pool_registry.enter(pool.__dict__, what, source, continues=continues, shared=source.shared)
        for record, reference in held if first else ():
            if record.fairy_ref is reference and record.__dict__.get(KEY) is None:
                record.__dict__[KEY] = tracked.adopt(tracked.now())
        return tracked

    # The hot path. Marks are read as attributes: `__dict__` would cost five times as much, here and, once an object has
    # one, for the library too.

    def _make_fairy_checkout(self, original: Callable[..., Any]) -> Callable[..., Any]:
        pool_registry, track = cast("PoolRegistry", self._pool_registry), self._track

        def _checkout(
            cls: LibraryObject, pool: LibraryObject, threadconns: LibraryObject = None, fairy: LibraryObject = None
        ) -> LibraryObject:
            if fairy is not None or (pool_registry.dormant and pool_registry.still_dormant()):
                return original(cls, pool, threadconns, fairy)
            try:
                tracked = pool._poolscope
            except AttributeError:
                tracked = track(pool)
            if tracked is None:
                return original(cls, pool, threadconns, fairy)
            try:
                try:
                    thread_token = THREAD_TOKENS.thread_token
                except AttributeError:  # this thread's first ask
                    thread_token = running_thread()
                lease = tracked.checkout(thread_token, 3)
            except Exception:  # noqa: BLE001 - ours; the check-out goes on without us
                guard.caught("sqlalchemy.checkout")
                return original(cls, pool, threadconns, fairy)
            # The next thing that the library does, in this thread and without giving way to another task, is to call
            # the record's `checkout`, which takes it away; a context variable would cost three times as much. Only the
            # garbage collector comes between, and whatever of it asks puts back what it found.
            outer = thread_token.checkout
            thread_token.checkout = lease
            try:
                result = original(cls, pool, threadconns)
            except BaseException as error:
                self._failed(lease, error)
                raise
            finally:
                thread_token.checkout = outer
            try:
                lease.acquired()
            except Exception:  # noqa: BLE001
                guard.caught("sqlalchemy.checkout")
            return result

        return _checkout

    def _make_record_checkout(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def checkout(cls: LibraryObject, pool: LibraryObject) -> LibraryObject:
            try:
                thread_token = THREAD_TOKENS.thread_token
                lease, thread_token.checkout = thread_token.checkout, None
            except AttributeError:  # this thread has never asked
                lease = None
            fairy = original(cls, pool)
            if lease is not None:
                try:
                    known = pool._poolscope
                except AttributeError:  # uninstrumented meanwhile
                    return fairy
                try:
                    tracked = lease.pool
                    if known is tracked:
                        lease.handed_over()
                        record = fairy._connection_record
                        lease.backend_process_id = record._poolscope_backend
                        if tracked.shared:
                            lend_shared(fairy, lease)
                        else:
                            record._poolscope = lease
                except Exception:  # noqa: BLE001
                    guard.caught("sqlalchemy.got")
            return fairy

        return checkout

    def _make_checkin(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def checkin(self: LibraryObject, _fairy_was_created: bool = True) -> LibraryObject:
            try:
                lease = self._poolscope
            except AttributeError:
                lease = None
            if lease is not None:
                self._poolscope = None
                try:
                    reference = self.fairy_ref
                    lease.released(abandoned=reference is not None and reference() is None)
                except Exception:  # noqa: BLE001
                    guard.caught("sqlalchemy.checkin")
            return original(self, _fairy_was_created)

        return checkin

    def _failed(self, lease: Lease, error: BaseException) -> None:
        try:
            if not isinstance(error, Exception):
                outcome = Outcome.CANCELLED
            elif lease.connect_failed or not isinstance(error, self._timeout_error):
                outcome = Outcome.ERROR
            else:
                outcome = Outcome.TIMEOUT if getattr(error, "code", None) == _POOL_TIMEOUT else Outcome.ERROR
            lease.failed(outcome, error_name(error))
        except Exception:  # noqa: BLE001
            guard.caught("sqlalchemy.failed")

    # Physical connections: cold

    def _make_connect(self, original: Callable[..., Any]) -> Callable[..., Any]:
        here, pool_registry, remember = self, self._pool_registry, self._remember

        def __connect(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            if here._pool_registry is not pool_registry:  # it stayed behind: somebody had wrapped it
                return original(self, *args, **kwargs)
            guard.run("sqlalchemy.record", lambda: remember(self), None)
            tracked: Pool | None = self._ConnectionRecord__pool.__dict__.get(KEY)
            if tracked is None:
                return original(self, *args, **kwargs)
            # It is in the record's hands when a pre-ping failed, and among those who wait before that.
            lease, began = connect_begins(tracked, self.__dict__.get(KEY) or tracked.waiter())
            try:
                result = original(self, *args, **kwargs)
            except BaseException as error:
                connect_fails(tracked, lease, began, error)
                raise
            try:
                connect_ends(tracked, lease, began)
                self.__dict__[BACKEND_KEY] = backend_process_id(self)
                below = lease_below(self.driver_connection)
                if below is not None:
                    below.above = self.__dict__
            except Exception:  # noqa: BLE001
                guard.caught("sqlalchemy.connect")
            return result

        return __connect

    def _make_close(self, original: Callable[..., Any]) -> Callable[..., Any]:
        here, pool_registry = self, self._pool_registry

        def __close(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            pool = self._ConnectionRecord__pool
            tracked: Pool | None = pool.__dict__.get(KEY)
            if tracked is not None and here._pool_registry is pool_registry:
                reason = guard.run("sqlalchemy.close", lambda: close_reason(self, pool), "closed")
                tracked.closed(reason)
            return original(self, *args, **kwargs)

        return __close

    def _make_detach(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def detach(self: LibraryObject) -> LibraryObject:
            record = self._connection_record
            if record is not None:
                try:
                    lease = record.__dict__.pop(KEY, None) or self.__dict__.get(KEY)
                    if lease is not None:
                        reference = record.fairy_ref
                        lease.released(abandoned=reference is not None and reference() is None)
                        lease.pool.closed("detached")
                except Exception:  # noqa: BLE001
                    guard.caught("sqlalchemy.detach")
            return original(self)

        return detach


ADAPTER: Final = SqlAlchemyAdapter()
