"""
What an adapter's hooks have in common around the calls that a connection makes to its server: find the lease, tell it
that a call begins, let the call happen, tell it that it is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.libpq import is_in_transaction as libpq_in_transaction
from poolscope.adapters.statements import begin_statement, dbapi_statement
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.types import LibraryObject

    LeaseOf = Callable[[Any], Lease | None]
    #: From the hooked object and the call's arguments: the statement, whether it is for many rows, its parameters.
    Describe = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[Any, bool, Any]]


class Calls:
    """
    Brackets the calls of one driver's connections. Nothing of ours is raised into them.

    Args:
        component: Where errors of ours are counted, such as ``aiomysql.call``.
        lease_of: Finds the lease of a connection.
        in_transaction: Whether a transaction is open on a connection, asked after each call. Its second argument is
            whether the call opens one by PEP 249, for drivers that do not tell.
    """

    def __init__(self, component: str, lease_of: LeaseOf, in_transaction: Callable[[Any, bool], object]) -> None:
        self._site = component
        self._lease_of = lease_of
        self._in_transaction = in_transaction

    def begin_statement(
        self,
        connection: LibraryObject,
        statement: LibraryObject,
        *,
        many: bool = False,
        parameters: LibraryObject = None,
    ) -> Lease | None:
        """
        A statement begins.

        Args:
            connection: What `lease_of` knows.
            statement: As the driver gets it; None where that repeats the one before.
            many: Whether one call runs it for many rows.
            parameters: What the driver gets for its parameters, where it is at hand.

        Returns:
            The lease, for `end`; None where there is none, or where the statement is part of a call that is counted.
        """
        try:
            lease = self._lease_of(connection)
            if lease is None or lease.running:
                return None
            if statement is None:
                statement = lease.statement or ""
            elif hasattr(statement, "as_string"):  # composed SQL is quoted as the connection has it
                statement = statement.as_string(connection)
            begin_statement(lease, statement, many=many, parameters=parameters)
        except Exception:  # noqa: BLE001 - ours
            guard.caught(self._site)
            return None
        return lease

    def begin(self, connection: LibraryObject) -> Lease | None:
        """
        A call begins that is no statement: the beginning or the end of a transaction, a further fetch.
        """
        try:
            lease = self._lease_of(connection)
            if lease is None or lease.running:
                return None
            lease.call_begins()
        except Exception:  # noqa: BLE001 - ours
            guard.caught(self._site)
            return None
        return lease

    def end(self, lease: Lease | None, connection: LibraryObject, *, opened: bool = False) -> None:
        """
        The call is over, well or not.

        Args:
            lease: What its beginning returned.
            connection: The connection.
            opened: Whether it opens a transaction by PEP 249, as a statement does.
        """
        if lease is None:
            return
        try:
            lease.call_ends(in_transaction=bool(self._in_transaction(connection, opened)))
        except Exception:  # noqa: BLE001 - ours
            guard.caught(self._site)

    # Hooks. Of a connection's own methods:

    def around(self, original: Callable[..., Any], *, opens: bool = False) -> Callable[..., Any]:
        """
        A connection's method that calls the server with no statement.

        Args:
            original: The method.
            opens: Whether it opens a transaction.
        """

        def call(self_: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            lease = self.begin(self_)
            try:
                return original(self_, *args, **kwargs)
            finally:
                self.end(lease, self_, opened=opens)

        return call

    def around_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """
        The same where it is a coroutine function.
        """

        async def call(self_: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            lease = self.begin(self_)
            try:
                return await original(self_, *args, **kwargs)
            finally:
                self.end(lease, self_)

        return call

    # Of a cursor's, or a connection's, that run statements:

    def around_statement(
        self, original: Callable[..., Any], connection_of: Callable[[Any], Any], describe: Describe | None = None
    ) -> Callable[..., Any]:
        """
        A method that runs a statement.

        Args:
            original: The method; of PEP 249's name, or described.
            connection_of: Finds the connection.
            describe: Tells what is run, where the method's name and first arguments do not.
        """
        what = describe or _by_name(original.__name__)

        def call(self_: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            connection, lease = self._statement_of(self_, connection_of, what, args, kwargs)
            if lease is None:
                return original(self_, *args, **kwargs)
            try:
                return original(self_, *args, **kwargs)
            finally:
                self.end(lease, connection, opened=True)

        return call

    def around_statement_async(
        self, original: Callable[..., Any], connection_of: Callable[[Any], Any]
    ) -> Callable[..., Any]:
        """
        The same where it is a coroutine function.
        """
        what = _by_name(original.__name__)

        async def call(self_: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            connection, lease = self._statement_of(self_, connection_of, what, args, kwargs)
            if lease is None:
                return await original(self_, *args, **kwargs)
            try:
                return await original(self_, *args, **kwargs)
            finally:
                self.end(lease, connection, opened=True)

        return call

    def _statement_of(
        self,
        hooked: LibraryObject,
        connection_of: Callable[[Any], Any],
        describe: Describe,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, Lease | None]:
        try:
            connection = connection_of(hooked)
            statement, many, parameters = describe(hooked, args, kwargs)
        except Exception:  # noqa: BLE001 - ours
            guard.caught(self._site)
            return None, None
        return connection, self.begin_statement(connection, statement, many=many, parameters=parameters)


def _by_name(name: str) -> Describe:
    return lambda _, args, kwargs: dbapi_statement(name, args, kwargs)


__all__: Final = ["Calls", "dbapi_statement", "libpq_in_transaction"]
