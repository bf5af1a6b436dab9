"""Checkouts, returns and disposal. The hot hooks are written out: the brackets of the common points would cost more."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

from poolscope.adapters.base import Capability, Point
from poolscope.adapters.leases import end_earlier, recover, recover_return, settle, undo
from poolscope.adapters.marks import KEY
from poolscope.adapters.points.brackets import nothing
from poolscope.adapters.points.cold import ColdPoint
from poolscope.core.execution import THREAD_TOKENS, running_thread
from poolscope.core.guard import guard
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.adapters.base import PointAdapter
    from poolscope.adapters.points.brackets import After, Before
    from poolscope.core.execution import ThreadToken
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.types import LibraryObject

    Function = Callable[..., Any]

_CHECKOUT: Final = "sqlalchemy.checkout"
_CHECKIN: Final = "sqlalchemy.checkin"


class Checkout(Point):
    """A caller checks out a connection: ``_ConnectionFairy._checkout``."""

    measures: ClassVar[Capability] = Capability.WAIT

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:  # noqa: C901 - the hook is spelt out
        pool_registry = cast("PoolRegistry", adapter.pool_registry)

        def _checkout(  # noqa: C901 - the hot path
            cls: LibraryObject, pool: LibraryObject, threadconns: LibraryObject = None, fairy: LibraryObject = None
        ) -> LibraryObject:
            if fairy is not None or (pool_registry.dormant and pool_registry.still_dormant()):
                return original(cls, pool, threadconns, fairy)
            try:
                ours = pool._poolscope
            except AttributeError:
                ours = _enter(adapter, pool)
            if ours is None:
                return original(cls, pool, threadconns, fairy)
            try:
                thread_token = THREAD_TOKENS.thread_token
            except AttributeError:  # this thread's first checkout
                thread_token = running_thread()
            # The next thing that the library does is to call the record's `checkout`, which takes the lease away; a
            # context variable would cost three times as much. Where other code of this thread comes between and checks
            # out as well (the garbage collector's, another greenlet's), the lease goes to its connection at the end.
            lease = result = None
            try:
                try:
                    lease = thread_token.checkout = ours.checkout(thread_token, 3)
                except Exception:  # noqa: BLE001 - ours; the checkout goes on without us
                    guard.caught(_CHECKOUT)
                    return original(cls, pool, threadconns, fairy)
                result = original(cls, pool, threadconns)
                try:
                    is_handed_over = result._connection_record._poolscope is lease
                except AttributeError:  # a listener has detached it, or we are uninstrumented
                    is_handed_over = False
                if is_handed_over or _hand_over_late(pool, result, lease, thread_token):
                    lease.acquired()
                return result
            except BaseException as error:  # see `poolscope.adapters.points.checkout`
                thread_token.checkout = None
                if lease is None:
                    raise
                if result is None:
                    _fail(adapter, pool, lease, error)
                    raise
                settle(_CHECKOUT, lease, result.close)
                return result

        return _checkout


class Handover(Point):
    """Inside a checkout, the pool takes out the record that it will hand over: ``_ConnectionRecord.checkout``."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:

        records = cast("Records", adapter)

        def checkout(cls: LibraryObject, pool: LibraryObject) -> LibraryObject:
            try:
                thread_token = THREAD_TOKENS.thread_token
                lease, thread_token.checkout = thread_token.checkout, None
            except AttributeError:  # this thread has never checked out
                lease = None
            if lease is None:
                return original(cls, pool)
            fairy = None
            try:
                fairy = original(cls, pool)
                if lease.pool is pool._poolscope:
                    record = fairy._connection_record
                    try:
                        lease.backend_process_id = record._poolscope_backend
                        earlier = record._poolscope
                    except AttributeError:  # it was made before poolscope came, and not found
                        records.connects_for(record)
                        earlier = None
                    if lease.pool.shared:
                        _share(fairy, lease)
                    else:
                        record._poolscope = lease
                    if earlier is not None:
                        end_earlier(earlier)
                    lease.handed_over()  # last: by then the mark is there, where the session ends
                return fairy
            except BaseException:
                if fairy is None:
                    raise
                lease.handed_over_at = None
                _unshare(fairy)
                _take_back(records, fairy._connection_record, lease)
                settle(_CHECKOUT, lease, fairy._checkin)
                return fairy

        return checkout


class Checkin(Point):
    """A record is returned: ``_ConnectionRecord.checkin``."""

    measures: ClassVar[Capability] = Capability.USE | Capability.ABANDONED

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        records = cast("Records", adapter)

        def checkin(self: LibraryObject, _fairy_was_created: bool = True) -> LibraryObject:
            try:
                lease = self._poolscope
            except AttributeError:
                lease = None
            if lease is not None:
                try:
                    self._poolscope = None
                    reference = self.fairy_ref
                    if reference is None or reference() is not None:
                        lease.released()
                    else:
                        lease.released(abandoned=True)
                except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                    _take_back(records, self, lease)
                    self._poolscope = None
                    recover_return(
                        _CHECKIN,
                        lease,
                        lambda: lease,
                        lambda: original(self, _fairy_was_created),
                        quietly=_is_abandoned(self),
                    )
            return original(self, _fairy_was_created)

        return checkin


