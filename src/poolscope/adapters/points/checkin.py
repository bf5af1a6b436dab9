"""Returns of connections, and those that were dropped without one."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from poolscope.adapters.base import Capability, Point
from poolscope.adapters.leases import recover_return
from poolscope.adapters.points.brackets import fit, precede
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.adapters.base import PointAdapter
    from poolscope.core.lease import Lease
    from poolscope.types import LibraryObject

    Function = Callable[..., Any]
    Untie = Callable[[LibraryObject, LibraryObject], Lease | None]
    End = Callable[[LibraryObject], None]


@dataclass(frozen=True)
class Checkin(Point):
    """
    A connection is returned: the first argument.

    Args:
        where: See `Point`.
        optional: See `Point`.
        of_connection: Whether the method is the connection's own, or that of what a caller holds instead.
        abandoned: Whether the caller dropped it: for a ``__del__``.
    """

    measures: ClassVar[Capability] = Capability.USE

    _: KW_ONLY
    of_connection: bool = False
    abandoned: bool = False

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        if self.of_connection:
            return precede(original, self.ends(adapter))
        component, untie, lost = f"{adapter.name}.checkin", adapter.untie, adapter.lost
        return fit(
            original,
            lambda function: _checkin(function, untie, lost, component),
            lambda function: _checkin_async(function, untie, lost, component),
        )

    def ends(self, adapter: PointAdapter) -> End:
        """What is done before a connection's own method."""
        component, untie, lost, abandoned = f"{adapter.name}.checkin", adapter.untie, adapter.lost, self.abandoned

        def end(connection: LibraryObject) -> None:
            lease = None
            try:
                lease = untie(None, connection)
                if lease is not None:
                    lease.released(abandoned=abandoned)
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_return(component, lease, lambda: lost(None, connection), quietly=abandoned)

        return end


# An interrupt amid the bookkeeping of a return reaches the application; but first the connection goes back, as it would
# without poolscope, where the interrupt comes a moment later or is that of the library's own code.


def _checkin(original: Function, untie: Untie, lost: Untie, component: str) -> Function:
    def checkin(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        if kwargs or len(args) != 1:  # most calls have the connection alone: to unpack costs more than the call
            return other(self_, *args, **kwargs)
        lease = None
        try:
            lease = untie(self_, args[0])
            if lease is not None:
                lease.released()
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            recover_return(component, lease, lambda: lost(self_, args[0]), lambda: original(self_, args[0]))
        return original(self_, args[0])

    def other(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        lease, connection = None, args[0] if args else next(iter(kwargs.values()), None)
        try:
            lease = untie(self_, connection)
            if lease is not None:
                lease.released()
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            recover_return(component, lease, lambda: lost(self_, connection), lambda: original(self_, *args, **kwargs))
        return original(self_, *args, **kwargs)

    return checkin


def _checkin_async(original: Function, untie: Untie, lost: Untie, component: str) -> Function:
    async def checkin(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        if kwargs or len(args) != 1:
            return await other(self_, *args, **kwargs)
        lease, connection = None, args[0]
        try:
            lease = untie(self_, connection)
            if lease is not None:
                lease.released()
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            try:
                recover_return(component, lease, lambda: lost(self_, connection))
            except BaseException:
                await original(self_, connection)
                raise
        return await original(self_, connection)

    async def other(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        lease, connection = None, args[0] if args else next(iter(kwargs.values()), None)
        try:
            lease = untie(self_, connection)
            if lease is not None:
                lease.released()
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            try:
                recover_return(component, lease, lambda: lost(self_, connection))
            except BaseException:
                await original(self_, *args, **kwargs)
                raise
        return await original(self_, *args, **kwargs)

    return checkin


@dataclass(frozen=True)
class Abandoned(Checkin):
    """
    What a caller held was dropped without being returned: the ``__del__`` of it. The garbage
    collector calls that.
    """

    measures: ClassVar[Capability] = Capability.ABANDONED

    of_connection: bool = True
    abandoned: bool = True
