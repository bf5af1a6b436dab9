"""psycopg2's pools."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar

from poolscope.adapters.identity import NAMES
from poolscope.adapters.psycopg2_pool import ADAPTER
from poolscope.core.pool_identity import POOL_NAME
from tests.contract.drivers.base import Driver, Feature, Handle, PendingCheckout, ThreadCheckout

if TYPE_CHECKING:
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.adapters.base import Capability


class Psycopg2Driver(Driver):
    """A pool that keeps up to its size; what is dropped stays with it: no Feature.ABANDON."""

    adapter = "psycopg2"
    on_postgres = True
    features = Feature.STATEMENTS | Feature.REJECTS | Feature.POOLED | Feature.MANY
    pool_class: ClassVar[str]

    @property
    def capabilities(self) -> Capability:
        return ADAPTER.capabilities

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec("psycopg2") else "psycopg2 missing"

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        from psycopg2 import pool

        assert where is not None
        token = POOL_NAME.set(self.pool)
        try:
            self.library_pool = getattr(pool, self.pool_class)(1, size, where.dsn, **options)
        finally:
            POOL_NAME.reset(token)
        NAMES[self.library_pool] = self.pool

    def close(self) -> None:
        self.library_pool.closeall()

    def library_objects(self) -> list[Any]:
        return [self.library_pool]

    def forget(self) -> None:
        del self.library_pool

    @property
    def limit(self) -> int | None:
        return int(self.library_pool.maxconn)

    @property
    def timeout_error(self) -> str:
        return "none"

    @property
    def refusal(self) -> str:
        return "psycopg2.pool.PoolError"

    def acquire(self) -> Handle:
        return Handle(self.library_pool.getconn(), lambda function, *args: function(*args))

    def begin(self) -> PendingCheckout:
        return ThreadCheckout(self.acquire)

    def release(self, handle: Handle) -> None:
        self.library_pool.putconn(handle.connection)

    def query(self, handle: Handle) -> object:
        with handle.connection.cursor() as cursor:
            cursor.execute("select 1")
            return cursor.fetchone()


class Simple(Psycopg2Driver):
    label = "psycopg2-SimpleConnectionPool"
    threads = False
    pool_class = "SimpleConnectionPool"


class Threaded(Psycopg2Driver):
    label = "psycopg2-ThreadedConnectionPool"
    pool_class = "ThreadedConnectionPool"


DRIVERS: tuple[type[Psycopg2Driver], ...] = (Simple, Threaded)