class Detach(ColdPoint):
    """
    A caller keeps a connection, which leaves the pool; also the way of one that the garbage collector found and that
    SQLAlchemy cannot reset there.
    """

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:
        records = cast("Records", adapter)

        def before(fairy: LibraryObject, _: LibraryObject, __: LibraryObject) -> None:
            record = fairy._connection_record
            if record is None:
                return
            lease = None
            abandoned = _is_abandoned(record)
            try:
                lease = record.__dict__.get(KEY) or fairy.__dict__.get(KEY)
                if lease is not None:
                    record._poolscope = None
                    lease.released(abandoned=abandoned)
                    lease.pool.closed("detached")
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                if lease is not None:
                    _take_back(records, record, lease)
                recover(_CHECKIN, lease, quietly=abandoned)

        return before, nothing


class Records(Protocol):
    """The adapter, as far as records concern it."""

    def connects_for(self, hooked: LibraryObject) -> LibraryObject:
        """A record becomes known."""

    def take_back(self, record: LibraryObject, lease: Lease) -> None:
        """What a hook has put on a record is taken off."""


class Disposing(Protocol):
    """The adapter, as far as disposal concerns it."""

    def disposed(self, before: LibraryObject, engine: LibraryObject) -> None:
        """An engine put another pool in the place of the one that it had before."""


class Dispose(ColdPoint):
    """An engine disposes of its pool and puts a new one in its place."""

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def after(state: tuple[Any, Any], _: LibraryObject, __: BaseException | None) -> None:
            engine, before = state
            if engine.pool is not before:
                cast("Disposing", adapter).disposed(before, engine)

        return lambda engine, _, __: (engine, engine.pool), after


def _is_abandoned(record: LibraryObject) -> bool:
    reference = record.fairy_ref
    return reference is not None and reference() is None


def _enter(adapter: PointAdapter, library_pool: LibraryObject) -> Pool | None:
    return guard.run(_CHECKOUT, lambda: adapter.enter(library_pool), None)


def _fail(adapter: PointAdapter, library_pool: LibraryObject, lease: Lease, error: BaseException) -> None:
    try:
        adapter.failed(library_pool, lease, error, ())
    except BaseException:  # noqa: BLE001 - ours, or a signal handler's
        recover(_CHECKOUT, lease)


def _hand_over_late(library_pool: LibraryObject, fairy: LibraryObject, lease: Lease, thread_token: ThreadToken) -> bool:
    # A checkout's connection does not have its lease. Returns whether the lease goes on. Cold, but for pools whose
    # checkouts share a record.
    record, pool = fairy._connection_record, lease.pool
    if fairy.__dict__.get(KEY) is lease:
        return True
    thread_token.checkout = None
    is_marked = record is not None and library_pool.__dict__.get(KEY) is pool and KEY in record.__dict__
    if is_marked and lease in pool.pending:  # the handover was not seen
        lease.handed_over()
    if lease.handed_over_at is None:  # its hook failed, or is there no more
        undo(lease)
        return False
    if is_marked and lease in pool.leases:  # else a listener has ended it
        lease.backend_process_id = record._poolscope_backend
        if pool.shared:
            _share(fairy, lease)
        else:
            record._poolscope = lease
    return True


# A StaticPool's checkouts share one record, which SQLAlchemy checks in once only: there the fairy has the lease.


def _share(fairy: LibraryObject, lease: Lease) -> None:
    def collected(_: LibraryObject) -> None:
        try:
            lease.released(abandoned=True)
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's; the garbage collector calls this
            recover(_CHECKIN, lease, quietly=True)

    lease.carrier = reference = weakref.ref(fairy, collected)
    original = type(fairy)._checkin

    def _checkin(*args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        try:
            lease.released()
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            recover_return(_CHECKIN, lease, lambda: lease, lambda: original(reference(), *args, **kwargs))
        return original(reference(), *args, **kwargs)

    fairy.__dict__[KEY] = lease
    fairy.__dict__["_checkin"] = _checkin


def take_back_shared(pool: Pool) -> None:
    """Take our marks off the fairies of a pool whose checkouts share a record."""
    for lease in pool.leases.copy():
        _unshare(lease.carrier() if lease.carrier is not None else None)


def _unshare(fairy: LibraryObject) -> None:
    if fairy is not None and fairy.__dict__.pop(KEY, None) is not None:
        fairy.__dict__.pop("_checkin", None)


def _take_back(records: Records, record: LibraryObject, lease: Lease) -> None:
    # From the handler of another failure, perhaps in a garbage collection: nothing may be raised or logged.
    try:
        if record is not None:
            records.take_back(record, lease)
    except Exception:  # noqa: BLE001 - ours
        guard.caught_quietly(_CHECKIN)
