"""
A connection to a pool's server beside the pool, for the server probe (`poolscope.detectors.server_probe`).

It logs in with what the pool's library was given; where that is not plain (a function that makes a password, a TLS
context), there is none. Nothing of it is kept, logged or sent elsewhere.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from poolscope.types import LibraryObject

#: Seconds that a connect may take. libpq makes two of one second.
_TIMEOUT: Final = 1
_NAME: Final = "poolscope"

_LIBPQ: Final = frozenset({
    "host", "hostaddr", "port", "dbname", "user", "password", "passfile", "service", "sslmode", "sslcert", "sslkey",
    "sslrootcert", "sslcrl", "gssencmode", "channel_binding", "target_session_attrs",
})  # fmt: skip
_MYSQL: Final = frozenset({"host", "port", "user", "password", "database", "unix_socket"})
_ALIASES: Final = {
    "postgresql": {"database": "dbname", "ssl": "sslmode"},
    "mysql": {"db": "database", "passwd": "password", "username": "user"},
}
# How options of MySQL's drivers begin that stand for more than is passed on: TLS, but where it is turned off, and files
# with further options. What is not named here, or above, has no effect on a login.
_MORE: Final = ("ssl", "read_default_", "option_files")
_NO_TLS: Final = "ssl_disabled"


class _Unknown(Exception):  # noqa: N818 - it never leaves this module
    """How to log in is not plain."""


def opener(system: str, given: LibraryObject) -> Callable[[], Any] | None:
    """
    How to connect to a server beside a pool.

    Args:
        system: The database, as the semantic conventions name it.
        given: What the pool's connections are made with: mappings, sequences and texts.

    Returns:
        A function that opens a connection as PEP 249 has it, with a timeout; None where there is no such way.
    """
    known = {"postgresql": _LIBPQ, "mysql": _MYSQL, "mariadb": _MYSQL}.get(system)
    if known is None:
        return None
    family = "postgresql" if system == "postgresql" else "mysql"
    texts: list[str] = []
    login: dict[str, Any] = {}
    try:
        for name, value in _parts(given):
            key = _ALIASES[family].get(name, name)
            if not name or name in ("dsn", "conninfo"):
                texts += [] if value is None else [str(_plain(value))]
            elif key in known and value is not None:
                login[key] = _plain(value)
            elif family == "mysql" and name.startswith(_MORE) and name != _NO_TLS and value:
                return None
    except _Unknown:
        return None
    if family == "mysql":  # it has no connection strings: a text without a name may be anything
        return partial(_mysql, login) if login and not texts else None
    return partial(_libpq, texts, login) if login or texts else None


def _parts(given: LibraryObject) -> Iterator[tuple[str, Any]]:
    # What there is by name; a text has none.
    if isinstance(given, str):
        yield "", given
    elif hasattr(given, "items"):
        yield from given.items()
    elif isinstance(given, (list, tuple)):
        for one in given:
            yield from _parts(one)
    elif given is not None:
        raise _Unknown


def _plain(value: LibraryObject) -> str | int:
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return _plain(value[0])
    raise _Unknown


def _libpq(texts: list[str], login: Mapping[str, Any]) -> LibraryObject:
    arguments = {**login, "connect_timeout": _TIMEOUT, "application_name": _NAME}
    return _first("psycopg", "psycopg2").connect(*texts[:1], **arguments)


def _mysql(login: Mapping[str, Any]) -> LibraryObject:
    driver = _first("pymysql", "mysql.connector")
    if driver.__name__ == "pymysql":
        return driver.connect(**login, connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, write_timeout=_TIMEOUT)
    return driver.connect(**login, connection_timeout=_TIMEOUT)


def _first(*names: str) -> LibraryObject:
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return importlib.import_module(names[-1])
