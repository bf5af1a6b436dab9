"""
Engines and pools that jobs use one after the other, each in an event loop of its own. The engines are those of the
page.

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

from examples.lab.postgres import Postgres
from poolscope import pool_name, unit_of_work
from poolscope.core.catalogue.pools import FOREIGN_EVENT_LOOP
from tests.integration.programs.found import Findings
from tests.support.pages import run_block

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


def engines(server: Postgres) -> None:
    """An engine that all jobs use, which each may dispose of at its end."""
    with server.connect() as connection:
        connection.execute("create table orders (id int)")
    for name, block in (("engine", 0), ("disposed", 1)):
        with pool_name(name):
            page = run_block(FOREIGN_EVENT_LOOP, block, server)
        for _ in range(JOBS):
            with unit_of_work(name, kind="task"), contextlib.suppress(RuntimeError):
                page["job"]()


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
    engines(Postgres.from_dsn(sys.argv[1]))
    pools(sys.argv[1])
    findings.telemetry.instrumentor.flush()
    findings.print()


if __name__ == "__main__":
    main()
