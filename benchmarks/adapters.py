"""
What an acquire and a release cost, adapter by adapter, beside the library alone.

Each library's pool is driven in one process with the hooks out and in, in turns, so that each round compares within the
same second; the median of the rounds counts. PostgreSQL and, where it is installed, MariaDB are started for the run.

Usage:
    python benchmarks/adapters.py [--rounds N] [--json] [--only WORD]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from examples.lab import mariadb  # noqa: E402 - the project's root is no package
from examples.lab.postgres import postgres  # noqa: E402
from poolscope import semconv  # noqa: E402
from poolscope.adapters.registry import Registry, load  # noqa: E402
from poolscope.core.origin import Origins  # noqa: E402
from poolscope.core.pool_registry import PoolRegistry  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from examples.lab.postgres import Postgres

CALLS = 2000


class Row(NamedTuple):
    """
    One library.

    Args:
        label: What is measured.
        alone: Microseconds for an acquire and a release without poolscope.
        hooked: The same with it.
    """

    label: str
    alone: float
    hooked: float


class Subject(NamedTuple):
    """
    A pool to measure.

    Args:
        label: What it is called.
        adapter: The module of its adapter.
        calls: How many acquires a batch has; fewer where each goes to the server.
        batch: Does so many.
        close: Closes the pool.
    """

    label: str
    adapter: str
    calls: int
    batch: Callable[[int], object]
    close: Callable[[], object]


def sqlalchemy_queue(_: Postgres, __: mariadb.MariaDB | None, ___: asyncio.AbstractEventLoop) -> Subject:
    """SQLAlchemy's QueuePool over SQLite, below the engine."""
    import sqlalchemy

    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.QueuePool, pool_size=5)

    def batch(count: int) -> None:
        for _ in range(count):
            engine.raw_connection().close()

    return Subject("SQLAlchemy, QueuePool", "sqlalchemy", CALLS, batch, engine.dispose)


def psycopg_sync(server: Postgres, _: mariadb.MariaDB | None, __: asyncio.AbstractEventLoop) -> Subject:
    """The sync pool of psycopg."""
    from psycopg_pool import ConnectionPool

    pool = ConnectionPool(server.dsn, min_size=1, max_size=5, open=True)
    pool.wait()

    def batch(count: int) -> None:
        for _ in range(count):
            pool.putconn(pool.getconn())

    return Subject("psycopg_pool, sync", "psycopg_pool", CALLS, batch, pool.close)


def psycopg_async(server: Postgres, _: mariadb.MariaDB | None, loop: asyncio.AbstractEventLoop) -> Subject:
    """The async pool of psycopg."""
    from psycopg_pool import AsyncConnectionPool

    async def make() -> AsyncConnectionPool[Any]:
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(server.dsn, min_size=1, max_size=5, open=False)
        await pool.open(wait=True)
        return pool

    pool = loop.run_until_complete(make())

    async def batch(count: int) -> None:
        for _ in range(count):
            await pool.putconn(await pool.getconn())

    return _on_loop("psycopg_pool, async", "psycopg_pool", CALLS, loop, batch, pool.close)


