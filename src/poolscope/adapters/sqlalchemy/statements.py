"""
What a SQLAlchemy connection does while a caller holds it: its calls to the server. Hot, and written out like checkouts.

Statements pass through the dialect's ``do_execute``, ``do_executemany`` and ``do_execute_no_params``, the ends of
transactions through ``do_commit`` and ``do_rollback`` (sqlalchemy/engine/default.py, the public interface ``Dialect``).
Hooking them costs a third of what a pair of cursor events does, leaves engines without events on their short way, and
sees errors too. Rows of a server-side cursor are fetched by a strategy of its own, which is hooked besides. Pre-pings,
fetches from any other cursor and what a driver does by itself do not pass here: they count as idle time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from poolscope.adapters.base import Capability, Point
from poolscope.adapters.leases import begin_fetch, end_fetch, recover_call
from poolscope.adapters.marks import KEY
from poolscope.adapters.points.brackets import library_frames
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.adapters.base import PointAdapter
    from poolscope.core.lease import Lease
    from poolscope.types import LibraryObject

    Function = Callable[..., Any]

_COMPONENT: Final = "sqlalchemy.call"
# Methods of an execution context that make the strategy of a server-side cursor.
_MAKES_STRATEGY: Final = frozenset({"_setup_result_proxy", "_setup_dml_or_text_result"})


class DialectPoint(Point):
    """A method of ``DefaultDialect``; also hooked where a dialect has its own."""


class Statement(DialectPoint):
    """A statement is run with its parameters."""

    measures: ClassVar[Capability] = Capability.HOLD_PHASES

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:  # noqa: ARG002

        def do_execute(
            self: LibraryObject,
            cursor: LibraryObject,
            statement: LibraryObject,
            parameters: LibraryObject,
            context: LibraryObject = None,
        ) -> LibraryObject:
            lease = None
            try:
                lease = _begin(context, statement, parameters)
                return original(self, cursor, statement, parameters, context)
            finally:
                if lease is not None:
                    _end(lease, self, context)

        return do_execute


class BareStatement(DialectPoint):
    """A statement is run that has none."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:  # noqa: ARG002

        def do_execute_no_params(
            self: LibraryObject, cursor: LibraryObject, statement: LibraryObject, context: LibraryObject = None
        ) -> LibraryObject:
            lease = None
            try:
                lease = _begin(context, statement, None)
                return original(self, cursor, statement, context)
            finally:
                if lease is not None:
                    _end(lease, self, context)

        return do_execute_no_params


class TransactionEnd(DialectPoint):
    """A transaction ends."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:  # noqa: ARG002

        def do_end(self: LibraryObject, dbapi_connection: LibraryObject) -> LibraryObject:
            try:  # `_lease_of` spelt out
                lease = dbapi_connection._connection_record._poolscope or dbapi_connection.__dict__.get(KEY)
            except AttributeError:
                lease = None
            # With no transaction open a driver sends nothing: the reset of every bare return would pay for the timing.
            if lease is None or not lease.in_transaction or lease.running:
                return original(self, dbapi_connection)
            try:
                try:
                    lease.call_begins()
                except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                    recover_call(_COMPONENT, lease)
                return original(self, dbapi_connection)
            finally:
                try:
                    if lease.running:  # else its beginning failed
                        lease.call_ends(in_transaction=False)
                except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                    recover_call(_COMPONENT, lease)

        return do_end


class Fetch(Point):
    """Rows of a server-side cursor are fetched into its buffer, or past it."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:  # noqa: ARG002

        def fetch(
            self_: LibraryObject, result: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject
        ) -> LibraryObject:
            lease = None
            try:
                lease = begin_fetch(_COMPONENT, lambda: _lease_in(result.context))
                return original(self_, result, *args, **kwargs)
            finally:
                end_fetch(_COMPONENT, lease)

        return fetch


class FirstFetch(Point):
    """The buffer of a server-side cursor is made, with the first row in it."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:  # noqa: ARG002

        def __init__(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> None:
            lease = None
            try:
                lease = begin_fetch(_COMPONENT, lambda: _lease_in(_context()))
                original(self_, *args, **kwargs)
            finally:
                end_fetch(_COMPONENT, lease)

        return __init__


def _context() -> LibraryObject:
    # The strategy does not know whose cursor it gets; the execution context, which makes it, does.
    for frame in library_frames(("sqlalchemy.engine",), _MAKES_STRATEGY):
        return frame.f_locals["self"]
    return None


def _lease_in(context: LibraryObject) -> Lease | None:
    try:
        fairy = context.root_connection._dbapi_connection
        lease: Lease | None = fairy._connection_record._poolscope or fairy.__dict__.get(KEY)
    except AttributeError:
        return None
    return lease


def _begin(context: LibraryObject, statement: str, parameters: LibraryObject) -> Lease | None:
    # None when there is no lease, as at the dialect's start-up, or when a dialect's method calls its parent's.
    try:
        fairy = context.root_connection._dbapi_connection
        lease: Lease | None = fairy._connection_record._poolscope or fairy.__dict__.get(KEY)
    except AttributeError:
        return None
    if lease is None or lease.running:
        return None
    try:
        many = lease.usage is not None and bool(context.executemany)
        lease.statement_begins(statement, many=many, parameters=parameters)
        return lease
    except BaseException:  # noqa: BLE001 - ours, or a signal handler's
        recover_call(_COMPONENT, lease)
        return None


def _end(lease: Lease, dialect: LibraryObject, context: LibraryObject) -> None:
    try:
        level = context.root_connection._execution_options.get("isolation_level")
        if level is None:
            level = getattr(dialect, "_on_connect_isolation_level", None)
        lease.call_ends(in_transaction=level != "AUTOCOMMIT")
    except BaseException:  # noqa: BLE001 - ours, or a signal handler's
        recover_call(_COMPONENT, lease)
