"""
Where libpq finds its server; for the pools of drivers that are built on it.

What the arguments of a connect leave open, libpq takes from a service file or the environment; its connections know it.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.address import UNREADABLE, is_cut_off, is_torn
from poolscope.adapters.identity import first_of, identity
from poolscope.core.failure import raised_by_a_signal
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

#: What libpq's ``PQtransactionStatus`` says while a transaction is open (libpq-fe.h): PQTRANS_ACTIVE, PQTRANS_INTRANS
#: and PQTRANS_INERROR.
IN_TRANSACTION: Final = frozenset((1, 2, 3))

# The keys of a connection string that are read.
_KEYS: Final = re.compile(r"(?:^|(?<=\s))(?:host|hostaddr|port|dbname)(?=\s{0,9}=)")
_UNREADABLE: Final = {"host": UNREADABLE, "dbname": UNREADABLE}


def parse(conninfo: object) -> dict[str, Any]:
    """The parts of a connection string; none where there is none, `UNREADABLE` ones where it is not understood."""
    if not conninfo:
        return {}
    if not isinstance(conninfo, str) or _is_doubtful(conninfo):
        return dict(_UNREADABLE)
    driver, driver2 = sys.modules.get("psycopg.conninfo"), sys.modules.get("psycopg2.extensions")
    parser: Any = driver.conninfo_to_dict if driver is not None else getattr(driver2, "parse_dsn", None)
    if parser is None:
        return {}
    try:
        return dict(parser(conninfo))
    except Exception as error:
        if raised_by_a_signal(error):
            raise  # any other is of one that is malformed, as the application will hear from its driver
        return dict(_UNREADABLE)


def _is_doubtful(conninfo: str) -> bool:
    if conninfo.startswith(("postgresql://", "postgres://")):
        return is_torn(conninfo)
    # A key that occurs again may be part of a password with a space in it. C ends a text at a NUL.
    keys = _KEYS.findall(conninfo)
    return len(set(keys)) < len(keys) or "\0" in conninfo


def identify(given: Sequence[Mapping[str, Any]], name: str | None = None) -> Identity:
    """
    A pool's identity.

    Args:
        given: Where to look for the server and the database, the first that has it goes before the others.
        name: What the user named it.
    """
    if any(map(is_cut_off, given)):
        return identity("postgresql", name=name)
    address = first_of(given, "host", "hostaddr")
    port = first_of(given, "port") if address else None
    namespace = first_of(given, "dbname", "database")
    return identity("postgresql", name=name, namespace=namespace, address=address, port=port)


def parameters_of(connection: LibraryObject) -> dict[str, Any]:
    """What a connection knows of its server."""
    info = connection.info
    return guard.run(
        "libpq.info", lambda: {"host": info.host, "port": info.port, "dbname": info.dbname} if info.host else {}, {}
    )


def is_in_transaction(status: int) -> bool:
    """Whether a transaction is open, by what libpq's ``PQtransactionStatus`` says."""
    return status in IN_TRANSACTION
