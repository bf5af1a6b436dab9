"""
Checkouts. Each has a hook of its own for plain functions and for coroutine functions: a bracket that serves all points
would cost a tenth more.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from poolscope.adapters.base import Capability, Point
from poolscope.adapters.connects import PENDING_CHECKOUT
from poolscope.adapters.leases import recover, settle, settle_async, undo
from poolscope.adapters.marks import KEY
from poolscope.adapters.points.brackets import fit
from poolscope.adapters.points.cold import Handover
from poolscope.core.guard import guard
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.adapters.base import PointAdapter
    from poolscope.core.lease import Lease
    from poolscope.types import LibraryObject

    Function = Callable[..., Any]
    Arguments = tuple[Any, ...]
    Tie = Callable[[LibraryObject, LibraryObject, Lease], None]
    Begin = Callable[[LibraryObject, Arguments, dict[str, Any]], Lease | None]
    Finish = Callable[[LibraryObject, Arguments, dict[str, Any], LibraryObject, Lease], None]
    Failed = Callable[[LibraryObject, Arguments, dict[str, Any], Lease, BaseException], None]
    GiveBack = Callable[[LibraryObject, LibraryObject], LibraryObject]
    Settles = Callable[
        [LibraryObject, Arguments, dict[str, Any], LibraryObject], tuple["Settling", LibraryObject, LibraryObject]
    ]

_current: Final = PENDING_CHECKOUT.get
_enter: Final = PENDING_CHECKOUT.set
_NOTHING_YET: Final[Any] = object()


@dataclass(frozen=True)
class Checkout(Point):
    """
    A caller checks out a connection: the result, unless a `Handover` sees it before; or the object itself, where it is
    an ``__init__`` that checks out.

    Args:
        where: See `Point`.
        optional: See `Point`.
        when: By the pool and the call's arguments, whether this call checks out at all; every call does when left out.
        library_pool: By the object and the call's arguments, the pool; the object itself when left out.
    """

    measures: ClassVar[Capability] = Capability.WAIT

    _: KW_ONLY
    when: Callable[[LibraryObject, Arguments, dict[str, Any]], object] | None = None
    library_pool: Callable[[LibraryObject, Arguments, dict[str, Any]], LibraryObject] | None = None

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        begin, failed = begins(self, adapter), fails(self, adapter)
        hands_over = any(isinstance(point, Handover) for point in adapter.points)
        if hands_over or self.library_pool is not None or self.where.endswith(".__init__"):
            finish = _finish_handed_over if hands_over else _finish(self, adapter)
            settles = _settles(self, adapter)
            return fit(
                original,
                lambda function: _checkout(function, begin, finish, failed, settles),
                lambda function: _checkout_async(function, begin, finish, failed, settles),
            )
        component, tie, give_back = f"{adapter.name}.checkout", adapter.tie, adapter.give_back
        return fit(
            original,
            lambda function: _plain_checkout(function, begin, tie, failed, Settling(component, give_back)),
            lambda function: _plain_checkout_async(function, begin, tie, failed, Settling(component, give_back)),
        )


class Settling(NamedTuple):
    """
    How a checkout is settled that failed after the library's part: see `settle`.

    Args:
        component: What an error of ours is counted as.
        give_back: By the pool and the connection, returns that.
    """

    component: str
    give_back: GiveBack

    def now(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:
        """Settle it."""
        settle(self.component, lease, lambda: self.give_back(library_pool, connection))

    async def soon(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:
        """The same in an event loop."""
        await settle_async(self.component, lease, lambda: self.give_back(library_pool, connection))


# An interrupt may come between any two steps. Whatever the hook has begun is in reach of one handler, which knows by
# what is set how far it came: no lease; a checkout that waits; a connection that no caller has yet.


# The usual checkout: the object is the pool, the result is the connection. What `finish` does is spelt out.


def _plain_checkout(original: Function, begin: Begin, tie: Tie, failed: Failed, settling: Settling) -> Function:
    def checkout(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        lease = result = None
        outer = _current()
        try:
            lease = begin(self_, args, kwargs)
            if lease is None:
                return original(self_, *args, **kwargs)
            _enter(lease)
            result = original(self_, *args, **kwargs) if args or kwargs else original(self_)
            _enter(outer)
            tie(self_, result, lease)
            lease.acquired()
            return result
        except BaseException as error:
            _enter(outer)
            if lease is None:
                raise
            if result is None:
                failed(self_, args, kwargs, lease, error)
                raise
            settling.now(self_, result, lease)
            return result

    return checkout


def _plain_checkout_async(original: Function, begin: Begin, tie: Tie, failed: Failed, settling: Settling) -> Function:
    async def checkout(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        lease = result = None
        outer = _current()
        try:
            lease = begin(self_, args, kwargs)
            if lease is None:
                return await original(self_, *args, **kwargs)
            _enter(lease)
            result = await (original(self_, *args, **kwargs) if args or kwargs else original(self_))
            _enter(outer)
            tie(self_, result, lease)
            lease.acquired()
            return result
        except BaseException as error:
            if lease is None:
                raise
            if _current() is lease:  # else the garbage collector closes this, amid what another caller does
                _enter(outer)
            if result is None:
                failed(self_, args, kwargs, lease, error)
                raise
            await settling.soon(self_, result, lease)
            return result

    return checkout


# Any other.


def _checkout(original: Function, begin: Begin, finish: Finish, failed: Failed, settles: Settles) -> Function:
    def checkout(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        lease, result = None, _NOTHING_YET
        outer = _current()
        try:
            lease = begin(self_, args, kwargs)
            if lease is None:
                return original(self_, *args, **kwargs)
            _enter(lease)
            result = original(self_, *args, **kwargs)
            _enter(outer)
            finish(self_, args, kwargs, result, lease)
            return result
        except BaseException as error:
            _enter(outer)
            if lease is None:
                raise
            if result is _NOTHING_YET:
                failed(self_, args, kwargs, lease, error)
                raise
            settling, library_pool, connection = settles(self_, args, kwargs, result)
            settling.now(library_pool, connection, lease)
            return result

    return checkout


def _checkout_async(original: Function, begin: Begin, finish: Finish, failed: Failed, settles: Settles) -> Function:
    async def checkout(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        lease, result = None, _NOTHING_YET
        outer = _current()
        try:
            lease = begin(self_, args, kwargs)
            if lease is None:
                return await original(self_, *args, **kwargs)
            _enter(lease)
            result = await original(self_, *args, **kwargs)
            _enter(outer)
            finish(self_, args, kwargs, result, lease)
            return result
        except BaseException as error:
            if lease is None:
                raise
            if _current() is lease:  # else the garbage collector closes this, amid what another caller does
                _enter(outer)
            if result is _NOTHING_YET:
                failed(self_, args, kwargs, lease, error)
                raise
            settling, library_pool, connection = settles(self_, args, kwargs, result)
            await settling.soon(library_pool, connection, lease)
            return result

    return checkout


def begins(point: Checkout, adapter: PointAdapter) -> Begin:
    """What is done before a checkout: it returns the lease; None where this call is left alone."""
    component, pool_registry, enter = f"{adapter.name}.checkout", adapter.pool_registry, adapter.enter
    find, when = point.library_pool, point.when
    anchor_of = adapter.anchor if adapter.has_anchors else None

    def begin_plainly(library_pool: LibraryObject, _: Arguments, __: dict[str, Any]) -> Lease | None:
        # Another pool registry than at first: this hook stayed behind, since other code had wrapped it.
        if (
            adapter.pool_registry is not pool_registry
            or pool_registry is None
            or (pool_registry.dormant and pool_registry.still_dormant())
        ):
            return None
        try:
            pool = library_pool.__dict__.get(KEY) or enter(library_pool)
            return pool.checkout(None, 3) if pool is not None else None  # past this and the hook that called
        except Exception:  # noqa: BLE001 - ours; the checkout goes on without us
            guard.caught(component)
            return None

    def begin(hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> Lease | None:
        if (
            adapter.pool_registry is not pool_registry
            or pool_registry is None
            or (pool_registry.dormant and pool_registry.still_dormant())
        ):
            return None
        try:
            library_pool = hooked if find is None else find(hooked, args, kwargs)
            if library_pool is None or (when is not None and not when(library_pool, args, kwargs)):
                return None
            anchor = library_pool if anchor_of is None else anchor_of(library_pool)
            if anchor is None:
                return None
            pool = anchor.__dict__.get(KEY) or enter(library_pool)
            return pool.checkout(None, 3) if pool is not None else None
        except Exception:  # noqa: BLE001
            guard.caught(component)
            return None

    return begin_plainly if find is None and when is None and anchor_of is None else begin


def _finish(point: Checkout, adapter: PointAdapter) -> Finish:
    tie, find = adapter.tie, point.library_pool

    def finish(
        hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any], result: LibraryObject, lease: Lease
    ) -> None:
        library_pool = hooked if find is None else find(hooked, args, kwargs)
        tie(library_pool, hooked if result is None else result, lease)
        lease.acquired()

    return finish


def _finish_handed_over(
    _: LibraryObject, __: Arguments, ___: dict[str, Any], ____: LibraryObject, lease: Lease
) -> None:
    if lease in lease.pool.leases or "acquired" in lease.__dict__:  # it may have been interrupted
        lease.acquired()
    else:  # the handover was not seen, or its hook failed
        undo(lease)


def _settles(point: Checkout, adapter: PointAdapter) -> Settles:
    # How a checkout is settled, and of which pool and connection.
    settling, find = Settling(f"{adapter.name}.checkout", adapter.give_back), point.library_pool

    def settles(
        hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any], result: LibraryObject
    ) -> tuple[Settling, LibraryObject, LibraryObject]:
        library_pool = hooked if find is None else find(hooked, args, kwargs)
        return settling, library_pool, hooked if result is None else result

    return settles


def fails(point: Checkout, adapter: PointAdapter) -> Failed:
    """What is done when a checkout raised."""
    component, find = f"{adapter.name}.failed", point.library_pool

    def failed(
        hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any], lease: Lease, error: BaseException
    ) -> None:
        try:
            adapter.failed(hooked if find is None else find(hooked, args, kwargs), lease, error, args)
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            recover(component, lease)

    return failed
