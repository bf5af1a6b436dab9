"""Pools on top of pools: one lease for each pool that really pools, and every statement counted once."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab import pgbouncer
from examples.lab.processes import wait_until
from poolscope import pool_name
from poolscope.core.work import CURRENT_UNIT, UnitOfWork
from tests.support.skips import require
from tests.support.watched import at_rest, outcomes, watched

sqlalchemy = pytest.importorskip("sqlalchemy")
psycopg_pool = pytest.importorskip("psycopg_pool")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres
    from poolscope.core.pool import Pool
    from tests.support.watched import Watched

DEADLINE = 60.0


@pytest.fixture
def seen() -> Iterator[Watched]:
    """Poolscope's eyes."""
    gc.collect()  # the engines of other tests
    with watched("sqlalchemy", "psycopg_pool", "psycopg2_pool", "asyncpg", "django") as eyes:
        yield eyes


@pytest.fixture
def unit() -> Iterator[UnitOfWork]:
    """A unit of work around the test."""
    unit = UnitOfWork("http", "GET /layers")
    token = CURRENT_UNIT.set(unit)
    yield unit
    CURRENT_UNIT.reset(token)


def queries(unit: UnitOfWork) -> dict[str, int]:
    """The statements that a unit of work is charged with, by pool."""
    return {pool.identity.name: int(usage.queries.read()) for pool, usage in unit.usages.items()}


def inner(where: Postgres) -> Any:
    """Psycopg's pool, to which a closed connection goes back."""
    return psycopg_pool.ConnectionPool(where.dsn, min_size=1, max_size=2, name="inner", close_returns=True, open=True)


def test_sqlalchemy_on_a_psycopg_pool(seen: Watched, unit: UnitOfWork, database: Postgres) -> None:
    """
    SQLAlchemy's pool with a creator that takes from psycopg's: one lease in each, phases in both, each statement
    counted for the upper one alone. What SQLAlchemy keeps idle is in use below.
    """
    with inner(database) as pool:
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=pool.getconn, pool_size=1, max_overflow=0, pool_logging_name="outer"
        )
        before = _warmed(engine, seen, unit)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
            connection.execute(sqlalchemy.text("select 2"))
            (upper,), (lower,) = seen.pool("outer").leases, seen.pool("inner").leases
            assert (upper.queries, upper.phase, lower.phase) == (2, "idle_in_transaction", "idle_in_transaction")
            assert lower.query_time > 0
        after = queries(unit)
        assert after["outer"] - before["outer"] == 2
        assert after["inner"] == before["inner"]
        assert (len(seen.pool("outer").leases), len(seen.pool("inner").leases)) == (0, 1)
        engine.dispose()
        at_rest(seen.pool("outer"))
        at_rest(seen.pool("inner"))


def _warmed(engine: Any, seen: Watched, unit: UnitOfWork) -> dict[str, int]:
    # The dialect asks the server for its version and more with its first connection, before that is the pool's.
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("select 0"))
    assert outcomes(seen.pool("outer"))[""] >= 1
    return queries(unit)


def test_sqlalchemys_null_pool_over_an_outer_pool(seen: Watched, unit: UnitOfWork, database: Postgres) -> None:
    """
    NullPool pools nothing, so the pool below sees the same checkouts: one lease in it for each,
    returned with it.
    """
    with inner(database) as pool:
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=pool.getconn,
            poolclass=sqlalchemy.pool.NullPool,
            pool_logging_name="outer",
        )
        before = _warmed(engine, seen, unit)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
            assert (len(seen.pool("outer").leases), len(seen.pool("inner").leases)) == (1, 1)
        assert queries(unit)["outer"] - before["outer"] == 1
        assert queries(unit)["inner"] == before["inner"]
        assert outcomes(seen.pool("inner")) == outcomes(seen.pool("outer"))
        engine.dispose()
        at_rest(seen.pool("outer"))
        at_rest(seen.pool("inner"))


