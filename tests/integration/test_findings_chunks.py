"""Chunks through real drivers: their parameters tell a page, or a batch by array, from an N+1."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Integer, any_, bindparam, create_engine, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import create_async_engine

from poolscope.core.work import CURRENT_UNIT, UnitOfWork
from tests.support.watched import watched

asyncpg = pytest.importorskip("asyncpg")
psycopg_pool = pytest.importorskip("psycopg_pool")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.lab.postgres import Postgres

TIMES, THRESHOLD = 12, 5
ROWS = "generate_series(1, 2000) AS t(id)"
#: Pages of one tenant, and the first page of each of many.
PAGES = [(7, number * 100) for number in range(TIMES)]
FIRSTS = [(number, 0) for number in range(TIMES)]
#: Ids in batches, and a few for each of many.
BATCHES = [list(range(number, number + 500)) for number in range(TIMES)]
HANDFULS = [list(range(number, number + 3)) for number in range(TIMES)]


def page(key: str, bound: str) -> str:
    """A page's statement, with a driver's parameters."""
    return f"SELECT id FROM {ROWS} WHERE mod(id, 20) <> {key} AND id > {bound} ORDER BY id LIMIT 100"


def with_psycopg_pool(where: Postgres, runs: list[Any], *, array: bool) -> None:
    """Psycopg with its own pool."""
    with (
        psycopg_pool.ConnectionPool(where.dsn, min_size=1, max_size=1, name="chunks") as pool,
        pool.connection() as one,
    ):
        for values in runs:
            if array:
                one.execute(f"SELECT id FROM {ROWS} WHERE id = ANY(%s)", (values,)).fetchall()
            else:
                one.execute(page("%(key)s", "%(last)s"), {"key": values[0], "last": values[1]}).fetchall()


def with_asyncpg(where: Postgres, runs: list[Any], *, array: bool) -> None:
    """Asyncpg with its own pool."""

    async def run() -> None:
        async with asyncpg.create_pool(where.dsn, min_size=1, max_size=1) as pool, pool.acquire() as one:
            for values in runs:
                if array:
                    await one.fetch(f"SELECT id FROM {ROWS} WHERE id = ANY($1::int[])", values)
                else:
                    await one.fetch(page("$1::int", "$2::int"), *values)

    asyncio.run(run())


def with_asyncpg_prepared(where: Postgres, runs: list[Any], *, array: bool) -> None:
    """Asyncpg with a prepared statement."""

    async def run() -> None:
        async with asyncpg.create_pool(where.dsn, min_size=1, max_size=1) as pool, pool.acquire() as one:
            of_array = f"SELECT id FROM {ROWS} WHERE id = ANY($1::int[])"
            statement = await one.prepare(of_array if array else page("$1::int", "$2::int"))
            for values in runs:
                await statement.fetch(*([values] if array else values))

    asyncio.run(run())


def statement(values: Any, *, array: bool) -> Any:
    """The same with SQLAlchemy, and its values."""
    if not array:
        return text(page(":key", ":last")).bindparams(key=values[0], last=values[1])
    rows = text(f"SELECT id FROM {ROWS}").columns(id=Integer).subquery()
    return select(rows).where(rows.c.id == any_(bindparam("ids", values, ARRAY(Integer))))


def with_sqlalchemy(where: Postgres, runs: list[Any], *, array: bool) -> None:
    """SQLAlchemy on psycopg."""
    engine = create_engine(where.url("psycopg"))
    with engine.connect() as one:
        for values in runs:
            one.execute(statement(values, array=array)).all()
    engine.dispose()


def with_sqlalchemy_and_asyncpg(where: Postgres, runs: list[Any], *, array: bool) -> None:
    """SQLAlchemy on asyncpg."""

    async def run() -> None:
        engine = create_async_engine(where.url("asyncpg"))
        async with engine.connect() as one:
            for values in runs:
                await one.execute(statement(values, array=array))
        await engine.dispose()

    asyncio.run(run())


def with_django(where: Postgres, runs: list[Any], *, array: bool) -> None:
    """Django's own connection."""
    django = pytest.importorskip("django")
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure()
        django.setup()
    one = ConnectionHandler({"default": {}, "chunks": where.django_settings()})["chunks"]
    with one.cursor() as cursor:
        for values in runs:
            if array:
                cursor.execute(f"SELECT id FROM {ROWS} WHERE id = ANY(%s)", [values])
            else:
                cursor.execute(page("%s", "%s"), list(values))
    one.close()


@pytest.fixture
def unit() -> Iterator[UnitOfWork]:
    """A unit of work around the test, with the hooks in."""
    with watched("sqlalchemy", "psycopg_pool", "asyncpg", "django"):
        unit = UnitOfWork("job", "chunks")
        token = CURRENT_UNIT.set(unit)
        yield unit
        CURRENT_UNIT.reset(token)


@pytest.mark.parametrize("array", [False, True], ids=["pages", "arrays"])
@pytest.mark.parametrize(
    "driver",
    [
        with_psycopg_pool,
        with_asyncpg,
        with_asyncpg_prepared,
        with_sqlalchemy,
        with_sqlalchemy_and_asyncpg,
        with_django,
    ],
)
def test_chunks_are_no_repetition_and_what_looks_like_them_is(
    driver: Callable[..., None], database: Postgres, unit: UnitOfWork, *, array: bool
) -> None:
    """
    With each driver: the pages of one tenant and batches by array are not repeated; the same statement with the values
    of an N+1 is, as often as it ran.
    """
    driver(database, BATCHES if array else PAGES, array=array)
    assert repeated(unit) == []
    driver(database, HANDFULS if array else FIRSTS, array=array)
    (count,) = repeated(unit)
    assert TIMES <= count <= TIMES + 2  # of the chunks, the first is one
    assert int(sum(usage.queries.read() for usage in unit.usages.values())) >= 2 * TIMES


def repeated(unit: UnitOfWork) -> list[int]:
    """How often what is repeated was run."""
    return [one.count for usage in unit.usages.values() for one in usage.repetitions.beyond_threshold(THRESHOLD)]
