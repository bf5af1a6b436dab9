"""Hook points that few checkouts pass: pools that are made, physical connections, validation, closing many at once."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from poolscope.adapters.base import Capability, Point
from poolscope.adapters.connects import PENDING_CHECKOUT, connect_begins, connect_ends, connect_fails, limit_changed
from poolscope.adapters.leases import recover_return, undo
from poolscope.adapters.points.brackets import bracket, library_frames, nothing
from poolscope.core.guard import guard
from poolscope.core.pool_figures import DISPOSED
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from poolscope.adapters.base import PointAdapter
    from poolscope.adapters.points.brackets import After, Before, Function
    from poolscope.core.lease import Lease
    from poolscope.types import LibraryObject

    Arguments = tuple[Any, ...]


class ColdPoint(Point):
    """A point whose hook is a bracket."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        return bracket(adapter, f"{adapter.name}.{type(self).__name__.lower()}", original, *self.hooks(adapter))

    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:
        """What is done before and after; see `bracket`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Created(ColdPoint):
    """
    A pool is made: its ``__init__``, or what makes it ready for use.

    Args:
        where: See `Point`.
        optional: See `Point`.
        known: Whether it is known from then on; else only the name that the application gives it is remembered, and it
            becomes known when it is opened or used.
    """

    is_looked_at: ClassVar[bool] = True

    _: KW_ONLY
    known: bool = True

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:
        made = adapter.made if self.known else adapter.remember_name

        def after(library_pool: LibraryObject, _: LibraryObject, error: BaseException | None) -> None:
            if error is None:
                made(library_pool)
                adapter.note_making(library_pool)

        return lambda library_pool, _, __: library_pool, after


@dataclass(frozen=True)
class Opened(ColdPoint):
    """A pool that was made earlier is opened."""

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:
        return lambda library_pool, _, __: adapter.know(library_pool), nothing


@dataclass(frozen=True)
class Resize(ColdPoint):
    """A pool gets another limit."""

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:
        return lambda library_pool, _, __: adapter.pool_of(library_pool), lambda pool, _, __: limit_changed(pool)


@dataclass(frozen=True)
class Handover(ColdPoint):
    """Inside a checkout, the pool takes out the connection that it will hand over: the result."""

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def after(library_pool: LibraryObject, connection: LibraryObject, error: BaseException | None) -> None:
            lease = waiting(adapter, library_pool) if error is None else None
            if lease is None:
                return
            try:
                lease.handed_over()
                adapter.tie(library_pool, connection, lease)
            except BaseException:
                undo(lease)
                raise

        return lambda library_pool, _, __: library_pool, after


@dataclass(frozen=True)
class Validation(ColdPoint):
    """
    Inside a checkout, the pool tries a connection that it took out; where that raises, the checkout goes on.

    Args:
        where: See `Point`.
        optional: See `Point`.
        when: By the pool, whether it tries connections at all.
    """

    measures: ClassVar[Capability] = Capability.WAIT_PHASES

    _: KW_ONLY
    when: Callable[[LibraryObject], object] = bool

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def before(library_pool: LibraryObject, _: Arguments, __: dict[str, Any]) -> Lease | None:
            lease = waiting(adapter, library_pool) if self.when is bool or self.when(library_pool) else None
            if lease is not None:
                _or_undo(lease, lease.handed_over)
            return lease

        def after(lease: Lease, _: LibraryObject, error: BaseException | None) -> None:
            if error is not None:
                _or_undo(lease, lease.invalid)

        return before, after


@dataclass(frozen=True)
class Sweep(ColdPoint):
    """
    Several connections are closed at once: the leases end of those that the library counts no more.

    Args:
        where: See `Point`.
        optional: See `Point`.
        reason: Why.
    """

    _: KW_ONLY
    reason: str = DISPOSED

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def before(library_pool: LibraryObject, _: Arguments, __: dict[str, LibraryObject]) -> LibraryObject:
            return library_pool, list(adapter.held(library_pool))

        def after(state: LibraryObject, _: LibraryObject, __: BaseException | None) -> None:
            library_pool, held = state
            left = {id(connection) for connection in adapter.held(library_pool)}
            for connection in held:
                if id(connection) not in left:
                    _end(adapter, library_pool, connection, self.reason)

        return before, after


@dataclass(frozen=True)
class Connect(ColdPoint):
    """
    A physical connection is made: the result, or the object itself where there is none. `connects_for` finds its pool.

    Args:
        where: See `Point`.
        optional: See `Point`.
        early: Whether a pool may connect before it is known, as while it is being made: it becomes known by that.
    """

    measures: ClassVar[Capability] = Capability.CREATE | Capability.WAIT_PHASES

    _: KW_ONLY
    early: bool = False

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def before(hooked: LibraryObject, _: Arguments, __: dict[str, LibraryObject]) -> LibraryObject:
            library_pool = adapter.connects_for(hooked)
            pool = adapter.pool_of(library_pool)
            if pool is not None:
                return library_pool, pool, *connect_begins(pool, adapter.connects_in(hooked, pool)), hooked
            if self.early and library_pool is not None and adapter.pool_registry is not None:
                return library_pool, None, None, adapter.pool_registry.now(), hooked
            return None

        def after(state: LibraryObject, connection: LibraryObject, error: BaseException | None) -> None:
            library_pool, pool, lease, began, hooked = state
            pool = pool or (adapter.know(library_pool, connection) if error is None else None)
            if pool is None:
                return
            if error is not None:
                connect_fails(pool, lease, began, error)
                return
            connect_ends(pool, lease, began)
            adapter.connected(library_pool, pool, hooked if connection is None else connection, lease)

        return before, after


@dataclass(frozen=True)
class Close(ColdPoint):
    """
    A physical connection is closed: the object's own, or the first argument where the object is a pool.

    Args:
        where: See `Point`.
        optional: See `Point`.
        reasons: The library's function that closes -> why, or a function of its frame that finds out, where it can. The
            nearest that is running counts; other libraries' wrappers may lie between.
        outermost: Whether it is the outermost that counts instead.
        other: Why, where it is none of them.
    """

    measures: ClassVar[Capability] = Capability.CLOSE

    _: KW_ONLY
    reasons: Mapping[str, str | Callable[[FrameType], str | None]] = field(default_factory=dict)
    outermost: bool = False
    other: str = "closed"

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def before(hooked: LibraryObject, args: Arguments, _: dict[str, Any]) -> None:
            pool = adapter.closing(hooked, *args[:1])
            if pool is not None:
                reason = self.other
                try:
                    reason = self.reason(adapter.library_modules)
                finally:
                    pool.closed(reason)
                _held_closes(adapter, hooked, args, reason)

        return before, nothing

    def reason(self, modules: tuple[str, ...]) -> str:
        """
        Why, by the library's functions that are running.

        Args:
            modules: The names of its packages.
        """
        found: str | None = None
        for frame in library_frames(modules, self.reasons):
            reason: str | Callable[[FrameType], str | None] | None = self.reasons[frame.f_code.co_name]
            if callable(reason):
                reason = reason(frame)
            if reason is not None:
                found = reason
                if not self.outermost:
                    break
        return self.other if found is None else found


def waiting(adapter: PointAdapter, library_pool: LibraryObject) -> Lease | None:
    """The checkout of this pool that the running code is part of, if it has no connection yet."""
    lease = PENDING_CHECKOUT.get()
    if lease is None or lease.handed_over_at is not None or lease.pool is not adapter.pool_of(library_pool):
        return None
    return lease


def _held_closes(adapter: PointAdapter, hooked: LibraryObject, args: Arguments, reason: str) -> None:
    # The lease of a connection that is closed while a caller holds it; a caller that returns it has ended its lease, or
    # is about to, by the library's `release`.
    lease = None
    for one in (hooked, *args[:1]):  # one of the two is the connection
        try:
            lease = lease or adapter.lease_of(one)
        except (AttributeError, TypeError):  # what is none has no place for a lease
            continue
        except Exception:  # noqa: BLE001 - ours
            guard.caught(f"{adapter.name}.close")
    if lease is not None and next(library_frames(adapter.library_modules, ("release",)), None) is None:
        lease.closed = reason


def _end(adapter: PointAdapter, library_pool: LibraryObject, connection: LibraryObject, reason: str) -> None:
    lease = None
    try:
        lease = adapter.untie(library_pool, connection)
        if lease is not None:
            lease.closed = reason
            lease.released()
    except BaseException:  # noqa: BLE001 - ours, or a signal handler's
        recover_return(f"{adapter.name}.sweep", lease, lambda: adapter.lost(library_pool, connection))


def _or_undo(lease: Lease, step: Callable[[], object]) -> None:
    try:
        step()
    except BaseException:
        undo(lease)
        raise