def test_sqlalchemy_on_a_psycopg2_pool(seen: Watched, unit: UnitOfWork, database: Postgres) -> None:
    """The same over psycopg2's own pool: each statement is counted once, for the upper pool."""
    pools = pytest.importorskip("psycopg2.pool")
    with pool_name("inner"):
        pool = pools.ThreadedConnectionPool(1, 2, database.dsn)
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://", creator=pool.getconn, pool_size=1, max_overflow=0, pool_logging_name="outer"
    )
    before = _warmed(engine, seen, unit)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("select 1"))
        (upper,), (lower,) = seen.pool("outer").leases, seen.pool("inner").leases
        assert (upper.queries, upper.phase, lower.phase) == (1, "idle_in_transaction", "idle_in_transaction")
        assert lower.query_time > 0
    after = queries(unit)
    assert after["outer"] - before["outer"] == 1
    assert after["inner"] == before["inner"]
    engine.dispose()
    at_rest(seen.pool("outer"))
    pool.closeall()
    at_rest(seen.pool("inner"))


def test_sqlalchemy_on_a_driver_that_is_hooked(seen: Watched, unit: UnitOfWork, database: Postgres) -> None:
    """
    SQLAlchemy's own pool of asyncpg and psycopg connections: the drivers' hooks see connections without a pool of
    theirs, and count nothing.
    """

    async def scenario() -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        for driver in ("asyncpg", "psycopg_async"):
            engine = create_async_engine(database.url(driver), pool_logging_name=driver)
            async with engine.connect() as connection:
                await connection.execute(sqlalchemy.text("select 1"))
                (lease,) = seen.pool(driver).leases
                assert lease.queries == 1
            await engine.dispose()
            at_rest(seen.pool(driver))

    asyncio.run(scenario())
    assert queries(unit) == {"asyncpg": 1, "psycopg_async": 1}


def test_django_over_psycopg_pool(seen: Watched, unit: UnitOfWork, database: Postgres) -> None:
    """
    With Django's pool option the pool is psycopg's, under the name of the alias: one lease, each statement once. The
    same alias without the option is Django's.
    """
    django = pytest.importorskip("django")
    require(django.VERSION >= (5, 1), f"Django {django.__version__} has no pools", "Django 5.1")
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure()
        django.setup()
    plain = database.django_settings()
    pooled = {**plain, "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}}}
    handler = ConnectionHandler({"default": {}, "pooled": pooled, "plain": plain})
    for alias in ("pooled", "plain"):
        with handler[alias].cursor() as cursor:
            cursor.execute("select 1")
            ours: Pool = seen.pool(alias)
            (lease,) = ours.leases
            assert (lease.queries, ours.identity.port) == (1, database.port)
        handler[alias].close()
        at_rest(ours)
    handler["pooled"].close_pool()
    assert queries(unit) == {"pooled": 1, "plain": 1}


def test_an_application_behind_pgbouncer(seen: Watched, database: Postgres) -> None:
    """
    PgBouncer is seen as the server: the application's pool is exact, and waits for a server connection show as time of
    the statement, not as a wait for the pool. Two clients of a PgBouncer with one server connection hold a lease each.
    """
    missing = pgbouncer.missing()
    require(missing is None, str(missing), "apt-get install pgbouncer")
    with (
        pgbouncer.pgbouncer(database, pool_size=1) as bouncer,
        psycopg_pool.ConnectionPool(
            bouncer.dsn, min_size=2, max_size=2, name="app", open=True, kwargs={"prepare_threshold": None}
        ) as pool,
    ):
        pool.wait(DEADLINE)
        ours = seen.pool("app")
        assert (ours.identity.address, ours.identity.port) == (bouncer.host, bouncer.port)
        first, second = pool.getconn(), pool.getconn()
        first.execute("select 1")  # its transaction keeps the one server connection
        second_waits = threading.Thread(target=second.execute, args=("select 2",))
        second_waits.start()
        lease = wait_until(lambda: next((one for one in ours.leases if one.running), None), DEADLINE, "the statement")
        began = ours.now()
        second_waits.join(0.2)
        assert second_waits.is_alive()  # until the first connection's transaction is over
        waited = ours.now() - began
        first.rollback()
        second_waits.join(DEADLINE)
        assert (lease.queries, lease.statement) == (1, "select 2")
        assert lease.query_time >= waited
        for connection in (first, second):
            connection.rollback()
            pool.putconn(connection)
        assert outcomes(ours) == {"": 2}
        at_rest(ours)
