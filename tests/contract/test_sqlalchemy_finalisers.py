"""
What poolscope keeps of SQLAlchemy's connections keeps none of them alive: each is finalised when it
would be without.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import logging
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy import exc, pool

from tests.contract.drivers.base import DEADLINE
from tests.contract.drivers.sqlalchemy import VERSION
from tests.support.skips import require
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.lab.postgres import Postgres

#: A step, and which of the fairy and its record are gone by then.
Seen = list[tuple[str, list[bool]]]


class Watch:
    """What has become of a connection, step by step."""

    def __init__(self) -> None:
        self.seen: Seen = []
        self._references: list[weakref.ref[Any]] = []

    def on(self, fairy: Any) -> None:
        """Watch this one."""
        self._references = [weakref.ref(fairy), weakref.ref(fairy._connection_record)]

    def look(self, step: str) -> None:
        """Write down what is gone."""
        self.seen.append((step, [reference() is None for reference in self._references]))


def dropped(engine: Any, watch: Watch) -> None:
    """The caller lets go of a connection."""
    fairy = engine.raw_connection()
    watch.on(fairy)
    del fairy
    watch.look("dropped")
    engine.raw_connection().close()


def returned(engine: Any, watch: Watch) -> None:
    """The caller returns a connection, and holds on to what it had of it for a while."""
    fairy = engine.raw_connection()
    watch.on(fairy)
    fairy.close()
    watch.look("returned")
    del fairy
    watch.look("let go of")


def superseded(engine: Any, watch: Watch) -> None:
    """The caller holds a connection while another one checks out and returns."""
    fairy = engine.raw_connection()
    watch.on(fairy)
    with contextlib.suppress(AssertionError):  # an AssertionPool has one
        engine.raw_connection().close()
    watch.look("superseded")
    del fairy
    watch.look("dropped")


def disposed(engine: Any, watch: Watch) -> None:
    """The engine disposes of its pool while the caller holds a connection."""
    fairy = engine.raw_connection()
    watch.on(fairy)
    engine.dispose()
    watch.look("disposed")
    del fairy
    watch.look("dropped")


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is dropped
            yield
    finally:
        gc.enable()
        gc.collect()


def _with_and_without(scenario: Callable[[Watch], None]) -> tuple[Seen, Seen]:
    logging.getLogger("sqlalchemy.pool").disabled = True
    without, with_hooks = Watch(), Watch()
    with _without_garbage_collection():
        scenario(without)
    telemetry = Telemetry(checkout_spans="always")
    telemetry.start()
    try:
        with telemetry.tracer.start_as_current_span("request"), _without_garbage_collection():
            scenario(with_hooks)
    finally:
        telemetry.shutdown()
    return without.seen, with_hooks.seen


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        (kind, ending)
        for kind in (pool.StaticPool, pool.SingletonThreadPool, pool.AssertionPool, pool.QueuePool, pool.NullPool)
        for ending in (dropped, returned, superseded, disposed)
        if (kind, ending) != (pool.AssertionPool, disposed)  # it does not take a connection back after that
    ],
)
def test_a_connection_is_kept_no_longer_than_without_poolscope(kind: Any, ending: Callable[[Any, Watch], None]) -> None:
    """
    Whatever the caller does with a connection, its fairy and its record go when they go without poolscope, with no help
    of the garbage collector.
    """

    def scenario(watch: Watch) -> None:
        engine = sqlalchemy.create_engine(
            "sqlite://", poolclass=kind, connect_args={"check_same_thread": False}, pool_logging_name="finalised"
        )
        ending(engine, watch)
        engine.dispose()

    without, with_hooks = _with_and_without(scenario)
    assert with_hooks == without
    assert without[-1][1][0], "the fairy outlives the caller's hold without poolscope, too"


@pytest.mark.parametrize("moment", ["wait", "statement"])
@pytest.mark.parametrize("kind", [pool.StaticPool, pool.AsyncAdaptedQueuePool, pool.NullPool])
def test_nor_does_one_that_a_cancelled_task_held(kind: Any, moment: str) -> None:
    """
    The same for the connection of a task that is cancelled while it waits for something else or for its statement: gone
    with the task, or left to the garbage collector by the library.
    """
    require(importlib.util.find_spec("aiosqlite"), "aiosqlite missing", "make env")
    require(VERSION >= (2, 0), "SQLAlchemy 1.4 cannot terminate aiosqlite's connections", "make env")
    from sqlalchemy.ext.asyncio import create_async_engine

    async def cancel(watch: Watch) -> None:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=kind, pool_logging_name="cancelled")
        holds = asyncio.Event()
        workers: list[Any] = []

        async def work() -> None:
            connection: Any = await engine.connect()
            watch.on(connection.sync_connection._dbapi_connection)
            workers.append((await connection.get_raw_connection()).driver_connection._thread)
            if moment == "wait":
                holds.set()
                await asyncio.Event().wait()
            loop = asyncio.get_running_loop()
            driver = (await connection.get_raw_connection()).driver_connection
            await driver.create_function("holds", 0, lambda: loop.call_soon_threadsafe(holds.set) and 1)
            await connection.execute(sqlalchemy.text(ENDLESS))

        task = asyncio.create_task(work())
        await holds.wait()
        watch.look("held")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, exc.DBAPIError):
            await task
        watch.look("cancelled")
        del task
        for _ in range(5):
            await asyncio.sleep(0)
        watch.look("turned")
        gc.collect()
        watch.look("collected")
        await engine.dispose()
        await asyncio.to_thread(workers[0].join, DEADLINE)  # it notifies the loop that it is done

    without, with_hooks = _with_and_without(lambda watch: asyncio.run(asyncio.wait_for(cancel(watch), DEADLINE)))
    assert with_hooks == without
    assert with_hooks[-1][1][0]


#: Says that it runs, and goes on for a while.
ENDLESS = (
    "WITH RECURSIVE counted(n) AS (SELECT holds() UNION ALL SELECT n + 1 FROM counted WHERE n < 100000)"
    " SELECT count(*) FROM counted"
)


def test_a_pool_below_keeps_nothing_of_the_one_above(database: Postgres) -> None:
    """
    An engine whose creator takes from another pool is dropped with a connection of that: what hung on the engine's
    record goes, though the lower pool's lease goes on.
    """
    require(VERSION >= (2, 0), "SQLAlchemy 1.4 has no dialect for psycopg", "make env")
    psycopg_pool = pytest.importorskip("psycopg_pool")

    class Mine:
        pass

    telemetry = Telemetry()
    telemetry.start()
    try:
        with psycopg_pool.ConnectionPool(database.dsn, min_size=1, max_size=1, name="below") as below:
            engine: Any = sqlalchemy.create_engine("postgresql+psycopg://", creator=below.getconn)
            fairy = engine.raw_connection()
            bare, mine = fairy.driver_connection, Mine()
            fairy.info["mine"] = mine
            fairy.close()
            gone = weakref.ref(mine)
            del fairy, engine, mine
            gc.collect()
            assert gone() is None
            assert telemetry.collect().used("below") == 1
            below.putconn(bare)
            assert telemetry.collect().used("below") == 0
    finally:
        telemetry.shutdown()
