"""
What becomes of the driver's connection inside a "steady" connection of DBUtils, which replaces it when it fails or was
used often enough; and the statements of its cursors.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar, Final

from poolscope.adapters.base import Capability
from poolscope.adapters.connects import connect_begins, connect_fails
from poolscope.adapters.identity import learn
from poolscope.adapters.leases import ConnectionState, recover_return
from poolscope.adapters.marks import CONNECTION_KEY
from poolscope.adapters.points import Checkin, Created, Statement
from poolscope.adapters.points.calls import stop
from poolscope.adapters.points.cold import ColdPoint
from poolscope.core.guard import guard
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.adapters.base import PointAdapter
    from poolscope.adapters.points.brackets import After, Before
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.types import LibraryObject

#: The pool that is being made, or makes a steady connection.
MAKING: Final[ContextVar[Any]] = ContextVar("poolscope_dbutils_making", default=None)


class SteadyState(ConnectionState):
    """What is known of a steady connection. It has no pool while that is being made."""

    __slots__ = ("made", "sharers")

    def __init__(self, pool: Pool | None) -> None:
        super().__init__(pool)
        #: The leases of those who share it, by the id of the proxy that each holds.
        self.sharers: dict[int, Lease] = {}
        #: By thread, for several may share it: the connect of the driver's connection that was made and does not count
        #: yet, since it may be thrown away: how many seconds it took, for which checkout.
        self.made: dict[int, tuple[float, Lease | None]] = {}


class Making(Created):
    """
    A pool is made, or makes a steady connection. While it is made it checks out of itself: it
    becomes known at the end.
    """

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def after(state: LibraryObject, _: LibraryObject, error: BaseException | None) -> None:
            library_pool, token = state
            MAKING.reset(token)
            if self.known and error is None:
                adapter.made(library_pool)
                adapter.note_making(library_pool)

        return lambda library_pool, _, __: (library_pool, MAKING.set(library_pool)), after


class Connecting(ColdPoint):
    """A steady connection makes a driver's connection: its first, or one to take the place of that."""

    measures: ClassVar[Capability] = Capability.CREATE | Capability.WAIT_PHASES

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def before(steady: LibraryObject, _: LibraryObject, __: LibraryObject) -> LibraryObject:
            library_pool, pool_registry = MAKING.get(), adapter.pool_registry
            state = steady.__dict__.get(CONNECTION_KEY)
            if pool_registry is None or (state is None and library_pool is None):
                return None  # it is no pool's
            state = state or adapter.state(steady, adapter.pool_of(library_pool))
            now, inside = (
                pool_registry.now,
                MAKING.set(None),
            )  # the driver's connection may be a steady one, of no pool
            return state, inside, now, *(connect_begins(state.pool) if state.pool is not None else (None, now()))

        def after(begun: LibraryObject, _: LibraryObject, error: BaseException | None) -> None:
            state, inside, now, lease, began = begun
            MAKING.reset(inside)
            if error is None:
                seconds = now() - began
                if lease is not None:
                    lease.connect_failed = False
                    lease.connected(seconds)
                state.made[get_ident()] = (seconds, lease)
            elif state.pool is not None:
                connect_fails(state.pool, lease, began, error)

        return before, after


class Connected(ColdPoint):
    """A steady connection takes the driver's connection that was made for it: now that counts."""

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:

        def after(steady: LibraryObject, _: LibraryObject, __: BaseException | None) -> None:
            state: SteadyState | None = steady.__dict__.get(CONNECTION_KEY)
            if state is None or state.pool is None:
                return  # it is no pool's, or counts once its pool is made
            made = state.made.pop(get_ident(), None)
            if made is not None:
                state.pool.created(*made)
                learn(state.pool, f"{adapter.name}.learn", lambda: adapter.identify_by(None, steady))

        return lambda steady, _, __: steady, after


class Returned(Checkin):
    """A proxy is returned, or collected. Most are collected after their return, and pay for one look only."""

    measures: ClassVar[Capability] = Capability.USE | Capability.ABANDONED

    @override
    def make(self, adapter: PointAdapter, original: Callable[..., Any]) -> Callable[..., Any]:
        component, untie, lost, abandoned = f"{adapter.name}.checkin", adapter.untie, adapter.lost, self.abandoned

        def close(self_: LibraryObject, /) -> LibraryObject:
            lease = None
            try:
                if self_.__dict__.get("_con") is not None:
                    lease = untie(None, self_)
                    if lease is not None:
                        lease.released(abandoned=abandoned)
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_return(component, lease, lambda: lost(None, self_), lambda: original(self_), quietly=abandoned)
            return original(self_)

        return close


class ToughStatement(Statement):
    """A cursor makes one of its methods that run a statement. What that does after the lease counts for no lease."""

    @override
    def make(self, adapter: PointAdapter, original: Callable[..., Any]) -> Callable[..., Any]:
        begins, end = functools.cache(functools.partial(self.begins, adapter)), self.ends(adapter)
        lease_of, component = adapter.lease_of, f"{adapter.name}.call"

        def _get_tough_method(self_: LibraryObject, name: str) -> LibraryObject:
            method = original(self_, name)
            lease = guard.run(component, lambda: lease_of(self_._con), None)
            if lease is None:
                return method
            steady, begin = self_._con, begins(name)

            def tough_method(*args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
                begun = None
                try:
                    try:
                        begun = begin(steady, args, kwargs) if lease.ended_at is None else None
                        return method(*args, **kwargs)
                    finally:
                        if begun is not None:
                            end(begun)
                except BaseException:
                    stop(begun)
                    raise

            return tough_method

        return _get_tough_method
