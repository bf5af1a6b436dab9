"""News for customers who wait for them: one connection listens, for all of them, outside of the pool."""

from __future__ import annotations

import asyncio

import psycopg

CHANNEL = "news"


class News:
    """
    The one listener of the process. It starts with the first customer who waits, and ends with the event loop.

    Args:
        dsn: The database.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._waiting: set[asyncio.Future[str]] = set()
        self._listener: asyncio.Task[None] | None = None

    async def next(self) -> str:
        """The next news."""
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._listen())
        heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.add(heard)
        try:
            return await heard
        finally:
            self._waiting.discard(heard)

    async def _listen(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            async for said in connection.notifies():
                for heard in self._waiting:
                    if not heard.done():
                        heard.set_result(said.payload)
