"""
The records of a pool's connections: the library's own account, and what a connection knows of its server.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.marks import KEY, RECORDS_KEY
from poolscope.adapters.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from poolscope.core.pool import Pool
    from poolscope.core.types import LibraryObject

# Drivers on libpq, whose connections have an ``info``; and all whose connections know the server's process.
_LIBPQ: Final = ("psycopg", "psycopg2")
_DRIVERS: Final = ("sqlalchemy", "asyncpg", *_LIBPQ)


def stats(library_pool: LibraryObject, *, is_shared: bool) -> Stats:
    """
    The library's own account of a pool: the checkouts whose record still refers to them.

    Not ``QueuePool.checkedout()``, which is wrong after ``dispose()`` with connections out. A StaticPool's record
    refers to the last of its checkouts only: it keeps no account. A record whose connection was invalidated waits in
    the queue without one.

    Args:
        library_pool: The pool.
        is_shared: Whether it is a StaticPool.
    """
    from sqlalchemy import pool as classes  # noqa: PLC0415 - only where it is in use

    limit = most_idle = None
    records: Iterable[LibraryObject] = ()
    if isinstance(library_pool, classes.QueuePool):
        size = int(library_pool._pool.maxsize)
        limit = size + library_pool._max_overflow if library_pool._max_overflow > -1 else None
        most_idle, records = size or None, _queued(library_pool)
    elif isinstance(library_pool, classes.SingletonThreadPool):
        records = list(library_pool._all_conns)
    elif isinstance(library_pool, classes.AssertionPool):
        limit, records = 1, (library_pool._conn,)
    elif is_shared:
        limit = 1
        pool: Pool | None = library_pool.__dict__.get(KEY)
        if pool is None or not pool.leases:
            records = (library_pool.__dict__.get("connection"),)
    present = [record for record in records if record is not None]
    idle = sum(1 for record in present if record.dbapi_connection is not None and record.fairy_ref is None)
    held = None if is_shared else sum(1 for record in Records.of(library_pool) if record.fairy_ref is not None)
    return Stats(limit, idle=idle, in_use=held, most_idle=most_idle)


class Records:
    """
    The records of a pool's connections, held weakly: the library's own account of what is out.

    SQLAlchemy keeps a list of them up to 2.0 only. Each physical connection passes ``__connect``, and there its
    record is entered.
    """

    def __init__(self) -> None:
        self._known: dict[int, weakref.ref[Any]] = {}

    @classmethod
    def of(cls, pool: LibraryObject) -> Records:
        """
        The records of a pool.
        """
        records: Records = pool.__dict__.setdefault(RECORDS_KEY, cls())
        return records

    def add(self, record: LibraryObject) -> None:
        """
        Enter a record, again or for the first time.
        """
        key = id(record)
        if key not in self._known:
            known = self._known
            known[key] = weakref.ref(record, lambda _: known.pop(key, None))

    def __iter__(self) -> Iterator[Any]:
        """
        Those that still exist.
        """
        for reference in self._known.copy().values():
            record = reference()
            if record is not None:
                yield record


def backend_process_id(record: LibraryObject) -> int | None:
    """
    The server's process id for a record's connection, where the driver knows it without asking the server.

    Only connections of drivers that are known to have it are asked: another one may answer any attribute, and notice
    (a mock, a proxy that counts).
    """
    try:
        connection = record.dbapi_connection
        library = _library_of(connection)
        if library == "sqlalchemy":  # its own wrapper around an asyncio driver's connection
            connection = connection.driver_connection
            library = _library_of(connection)
        if library == "asyncpg":
            return int(connection.get_server_pid())
        return int(connection.info.backend_pid) if library in _LIBPQ else None
    except Exception:  # noqa: BLE001 - no process id is no loss
        return None


def _library_of(connection: LibraryObject) -> str | None:
    # ``__class__``, not type(): a proxy around a connection, as tracing libraries make, gives that of the connection.
    for kind in connection.__class__.__mro__:
        library: str = kind.__module__.partition(".")[0]
        if library in _DRIVERS:
            return library
    return None


def _queued(pool: LibraryObject) -> list[LibraryObject]:
    # The deques behind the queues, read without the queue's lock.
    queue = pool._pool
    for attribute in ("queue", "_queue"):
        inner = getattr(queue, attribute, None)
        if inner is not None and hasattr(inner, "_queue"):
            inner = inner._queue
        if inner is not None:
            return list(inner)
    return []
