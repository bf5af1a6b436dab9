"""
Engines and pools that jobs use one after the other, each in an event loop of its own.

    python -m tests.integration.programs.event_loops DSN
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings
from typing import TYPE_CHECKING

import asyncpg
import psycopg_pool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from poolscope import pool_name, unit_of_work
from tests.integration.programs.found import Findings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

JOBS = 2


def jobs(name: str, job: Callable[[], Awaitable[object]]) -> None:
    """Run one after the other; those that come second may fail."""

    async def one() -> None:
        with unit_of_work(name, kind="task"), contextlib.suppress(Exception):
            await asyncio.wait_for(job(), 5)

    for _ in range(JOBS):
        with contextlib.suppress(RuntimeError):
            asyncio.run(one())


def engine(dsn: str, name: str, *, dispose: bool) -> None:
    """An engine that all jobs use, which each may dispose of at its end."""
    shared = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn), pool_logging_name=name
    )

    async def job() -> None:
        async with shared.connect() as connection:
            await connection.execute(text("select 1"))
        if dispose:
            await shared.dispose()

    jobs(name, job)


def pools(dsn: str) -> None:
    """A pool of asyncpg's and one of psycopg's, each opened in a loop that is closed by the first job."""

    async def opened() -> asyncpg.Pool:
        with pool_name("asyncpg"):
            return await asyncpg.create_pool(dsn, min_size=1, max_size=2)

    one = asyncio.run(opened())

    async def acquire() -> None:
        async with one.acquire(timeout=1) as connection:
            await connection.fetchval("select 1")

    jobs("asyncpg", acquire)
    other = psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=2, open=False, timeout=1, name="psycopg")
    asyncio.run(other.open(wait=True))

    async def check_out() -> None:
        async with other.connection() as connection:
            await connection.execute("select 1")

    jobs("psycopg", check_out)


def main() -> None:
    """See above."""
    warnings.simplefilter("ignore")
    findings = Findings(long_hold_threshold=600, exhaustion_threshold=0, leak_threshold=0)
    engine(sys.argv[1], "disposed", dispose=True)
    engine(sys.argv[1], "engine", dispose=False)
    pools(sys.argv[1])
    findings.telemetry.instrumentor.flush()
    findings.print()


if __name__ == "__main__":
    main()