def asyncpg_pool(server: Postgres, _: mariadb.MariaDB | None, loop: asyncio.AbstractEventLoop) -> Subject:
    """The pool of asyncpg; each release resets the connection, which asks the server."""
    import asyncpg

    pool = loop.run_until_complete(asyncpg.create_pool(server.dsn, min_size=1, max_size=5))

    async def batch(count: int) -> None:
        for _ in range(count):
            await pool.release(await pool.acquire())

    return _on_loop("asyncpg", "asyncpg", CALLS // 4, loop, batch, pool.close)


def aiopg_pool(server: Postgres, _: mariadb.MariaDB | None, loop: asyncio.AbstractEventLoop) -> Subject:
    """The pool of aiopg."""
    import aiopg

    pool = loop.run_until_complete(aiopg.create_pool(server.dsn, minsize=1, maxsize=5))

    async def batch(count: int) -> None:
        for _ in range(count):
            await pool.release(await pool.acquire())

    async def close() -> None:
        pool.terminate()
        await pool.wait_closed()

    return _on_loop("aiopg", "aiopg", CALLS, loop, batch, close)


def peewee_pool(server: Postgres, _: mariadb.MariaDB | None, __: asyncio.AbstractEventLoop) -> Subject:
    """The PostgreSQL pool of peewee; each release looks at the state of the transaction."""
    from playhouse.pool import PooledPostgresqlDatabase

    database = PooledPostgresqlDatabase(server.dsn, max_connections=5)

    def batch(count: int) -> None:
        for _ in range(count):
            database.connect()
            database.close()

    return Subject("peewee, PostgreSQL", "peewee", CALLS, batch, database.close_all)


def psycopg2_threaded(server: Postgres, _: mariadb.MariaDB | None, __: asyncio.AbstractEventLoop) -> Subject:
    """The threaded pool of psycopg2."""
    from psycopg2.pool import ThreadedConnectionPool

    pool = ThreadedConnectionPool(1, 5, server.dsn)

    def batch(count: int) -> None:
        for _ in range(count):
            pool.putconn(pool.getconn())

    return Subject("psycopg2, threaded", "psycopg2_pool", CALLS, batch, pool.closeall)


def dbutils_pool(server: Postgres, _: mariadb.MariaDB | None, __: asyncio.AbstractEventLoop) -> Subject:
    """DBUtils over psycopg2; without its ping, which psycopg2 does not have anyway."""
    import psycopg2
    from dbutils.pooled_db import PooledDB

    pool = PooledDB(psycopg2, mincached=1, maxconnections=5, ping=0, reset=False, dsn=server.dsn)

    def batch(count: int) -> None:
        for _ in range(count):
            pool.connection().close()

    return Subject("DBUtils, psycopg2", "dbutils", CALLS, batch, pool.close)


def django_persistent(server: Postgres, _: mariadb.MariaDB | None, __: asyncio.AbstractEventLoop) -> Subject:
    """A persistent connection of Django's: the first use in a request, and the request's end."""
    import django
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure()
        django.setup()
    wrapper = ConnectionHandler({"default": {**server.django_settings(), "CONN_MAX_AGE": 600}})["default"]

    def batch(count: int) -> None:
        for _ in range(count):
            wrapper.ensure_connection()
            wrapper.close_if_unusable_or_obsolete()

    return Subject("Django, CONN_MAX_AGE", "django", CALLS, batch, wrapper.close)


def aiomysql_pool(_: Postgres, server: mariadb.MariaDB | None, loop: asyncio.AbstractEventLoop) -> Subject | None:
    """The pool of aiomysql."""
    if server is None:
        return None
    import aiomysql

    pool = loop.run_until_complete(aiomysql.create_pool(minsize=1, maxsize=5, db=server.database, **server.arguments()))

    async def batch(count: int) -> None:
        for _ in range(count):
            await pool.release(await pool.acquire())

    async def close() -> None:
        pool.terminate()
        await pool.wait_closed()

    return _on_loop("aiomysql", "aiomysql", CALLS, loop, batch, close)


def mysql_connector(_: Postgres, server: mariadb.MariaDB | None, __: asyncio.AbstractEventLoop) -> Subject | None:
    """The pool of mysql-connector; each acquire pings the server, each release resets the session."""
    if server is None:
        return None
    from mysql.connector.pooling import MySQLConnectionPool

    pool = MySQLConnectionPool(pool_name="bench", pool_size=2, database=server.database, **server.arguments())

    def batch(count: int) -> None:
        for _ in range(count):
            pool.get_connection().close()

    return Subject("mysql-connector", "mysql_connector", CALLS // 10, batch, pool._remove_connections)  # noqa: SLF001


def mysql_connector_aio(_: Postgres, server: mariadb.MariaDB | None, loop: asyncio.AbstractEventLoop) -> Subject | None:
    """The asyncio pool of mysql-connector, which does the same."""
    if server is None:
        return None
    from mysql.connector.aio.pooling import MySQLConnectionPool

    options = {"database": server.database, "ssl_disabled": True, **server.arguments()}
    pool = MySQLConnectionPool(pool_name="bench", pool_size=2, **options)
    loop.run_until_complete(pool.initialize_pool())

    async def batch(count: int) -> None:
        for _ in range(count):
            await (await pool.get_connection()).close()

    async def close() -> None:
        await pool.close_pool()

    return _on_loop("mysql-connector, asyncio", "mysql_connector_aio", CALLS // 10, loop, batch, close)


SUBJECTS = (
    sqlalchemy_queue,
    psycopg_sync,
    psycopg_async,
    asyncpg_pool,
    aiopg_pool,
    psycopg2_threaded,
    dbutils_pool,
    peewee_pool,
    django_persistent,
    aiomysql_pool,
    mysql_connector,
    mysql_connector_aio,
)


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--rounds", default=15, show_default=True, help="Comparisons for each library.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--only", default="", help="Libraries whose label contains this.")
def main(rounds: int, *, as_json: bool, only: str) -> None:
    """Run the command line."""
    rows = run(rounds, only)
    if as_json:
        print(json.dumps([row._asdict() for row in rows]))
    else:
        draw(rows, Console(width=100))


def run(rounds: int, only: str = "") -> list[Row]:
    """
    The rows of the table.

    Args:
        rounds: How many times to compare.
        only: A part of the names of those that are wanted.
    """
    rows = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres())
        other = stack.enter_context(mariadb.mariadb()) if mariadb.missing() is None else None
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        asyncio.set_event_loop(loop)  # asyncpg asks for it where none runs
        for make in SUBJECTS:
            if only.lower() in make.__name__:
                subject = make(server, other, loop)
                if subject is not None:
                    rows.append(measure(subject, rounds))
    return rows


def measure(subject: Subject, rounds: int) -> Row:
    """
    One row of the table.

    Args:
        subject: The pool.
        rounds: How many times to compare.
    """
    figures: dict[bool, list[float]] = {False: [], True: []}
    try:
        subject.batch(subject.calls)
        for _ in range(rounds):
            for hooked in (False, True):
                figures[hooked].append(_one(subject, hooked=hooked))
    finally:
        subject.close()
    return Row(subject.label, statistics.median(figures[False]), statistics.median(figures[True]))


def _one(subject: Subject, *, hooked: bool) -> float:
    registry = Registry(PoolRegistry(semconv.DURATION_BOUNDARIES, origins=Origins()), adapters=load([subject.adapter]))
    if hooked:
        registry.start()
    try:
        subject.batch(10)
        began = time.process_time()
        subject.batch(subject.calls)
        return (time.process_time() - began) / subject.calls * 1e6
    finally:
        if hooked:
            registry.stop()


def _on_loop(  # noqa: PLR0917 - a Subject's fields, and the loop
    label: str,
    adapter: str,
    calls: int,
    loop: asyncio.AbstractEventLoop,
    batch: Callable[[int], Awaitable[object]],
    close: Callable[[], Awaitable[object]],
) -> Subject:
    def run(count: int) -> None:
        loop.run_until_complete(_awaited(batch(count)))

    def end() -> None:
        loop.run_until_complete(_awaited(close()))

    return Subject(label, adapter, calls, run, end)


async def _awaited(awaitable: Awaitable[object]) -> None:
    await awaitable


def draw(rows: list[Row], console: Console) -> None:
    """Print the table."""
    table = Table(title="An acquire and a release, CPU microseconds", title_justify="left")
    for column in ("library", "alone", "with poolscope", "more", "times"):
        table.add_column(column, justify="left" if column == "library" else "right")
    for row in rows:
        more = row.hooked - row.alone
        figures = (row.alone, row.hooked, more, row.hooked / row.alone)
        table.add_row(row.label, *(f"{figure:.2f}" for figure in figures))
    console.print(table)


if __name__ == "__main__":
    main()
