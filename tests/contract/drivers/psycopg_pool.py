"""psycopg's pools, sync and async, pooling and null."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any, ClassVar

from poolscope.adapters.psycopg_pool import ADAPTER
from tests.contract.drivers.base import (
    DEADLINE,
    Driver,
    Feature,
    Handle,
    LoopThread,
    PendingCheckout,
    ThreadCheckout,
    drop,
)

if TYPE_CHECKING:
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.adapters.base import Capability


class PsycopgDriver(Driver):
    """A sync pool that starts empty; only a checkout that finds it full waits no longer than the wanted timeout."""

    adapter = "psycopg_pool"
    on_postgres = True
    features = Feature.STATEMENTS | Feature.LIMIT | Feature.WAITS | Feature.ABANDON | Feature.POOLED | Feature.MANY
    pool_class: ClassVar[str] = "ConnectionPool"

    @property
    def capabilities(self) -> Capability:
        return ADAPTER.capabilities

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec("psycopg_pool") else "psycopg_pool missing"

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        assert where is not None
        # What it logs refers to connections, and pytest keeps that: one that is dropped would never be collected.
        logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
        self._timeout = timeout
        self._size = size
        self._dropped = 0
        self.taken = 0
        self.make(where.dsn, {"min_size": 0, "max_size": size, "name": self.pool, **options})

    def make(self, dsn: str, options: dict[str, Any]) -> None:
        """Make and open the pool."""
        import psycopg_pool

        self.library_pool = getattr(psycopg_pool, self.pool_class)(dsn, open=False, **options)
        self.library_pool.open()

    def close(self) -> None:
        self.library_pool.close()

    def library_objects(self) -> list[Any]:
        return [self.library_pool]

    def forget(self) -> None:
        del self.library_pool

    @property
    def limit(self) -> int | None:
        return self._size - self._dropped  # the library never gets a dropped connection's slot back

    @property
    def timeout_error(self) -> str:
        return "psycopg_pool.PoolTimeout"

    def patience(self) -> float:
        """Seconds that the next ask may wait: a connect takes its time on a busy machine."""
        return self._timeout if self.taken >= self._size - self._dropped else DEADLINE

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call into the library."""
        return function(*args, **kwargs)

    def acquire(self) -> Handle:
        connection = self.call(self.library_pool.getconn, self.patience())
        self.taken += 1
        return Handle(connection, self.call)

    def begin(self) -> PendingCheckout:
        return ThreadCheckout(self.acquire)

    def release(self, handle: Handle) -> None:
        self.taken -= 1
        handle.call(self.library_pool.putconn, handle.connection)

    def query(self, handle: Handle) -> object:
        return handle.connection.execute("select 1").fetchone()

    def abandon(self, handle: Handle) -> None:
        self.taken -= 1
        self._dropped += 1
        self.call(drop, handle)


class AsyncPsycopgDriver(PsycopgDriver):
    """An async pool in an event loop of its own."""

    features = PsycopgDriver.features | Feature.CANCEL
    pool_class = "AsyncConnectionPool"

    def make(self, dsn: str, options: dict[str, Any]) -> None:
        import psycopg_pool

        self._thread = LoopThread()

        async def make() -> Any:
            pool = getattr(psycopg_pool, self.pool_class)(dsn, open=False, **options)
            await pool.open()
            return pool

        self.library_pool = self._thread.run(make())

    def close(self) -> None:
        self._thread.run(self.library_pool.close())
        self._thread.close()

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            result = function(*args, **kwargs)
            return await result if hasattr(result, "__await__") else result

        return self._thread.run(call())

    def begin(self) -> PendingCheckout:
        return self._thread.begin(self._acquire())

    async def _acquire(self) -> Handle:
        connection = await self.library_pool.getconn(self.patience())
        self.taken += 1
        return Handle(connection, self.call)

    def query(self, handle: Handle) -> object:
        async def select() -> object:
            cursor = await handle.connection.execute("select 1")
            return await cursor.fetchone()

        return self._thread.run(select())


class SyncPool(PsycopgDriver):
    label = "psycopg_pool-ConnectionPool"


class SyncNullPool(PsycopgDriver):
    label = "psycopg_pool-NullConnectionPool"
    features = PsycopgDriver.features & ~Feature.POOLED
    pool_class = "NullConnectionPool"


class AsyncPool(AsyncPsycopgDriver):
    label = "psycopg_pool-AsyncConnectionPool"


class AsyncNullPool(AsyncPsycopgDriver):
    label = "psycopg_pool-AsyncNullConnectionPool"
    features = AsyncPsycopgDriver.features & ~Feature.POOLED
    pool_class = "AsyncNullConnectionPool"


DRIVERS: tuple[type[PsycopgDriver], ...] = (SyncPool, SyncNullPool, AsyncPool, AsyncNullPool)
