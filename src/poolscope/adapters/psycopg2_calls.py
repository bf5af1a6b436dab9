"""
What a pooled psycopg2 connection does while it is out: its calls to the server.

psycopg2's connections and cursors are made in C, where nothing can be hooked, and what stands in for one is refused by
its functions that are written in C. But classes may be derived from theirs, and psycopg2 may be told of which class a
connection is to be (``connection_factory``). So the pool is told to make connections of a class that differs from the
one that it would have made in nothing but the hooked methods; the same goes for the cursors of those connections.
The application's own classes keep their place in front: the hooks go between them and psycopg2's.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.calls import Calls, dbapi_statement, driver_lease, libpq_in_transaction
from poolscope.adapters.marks import DRIVER_KEY, WATCHED_KEY
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.adapters.calls import Describe
    from poolscope.core.lease import Lease
    from poolscope.core.types import LibraryObject

_FACTORY: Final = "connection_factory"
# The place of the connection's class and the cursor's among the arguments of psycopg2.connect() and cursor().
_FACTORY_PLACE: Final = 1


_TRANSACTION: Final = ("commit", "rollback", "reset", "tpc_begin", "tpc_prepare", "tpc_commit", "tpc_rollback")


class Classes:
    """
    The classes with the hooked methods, by what they are derived from; made when they are needed.
    """

    def __init__(self) -> None:
        from psycopg2 import extensions  # noqa: PLC0415 - only where it is in use

        self._connection = extensions.connection
        self._cursor = extensions.cursor
        self._hooked_cursor = _like(self._cursor, (self._cursor,), _cursor_methods(self._cursor))
        self._hooked_connection = _like(
            self._connection, (self._connection,), _connection_methods(self._connection, self.of_cursor)
        )
        self._derived: dict[Any, Any] = {
            self._cursor: self._hooked_cursor,
            self._connection: self._hooked_connection,
        }

    def of_connection(self, kind: LibraryObject) -> LibraryObject:
        """
        The class to use in a connection class's place; None where there is none, as for a function that makes them.
        """
        return self._of(kind if kind is not None else self._connection, self._connection, self._hooked_connection)

    def of_cursor(self, kind: LibraryObject) -> LibraryObject:
        """
        The same for a cursor's.
        """
        return self._of(kind if kind is not None else self._cursor, self._cursor, self._hooked_cursor)

    def _of(self, kind: LibraryObject, base: type, hooked: type) -> LibraryObject:
        if kind in self._derived:
            return self._derived[kind]
        if not isinstance(kind, type) or not issubclass(kind, base) or issubclass(kind, hooked):
            return None
        made = guard.run("psycopg2.class", lambda: _like(kind, (kind, hooked), {}), None)
        self._derived[kind] = made
        return made


def watch(pool: LibraryObject, classes: Classes) -> None:
    """
    Let a pool make connections of a hooked class from now on.
    """
    args, kwargs = pool._args, pool._kwargs
    by_place = len(args) > _FACTORY_PLACE
    kind = args[_FACTORY_PLACE] if by_place else kwargs.get(_FACTORY)
    hooked = classes.of_connection(kind)
    if hooked is None:
        return
    pool.__dict__[WATCHED_KEY] = (args, kwargs)
    if by_place:
        pool._args = (*args[:_FACTORY_PLACE], hooked, *args[_FACTORY_PLACE + 1 :])
    else:
        pool._kwargs = {**kwargs, _FACTORY: hooked}


def unwatch(pool: LibraryObject) -> None:
    """
    Let a pool make connections as it did; those that it has stay what they are, and their hooks do nothing.
    """
    before = pool.__dict__.pop(WATCHED_KEY, None)
    if before is not None:
        pool._args, pool._kwargs = before
    for connection in (*pool._pool, *pool._used.values()):
        getattr(connection, "__dict__", {}).pop(DRIVER_KEY, None)


def mark(connection: LibraryObject, lease: Lease | None) -> None:
    """
    Tie a connection of a hooked class to its lease, or to none.
    """
    marks = getattr(connection, "__dict__", None)
    if marks is not None:
        if lease is not None:
            marks[DRIVER_KEY] = lease
        else:
            marks.pop(DRIVER_KEY, None)


def _like(kind: type, bases: tuple[type, ...], methods: dict[str, Any]) -> type:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, bases, {**names, **methods})


# The hot path -------------------------------------------------------------------------------------------------------


def _connection_methods(
    base: LibraryObject, of_cursor: Callable[[LibraryObject], LibraryObject]
) -> dict[str, LibraryObject]:
    plain_cursor = base.cursor

    def cursor(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        if driver_lease(self) is None:
            return plain_cursor(self, *args, **kwargs)
        by_place = len(args) > _FACTORY_PLACE
        kind = args[_FACTORY_PLACE] if by_place else kwargs.get("cursor_factory")
        hooked = of_cursor(kind if kind is not None else self.cursor_factory)
        if hooked is None:
            return plain_cursor(self, *args, **kwargs)
        if by_place:
            return plain_cursor(self, *args[:_FACTORY_PLACE], hooked, *args[_FACTORY_PLACE + 1 :], **kwargs)
        return plain_cursor(self, *args, **{**kwargs, "cursor_factory": hooked})

    return {
        "cursor": cursor,
        **{name: _like_theirs(base, name, _CALLS.around(getattr(base, name))) for name in _TRANSACTION},
    }


def _cursor_methods(base: LibraryObject) -> dict[str, LibraryObject]:
    described: dict[str, Describe | None] = {
        **dict.fromkeys(("execute", "executemany", "callproc")),
        "copy_from": lambda _, args, kwargs: (f"COPY {_table(args, kwargs)} FROM STDIN", True, None),
        "copy_to": lambda _, args, kwargs: (f"COPY {_table(args, kwargs)} TO STDOUT", True, None),
        "copy_expert": lambda _, args, kwargs: (dbapi_statement("copy_expert", args, kwargs)[0], True, None),
    }
    return {
        name: _like_theirs(base, name, _CALLS.around_statement(getattr(base, name), _connection_of, describe))
        for name, describe in described.items()
    }


def _like_theirs(base: LibraryObject, name: str, method: Callable[..., LibraryObject]) -> Callable[..., LibraryObject]:
    return wraps(getattr(base, name))(method)


def _table(args: tuple[LibraryObject, ...], kwargs: dict[str, LibraryObject]) -> LibraryObject:
    return args[1] if len(args) > 1 else kwargs.get("table", "")


def _connection_of(cursor: LibraryObject) -> LibraryObject:
    return cursor.connection


_CALLS: Final = Calls(
    "psycopg2.call",
    driver_lease,
    lambda connection, _: libpq_in_transaction(connection.get_transaction_status()),
)
