"""
Collections of metrics and of garbage into one another: ends with 0, or with the stacks of all threads when it hangs.

Usage:
    python -m tests.integration.programs.collecting sync|async
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import sys
import threading
import warnings

import sqlalchemy
from sqlalchemy.pool import QueuePool

from poolscope import semconv
from poolscope.core.guard import guard
from tests.support.telemetry import Telemetry

#: Seconds; it takes seven, and some thirty on a busy machine.
DEADLINE = 240.0
ROUNDS = 100
POOL = "collecting"


def collect_garbage_often() -> None:
    """
    From here on the garbage collector runs at nearly every allocation, over what is made from here on: what was there
    before it would look at again each time, for most of the program's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(1, 1, 1)


class Cycle:
    """Holds a connection, and itself: only the garbage collector frees it, whenever it likes."""

    def __init__(self, connection: object) -> None:
        self.connection = connection
        self.itself = self


def drop(engine: sqlalchemy.Engine, telemetry: Telemetry, failures: list[BaseException]) -> None:
    """Drop connections in cycles, with spans around them."""
    try:
        for _ in range(ROUNDS):
            with telemetry.tracer.start_as_current_span("drop"):
                Cycle(engine.raw_connection())
    except BaseException as error:
        failures.append(error)


def main() -> None:
    """Two threads drop connections while two collect metrics; the garbage collector runs at nearly every allocation."""
    telemetry = Telemetry(checkout_spans="always")
    telemetry.start()
    engine = sqlalchemy.create_engine(
        "sqlite://", poolclass=QueuePool, pool_size=2, max_overflow=-1, pool_logging_name=POOL,
        connect_args={"check_same_thread": False},
    )  # fmt: skip
    failures: list[BaseException] = []
    collect_garbage_often()
    droppers = [threading.Thread(target=drop, args=(engine, telemetry, failures)) for _ in range(2)]
    for thread in droppers:
        thread.start()

    def collect() -> None:
        while any(thread.is_alive() for thread in droppers):
            telemetry.collect()

    collectors = [threading.Thread(target=collect) for _ in range(2)]
    for thread in collectors:
        thread.start()
    for thread in (*droppers, *collectors):
        thread.join()
    gc.set_threshold(700, 10, 10)
    gc.collect()
    check(telemetry, failures)


async def main_async() -> None:
    """The same with an async engine, whose dropped connections are terminated in the collection."""
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import AsyncAdaptedQueuePool
    from sqlalchemy.util import greenlet_spawn

    telemetry = Telemetry(checkout_spans="always")
    telemetry.start()
    engine = create_async_engine(
        "sqlite+aiosqlite://", poolclass=AsyncAdaptedQueuePool, pool_size=2, max_overflow=-1, pool_logging_name=POOL
    )
    failures: list[BaseException] = []
    ended = threading.Event()

    def collect() -> None:
        while not ended.is_set():
            telemetry.collect()

    collector = threading.Thread(target=collect)
    collect_garbage_often()
    collector.start()
    try:
        for _ in range(ROUNDS * 2):
            Cycle(await greenlet_spawn(engine.sync_engine.raw_connection))
    except BaseException as error:
        failures.append(error)
    gc.set_threshold(700, 10, 10)
    ended.set()
    await asyncio.to_thread(collector.join)
    gc.collect()
    check(telemetry, failures)
    await engine.dispose()


def check(telemetry: Telemetry, failures: list[BaseException]) -> None:
    """Nothing hung; all is counted."""
    collected = telemetry.collect()
    asked = 2 * ROUNDS
    assert failures == [], failures
    assert collected.counts(semconv.WAIT_TIME, POOL) == {"": asked}, collected.counts(semconv.WAIT_TIME, POOL)
    assert collected.counts(semconv.USE_TIME, POOL) == {"": asked}, collected.counts(semconv.USE_TIME, POOL)
    assert (collected.used(POOL), collected.value(semconv.DRIFT, POOL)) == (0, 0)
    assert guard.counts() == {}, guard.counts()
    print("exact", flush=True)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(DEADLINE, exit=True)
    warnings.simplefilter("ignore")
    logging.disable()  # SQLAlchemy reports each one
    if sys.argv[1] == "async":
        asyncio.run(main_async())
    else:
        main()
