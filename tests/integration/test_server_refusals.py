"""
A server that accepts no further connection, with each library that connects to a real one; and every other way to go
without a connection that only a real library shows. The role of these tests may have no connection at all.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

import poolscope
from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED, SLOW_CONNECT
from poolscope.core.pool_registry import open_pool_registries
from tests.support.skips import require
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding

ROLE = "shut_out"


@pytest.fixture
def telemetry(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(long_hold_threshold=600)


@pytest.fixture(scope="module")
def shut_out(database: Postgres) -> Postgres:
    """The database for a role that may have no connection."""
    with database.connect() as connection:
        connection.execute(f"drop role if exists {ROLE}")
        connection.execute(f"create role {ROLE} login password '{ROLE}' connection limit 0")
    return replace(database, user=ROLE, password=ROLE)


def by_sqlalchemy(server: Postgres, driver: str) -> None:
    """An engine of its own."""
    sqlalchemy.create_engine(server.url(driver)).connect()


def by_asyncpg(server: Postgres) -> None:
    """A pool that connects when it has to."""

    async def use() -> None:
        async with importlib.import_module("asyncpg").create_pool(server.dsn, min_size=0, max_size=2) as pool:
            await pool.acquire()

    asyncio.run(use())


def by_psycopg2(server: Postgres) -> None:
    """A pool that connects when it has to."""
    importlib.import_module("psycopg2.pool").ThreadedConnectionPool(0, 2, server.dsn).getconn()


def by_engine_of_asyncpg(server: Postgres) -> None:
    """An asyncio engine."""

    async def use() -> None:
        await create_async_engine(server.url("asyncpg")).connect()

    asyncio.run(use())


CALLERS: dict[str, tuple[str, Callable[[Postgres], None]]] = {
    "SQLAlchemy on psycopg": ("psycopg", lambda server: by_sqlalchemy(server, "psycopg")),
    "SQLAlchemy on psycopg2": ("psycopg2", lambda server: by_sqlalchemy(server, "psycopg2")),
    "SQLAlchemy on asyncpg": ("asyncpg", by_engine_of_asyncpg),
    "asyncpg": ("asyncpg", by_asyncpg),
    "psycopg2": ("psycopg2", by_psycopg2),
}


def outcomes(telemetry: Telemetry) -> dict[str, int]:
    """How many checkouts went without a connection, by how."""
    counts: dict[str, int] = {}
    for point in telemetry.collect().points(semconv.FAILED_CHECKOUTS):
        outcome = point.attributes[semconv.CHECKOUT_OUTCOME]
        counts[outcome] = counts.get(outcome, 0) + point.value
    return counts


def reported(telemetry: Telemetry, found: list[Finding]) -> list[Finding]:
    """Everything, as at the end of the process."""
    telemetry.stop()
    return found


@pytest.mark.parametrize("caller", CALLERS)
def test_a_refused_connect_is_found(
    telemetry: Telemetry, found: list[Finding], shut_out: Postgres, caller: str
) -> None:
    """
    Whatever the driver gives of it: a code, or libpq's text alone. It is counted as what it is, and the report has
    neither the role nor a password.
    """
    driver, connect = CALLERS[caller]
    require(importlib.util.find_spec(driver), f"{driver} is not installed", "make env")
    with poolscope.unit_of_work("GET /items", kind="http"), pytest.raises(Exception, match="too many connections"):
        connect(shut_out)
    assert outcomes(telemetry) == {"server_refused": 1}
    (finding,) = reported(telemetry, found)
    assert (finding.id, finding.evidence["code"]) == (TOO_MANY_CONNECTIONS, "53300")
    assert finding.evidence["limit_reached"] == "role"
    assert str(finding.unit) == "http GET /items"
    assert ROLE not in f"{finding.report}{finding.evidence}"


def test_a_pool_that_connects_in_the_background(telemetry: Telemetry, found: list[Finding], shut_out: Postgres) -> None:
    """The workers of psycopg's pool are refused, and the request times out: the cause of that is the refusal."""
    pools = pytest.importorskip("psycopg_pool")
    with pools.ConnectionPool(shut_out.dsn, min_size=1, max_size=2, open=False) as pool:
        pool.open()
        known = open_pool_registries[-1]  # with pools that earlier tests have left
        wait_until(lambda: any(one.refusals for one in known.pools.values()), 60, "a worker to be refused")
        with poolscope.unit_of_work("GET /items", kind="http"), pytest.raises(pools.PoolTimeout):
            pool.getconn(timeout=0.2)
    assert outcomes(telemetry) == {"timeout": 1}
    causes = {finding.id: finding.evidence.get("cause") for finding in reported(telemetry, found)}
    assert causes[POOL_EXHAUSTED] == TOO_MANY_CONNECTIONS


def test_a_caller_that_does_not_wait_any_longer(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """
    ``asyncio.wait_for`` around a checkout, at a full pool: the pool's own timeouts do not count it. One that is in time
    is no finding.
    """
    asyncpg = pytest.importorskip("asyncpg")

    async def use(size: int, patience: float) -> None:
        async with asyncpg.create_pool(database.dsn, min_size=1, max_size=size) as pool, pool.acquire():
            await pool.release(await asyncio.wait_for(pool.acquire(), patience))

    asyncio.run(use(2, 60))
    assert outcomes(telemetry) == {}
    telemetry.instrumentor.flush()
    assert found == []
    with poolscope.unit_of_work("GET /items", kind="http"), pytest.raises(asyncio.TimeoutError):
        asyncio.run(use(1, 0.3))
    assert outcomes(telemetry) == {"cancelled": 1}
    assert telemetry.collect().total(semconv.TIMEOUTS) == 0
    exhausted = [finding for finding in reported(telemetry, found) if finding.id == POOL_EXHAUSTED]
    assert [finding.evidence["outcome"] for finding in exhausted] == ["cancelled"]


def test_a_server_that_is_not_there_and_a_pool_that_is_closed(
    telemetry: Telemetry, found: list[Finding], database: Postgres
) -> None:
    """Neither is a refusal: connects fail, with their error; a closed pool is counted."""
    pools = pytest.importorskip("psycopg2.pool")
    gone = replace(database, host="127.0.0.1", port=1)
    with pytest.raises(Exception, match="refused"):
        pools.ThreadedConnectionPool(0, 2, gone.dsn).getconn()
    closed = pools.ThreadedConnectionPool(1, 2, database.dsn)
    closed.putconn(closed.getconn())
    closed.closeall()
    with pytest.raises(pools.PoolError):
        closed.getconn()
    assert outcomes(telemetry) == {"connect_failed": 1, "pool_closed": 1}
    (finding,) = reported(telemetry, found)
    assert (finding.id, finding.evidence["cause"]) == (POOL_EXHAUSTED, SLOW_CONNECT)
    assert "its last connect failed (psycopg2.OperationalError)" in finding.summary
