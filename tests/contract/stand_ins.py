"""python-oracledb's pools over a stand-in for its core, as drivers; for laws that need no server."""

from __future__ import annotations

import contextlib
import importlib.util
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.contract.drivers.base import Driver, Feature, Handle, LoopThread, PendingCheckout, ThreadCheckout

if TYPE_CHECKING:
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.adapters.base import Capability


class OracleStandIn(Driver):
    """The sync pool; a checkout beyond the limit fails at once, as one does that waited too long."""

    label = "oracledb-ConnectionPool-stand-in"
    adapter = "oracledb"
    features = Feature.STATEMENTS | Feature.REJECTS | Feature.POOLED | Feature.ABANDON | Feature.MANY
    tells_what_is_out = False

    @property
    def capabilities(self) -> Capability:
        from poolscope.adapters.oracledb import ADAPTER

        return ADAPTER.capabilities

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec("oracledb") else "oracledb missing"

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        import oracledb

        from tests.support.oracle import install, pool_of

        self._stack = contextlib.ExitStack()
        install(lambda *place: self._stack.enter_context(patch.object(*place)))
        kind = oracledb.AsyncConnectionPool if "Async" in self.label else oracledb.ConnectionPool
        self.library_pool = pool_of(kind)
        self.library_pool._cache_name = self.pool

    def close(self) -> None:
        self._stack.close()

    @property
    def limit(self) -> int | None:
        return 2

    @property
    def timeout_error(self) -> str:
        return "oracledb.exceptions.DatabaseError"

    def acquire(self) -> Handle:
        return Handle(self.library_pool.acquire(), lambda function, *args: function(*args))

    def begin(self) -> PendingCheckout:
        return ThreadCheckout(self.acquire)

    def release(self, handle: Handle) -> None:
        handle.connection.close()

    def query(self, handle: Handle) -> object:
        with handle.connection.cursor() as cursor:
            cursor.execute("select 1 from dual")
        return (1,)

    def abandon(self, handle: Handle) -> None:
        handle.connection = None

    def library_objects(self) -> list[Any]:
        return [self.library_pool]

    def forget(self) -> None:
        del self.library_pool


class AsyncOracleStandIn(OracleStandIn):
    """The async pool, in an event loop of its own."""

    label = "oracledb-AsyncConnectionPool-stand-in"
    features = OracleStandIn.features & ~Feature.ABANDON

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        super().open(where, folder, size=size, timeout=timeout, **options)
        self.thread = LoopThread()

    def close(self) -> None:
        self.thread.close()
        super().close()

    def acquire(self) -> Handle:
        handle: Handle = self.thread.run(self._acquire())
        return handle

    async def _acquire(self) -> Handle:
        return Handle(await self.library_pool.acquire(), self.thread.run)

    def begin(self) -> PendingCheckout:
        return self.thread.begin(self._acquire())

    def release(self, handle: Handle) -> None:
        async def release() -> None:
            await handle.connection.close()

        self.thread.run(release())

    def query(self, handle: Handle) -> object:
        async def select() -> None:
            with handle.connection.cursor() as cursor:
                await cursor.execute("select 1 from dual")

        self.thread.run(select())
        return (1,)


STAND_INS: tuple[type[Driver], ...] = (OracleStandIn, AsyncOracleStandIn)
