"""Refused at once: the code of the page, with psycopg2's pool and a real server."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import wait_until
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from tests.support.pages import PAGES, run_block
from tests.support.telemetry import Telemetry, instrumented

psycopg2 = pytest.importorskip("psycopg2")

from psycopg2.pool import PoolError, ThreadedConnectionPool  # noqa: E402 - only where it is installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding

# Of its blocks the two that are no functions of the shop.
BAD, REPAIRED = (run_block("pool_exhausted", number) for number in (2, 3))
# As many as both pools of the page have connections.
ROOM = 2


@pytest.fixture
def telemetry(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(exhaustion_threshold=0, long_hold_threshold=600)


@pytest.fixture
def pool(telemetry: Telemetry, database: Postgres) -> Iterator[ThreadedConnectionPool]:
    """The pool of the page, and its table with one item."""
    with psycopg2.connect(database.dsn) as connection, connection.cursor() as cursor:
        cursor.execute("create table if not exists items (sku text primary key, price int)")
        cursor.execute("insert into items values ('tea', 7) on conflict do nothing")
    connection.close()
    made = ThreadedConnectionPool(1, ROOM, database.dsn)
    yield made
    made.closeall()


class Crowd:
    """
    Three requests at once, of which two are kept in their query by a lock on the table.

    Args:
        database: Where the table is.
        price: What each runs.
        pool: With what.
    """

    def __init__(self, database: Postgres, price: Callable[[Any, str], int], pool: ThreadedConnectionPool) -> None:
        self._lock = psycopg2.connect(database.dsn)
        self._threads = ThreadPoolExecutor(ROOM + 1)
        self._run = lambda: self._threads.submit(price, pool, "tea")

    def __enter__(self) -> tuple[list[Future[int]], Future[int]]:
        with self._lock.cursor() as cursor:
            cursor.execute("lock table items in access exclusive mode")
        first = [self._run() for _ in range(ROOM)]
        wait_until(lambda: self._waiting() == ROOM, 60, "both are in their query")
        return first, self._run()

    def _waiting(self) -> int:
        with self._lock.cursor() as cursor:
            cursor.execute("select count(*) from pg_locks where relation = 'items'::regclass and not granted")
            return int(cursor.fetchone()[0])

    def release(self) -> None:
        """Let the queries go on."""
        self._lock.rollback()

    def __exit__(self, *_: object) -> None:
        self.release()
        self._threads.shutdown()
        self._lock.close()


def test_three_requests_at_a_pool_of_two(
    telemetry: Telemetry, found: list[Finding], database: Postgres, pool: ThreadedConnectionPool
) -> None:
    """The third is turned away at once, and found with both that hold; those get their answers."""
    crowd = Crowd(database, BAD["price"], pool)
    with crowd as (first, third):
        assert isinstance(third.exception(60), PoolError)
        crowd.release()
        assert [one.result(60) for one in first] == [7, 7]
    telemetry.instrumentor.flush()
    (finding,) = found
    assert (finding.id, finding.evidence["outcome"]) == (POOL_EXHAUSTED, "rejected")
    assert f"({ROOM} of {ROOM} in use, 1 waiting)" in finding.summary
    assert "was refused at once" in finding.summary
    holders = finding.evidence["holders"]
    assert isinstance(holders, list)
    assert len(holders) == ROOM
    assert all(f"checked out at {PAGES / 'pool_exhausted.md'}" in one for one in holders)


def test_the_repaired_code_lets_the_third_wait(
    telemetry: Telemetry, found: list[Finding], database: Postgres, pool: ThreadedConnectionPool
) -> None:
    """The same crowd: all get their answers, and nothing is found."""
    crowd = Crowd(database, REPAIRED["price"], pool)
    with crowd as (first, third):
        wait_until(lambda: REPAIRED["ROOM"]._cond._waiters, 60, "the third to wait")
        assert not third.done()
        crowd.release()
        assert [one.result(60) for one in (*first, third)] == [7, 7, 7]
    telemetry.instrumentor.flush()
    assert found == []
