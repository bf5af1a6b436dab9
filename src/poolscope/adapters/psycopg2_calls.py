"""
What a pooled psycopg2 connection does while a caller holds it: its calls to the server.

psycopg2's connections and cursors are made in C, where nothing can be hooked, and what stands in for one is refused by
its functions that are written in C. But classes may be derived from theirs, and an argument says of which class a
connection is to be (``connection_factory``). So the pool makes connections of a class that differs from the
one that it would have made in nothing but the hooked methods; the same goes for the cursors of those connections.
The application's own classes keep their place in front: the hooks go between them and psycopg2's.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.marks import LEASES_KEY, WATCHED_KEY
from poolscope.adapters.points import Call, Fetch, Statement
from poolscope.adapters.statements import dbapi_statement
from poolscope.core.guard import guard
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.adapters.base import Point, PointAdapter
    from poolscope.types import LibraryObject

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# The place of the connection's class and the cursor's among the arguments of psycopg2.connect() and cursor().
_FACTORY_PLACE: Final = 1


def _table(args: tuple[LibraryObject, ...], kwargs: dict[str, LibraryObject]) -> LibraryObject:
    return args[1] if len(args) > 1 else kwargs.get("table", "")


_OF_CONNECTION: Final = tuple(
    Call(name) for name in ("commit", "rollback", "reset", "tpc_begin", "tpc_prepare", "tpc_commit", "tpc_rollback")
)
_OF_CURSOR: Final = (
    *(Statement(name) for name in ("execute", "executemany", "callproc")),
    Statement("copy_from", describe=lambda _, args, kwargs: (f"COPY {_table(args, kwargs)} FROM STDIN", True, None)),
    Statement("copy_to", describe=lambda _, args, kwargs: (f"COPY {_table(args, kwargs)} TO STDOUT", True, None)),
    Statement(
        "copy_expert", describe=lambda _, args, kwargs: (dbapi_statement("copy_expert", args, kwargs)[0], True, None)
    ),
)


class _Next(Fetch):
    """The next row of a named cursor: of the block of rows that it has fetched, or the first one of another block."""

    @override
    def make(self, adapter: PointAdapter, original: Callable[..., Any]) -> Callable[..., Any]:
        fetch = super().make(adapter, original)

        def __next__(self_: LibraryObject) -> LibraryObject:
            return original(self_) if self_.rownumber < self_.rowcount else fetch(self_)

        return __next__


# What only named cursors send by these: those without a name have all rows.
_OF_NAMED_CURSOR: Final = (
    *_OF_CURSOR,
    *(Fetch(name) for name in ("fetchone", "fetchmany", "fetchall", "scroll", "close")),
    _Next("__next__"),
)


class Derived:
    """
    The classes with the hooked methods of one of psycopg2's, by what they are derived from; made when they are needed.

    Args:
        base: psycopg2's class.
        methods: The hooked methods.
    """

    def __init__(self, base: type, methods: dict[str, Any]) -> None:
        self._base = base
        self._hooked = _like(base, (base,), methods)
        self._made: dict[Any, Any] = {base: self._hooked}

    def of(self, kind: LibraryObject) -> LibraryObject:
        """
        The class to use in the place of another, or of psycopg2's where there is no other; None where there is none, as
        for a function that makes connections.
        """
        if kind is None:
            return self._hooked
        if not isinstance(kind, type) or not issubclass(kind, self._base) or issubclass(kind, self._hooked):
            return None
        if kind in self._made:
            return self._made[kind]
        made = guard.run("psycopg2.class", lambda: _like(kind, (kind, self._hooked), {}), None)
        self._made[kind] = made
        return made

    def instead(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], keyword: str, otherwise: LibraryObject = None
    ) -> Arguments:
        """
        The arguments of a call with a hooked class in the place of the one that they ask for.

        Args:
            args: Those by place.
            kwargs: Those by name.
            keyword: The name of the one that asks for a class.
            otherwise: The class that is used where they ask for none.
        """
        by_place = len(args) > _FACTORY_PLACE
        kind = args[_FACTORY_PLACE] if by_place else kwargs.get(keyword)
        hooked = self.of(kind if kind is not None else otherwise)
        if hooked is None:
            return args, kwargs
        if by_place:
            return (*args[:_FACTORY_PLACE], hooked, *args[_FACTORY_PLACE + 1 :]), kwargs
        return args, {**kwargs, keyword: hooked}


def connection_classes(adapter: PointAdapter) -> Derived:
    """
    The hooked classes of connections, which make cursors of hooked classes.

    Args:
        adapter: Of psycopg2's pools.
    """
    from psycopg2 import extensions  # noqa: PLC0415 - only where it is in use

    plain, cursor = extensions.connection, extensions.cursor
    cursors = Derived(cursor, _methods(adapter, cursor, _OF_CURSOR))
    named = Derived(cursor, _methods(adapter, cursor, _OF_NAMED_CURSOR))
    methods = _methods(adapter, plain, _OF_CONNECTION)
    return Derived(plain, {"cursor": _cursor_method(adapter, plain.cursor, cursors, named), **methods})


def watch(library_pool: LibraryObject, classes: Derived) -> None:
    """Let a pool make connections of a hooked class from now on."""
    if WATCHED_KEY not in library_pool.__dict__:
        before = library_pool._args, library_pool._kwargs
        instead = classes.instead(*before, "connection_factory")
        library_pool.__dict__.setdefault(WATCHED_KEY, before)  # another thread may have been first
        library_pool._args, library_pool._kwargs = instead


def mark(library_pool: LibraryObject, *connections: LibraryObject) -> None:
    """Let connections find the leases of their pool, those of hooked classes and whichever else can carry a mark."""
    leases = library_pool.__dict__.get(LEASES_KEY)
    for connection in connections if leases is not None else ():
        getattr(connection, "__dict__", {})[LEASES_KEY] = leases


def unwatch(library_pool: LibraryObject) -> None:
    """Let a pool make connections as it did; those that it has stay what they are, and their hooks do nothing."""
    before = library_pool.__dict__.pop(WATCHED_KEY, None)
    if before is not None:
        library_pool._args, library_pool._kwargs = before
    for connection in (*library_pool._pool, *library_pool._used.values()):
        getattr(connection, "__dict__", {}).pop(LEASES_KEY, None)


def _like(kind: type, bases: tuple[type, ...], methods: dict[str, Any]) -> type:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, bases, {**names, **methods})


def _methods(adapter: PointAdapter, base: LibraryObject, points: tuple[Point, ...]) -> dict[str, LibraryObject]:
    originals = {point: getattr(base, point.where) for point in points}
    return {point.where: wraps(original)(point.make(adapter, original)) for point, original in originals.items()}


def _cursor_method(
    adapter: PointAdapter, original: Callable[..., Any], cursors: Derived, named: Derived
) -> Callable[..., Any]:
    lease_of = adapter.lease_of

    def cursor(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        try:
            if lease_of(self_) is not None:
                classes = cursors
                if (args or kwargs) and (args[0] if args else kwargs.get("name")) is not None:
                    classes = named
                args, kwargs = classes.instead(args, kwargs, "cursor_factory", self_.cursor_factory)
        except Exception:  # noqa: BLE001 - ours
            guard.caught("psycopg2.cursor")
        return original(self_, *args, **kwargs)

    return wraps(original)(cursor)
