"""What a connection does while a caller holds it: its calls to the server."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from poolscope.adapters.base import Capability, Point
from poolscope.adapters.leases import recover_call
from poolscope.adapters.points.brackets import fit
from poolscope.adapters.statements import begin_statement, dbapi_statement
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.adapters.base import PointAdapter
    from poolscope.core.lease import Lease
    from poolscope.types import LibraryObject

    Function = Callable[..., Any]
    Arguments = tuple[Any, ...]
    Begun = tuple[LibraryObject, Lease]
    BeginCall = Callable[[LibraryObject, Arguments, dict[str, Any]], Begun | None]
    EndCall = Callable[[Begun], None]


@dataclass(frozen=True)
class Call(Point):
    """
    A call to the server that is no statement: the beginning or end of a transaction, a further fetch.

    Args:
        where: See `Point`.
        optional: See `Point`.
        of_connection: Whether the method is the connection's own; else `connection_of` finds that.
        opens: Whether a transaction is open afterwards, where the driver does not know.
    """

    _: KW_ONLY
    of_connection: bool = False
    opens: bool = False

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        begin, end = self.begins(adapter, original.__name__), self.ends(adapter)
        return fit(
            original, lambda function: _call(function, begin, end), lambda function: _call_async(function, begin, end)
        )

    def begins(self, adapter: PointAdapter, name: str) -> BeginCall:  # noqa: ARG002 - for a `Statement`
        """
        What is done before the call: it returns the connection and its lease; None where the connection is not held, or
        where this call is part of one that is counted.
        """
        component, connection_of, lease_of = f"{adapter.name}.call", adapter.connection_of, adapter.lease_of
        own = self.of_connection

        def begin(hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> Begun | None:  # noqa: ARG001
            lease = None
            try:
                connection = hooked if own else connection_of(hooked)
                lease = lease_of(connection)
                if lease is None or lease.running:
                    return None
                lease.call_begins()
                return connection, lease
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_call(component, lease)
                return None

        return begin

    def ends(self, adapter: PointAdapter) -> EndCall:
        """What is done after it, whether it ended well or not."""
        component, in_transaction, opens = f"{adapter.name}.call", adapter.in_transaction, self.opens

        def end(begun: Begun) -> None:
            connection, lease = begun
            try:
                known = in_transaction(connection)
                lease.call_ends(in_transaction=opens if known is None else known)
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_call(component, lease)

        return end


class Fetch(Call):
    """A further fetch of a cursor whose rows the server keeps, or still sends: a call that leaves transactions be."""

    @override
    def ends(self, adapter: PointAdapter) -> EndCall:
        component = f"{adapter.name}.call"

        def end(begun: Begun) -> None:
            lease = begun[1]
            try:
                lease.call_ends(in_transaction=lease.in_transaction)
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_call(component, lease)

        return end


@dataclass(frozen=True)
class Statement(Call):
    """
    A statement is run.

    Args:
        where: See `Point`.
        optional: See `Point`.
        of_connection: See `Call`.
        opens: Whether a transaction is open afterwards, where the driver does not know.
        describe: By the object and the call's arguments: the statement, whether it is for many rows, and its
            parameters. Left out for a method of PEP 249's name, or one that has its arguments.
    """

    measures: ClassVar[Capability] = Capability.HOLD_PHASES

    opens: bool = True
    describe: Callable[[LibraryObject, Arguments, dict[str, Any]], tuple[Any, bool, Any]] | None = None

    def begins(self, adapter: PointAdapter, name: str) -> BeginCall:
        """What is done before the statement; see `Call.begins`."""
        component, connection_of, lease_of = f"{adapter.name}.call", adapter.connection_of, adapter.lease_of
        own, describe = self.of_connection, self.describe

        def begin(hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> Begun | None:
            lease = None
            try:
                connection = hooked if own else connection_of(hooked)
                lease = lease_of(connection)
                if lease is None or lease.running:
                    return None
                statement, many, parameters = (
                    dbapi_statement(name, args, kwargs) if describe is None else describe(hooked, args, kwargs)
                )
                if statement is None:  # the one before, again
                    statement = lease.statement or ""
                elif type(statement) is not str and hasattr(statement, "as_string"):
                    statement = statement.as_string(connection)  # composed SQL is quoted as the connection has it
                begin_statement(lease, statement, many=many, parameters=parameters)
                return connection, lease
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_call(component, lease)
                return None

        return begin


def _call(original: Function, begin: BeginCall, end: EndCall) -> Function:
    def call(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        begun = None
        try:
            try:
                begun = begin(self_, args, kwargs)
                return original(self_, *args, **kwargs)
            finally:
                if begun is not None:
                    end(begun)
        except BaseException:
            stop(begun)
            raise

    return call


def _call_async(original: Function, begin: BeginCall, end: EndCall) -> Function:
    async def call(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        begun = None
        try:
            try:
                begun = begin(self_, args, kwargs)
                return await (
                    original(self_, args[0]) if not kwargs and len(args) == 1 else original(self_, *args, **kwargs)
                )
            finally:
                if begun is not None:
                    end(begun)
        except BaseException:
            stop(begun)
            raise

    return call


def stop(begun: Begun | None) -> None:
    """A call has ended in an exception, and its end may have been interrupted: nothing runs any more."""
    if begun is not None:
        begun[1].running = False
