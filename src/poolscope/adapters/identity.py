"""
What a pool is and what it is called: from what its library was given, from a connection, and from
the application.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.address import file_of, place
from poolscope.core.guard import guard
from poolscope.core.pool_identity import POOL_NAME, Identity
from poolscope.core.pool_registry import OVERFLOW
from poolscope.names import may_hold_login

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from poolscope.core.pool import Pool
    from poolscope.types import LibraryObject

#: By adapter: how a framework that makes pools names one of them.
NAMERS: Final[dict[str, Callable[[LibraryObject], str | None]]] = {}

#: The names that the application gave to pools by `poolscope.pool_name`, by their anchor; they outlive our presence.
NAMES: Final[weakref.WeakKeyDictionary[LibraryObject, str]] = weakref.WeakKeyDictionary()

_SECRET: Final = re.compile("pass|pwd|token|secret", re.IGNORECASE)
# In a URL, and in libpq's form.
_PASSWORD: Final = re.compile(r"(?<![^/@])(?P<login>[^/@]+)@|password\s*=\s*(?:'[^']*'|\S+)")

_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "oracle.db": 1521, "microsoft.sql_server": 1433}


def identity(
    system: str, *, name: object = None, namespace: object = None, address: object = None, port: object = None
) -> Identity:
    """
    A pool's identity; its name is made of the server and the database where the user gave none. Where one of the three
    may be something else than it should, such as a part of a password, it has none of them.

    Args:
        system: As the semantic conventions name it.
        name: What the user named it; a text.
        namespace: The database.
        address: The server's address, or its socket's folder; several in a list or with commas between.
        port: The server's port as a number or text; the system's own where there is none.
    """
    where = place(address, port, namespace)
    number = where.port
    if number is None and where.address is not None and not where.address.startswith("/") and not port:
        number = _PORTS.get(system)
    chosen = _own(name) or _default_name(system, where.address, number, where.namespace)
    return Identity(chosen, system, where.namespace, where.address, number)


def file_identity(system: str, path: object, *, name: object = None) -> Identity:
    """
    The identity of a pool to a database that is a file.

    Args:
        system: As the semantic conventions name it.
        path: The file, or its URI; nothing for a database in memory.
        name: What the user named it; a text.
    """
    file = file_of(path)
    return Identity(_own(name) or _default_name(system, None, None, file), system, file)


def _own(name: object) -> str | None:
    # Libraries take anything for a name.
    return name if isinstance(name, str) and name and not may_hold_login(name) else None


def learn(pool: Pool, component: str, identify: Callable[[], Identity | None]) -> None:
    """
    A connection was made: where nothing named the pool's server before, it may. The pool's name stays what it is.

    Args:
        pool: The pool.
        component: What an error of ours is counted as.
        identify: What the pool is, by the connection; called only where that is wanted.
    """
    known = pool.identity
    if known.address is not None or known.name == OVERFLOW:
        return
    what = guard.run(component, identify, None)
    if what is not None and what.address is not None:
        namespace = known.namespace or what.namespace
        pool.identity = replace(known, namespace=namespace, address=what.address, port=what.port)


def remember_name(anchor: LibraryObject) -> None:
    """
    A pool was made: if the application names those that it makes now, this one has that name, also when it becomes
    known only later.
    """
    name = POOL_NAME.get()
    if name is not None:
        NAMES[anchor] = name


def named(anchor: LibraryObject, what: Identity) -> Identity:
    """A pool's identity with the name that the application gave it by `poolscope.pool_name`, if it did."""
    name = NAMES.get(anchor) or POOL_NAME.get()
    if name is None or may_hold_login(name):
        return what
    NAMES[anchor] = name
    return replace(what, name=name)


def name_by_framework(library_pool: LibraryObject) -> str | None:
    """The name of a pool that a framework made, such as Django's alias of the database."""
    for name_of in NAMERS.values():
        name = guard.run("identity.namer", lambda name_of=name_of: name_of(library_pool), None)  # type: ignore[misc]
        if name is not None:
            return str(name)
    return None


def error_name(error: BaseException) -> str:
    """An exception's qualified name, as `error.type` has it: without the module for built-in ones."""
    kind = type(error)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def login_of(arguments: LibraryObject) -> int:
    """
    A number that differs between pools that connect as different users or with different options, and says nothing
    else: the interpreter's hash of them. No password is part of it, since a token may be another each time.

    Args:
        arguments: Mappings, sequences and texts, as a library was given them; what else is among them does not count.
    """
    return hash(tuple(_parts_of(arguments)))


def _parts_of(arguments: LibraryObject) -> Iterator[object]:
    if isinstance(arguments, Mapping):
        for key in sorted(map(str, arguments)):
            if not _SECRET.search(key):
                yield key
                yield from _parts_of(arguments.get(key))
    elif isinstance(arguments, (list, tuple)):
        for one in arguments:
            yield from _parts_of(one)
    elif isinstance(arguments, str):
        yield _PASSWORD.sub(_without_password, arguments)
    elif isinstance(arguments, int):
        yield arguments


def _without_password(match: re.Match[str]) -> str:
    login = match["login"]
    return login.partition(":")[0] + "@" if login is not None else ""


def first_of(mappings: Iterable[Mapping[str, Any]], *keys: str) -> LibraryObject:
    """The first value that is set under one of the keys."""
    for mapping in mappings:
        for key in keys:
            if mapping.get(key):
                return mapping[key]
    return None


def _default_name(system: str, address: str | None, port: int | None, namespace: str | None) -> str:
    if address is None:
        return f"{system}/{namespace}" if namespace else system
    place = f"{address}:{port}" if port else address
    return f"{place}/{namespace}" if namespace else place
