"""
peewee's pools over PostgreSQL, MySQL (MariaDB) and SQLite. A thread has one connection, so each
handle has a thread.
"""

from __future__ import annotations

import contextvars
import importlib.util
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from examples.lab import mariadb
from poolscope.adapters.identity import NAMES
from poolscope.adapters.peewee import ADAPTER
from poolscope.core.pool_identity import POOL_NAME
from tests.contract.drivers.base import DEADLINE, Driver, Feature, Handle, PendingCheckout, ThreadCheckout
from tests.contract.drivers.mysql import server
from tests.support.beside import Beside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.adapters.base import Capability


class Holder(Beside):
    """A thread that holds one connection."""

    def __init__(self) -> None:
        super().__init__("holder")

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function there, in the caller's context: what checks out belongs to the caller's unit of work."""
        context = contextvars.copy_context()
        return self.submit(lambda: context.run(function, *args)).result(DEADLINE)


class PeeweeDriver(Driver):
    """A pool that waits for its timeout."""

    adapter = "peewee"
    holds_in_threads = True
    features = (
        Feature.STATEMENTS
        | Feature.LIMIT
        | Feature.WAITS
        | Feature.INVALIDATE
        | Feature.POOLED
        | Feature.REPEATED_RELEASE
        | Feature.MANY
    )
    pool_class: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ("peewee",)

    @property
    def capabilities(self) -> Capability:
        return ADAPTER.capabilities

    @classmethod
    def missing(cls) -> str | None:
        absent = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        return f"{absent[0]} missing" if absent else None

    def place(self, where: Postgres | None, folder: Path) -> dict[str, Any]:
        """The arguments that name the database."""
        raise NotImplementedError

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        from playhouse import pool

        self._size = size
        self._holders: weakref.WeakSet[Holder] = weakref.WeakSet()
        token = POOL_NAME.set(self.pool)
        try:
            self.library_pool = getattr(pool, self.pool_class)(
                **self.place(where, folder),
                max_connections=size,
                autoconnect=False,  # else a query after the return would check out
                **self.patience(timeout),
                **options,
            )
        finally:
            POOL_NAME.reset(token)
        NAMES[self.library_pool] = self.pool

    def patience(self, timeout: float) -> dict[str, Any]:
        """How long a checkout waits."""
        return {"timeout": timeout}

    def close(self) -> None:
        self.library_pool.close_all()
        for holder in list(self._holders):
            holder.end(DEADLINE)

    def library_objects(self) -> list[Any]:
        return [self.library_pool]

    def forget(self) -> None:
        del self.library_pool

    @property
    def limit(self) -> int | None:
        return self._size

    @property
    def timeout_error(self) -> str:
        return "playhouse.pool.MaxConnectionsExceeded"

    def acquire(self) -> Handle:
        holder = Holder()
        try:
            holder.run(self.library_pool.connect)
        except BaseException:
            holder.end(DEADLINE)
            raise
        self._holders.add(holder)
        return Handle(holder, holder.run)

    def begin(self) -> PendingCheckout:
        return ThreadCheckout(self.acquire)

    def release(self, handle: Handle) -> None:
        handle.call(self.library_pool.close)

    def invalidate(self, handle: Handle, *, soft: bool = False) -> None:
        handle.call(self.library_pool.manual_close)

    def query(self, handle: Handle) -> object:
        return handle.call(lambda: self.library_pool.execute_sql("select 1").fetchone())


class OnPostgres(PeeweeDriver):
    label = "peewee-PooledPostgresqlDatabase"
    pool_class = "PooledPostgresqlDatabase"
    needs = ("peewee", "psycopg2")
    on_postgres = True

    def place(self, where: Postgres | None, folder: Path) -> dict[str, Any]:
        assert where is not None
        login = {"user": where.user, "password": where.password}
        return {"database": where.database, "host": where.host, "port": where.port, **login}


class OnMariaDB(PeeweeDriver):
    label = "peewee-PooledMySQLDatabase"
    pool_class = "PooledMySQLDatabase"
    needs = ("peewee", "pymysql")

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or mariadb.missing()

    def place(self, where: Postgres | None, folder: Path) -> dict[str, Any]:
        return {"database": server().database, **server().arguments()}


class OnSqlite(PeeweeDriver):
    """A pool without a timeout: a checkout beyond its limit is turned away."""

    label = "peewee-PooledSqliteDatabase"
    pool_class = "PooledSqliteDatabase"
    features = (PeeweeDriver.features & ~(Feature.LIMIT | Feature.WAITS)) | Feature.REJECTS

    def place(self, where: Postgres | None, folder: Path) -> dict[str, Any]:
        return {"database": str(folder / "lab.db"), "check_same_thread": False}

    def patience(self, timeout: float) -> dict[str, Any]:
        return {}

    @property
    def timeout_error(self) -> str:
        return "none"

    @property
    def refusal(self) -> str:
        return "playhouse.pool.MaxConnectionsExceeded"


DRIVERS: tuple[type[PeeweeDriver], ...] = (OnPostgres, OnMariaDB, OnSqlite)
