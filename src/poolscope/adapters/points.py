"""
Hook points that every checkout passes: the hot ones. An adapter lists its points; what is done at each stands here and
in `points_cold`, once.

An error of ours never reaches the application: each hook guards what it does before and after the original. A lease
whose bookkeeping failed is undone, so that it neither waits nor counts as held for ever. Each point has a hook of its
own for plain functions and for coroutine functions: a bracket that serves all of them would cost a tenth more.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from poolscope.adapters.base import Capability, Point, PointAdapter
from poolscope.adapters.connects import ASK
from poolscope.adapters.hooks import fit
from poolscope.adapters.leases import recover, recover_call, recover_quietly, undo
from poolscope.adapters.marks import KEY
from poolscope.adapters.points_cold import Close, Connect, Created, Handover, Opened, Resize, Sweep, Validation
from poolscope.adapters.statements import begin_statement, dbapi_statement
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.adapters.marks import LibraryObject
    from poolscope.core.lease import Lease

    Function = Callable[..., Any]
    Arguments = tuple[Any, ...]
    Begin = Callable[[LibraryObject, Arguments, dict[str, Any]], Lease | None]
    Finish = Callable[[LibraryObject, Arguments, dict[str, Any], LibraryObject, Lease], None]
    Failed = Callable[[LibraryObject, Arguments, dict[str, Any], Lease, BaseException], None]
    BeginCall = Callable[[LibraryObject, Arguments, dict[str, Any]], tuple[LibraryObject, Lease] | None]
    EndCall = Callable[[LibraryObject, Lease], None]

_current: Final = ASK.get
_enter: Final = ASK.set


@dataclass(frozen=True)
class Checkout(Point):
    """
    A caller checks out a connection: the result, unless a `Handover` sees it before; or the object itself, where it is
    an ``__init__`` that checks out.

    Args:
        where: See `Point`.
        optional: See `Point`.
        when: By the pool, whether this call checks out at all; every call does when left out.
        library_pool: By the object and the call's arguments, the pool; the object itself when left out.
    """

    measures: ClassVar[Capability] = Capability.WAIT

    _: KW_ONLY
    when: Callable[[LibraryObject], object] | None = None
    library_pool: Callable[[LibraryObject, Arguments, dict[str, Any]], LibraryObject] | None = None

    def make(self, adapter: PointAdapter, original: Function) -> Function:
        """
        The hook.
        """
        begin, finish, failed = _begin(self, adapter), _finish(self, adapter), _failed(self, adapter)
        return fit(
            original,
            lambda function: _checkout(function, begin, finish, failed),
            lambda function: _checkout_async(function, begin, finish, failed),
        )


def _checkout(original: Function, begin: Begin, finish: Finish, failed: Failed) -> Function:
    def checkout(self_: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        lease = begin(self_, args, kwargs)
        if lease is None:
            return original(self_, *args, **kwargs)
        outer = _current()
        _enter(lease)
        try:
            result = original(self_, *args, **kwargs)
        except BaseException as error:
            _enter(outer)
            failed(self_, args, kwargs, lease, error)
            raise
        _enter(outer)
        finish(self_, args, kwargs, result, lease)
        return result

    return checkout


def _checkout_async(original: Function, begin: Begin, finish: Finish, failed: Failed) -> Function:
    async def checkout(self_: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        lease = begin(self_, args, kwargs)
        if lease is None:
            return await original(self_, *args, **kwargs)
        outer = _current()
        _enter(lease)
        try:
            result = await original(self_, *args, **kwargs)
        except BaseException as error:
            _enter(outer)
            failed(self_, args, kwargs, lease, error)
            raise
        _enter(outer)
        finish(self_, args, kwargs, result, lease)
        return result

    return checkout


def _begin(point: Checkout, adapter: PointAdapter) -> Begin:
    site, ledger, enter = f"{adapter.name}.checkout", adapter.ledger, adapter.enter
    find, when = point.library_pool, point.when
    anchor_of = adapter.anchor if adapter.has_anchors else None

    def begin(hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> Lease | None:
        # Another ledger than at first: this hook stayed behind, since somebody had wrapped it.
        if ledger is None or adapter.ledger is not ledger or (ledger.asleep and ledger.still_asleep()):
            return None
        try:
            library_pool = hooked if find is None else find(hooked, args, kwargs)
            if library_pool is None or (when is not None and not when(library_pool)):
                return None
            anchor = library_pool if anchor_of is None else anchor_of(library_pool)
            if anchor is None:
                return None
            pool = anchor.__dict__.get(KEY) or enter(library_pool)
            return pool.ask(None, 3) if pool is not None else None  # past this and the hook that called
        except Exception:  # noqa: BLE001 - ours; the checkout goes on without us
            guard.caught(site)
            return None

    return begin


def _finish(point: Checkout, adapter: PointAdapter) -> Finish:
    site, tie, find = f"{adapter.name}.checkout", adapter.tie, point.library_pool

    def finish(hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any], result: Any, lease: Lease) -> None:  # noqa: ANN401
        try:
            lease.grant()
            library_pool = hooked if find is None else find(hooked, args, kwargs)
            tie(library_pool, hooked if result is None else result, lease)
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            recover(site, lease)

    def finish_handed_over(_: LibraryObject, __: Arguments, ___: dict[str, Any], ____: Any, lease: Lease) -> None:  # noqa: ANN401
        try:
            if lease in lease.pool.leases:
                lease.grant()
            else:  # it was not seen, or its hook failed
                undo(lease)
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            recover(site, lease)

    return finish_handed_over if any(isinstance(point, Handover) for point in adapter.points) else finish


def _failed(point: Checkout, adapter: PointAdapter) -> Failed:
    site, find = f"{adapter.name}.failed", point.library_pool

    def failed(
        hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any], lease: Lease, error: BaseException
    ) -> None:
        try:
            adapter.failed(hooked if find is None else find(hooked, args, kwargs), lease, error, args)
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            recover(site, lease)

    return failed


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

    def make(self, adapter: PointAdapter, original: Function) -> Function:
        """
        The hook.
        """
        site, untie = f"{adapter.name}.checkin", adapter.untie
        of_connection, abandoned = self.of_connection, self.abandoned

        def end(hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> None:
            lease = None
            try:
                if of_connection:
                    lease = untie(None, hooked)
                else:
                    lease = untie(hooked, args[0] if args else next(iter(kwargs.values()), None))
                if lease is not None:
                    lease.end(abandoned=abandoned)
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                if abandoned:
                    recover_quietly(site, lease)
                else:
                    recover(site, lease)

        def plain(original: Function) -> Function:
            def checkin(self_: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
                end(self_, args, kwargs)
                return original(self_, *args, **kwargs)

            return checkin

        def coroutine(original: Function) -> Function:
            async def checkin(self_: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
                end(self_, args, kwargs)
                return await original(self_, *args, **kwargs)

            return checkin

        return fit(original, plain, coroutine)


@dataclass(frozen=True)
class Abandoned(Checkin):
    """
    What a caller held was dropped without being returned: the ``__del__`` of it. The garbage collector calls that.
    """

    measures: ClassVar[Capability] = Capability.ABANDONED

    of_connection: bool = True
    abandoned: bool = True


@dataclass(frozen=True)
class Call(Point):
    """
    A call to the server that is no statement: the beginning or end of a transaction, a further fetch.

    Args:
        where: See `Point`.
        optional: See `Point`.
        opens: Whether a transaction is open afterwards, where the driver does not know.
    """

    _: KW_ONLY
    opens: bool = False

    def make(self, adapter: PointAdapter, original: Function) -> Function:
        """
        The hook.
        """
        begin, end = self.begins(adapter, original.__name__), self.ends(adapter)
        return fit(
            original, lambda function: _call(function, begin, end), lambda function: _call_async(function, begin, end)
        )

    def begins(self, adapter: PointAdapter, name: str) -> BeginCall:  # noqa: ARG002 - for a `Statement`
        """
        What is done before the call: it returns the connection and its lease; None where the connection is not held, or
        where this call is part of one that is counted.
        """
        site, connection_of, lease_of = f"{adapter.name}.call", adapter.connection_of, adapter.lease_of

        def begin(hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> tuple[LibraryObject, Lease] | None:  # noqa: ARG001
            lease = None
            try:
                connection = connection_of(hooked)
                lease = lease_of(connection)
                if lease is None or lease.running:
                    return None
                lease.call_begins()
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_call(site, lease)
                return None
            return connection, lease

        return begin

    def ends(self, adapter: PointAdapter) -> EndCall:
        """
        What is done after it, whether it ended well or not.
        """
        site, in_transaction, opens = f"{adapter.name}.call", adapter.in_transaction, self.opens

        def end(connection: LibraryObject, lease: Lease) -> None:
            try:
                known = in_transaction(connection)
                lease.call_ends(in_transaction=opens if known is None else known)
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_call(site, lease)

        return end


@dataclass(frozen=True)
class Statement(Call):
    """
    A statement is run.

    Args:
        where: See `Point`.
        optional: See `Point`.
        opens: Whether a transaction is open afterwards, where the driver does not know.
        describe: By the object and the call's arguments: the statement, whether it is for many rows, and its
            parameters. Left out for a method of PEP 249's name, or one that has its arguments.
    """

    measures: ClassVar[Capability] = Capability.USE_PHASES

    opens: bool = True
    describe: Callable[[LibraryObject, Arguments, dict[str, Any]], tuple[Any, bool, Any]] | None = None

    def begins(self, adapter: PointAdapter, name: str) -> BeginCall:
        """
        What is done before the statement; see `Call.begins`.
        """
        site, connection_of, lease_of = f"{adapter.name}.call", adapter.connection_of, adapter.lease_of
        describe = self.describe

        def begin(hooked: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> tuple[LibraryObject, Lease] | None:
            lease = None
            try:
                connection = connection_of(hooked)
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
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_call(site, lease)
                return None
            return connection, lease

        return begin


def _call(original: Function, begin: BeginCall, end: EndCall) -> Function:
    def call(self_: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        begun = begin(self_, args, kwargs)
        if begun is None:
            return original(self_, *args, **kwargs)
        try:
            return original(self_, *args, **kwargs)
        finally:
            end(*begun)

    return call


def _call_async(original: Function, begin: BeginCall, end: EndCall) -> Function:
    async def call(self_: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        begun = begin(self_, args, kwargs)
        if begun is None:
            return await original(self_, *args, **kwargs)
        try:
            return await original(self_, *args, **kwargs)
        finally:
            end(*begun)

    return call


__all__: Final = [
    "Abandoned",
    "Call",
    "Checkin",
    "Checkout",
    "Close",
    "Connect",
    "Created",
    "Handover",
    "Opened",
    "PointAdapter",
    "Resize",
    "Statement",
    "Sweep",
    "Validation",
]
