"""
SQLAlchemy's pools: 1.4, 2.0 and 2.1, sync and async, every pool class.

Checkouts pass through the class method ``_ConnectionFairy._checkout`` (sqlalchemy/pool/base.py), whatever the pool
class and however the engine was imported or made; returns pass through ``_ConnectionRecord.checkin``, also those of
connections that the garbage collector found; only ``detach`` goes another way. The hooks sit on these classes, so they
apply at once to engines that exist already.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final

from poolscope.adapters.address import TORN
from poolscope.adapters.aside import opener
from poolscope.adapters.base import PointAdapter
from poolscope.adapters.existing import unless_half_made
from poolscope.adapters.greenlets import Greenlets
from poolscope.adapters.identity import NAMES, file_identity, identity
from poolscope.adapters.marks import KEY, RECORDS_KEY
from poolscope.adapters.points import Close, Connect, Created
from poolscope.adapters.points.url import Parsed
from poolscope.adapters.sqlalchemy.loaders import LOADERS
from poolscope.adapters.sqlalchemy.points import Checkin, Checkout, Detach, Dispose, Handover, take_back_shared
from poolscope.adapters.sqlalchemy.records import REASONS, RecordConnections, records_of
from poolscope.adapters.sqlalchemy.statements import (
    BareStatement,
    DialectPoint,
    Fetch,
    FirstFetch,
    Statement,
    TransactionEnd,
)
from poolscope.adapters.stats import Stats
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.core.serially import toggling
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

_ENGINE: Final = "sqlalchemy.engine:Engine"
_RECORD: Final = "sqlalchemy.pool.base:_ConnectionRecord"
_FAIRY: Final = "sqlalchemy.pool.base:_ConnectionFairy"
_BUFFER: Final = "sqlalchemy.engine.cursor:BufferedRowCursorFetchStrategy"
_DIALECT: Final = "sqlalchemy.engine.default:DefaultDialect"

# SQLAlchemy's name of a database, where the semantic conventions (`db.system.name`) have another.
_SYSTEMS: Final = {"oracle": "oracle.db", "mssql": "microsoft.sql_server", "cockroachdb": "cockroachdb"}

# The code of the pool's own timeout; a TimeoutError with another code is the creator's.
_POOL_TIMEOUT: Final = "3o7r"


class UrlParsed(Parsed):
    """A URL is taken apart: by ``make_url()``, of which an engine may be made later."""

    @override
    def parts(self, result: LibraryObject) -> tuple[object, ...]:
        return result.host, result.port, result.database


class SqlAlchemyAdapter(RecordConnections, PointAdapter):
    """Hooks SQLAlchemy's pools."""

    name, module, versions = "sqlalchemy", "sqlalchemy", ">=1.4.24,<2.2"
    pool_classes = (_ENGINE, _RECORD)
    required = (f"{_RECORD}.dbapi_connection",)  # from 1.4.24 on
    library_modules = ("sqlalchemy", "aiosqlite")
    lazy_loaders = LOADERS
    switches = Greenlets()
    timeout_errors = ("sqlalchemy.exc:TimeoutError",)
    points = (
        *(UrlParsed(f"sqlalchemy.engine.url:{name}", optional=True) for name in ("_parse_url", "_parse_rfc1738_args")),
        Created(f"{_ENGINE}.__init__"),
        Dispose(f"{_ENGINE}.dispose"),
        Checkout(f"{_FAIRY}._checkout"),
        Handover(f"{_RECORD}.checkout"),
        Checkin(f"{_RECORD}.checkin"),
        Detach(f"{_FAIRY}.detach"),
        Connect(f"{_RECORD}._ConnectionRecord__connect"),
        Close(f"{_RECORD}._ConnectionRecord__close", reasons=REASONS),
        *(Statement(f"{_DIALECT}.{name}") for name in ("do_execute", "do_executemany")),
        BareStatement(f"{_DIALECT}.do_execute_no_params"),
        *(TransactionEnd(f"{_DIALECT}.{name}") for name in ("do_commit", "do_rollback")),
        FirstFetch(f"{_BUFFER}.__init__"),
        *(Fetch(f"{_BUFFER}.{name}") for name in ("_buffer_rows", "fetchmany", "fetchall")),
    )
    has_pools_above = False

    def __init__(self) -> None:
        super().__init__()
        self._urls: weakref.WeakKeyDictionary[LibraryObject, LibraryObject] = weakref.WeakKeyDictionary()
        self._continued: weakref.WeakKeyDictionary[LibraryObject, Pool] = weakref.WeakKeyDictionary()

    @override
    def release(self) -> None:
        self._urls, self._continued = weakref.WeakKeyDictionary(), weakref.WeakKeyDictionary()
        super().release()

    @override
    def found(self, library_pools: list[LibraryObject]) -> None:
        # Records first: those that callers hold are adopted when their pool is entered.
        in_use: dict[int, LibraryObject] = {}
        for record in library_pools:
            if not hasattr(record, "dispose"):
                meet = functools.partial(unless_half_made, self._found_record, record)
                library_pool = guard.run("sqlalchemy.find", meet, None)
                if library_pool is not None:
                    in_use[id(library_pool)] = library_pool
        for engine in library_pools:
            if hasattr(engine, "dispose"):
                meet = functools.partial(unless_half_made, functools.partial(self._found_engine, in_use), engine)
                guard.run("sqlalchemy.find", meet, None)
        for library_pool in in_use.values():  # without an engine, or its engine is no more
            self.know(library_pool)

    def _found_record(self, record: LibraryObject) -> LibraryObject:
        library_pool = self.connects_for(record)
        return library_pool if record.fairy_ref is not None else None

    def _found_engine(self, in_use: dict[int, LibraryObject], engine: LibraryObject) -> Pool | None:
        # Pools that it has disposed of with connections out go by its name; they share its dialect.
        known = None
        for before in tuple(in_use.values()):
            if before is not engine.pool and before._dialect is engine.dialect:
                self._urls[before] = engine.url
                if engine.pool in NAMES:
                    NAMES[before] = NAMES[engine.pool]
                if known is not None:
                    self._continued[before] = known
                known = self.know(before) or known
        if known is not None:
            self._continued[engine.pool] = known
        return self.made(engine)

    @override
    def made(self, library_pool: LibraryObject) -> Pool | None:
        """
        An engine was made, with its pool.
        """
        self._urls[library_pool.pool] = library_pool.url
        return super().made(library_pool.pool)

    def disposed(self, before: LibraryObject, engine: LibraryObject) -> None:
        """An engine put another pool in the place of the one that it had before; it goes by the same name."""
        after = engine.pool
        self._urls[after] = engine.url
        if before in NAMES:
            NAMES[after] = NAMES[before]
        known = self.pool_of(before)
        if known is not None:
            self._continued[after] = known
            self.enter(after)

    @override
    def continues(self, library_pool: LibraryObject) -> Pool | None:
        return self._continued.get(library_pool)

    @override
    def prepare(self, anchor: LibraryObject) -> None:
        # Not while poolscope starts or stops in another thread, which patches too.
        toggling.do(lambda: guard.run("sqlalchemy.dialect", lambda: self._hook_dialect(anchor), None))

    def _hook_dialect(self, anchor: LibraryObject) -> None:
        # The dialect's class and those it inherits from, wherever one has a method of its own; each class once.
        patcher = self.patcher
        if patcher is None:
            return
        owners = [kind for kind in type(anchor._dialect).__mro__ if kind.__module__ != "sqlalchemy.engine.interfaces"]
        for point in self.points:
            name = point.where.rpartition(".")[2]
            for owner in owners if isinstance(point, DialectPoint) else ():
                if name in vars(owner) and not patcher.has(owner, name):
                    patcher.replace(owner, name, functools.partial(point.make, self))

    @override
    def identify(self, library_pool: LibraryObject) -> Identity:
        # Of the URL the user name and the query are not read, and of the password only whether it is one.
        system = getattr(getattr(library_pool, "_dialect", None), "name", None)
        system = _SYSTEMS.get(system, system) if isinstance(system, str) else "other_sql"
        url = self._urls.get(library_pool)
        name = getattr(library_pool, "_orig_logging_name", None)
        if url is None or _is_doubtful(url):
            return identity(system, name=name)
        if system == "sqlite":
            return file_identity(system, url.database, name=name)
        return identity(system, name=name, namespace=url.database, address=url.host, port=url.port)

    @override
    def note_making(self, library_pool: LibraryObject) -> None:
        # An engine.
        super().note_making(library_pool.pool)

    @override
    def keeps(self, library_pool: LibraryObject) -> bool:
        return type(library_pool).__name__ != "NullPool"

    @override
    def connects_with(self, library_pool: LibraryObject) -> LibraryObject:
        from sqlalchemy.engine import URL  # noqa: PLC0415

        url = self._urls.get(library_pool)
        return [url.username, dict(url.query)] if isinstance(url, URL) else ()  # else a stand-in for one

    @override
    def opens_aside(self, library_pool: LibraryObject, system: str) -> Callable[[], LibraryObject] | None:
        # What `create_engine` connects with. A function of the application's, or a listener, may do anything else.
        creator = library_pool._creator
        if creator.__module__ != "sqlalchemy.engine.create" or library_pool._dialect.dispatch.do_connect:
            return None
        return opener(system, inspect.getclosurevars(creator).nonlocals["cparams"])

    @override
    def is_shared(self, library_pool: LibraryObject) -> bool:
        from sqlalchemy.pool import StaticPool  # noqa: PLC0415

        return isinstance(library_pool, StaticPool)

    @override
    def clears_connections(self, library_pool: LibraryObject) -> bool:
        # A listener of the application's may do anything with the connection that is returned.
        dispatch = library_pool.dispatch
        listeners = [*dispatch.reset, *dispatch.checkin]
        return any(not str(getattr(one, "__module__", "")).startswith("opentelemetry.") for one in listeners)

    @override
    def held(self, library_pool: LibraryObject) -> list[LibraryObject]:
        # Those that still refer to their checkout; a StaticPool's record refers to the last one only.
        if self.is_shared(library_pool):
            return []
        return [record for record in records_of(library_pool) if record.fairy_ref is not None]

    @override
    def open_ones(self, library_pool: LibraryObject) -> list[LibraryObject]:
        return [record for record in records_of(library_pool) if record.dbapi_connection is not None]

    @override
    def stats(self, library_pool: LibraryObject) -> Stats:
        from sqlalchemy import pool as classes  # noqa: PLC0415

        records: Iterable[LibraryObject] = ()
        limit = most_idle = None
        if isinstance(library_pool, classes.QueuePool):
            size = int(library_pool._pool.maxsize)
            limit = size + library_pool._max_overflow if library_pool._max_overflow > -1 else None
            most_idle, records = size or None, _queued(library_pool._pool)
        elif isinstance(library_pool, classes.SingletonThreadPool):
            records = list(library_pool._all_conns)
        elif isinstance(library_pool, classes.AssertionPool):
            limit, records = 1, (library_pool._conn,)
        elif self.is_shared(library_pool):
            pool = self.pool_of(library_pool)
            limit = 1
            records = () if pool is not None and pool.leases else (library_pool.__dict__.get("connection"),)
        # Not ``QueuePool.checkedout()``, which is wrong after ``dispose()`` with connections out.
        in_use = None if self.is_shared(library_pool) else len(self.held(library_pool))
        return Stats(limit, idle=sum(map(_is_idle, records)), in_use=in_use, most_idle=most_idle)

    @override
    def rejected(self, library_pool: LibraryObject, error: BaseException) -> bool:
        from sqlalchemy.pool import AssertionPool  # noqa: PLC0415

        return isinstance(library_pool, AssertionPool) and isinstance(error, AssertionError)

    @override
    def outcome(self, library_pool: LibraryObject, lease: Lease, error: BaseException) -> Outcome:
        if isinstance(error, self.timeouts) and getattr(error, "code", None) != _POOL_TIMEOUT:
            return Outcome.ERROR
        return super().outcome(library_pool, lease, error)

    @override
    def forget(self, anchor: LibraryObject) -> None:
        for record in records_of(anchor):
            self.forget_connection(record)
        anchor.__dict__.pop(RECORDS_KEY, None)
        pool: Pool | None = anchor.__dict__.get(KEY)
        if pool is not None and pool.shared:
            take_back_shared(pool)


def _is_doubtful(url: LibraryObject) -> bool:
    # What a URL seems to name may be part of its password, or of a password in its query: where a host with a port and
    # no login is followed by an "@", SQLAlchemy takes them for the login.
    password = url.password
    if TORN.has(url.host, url.port, url.database):
        return True
    return isinstance(password, str) and password.lstrip("0123456789]:")[:1] in ("/", "?") and "=" in password


def _is_idle(record: LibraryObject) -> bool:
    # One whose connection was invalidated waits in the queue without one.
    return record is not None and record.dbapi_connection is not None and record.fairy_ref is None


def _queued(queue: LibraryObject) -> list[LibraryObject]:
    # What the innermost queue is made of, read without the queue's lock.
    while not isinstance(queue, (deque, list, tuple)):
        queue = queue.queue if hasattr(queue, "queue") else getattr(queue, "_queue", ())
    return list(queue)


ADAPTER: Final = SqlAlchemyAdapter()
