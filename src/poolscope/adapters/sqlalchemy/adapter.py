"""
SQLAlchemy's pools: 1.4, 2.0 and 2.1, sync and async, every pool class.

Checkouts pass through the class method ``_ConnectionFairy._checkout`` (sqlalchemy/pool/base.py), whatever the pool
class and however the engine was imported or made; returns pass through ``_ConnectionRecord.checkin``, also those of
connections that the garbage collector found; only ``detach`` goes another way. The hooks sit on these classes, so they
apply at once to engines that exist already.

What stands for a connection here is its record, which outlives it. A record keeps its lease as an attribute: reading a
``__dict__`` would cost five times as much, here and, once an object has one, for the library too.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.base import Capability, PointAdapter
from poolscope.adapters.identity import NAMES, database_file, identity
from poolscope.adapters.leases import lease_below
from poolscope.adapters.marks import BACKEND_KEY, KEY, RECORDS_KEY
from poolscope.adapters.points import Close, Connect, Created
from poolscope.adapters.sqlalchemy.checkouts import Checkin, Checkout, Detach, Handover, take_back_shared
from poolscope.adapters.sqlalchemy.records import Records, backend_process_id, stats
from poolscope.adapters.sqlalchemy.renewals import REASONS, Dispose
from poolscope.adapters.sqlalchemy.statements import BareStatement, DialectPoint, Statement, TransactionEnd
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.core.types import override
from poolscope.hooks.patching import Refused

if TYPE_CHECKING:
    from types import ModuleType

    from poolscope.adapters.stats import Stats
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.core.pool_registry import Ledger
    from poolscope.core.types import LibraryObject
    from poolscope.hooks.patching import Patcher

_ENGINE: Final = "sqlalchemy.engine:Engine"
_RECORD: Final = "sqlalchemy.pool.base:_ConnectionRecord"
_FAIRY: Final = "sqlalchemy.pool.base:_ConnectionFairy"
_DIALECT: Final = "sqlalchemy.engine.default:DefaultDialect"

# SQLAlchemy's name of a database, where the semantic conventions (`db.system.name`) have another.
_SYSTEMS: Final = {"oracle": "oracle.db", "mssql": "microsoft.sql_server", "cockroachdb": "cockroachdb"}

# The code of the pool's own timeout; a TimeoutError with another code is the creator's.
_POOL_TIMEOUT: Final = "3o7r"


class SqlAlchemyAdapter(PointAdapter):
    """
    Hooks SQLAlchemy's pools.
    """

    name, module, versions = "sqlalchemy", "sqlalchemy", ">=1.4.24,<2.2"
    pool_classes = (_ENGINE, _RECORD)
    library_modules = ("sqlalchemy",)
    timeout_errors = ("sqlalchemy.exc:TimeoutError",)
    points = (
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
    )
    also_measures = Capability.ABANDONED
    has_pools_above = False

    def __init__(self) -> None:
        super().__init__()
        self._patcher: Patcher | None = None
        self._urls: weakref.WeakKeyDictionary[LibraryObject, LibraryObject] = weakref.WeakKeyDictionary()

    @override
    def hook(self, module: ModuleType, patcher: Patcher, ledger: Ledger) -> None:
        from sqlalchemy.pool import base  # noqa: PLC0415 - the library is imported only where it is in use

        if not hasattr(base._ConnectionRecord, "dbapi_connection"):
            raise Refused(f"SQLAlchemy {module.__version__} is older than 1.4.24")
        self._patcher = patcher
        super().hook(module, patcher, ledger)

    @override
    def release(self) -> None:
        self._patcher = None
        self._urls = weakref.WeakKeyDictionary()
        super().release()

    # Engines and pools

    @override
    def found(self, library_pools: list[LibraryObject]) -> None:
        engines = [thing for thing in library_pools if hasattr(thing, "dispose")]
        for record in library_pools:
            if not hasattr(record, "dispose"):
                self.connects_for(record)
        for engine in engines:
            guard.run("sqlalchemy.find", lambda engine=engine: self.made(engine), None)  # type: ignore[misc]

    @override
    def made(self, library_pool: LibraryObject) -> Pool | None:
        """
        An engine was made, with its pool.
        """
        engine = library_pool
        self._urls[engine.pool] = engine.url
        return super().made(engine.pool)

    def disposed(self, before: LibraryObject, engine: LibraryObject) -> None:
        """
        An engine put a new pool in its pool's place, under the same name.

        Args:
            before: Its pool until then.
            engine: The engine.
        """
        after = engine.pool
        self._urls[after] = engine.url
        if before in NAMES:
            NAMES[after] = NAMES[before]
        known: Pool | None = before.__dict__.get(KEY)
        if known is not None:
            self.enter(after, continues=known)

    @override
    def identify(self, library_pool: LibraryObject) -> Identity:
        # Of the URL no user name, password or query is read.
        system = getattr(getattr(library_pool, "_dialect", None), "name", None)
        system = _SYSTEMS.get(system, system) if isinstance(system, str) else "other_sql"
        address = port = namespace = None
        url = self._urls.get(library_pool)
        if url is not None:
            address, port, namespace = url.host, url.port, url.database
        if system == "sqlite":
            namespace = database_file(namespace)
        name = getattr(library_pool, "_orig_logging_name", None)
        return identity(system, name=name, namespace=namespace, address=address, port=port)

    @override
    def stats(self, library_pool: LibraryObject) -> Stats:
        return stats(library_pool, is_shared=self.is_shared(library_pool))

    @override
    def is_shared(self, library_pool: LibraryObject) -> bool:
        from sqlalchemy.pool import StaticPool  # noqa: PLC0415

        return isinstance(library_pool, StaticPool)

    @override
    def held(self, library_pool: LibraryObject) -> list[LibraryObject]:
        if self.is_shared(library_pool):
            return []
        return [record for record in Records.of(library_pool) if record.fairy_ref is not None]

    @override
    def entered(self, library_pool: LibraryObject, pool: Pool, held: list[LibraryObject]) -> None:
        self.hook_dialect(type(library_pool._dialect))
        super().entered(library_pool, pool, held)

    def hook_dialect(self, dialect: type) -> None:
        """
        Hook a dialect class and those it inherits from, wherever one defines a call of its own; each class once.
        """
        patcher = self._patcher
        owners = [kind for kind in dialect.__mro__ if kind.__module__ != "sqlalchemy.engine.interfaces"]
        for point in self.points if patcher is not None else ():
            name = point.where.rpartition(".")[2]
            for owner in owners if isinstance(point, DialectPoint) else ():
                if name in vars(owner) and not patcher.has(owner, name):
                    patcher.replace(owner, name, functools.partial(point.make, self))

    @override
    def outcome(self, library_pool: LibraryObject, lease: Lease, error: BaseException) -> Outcome:
        if isinstance(error, self.timeouts) and getattr(error, "code", None) != _POOL_TIMEOUT:
            return Outcome.ERROR
        return super().outcome(library_pool, lease, error)

    @override
    def forget(self, anchor: LibraryObject) -> None:
        for record in anchor.__dict__.pop(RECORDS_KEY, ()):
            self.forget_connection(record)
        pool: Pool | None = anchor.__dict__.get(KEY)
        if pool is not None and pool.shared:
            take_back_shared(pool)

    # Records

    @override
    def lease_of(self, connection: LibraryObject) -> Lease | None:
        lease: Lease | None = connection.__dict__.get(KEY)
        return lease

    @override
    def tie(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:
        connection._poolscope = lease
        if connection.fairy_ref is None:  # it was returned meanwhile, which was not seen
            connection._poolscope = None
            lease.end()

    @override
    def connects_for(self, hooked: LibraryObject) -> LibraryObject:
        """
        A record's pool. The record becomes known, also where its pool is not yet.
        """
        library_pool = hooked._ConnectionRecord__pool
        Records.of(library_pool).add(hooked)
        self._anchors.add(library_pool)
        hooked.__dict__.setdefault(KEY, None)
        hooked.__dict__[BACKEND_KEY] = None
        return library_pool

    @override
    def connects_in(self, hooked: LibraryObject, pool: Pool) -> Lease | None:
        # It is in the record's hands when a pre-ping failed, and among those who wait before that.
        return self.lease_of(hooked) or pool.asker()

    @override
    def connected(
        self, library_pool: LibraryObject, pool: Pool, connection: LibraryObject, lease: Lease | None
    ) -> None:
        connection.__dict__[BACKEND_KEY] = self.backend_process_id(connection)
        below = lease_below(connection.driver_connection)
        if below is not None:
            # Weakly: the lease below may outlive the record, and ends only when the connection comes back there.
            reference = weakref.ref(connection)
            below.above = lambda: getattr(reference(), KEY, None)

    @override
    def backend_process_id(self, connection: LibraryObject) -> int | None:
        return backend_process_id(connection)

    @override
    def closing(self, hooked: LibraryObject, *args: LibraryObject) -> Pool | None:
        return self.pool_of(hooked._ConnectionRecord__pool)

    @override
    def forget_connection(self, connection: LibraryObject) -> None:
        connection.__dict__.pop(KEY, None)
        connection.__dict__.pop(BACKEND_KEY, None)


ADAPTER: Final = SqlAlchemyAdapter()
