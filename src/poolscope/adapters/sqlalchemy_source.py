"""
What a SQLAlchemy pool can tell of itself: identity, limits, idle connections, its own account; and why it closes one.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.common import database_file, identity
from poolscope.adapters.marks import RECORDS_KEY
from poolscope.core.calls import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

# SQLAlchemy's name of a database, where the semantic conventions (`db.system.name`) have another.
_SYSTEMS: Final = {"oracle": "oracle.db", "mssql": "microsoft.sql_server", "cockroachdb": "cockroachdb"}
# Drivers on libpq, whose connections have an ``info``; and all whose connections know the server's process.
_LIBPQ: Final = ("psycopg", "psycopg2")
_DRIVERS: Final = ("sqlalchemy", "asyncpg", *_LIBPQ)


class SqlAlchemySource:
    """
    One SQLAlchemy pool, held weakly.

    Args:
        pool: The pool.
    """

    def __init__(self, pool: LibraryObject) -> None:
        from sqlalchemy import pool as classes  # noqa: PLC0415 - only where it is in use

        self._reference = weakref.ref(pool)
        self._classes = classes
        self.retired = False
        self.shared = isinstance(pool, classes.StaticPool)

    def alive(self) -> bool:
        """
        See `PoolSource.alive`.
        """
        return self._reference() is not None

    def limit(self) -> int | None:
        """
        See `PoolSource.limit`.
        """
        pool = self._reference()
        if isinstance(pool, (self._classes.StaticPool, self._classes.AssertionPool)):
            return 1
        if isinstance(pool, self._classes.QueuePool) and pool._max_overflow > -1:
            return int(pool._pool.maxsize + pool._max_overflow)
        return None

    def idle_limits(self) -> tuple[int | None, int | None]:
        """
        See `PoolSource.idle_limits`. SQLAlchemy keeps no minimum; a QueuePool keeps up to its size.
        """
        pool = self._reference()
        if isinstance(pool, self._classes.QueuePool) and pool._pool.maxsize:
            return (None, int(pool._pool.maxsize))
        return (None, None)

    def idle(self) -> int:
        """
        See `PoolSource.idle`. A record whose connection was invalidated waits in the queue without one: not counted.
        """
        pool = self._reference()
        classes = self._classes
        if isinstance(pool, classes.QueuePool):
            return sum(1 for record in _queued(pool) if record.dbapi_connection is not None)
        if isinstance(pool, classes.SingletonThreadPool):
            records = list(pool._all_conns)
        elif isinstance(pool, classes.StaticPool):
            records = [pool.__dict__["connection"]] if "connection" in pool.__dict__ else []
            if records and pool.__dict__.get(KEY) is not None and pool.__dict__[KEY].leases:
                return 0
        elif isinstance(pool, classes.AssertionPool):
            records = [pool._conn] if pool._conn is not None and not pool._checked_out else []
        else:
            records = []
        return sum(1 for record in records if record.dbapi_connection is not None and record.fairy_ref is None)

    def in_use(self) -> int | None:
        """
        See `PoolSource.in_use`: the check-outs whose record still refers to them.

        Not ``QueuePool.checkedout()``, which is wrong after ``dispose()`` with connections out. A StaticPool's record
        refers to the last of its check-outs only: it keeps no account.
        """
        pool = self._reference()
        if pool is None or self.shared:
            return None
        return sum(1 for record in Records.of(pool) if record.fairy_ref is not None)


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


def identify(pool: LibraryObject, url: LibraryObject) -> Identity:
    """
    What a pool is, from its engine's URL; of the URL no user name, password or query is read.

    Args:
        pool: The pool.
        url: The engine's URL, or None for a pool without an engine.
    """
    dialect = getattr(pool, "_dialect", None)
    system = getattr(dialect, "name", None)
    system = _SYSTEMS.get(system, system) if isinstance(system, str) else "other_sql"
    address = port = namespace = None
    if url is not None:
        address, port, namespace = url.host, url.port, url.database
    if system == "sqlite":
        namespace = database_file(namespace)
    named = getattr(pool, "_orig_logging_name", None)
    return identity(system, name=named, namespace=namespace, address=address, port=port)


def close_reason(record: LibraryObject, pool: LibraryObject) -> str:
    """
    Why SQLAlchemy closes a record's connection: told by who called, since it passes no reason along.

    To be called from the hook on ``_ConnectionRecord.__close``; other people's wrappers may lie between.
    """
    name, outer = _callers(record)
    if name == "get_connection":
        aged = pool._recycle > -1 and time.time() - record.starttime > pool._recycle
        return "recycled" if aged else "invalidated"
    if name == "invalidate":
        lease: Lease | None = record.__dict__.get(KEY)
        if lease is not None and lease.acquired_at is None:
            return "failed_validation"
        return "reset_failed" if outer == "_finalize_fairy" else "invalidated"
    if name == "close" and outer == "_do_return_conn":
        return "overflow" if hasattr(pool, "_overflow") else "not_pooled"
    return "disposed" if name == "close" and outer == "dispose" else "closed"


def _callers(record: LibraryObject) -> tuple[str, str]:
    # The two innermost functions of the package `sqlalchemy.pool` that are running.
    folder = os.path.dirname(sys.modules[type(record).__module__].__file__ or "")
    names: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(names) < 2:  # noqa: PLR2004
        if os.path.dirname(frame.f_code.co_filename) == folder:
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    return (names[0] if names else "", names[1] if len(names) > 1 else "")


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


def lend_shared(fairy: LibraryObject, lease: Lease) -> None:
    """
    Tie a lease to the fairy, for a pool whose check-outs share one record: SQLAlchemy checks that record in once only.
    """
    reference = weakref.ref(fairy, lambda _: lease.released(abandoned=True))
    lease.carrier = reference
    original = type(fairy)._checkin

    def _checkin(*args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        lease.released()
        return original(reference(), *args, **kwargs)

    fairy.__dict__[KEY] = lease
    fairy.__dict__["_checkin"] = _checkin


def take_back_shared(tracked: Pool) -> None:
    """
    Undo `lend_shared` for every lease that is out.
    """
    for lease in tracked.leases.copy():
        fairy = lease.carrier() if lease.carrier is not None else None
        if fairy is not None:
            fairy.__dict__.pop(KEY, None)
            fairy.__dict__.pop("_checkin", None)


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
