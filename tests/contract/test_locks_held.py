"""Nothing foreign is called while a lock of ours is held; `tools/locks_check.py` says the same of the source."""

from __future__ import annotations

import functools
import gc
import logging
import threading
from typing import TYPE_CHECKING

import pytest

from poolscope.core.counters import Sum, Tally
from poolscope.core.histogram import Distribution
from poolscope.core.pool_identity import Identity
from poolscope.core.pool_registry import OVERFLOW, PoolRegistry
from tests.contract.test_faults import Story
from tests.support.causes import CAUSES
from tests.support.held import EXCUSED, WatchedLock, watched_locks
from tests.support.pools import Source
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.drivers.base import Driver

#: Files whose locks are taken whenever there is a pool, a request and a collection.
ALWAYS = {"core/counters.py", "core/histogram.py", "core/pool_registry.py"}


def test_no_foreign_function_is_called_while_a_driver_is_used(
    driver: Driver, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A pool is made, used, exhausted and closed, with spans, findings, and collections by two readers."""
    where = request.getfixturevalue("database") if driver.on_postgres else None
    with watched_locks() as watch:
        telemetry = Telemetry()
        telemetry.start()
        try:
            driver.start(where, tmp_path, size=2, timeout=0.02)
            story = Story(driver)
            with telemetry.tracer.start_as_current_span("request"):
                story.run()
            telemetry.collect()
            telemetry.spans()
            telemetry.collect()
            story.step("close", functools.partial(driver.stop))
        finally:
            telemetry.shutdown()
    assert watch.foreign == []
    assert watch.held >= ALWAYS


@pytest.mark.parametrize("cause", CAUSES)
def test_nor_while_problems_are_found(cause: str) -> None:
    """Every kind of finding is found, and what was measured is read, in each way of reading it."""
    with watched_locks() as watch:
        scene = CAUSES[cause]()
        scene.found()
        tap = scene.pool.waits.tap(delta=True)
        scene.pool.waits.take(tap)
        scene.pool.holds.read()
    assert watch.foreign == []
    assert watch.held >= {"core/histogram.py"}


def test_what_is_foreign_is_noticed() -> None:
    """Logging, formatting, and a function of the application's under a lock: the test above could fail."""
    with watched_locks() as watch:
        distribution: Distribution[None] = Distribution((1.0,))
        lock = distribution._readers
        assert isinstance(lock, WatchedLock)
        with lock:
            pass
        assert watch.foreign == []
        for does in (lambda: logging.getLogger("poolscope").debug("text"), lambda: repr(1), gc.get_count):
            watch.foreign.clear()
            with lock:
                does()
            assert watch.foreign
        watch.foreign.clear()
        repr(1)
        Sum().read()
        Tally().read()
        assert watch.foreign == []


def test_a_known_lock_is_excused_by_name() -> None:
    """No more than one file is."""
    assert EXCUSED.issubset({"core/worker.py"})


@pytest.mark.reliability(
    fault="a log handler of the application waits for a thread that makes a pool, beyond the limit of pools",
    application="the same; nothing waits for poolscope",
    lost="nothing",
)
def test_a_handler_that_waits_for_a_thread_that_makes_a_pool() -> None:
    """The warning of too many pools is logged with no lock held: another thread registers a pool meanwhile."""
    registry = PoolRegistry((1.0,), most_pools=1)
    made: list[str] = []

    def make() -> None:
        made.append(registry.register(Identity("third", "sqlite"), Source(1)).identity.name)

    class Waits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            thread = threading.Thread(target=make, daemon=True)
            thread.start()
            thread.join(60)

    handler = Waits()
    logger = logging.getLogger("poolscope")
    logger.addHandler(handler)
    try:
        for name in ("first", "second"):
            registry.register(Identity(name, "sqlite"), Source(1))
    finally:
        logger.removeHandler(handler)
    assert made == [OVERFLOW]
