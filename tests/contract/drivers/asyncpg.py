"""asyncpg's pool."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from poolscope.adapters.asyncpg import ADAPTER
from poolscope.adapters.identity import NAMES
from poolscope.core.pool_identity import POOL_NAME
from tests.contract.drivers.base import Driver, Feature, Handle, LoopThread, PendingCheckout

if TYPE_CHECKING:
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.adapters.base import Capability


class AsyncpgDriver(Driver):
    """A pool that starts empty, in an event loop of its own; only a checkout that finds it full has a timeout."""

    label = "asyncpg-Pool"
    adapter = "asyncpg"
    on_postgres = True
    # A connection that is dropped stays with the pool for ever: no Feature.ABANDON.
    features = (
        Feature.STATEMENTS
        | Feature.LIMIT
        | Feature.WAITS
        | Feature.CANCEL
        | Feature.REPEATED_RELEASE
        | Feature.POOLED
        | Feature.MANY
    )

    @property
    def capabilities(self) -> Capability:
        return ADAPTER.capabilities

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec("asyncpg") else "asyncpg missing"

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        import asyncpg

        assert where is not None
        self._timeout = timeout
        self._size = size
        self.taken = 0
        self.thread = LoopThread()

        async def make() -> Any:
            POOL_NAME.set(self.pool)
            return await asyncpg.create_pool(where.dsn, min_size=0, max_size=size, **options)

        self.library_pool = self.thread.run(make())
        NAMES[self.library_pool._queue] = self.pool

    def close(self) -> None:
        self.thread.run(self.library_pool.close())
        self.thread.close()

    def library_objects(self) -> list[Any]:
        return [self.library_pool._queue]

    def forget(self) -> None:
        del self.library_pool

    @property
    def limit(self) -> int | None:
        return self._size

    @property
    def timeout_error(self) -> str:
        import asyncio

        kind = asyncio.TimeoutError
        return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"

    def acquire(self) -> Handle:
        handle: Handle = self.thread.run(self._acquire())
        return handle

    def begin(self) -> PendingCheckout:
        return self.thread.begin(self._acquire())

    async def _acquire(self) -> Handle:
        full = self.taken >= self._size
        connection = await self.library_pool.acquire(timeout=self._timeout if full else None)
        self.taken += 1
        return Handle(connection, self.thread.run)

    def release(self, handle: Handle) -> None:
        self.thread.run(self._release(handle.connection))

    async def _release(self, connection: Any) -> None:
        self.taken -= connection._con is not None
        await self.library_pool.release(connection)

    def query(self, handle: Handle) -> object:
        async def select() -> object:
            return tuple(await handle.connection.fetchrow("select 1"))

        return self.thread.run(select())


DRIVERS = (AsyncpgDriver,)
