"""Several pools of one application: distinguished, bounded in number, and which of them is short."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from typing import TYPE_CHECKING

import pytest

from examples.lab.postgres import postgres
from poolscope import semconv
from poolscope.adapters.registry import Registry, load
from poolscope.core.pool_registry import OVERFLOW, PoolRegistry
from tests.support.telemetry import Telemetry, instrumented
from tests.support.watched import BOUNDS, at_rest, watched

sqlalchemy = pytest.importorskip("sqlalchemy")
psycopg_pool = pytest.importorskip("psycopg_pool")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on, and nothing there but this test's: the engines of earlier ones may wait for their collection."""
    gc.collect()
    yield from instrumented()


@pytest.fixture(scope="module")
def servers(database: Postgres) -> Iterator[list[Postgres]]:
    """A primary and two more servers."""
    with contextlib.ExitStack() as stack:
        yield [database, *(stack.enter_context(postgres(max_connections=20)) for _ in range(2))]


def test_a_primary_and_two_more_servers(telemetry: Telemetry, servers: list[Postgres]) -> None:
    """
    One pool for each server: every point carries its server, and the one that is short is the one with saturation,
    timeouts and waits; the others have none.
    """
    engines = [
        sqlalchemy.create_engine(server.url("psycopg"), pool_size=1, max_overflow=0, pool_timeout=0.05)
        for server in servers
    ]
    short = 1
    used = [0.0, 0.0, 0.0]
    began = time.perf_counter()
    held = engines[short].connect()
    full_from = time.perf_counter()
    for _ in range(2):
        with pytest.raises(sqlalchemy.exc.TimeoutError):
            engines[short].connect()
    for number, engine in enumerate(engines):
        if number != short:
            began_here = time.perf_counter()
            with engine.connect() as connection:
                assert connection.execute(sqlalchemy.text("select 1")).scalar() == 1
            used[number] = time.perf_counter() - began_here
    full = time.perf_counter() - full_from
    collected = telemetry.collect()
    used[short] = time.perf_counter() - began
    for number, server in enumerate(servers):
        pool = f"{server.host}:{server.port}/{server.database}"
        assert collected.value(semconv.TIMEOUTS, pool) == (2 if number == short else 0)
        # A pool of one is full whenever it is used.
        saturated = collected.total(semconv.SATURATION_TIME, pool)
        assert saturated <= used[number]
        assert number != short or saturated >= full >= 0.1
        points = collected.points(semconv.WAIT_TIME, pool)
        assert {point.attributes[semconv.SERVER_PORT] for point in points} == {server.port}
    held.close()
    for engine in engines:
        engine.dispose()


def test_two_engines_on_one_url_and_a_pool_per_tenant(
    servers: list[Postgres], caplog: pytest.LogCaptureFixture
) -> None:
    """
    Pools with the same server and database are numbered; beyond the allowed number of names further pools share one,
    and that is said once.
    """
    gc.collect()
    with watched("sqlalchemy", "psycopg_pool") as before:
        others = set(before.pool_registry.pools)  # engines of other tests that live on
    pool_registry = PoolRegistry(BOUNDS, most_pools=len(others) + 4)
    registry = Registry(pool_registry, adapters=load(["sqlalchemy", "psycopg_pool"]))
    registry.start()

    def made() -> list[str]:
        return [name for name in pool_registry.pools if name not in others]

    try:
        twins = [sqlalchemy.create_engine(servers[0].url("psycopg")) for _ in range(2)]
        name = f"{servers[0].host}:{servers[0].port}/{servers[0].database}"
        assert made() == [name, f"{name}#2"]
        with caplog.at_level(logging.WARNING, "poolscope"):
            tenants = [
                psycopg_pool.ConnectionPool(servers[0].dsn, min_size=0, max_size=1, name=f"tenant-{number}", open=True)
                for number in range(5)
            ]
        assert made() == [name, f"{name}#2", "tenant-0", "tenant-1", OVERFLOW]
        assert len([record for record in caplog.records if "share the series" in record.message]) == 1
        for tenant in tenants:
            with tenant.connection():
                assert sum(len(pool_registry.pools[one].leases) for one in made()) == 1
            tenant.close()
        assert pool_registry.pools[OVERFLOW].waits.read().count == 3
        for one in made():
            at_rest(pool_registry.pools[one])
        for twin in twins:
            twin.dispose()
    finally:
        registry.stop()
