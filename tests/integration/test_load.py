"""Exact to one under load, on a real PostgreSQL."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from poolscope import semconv
from poolscope.core.guard import guard
from tests.support.skips import require
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres

THREADS = 64
LEASES = 200_000
LIMIT = 15


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope on, without spans: they are not what is tested, and 200,000 of them fill the memory."""
    made = Telemetry(checkout_spans="never")
    made.start()
    yield made
    made.shutdown()


@pytest.mark.stateful
@pytest.mark.timeout(300)
def test_200_000_leases_from_64_threads(telemetry: Telemetry, database: Postgres) -> None:
    """
    64 threads on a pool of 10 + 5: every checkout and every lease is counted once, at no moment are more than 15 in
    use, and at the end none, with no drift; while a reader collects all the time.
    """
    require(sqlalchemy.__version__ >= "2", "SQLAlchemy 1.4 has no dialect for psycopg", "make matrix")
    engine = sqlalchemy.create_engine(
        database.url("psycopg"),
        pool_size=10,
        max_overflow=5,
        pool_timeout=120,
        pool_logging_name="load",
        pool_reset_on_return=None,
    )
    connect = engine.pool.connect
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(LEASES // THREADS):
                connect().close()
        except BaseException as error:
            failures.append(error)

    seen: list[float | None] = []
    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            seen.append(telemetry.collect().used("load"))
            thread.join(0.1)
    assert failures == []
    collected = telemetry.collect()
    assert collected.counts(semconv.WAIT_TIME, "load") == {"": LEASES}
    assert collected.counts(semconv.USE_TIME, "load") == {"": LEASES}
    assert max(used or 0 for used in seen) <= LIMIT
    assert (collected.value(semconv.USED_PEAK, "load") or 0) <= LIMIT
    assert (collected.used("load"), collected.value(semconv.DRIFT, "load")) == (0, 0)
    assert collected.value(semconv.PENDING_REQUESTS, "load") == 0
    assert collected.total(semconv.WAIT_PHASE_TIME, "load") == pytest.approx(collected.total(semconv.WAIT_TIME, "load"))
    assert collected.total(semconv.HOLD_PHASE_TIME, "load") == pytest.approx(collected.total(semconv.USE_TIME, "load"))
    (creates,) = collected.points(semconv.CREATE_TIME, "load")
    closed = collected.total(semconv.CLOSURES, "load")
    assert creates.count - closed == collected.idle("load")
    assert guard.counts() == {}
    engine.dispose()
