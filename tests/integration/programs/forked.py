"""
Pools that were opened before a fork, and what a child does with them; the child prints what is found.

    python -m tests.integration.programs.forked DSN
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
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

from poolscope import pool_name, unit_of_work
from tests.integration.programs.found import Findings

if TYPE_CHECKING:
    from collections.abc import Callable

    Use = Callable[[], object]


def engines(dsn: str) -> dict[str, Use]:
    """SQLAlchemy's, each used before the fork but the one that is only made."""
    uses: dict[str, Use] = {}
    for name in ("engine", "disposed", "only_made", "unused"):
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg2://", creator=lambda: psycopg2.connect(dsn), pool_logging_name=name
        )

        def use(engine: sqlalchemy.Engine = engine) -> None:
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text("select 1"))

        def dispose_and_use(engine: sqlalchemy.Engine = engine, use: Use = use) -> None:
            engine.dispose(close=False)
            use()

        if name != "only_made":
            use()
        uses[name] = dispose_and_use if name == "disposed" else use
    del uses["unused"]
    return uses


def preloaded(dsn: str) -> dict[str, Use]:
    """psycopg's: one opened before the fork, and one after."""
    arguments: dict[str, Any] = {"min_size": 1, "max_size": 4, "timeout": 0.3, "open": False}
    before = psycopg_pool.ConnectionPool(dsn, name="preloaded", **arguments)
    after = psycopg_pool.ConnectionPool(dsn, name="opened_after", **{**arguments, "timeout": 30})
    before.open(wait=True)

    def use_twice() -> None:
        with before.connection() as connection:
            connection.close()  # as where the server has ended it
        with contextlib.suppress(psycopg_pool.PoolTimeout), before.connection():
            pass

    def open_and_use() -> None:
        after.open(wait=True)
        with after.connection() as connection:
            connection.execute("select 1")
        after.close()

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
    place = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    given = {name: parse_dsn(dsn).get(key, "") for name, key in place.items()}
    kept = {"ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": 60, **given}
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
    uses = {**engines(sys.argv[1]), **preloaded(sys.argv[1]), **others(sys.argv[1])}
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
