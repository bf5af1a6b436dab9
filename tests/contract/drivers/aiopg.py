"""aiopg's pool, in an event loop of its own."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING, Any

from poolscope.adapters.aiopg import ADAPTER
from poolscope.adapters.identity import NAMES, error_name
from poolscope.core.pool_identity import POOL_NAME
from tests.contract.drivers.base import DEADLINE, Driver, Feature, Handle, LoopThread, PendingCheckout

if TYPE_CHECKING:
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.adapters.base import Capability


class Aiopg(Driver):
    """A pool that waits for its timeout; what is dropped stays with it: no Feature.ABANDON."""

    label = "aiopg-Pool"
    adapter = "aiopg"
    on_postgres = True
    features = Feature.STATEMENTS | Feature.LIMIT | Feature.WAITS | Feature.CANCEL | Feature.POOLED | Feature.MANY

    @property
    def capabilities(self) -> Capability:
        return ADAPTER.capabilities

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec("aiopg") else "aiopg missing"

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        import aiopg

        assert where is not None
        self._size, self._patience = size, timeout
        self.thread = LoopThread()

        async def make() -> Any:
            POOL_NAME.set(self.pool)
            return await aiopg.create_pool(where.dsn, minsize=0, maxsize=size, **options)

        self.library_pool = self.thread.run(make())
        NAMES[self.library_pool] = self.pool

    def close(self) -> None:
        async def close() -> None:
            self.library_pool.terminate()
            await self.library_pool.wait_closed()

        self.thread.run(close())
        self.thread.close()

    def library_objects(self) -> list[Any]:
        return [self.library_pool]

    def forget(self) -> None:
        del self.library_pool

    @property
    def limit(self) -> int | None:
        return self._size

    @property
    def timeout_error(self) -> str:
        return error_name(asyncio.TimeoutError())

    def acquire(self) -> Handle:
        handle: Handle = self.thread.run(self._acquire())
        return handle

    async def _acquire(self) -> Handle:
        pool = self.library_pool
        # The same timeout covers a connect, which must not fail for a test's short patience.
        pool._timeout = self._patience if pool.size >= self._size and not pool.freesize else DEADLINE
        return Handle(await pool.acquire(), self.thread.run)

    def begin(self) -> PendingCheckout:
        return self.thread.begin(self._acquire())

    def release(self, handle: Handle) -> None:
        async def release() -> None:
            await self.library_pool.release(handle.connection)

        self.thread.run(release())

    def query(self, handle: Handle) -> object:
        async def select() -> object:
            async with handle.connection.cursor() as cursor:
                await cursor.execute("select 1")
                return await cursor.fetchone()

        return self.thread.run(select())


DRIVERS: tuple[type[Aiopg], ...] = (Aiopg,)
