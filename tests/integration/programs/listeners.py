"""Clients that receive news: each with a connection of the pool, or by one listener of the process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg

import poolscope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def me(pool: Any) -> int:
    """A short request beside the streams."""
    with poolscope.unit_of_work("GET /me", kind="http"):
        async with pool.acquire(timeout=0.3) as connection:
            return int(await connection.fetchval("select 1"))


async def stream(pool: Any, listening: asyncio.Semaphore) -> None:
    """Listens on a connection of the pool for as long as the client stays."""
    with poolscope.unit_of_work("GET /notifications", kind="http"):
        news: asyncio.Queue[str] = asyncio.Queue()
        async with pool.acquire() as connection:
            await connection.add_listener("news", hear := lambda *said: news.put_nowait(said[-1]))
            listening.release()
            try:
                await news.get()
            finally:
                await connection.remove_listener("news", hear)


class Fan:
    """
    The one listener of the process, and who waits for what it hears.

    Args:
        dsn: The database.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._clients: set[asyncio.Queue[str]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen on a connection outside of any pool."""
        connection = await asyncpg.connect(self._dsn)
        await connection.add_listener("news", self._hear)
        yield
        await connection.close()

    def _hear(self, *said: Any) -> None:
        for client in self._clients:
            client.put_nowait(said[-1])

    async def stream(self, _: Any, listening: asyncio.Semaphore) -> None:
        """Waits for what the listener hears."""
        with poolscope.unit_of_work("GET /fixed/notifications", kind="http"):
            news: asyncio.Queue[str] = asyncio.Queue()
            self._clients.add(news)
            listening.release()
            await news.get()
            self._clients.discard(news)
