"""
Pools that were opened before a fork, and what a child does with them; the child prints what is found. What psycopg's
pools and SQLAlchemy's engines do is the code of the page.

    python -m tests.integration.programs.forked DSN
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncpg
import django
import psycopg2.pool
import psycopg_pool
import sqlalchemy
from dbutils.pooled_db import PooledDB
from django.conf import settings
from django.db.utils import ConnectionHandler
from playhouse.pool import PooledPostgresqlDatabase
from psycopg2.extensions import parse_dsn

from examples.lab.postgres import Postgres
from poolscope import pool_name, unit_of_work
from poolscope.core.catalogue.pools import FORKED_POOL
from tests.integration.programs.found import Findings
from tests.support.pages import run_block

if TYPE_CHECKING:
    from collections.abc import Callable

    Use = Callable[[], object]


def engines(server: Postgres) -> dict[str, Use]:
    """SQLAlchemy's: those of the page, and one each that is not used before the fork or after it."""
    used, disposed = (named(name, 1, server)["engine"] for name in ("engine", "disposed"))
    sys.modules["shop.db"] = SimpleNamespace(engine=disposed)  # type: ignore[assignment]
    fixed = run_block(FORKED_POOL, 3)

    def dispose_and_use() -> None:
        fixed["post_fork"](None, None)
        use(disposed)

    unused, only_made = (
        sqlalchemy.create_engine(server.url("psycopg"), pool_logging_name=name) for name in ("unused", "only_made")
    )
    use(unused)
    return {
        "engine": functools.partial(use, used),
        "disposed": dispose_and_use,
        "only_made": functools.partial(use, only_made),
    }


def named(name: str, block: int, server: Postgres) -> dict[str, Any]:
    """What a block of the page defines, with a pool of that name."""
    with pool_name(name):
        return run_block(FORKED_POOL, block, server)


def use(engine: sqlalchemy.Engine) -> None:
    """A request."""
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("select 1"))


def preloaded(server: Postgres) -> dict[str, Use]:
    """psycopg's, of the page: one opened before the fork, and one after."""
    before, page = named("preloaded", 0, server)["pool"], named("opened_after", 2, server)
    before.wait()

    def use_twice() -> None:
        with before.connection() as connection:
            connection.close()  # as where the server has ended it
        with contextlib.suppress(psycopg_pool.PoolTimeout), before.connection(timeout=0.3):
            pass

    def open_and_use() -> None:
        page["post_fork"](None, None)
        with page["pool"].connection() as connection:
            connection.execute("select 1")
        page["pool"].close()

    return {"preloaded": use_twice, "opened_after": open_and_use}


def others(dsn: str) -> dict[str, Use]:
    """Connections of psycopg2's pool, DBUtils', peewee's, asyncpg's and Django's, each opened before the fork."""
    with pool_name("psycopg2"):
        own = psycopg2.pool.ThreadedConnectionPool(1, 2, dsn)
    with pool_name("dbutils"):
        steady = PooledDB(psycopg2, mincached=1, maxconnections=2, dsn=dsn)
    parts = parse_dsn(dsn)
    with pool_name("peewee"):
        database = PooledPostgresqlDatabase(parts.pop("dbname"), max_connections=2, **parts)

    def peewee() -> None:
        with database.connection_context():
            database.execute_sql("select 1")

    peewee()

    async def opened() -> asyncpg.Pool:
        with pool_name("asyncpg"):
            return await asyncpg.create_pool(dsn, min_size=1, max_size=2)

    loop = asyncio.new_event_loop()
    bound = loop.run_until_complete(opened())

    async def acquire() -> None:
        with contextlib.suppress(Exception):
            async with bound.acquire(timeout=5) as connection:
                await asyncio.wait_for(connection.execute("select 1"), 5)

    settings.configure()
    django.setup()
    kept = {**Postgres.from_dsn(dsn).django_settings(), "CONN_MAX_AGE": 60}
    handler = ConnectionHandler({"default": {}, "django": kept})

    def request() -> None:
        with handler["django"].cursor() as cursor:
            cursor.execute("select 1")
        handler["django"].close_if_unusable_or_obsolete()

    request()
    return {
        "django": request,
        "psycopg2": lambda: own.putconn(own.getconn()),
        "dbutils": lambda: steady.connection().close(),
        "peewee": peewee,
        "asyncpg": lambda: asyncio.run(acquire()),
    }


def main() -> None:
    """See above."""
    findings = Findings(long_hold_threshold=600, exhaustion_threshold=0)
    server = Postgres.from_dsn(sys.argv[1])
    uses = {**engines(server), **preloaded(server), **others(sys.argv[1])}
    assert findings.found == []
    child = os.fork()
    if child:
        sys.stdout.flush()
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    try:
        for name, use in uses.items():
            with unit_of_work(f"GET /{name}", kind="http"):
                use()
        findings.telemetry.instrumentor.flush()
        findings.print()
        sys.stdout.flush()
    finally:
        os._exit(sys.exc_info()[0] is not None)


if __name__ == "__main__":
    main()
