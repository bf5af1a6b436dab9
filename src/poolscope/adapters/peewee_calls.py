"""Calls of peewee to its server. A call may connect first, within: it then begins once the connection is there."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.points import Call, Statement
from poolscope.adapters.points.cold import ColdPoint
from poolscope.core.guard import guard
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.adapters.base import PointAdapter
    from poolscope.adapters.points.brackets import After, Before
    from poolscope.adapters.points.calls import BeginCall, Begun, EndCall
    from poolscope.types import LibraryObject

    Arguments = tuple[Any, ...]


class Pending:
    """
    A call that has to connect first.

    Args:
        begin: Begins it.
    """

    def __init__(self, begin: Callable[[], Begun | None]) -> None:
        self.begin = begin
        self.begun: Begun | None = None

    @property
    def running(self) -> bool:
        """Whether it is in the hands of the server, as of a lease; a call that has ended in an exception is not."""
        return self.begun is not None and self.begun[1].running

    @running.setter
    def running(self, is_running: bool) -> None:
        if self.begun is not None:
            self.begun[1].running = is_running


#: The call that the running code is part of, until it has a connection.
_PENDING: Final[ContextVar[Pending | None]] = ContextVar("poolscope_peewee_pending", default=None)


def _begins(begin: BeginCall) -> BeginCall:
    def begin_or_wait(hooked: LibraryObject, args: Arguments, kwargs: dict[str, LibraryObject]) -> LibraryObject:
        is_connected = guard.run("peewee.call", lambda: hooked._state.conn is not None, default=True)
        if is_connected or not hasattr(hooked, "_pool_lock"):
            return begin(hooked, args, kwargs)
        pending = Pending(lambda: begin(hooked, args, kwargs))
        _PENDING.set(pending)
        return pending, pending

    return begin_or_wait


def _ends(end: EndCall) -> EndCall:
    def end_begun(begun: Begun) -> None:
        pending = begun[0]
        if type(pending) is not Pending:
            end(begun)
            return
        _PENDING.set(None)
        if pending.begun is not None:
            end(pending.begun)

    return end_begun


class AutoconnectingCall(Call):
    """The beginning or end of a transaction."""

    def begins(self, adapter: PointAdapter, name: str) -> BeginCall:
        """What is done before the call; see `Call.begins`."""
        return _begins(super().begins(adapter, name))

    def ends(self, adapter: PointAdapter) -> EndCall:
        """What is done after it."""
        return _ends(super().ends(adapter))


class AutoconnectingStatement(Statement):
    """A statement."""

    def begins(self, adapter: PointAdapter, name: str) -> BeginCall:
        """What is done before the statement; see `Call.begins`."""
        return _begins(super().begins(adapter, name))

    def ends(self, adapter: PointAdapter) -> EndCall:
        """What is done after it."""
        return _ends(super().ends(adapter))


class Autoconnected(ColdPoint):
    """A database makes a cursor, and connects for that where it has to."""

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:  # noqa: ARG002 - what is pending knows whose it is

        def after(pending: Pending, _: LibraryObject, error: BaseException | None) -> None:
            _PENDING.set(None)
            if error is None:
                pending.begun = pending.begin()

        return lambda _, __, ___: _PENDING.get(), after
