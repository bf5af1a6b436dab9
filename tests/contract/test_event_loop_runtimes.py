"""The laws of async pools on other event loops than the usual: uvloop, and asyncio in debug mode."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import logging
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from poolscope import semconv
from tests.contract import test_cancellation as cancellation
from tests.contract import test_exactness as exactness
from tests.contract.drivers import all_drivers
from tests.contract.drivers.base import DEADLINE, Feature
from tests.contract.drivers.sqlalchemy import AsyncQueuePoolAiosqlite
from tests.contract.subject import Subject
from tests.support.loops import wait_for_heartbeats
from tests.support.scale import times
from tests.support.seeds import seed_of_run
from tests.support.skips import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from tests.contract.drivers.base import Driver
    from tests.support.telemetry import Telemetry

#: One in so many laws is tried in a run on each kind of pool.
ONE_IN = times(16, whole=1)
#: What asyncio's debug mode calls slow, in seconds: a stall of a busy machine is not, a wait without an end is.
SLOW = 30.0
#: Seconds that a checkout waits before it times out, where a law does not need longer.
SHORT = 0.05
#: Seconds that something blocks a loop.
BLOCKED = 0.5
NOTHING_TESTED = "no loop was made: the test tests nothing"
RUNTIMES = ("uvloop", "debug")


def _uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    return loop


def _in_debug_mode(make: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[], asyncio.AbstractEventLoop]:
    def new_event_loop() -> asyncio.AbstractEventLoop:
        loop = make()
        loop.set_debug(enabled=True)
        loop.slow_callback_duration = SLOW
        return loop

    return new_event_loop


@pytest.fixture(params=RUNTIMES)
def runtime(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[list[type]]:
    """
    Event loops are made by this runtime; what it complains of fails the test, as every warning does. The kinds of those
    that were made.
    """
    which: str = request.param
    if which == "uvloop":
        require(importlib.util.find_spec("uvloop") is not None, "uvloop missing: no wheel for this Python", "make env")
    make = _uvloop if which == "uvloop" else asyncio.new_event_loop
    if which == "debug":
        make = _in_debug_mode(make)
    made: list[type] = []

    def new_event_loop() -> asyncio.AbstractEventLoop:
        loop = make()
        made.append(type(loop))
        return loop

    monkeypatch.setattr(asyncio, "new_event_loop", new_event_loop)
    monkeypatch.setattr(asyncio.events, "new_event_loop", new_event_loop)
    caplog.set_level(logging.WARNING, "asyncio")
    yield made
    gc.collect()  # "never awaited" and "unclosed" come with it
    assert all(kind.__module__.startswith("uvloop") is (which == "uvloop") for kind in made)
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def _async_kinds() -> list[type[Driver]]:
    return [kind for kind in all_drivers() if Feature.CANCEL in kind.features]


def _laws() -> list[Any]:
    found: list[Any] = []
    for name, law in vars(exactness).items():
        if name.startswith("test_") and law is not exactness.test_threads_at_once:
            marks = {mark.name: mark.args for mark in getattr(law, "pytestmark", ())}
            found += [
                pytest.param(kind, law, id=f"{name.removeprefix('test_')}-{kind.label}")
                for kind in _async_kinds()
                if all(one in kind.features for one in marks.get("needs", ()))
            ]
    return _drawn(found)


def _drawn(found: list[Any]) -> list[Any]:
    draw = random.Random(f"{seed_of_run()} event loops")
    return draw.sample(found, -(-len(found) // ONE_IN))


@pytest.mark.filterwarnings("ignore::ResourceWarning:sqlalchemy")
@pytest.mark.parametrize(("kind", "law"), _laws())
def test_the_laws_of_exactness(
    *,
    runtime: list[type],
    telemetry: Telemetry,
    kind: type[Driver],
    law: Callable[..., None],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """Each law of `test_exactness` on each kind of async pool."""
    require(kind.missing() is None, str(kind.missing()), "make env (and make matrix for other versions)")
    driver = kind()
    where = request.getfixturevalue("database") if kind.on_postgres else None

    def opened(*, size: int = 2, timeout: float = SHORT, **options: Any) -> Driver:
        driver.start(where, tmp_path, size=size, timeout=timeout, **options)
        return driver

    given: dict[str, Callable[[], object]] = {
        "telemetry": lambda: telemetry,
        "opened": lambda: opened,
        "subject": lambda: Subject(opened(), telemetry),
    }
    try:
        law(**{name: given[name]() for name in inspect.signature(law).parameters})
    finally:
        driver.stop()
    assert runtime, NOTHING_TESTED


def _cancellations() -> list[Any]:
    ours = [
        pytest.param(kind, warm, id=f"{kind.label}-{'warm' if warm else 'cold'}")
        for kind in cancellation.KINDS
        for warm in (False, True)
    ]
    theirs = [
        pytest.param(kind, state, id=f"{kind.label}-{state}")
        for kind in cancellation.NATIVE
        for state in ("cold", "warm", "full")
    ]
    return _drawn([*ours, *theirs])


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of what is dropped half made, as without us
@pytest.mark.parametrize(("kind", "state"), _cancellations())
def test_the_laws_of_cancellation(
    *,
    runtime: list[type],
    telemetry: Telemetry,
    kind: Any,
    state: Any,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cancelled at every step, on each kind of async pool."""
    if isinstance(state, bool):
        cancellation.test_cancelled_at_every_step(telemetry, kind, state, request, tmp_path)
    else:
        database: Postgres = request.getfixturevalue("database")
        cancellation.test_a_librarys_own_pool_cancelled_at_every_step(telemetry, kind, state, database, caplog)
    assert runtime, NOTHING_TESTED


def test_a_loop_that_is_blocked_is_seen(runtime: list[type], telemetry: Telemetry, tmp_path: Path) -> None:
    """Heartbeats come back from the loop, and are late where something blocks it."""
    require(AsyncQueuePoolAiosqlite.missing() is None, str(AsyncQueuePoolAiosqlite.missing()), "make env")
    from sqlalchemy.ext.asyncio import create_async_engine

    def most() -> float:
        return max((point.max for point in telemetry.collect().points(semconv.EVENT_LOOP_LAG)), default=0.0)

    async def run() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'blocked.db'}")
        async with engine.connect():
            await asyncio.to_thread(wait_for_heartbeats, telemetry)
            deadline = time.monotonic() + DEADLINE
            while most() < BLOCKED / 2:
                assert time.monotonic() < deadline
                time.sleep(BLOCKED)  # noqa: ASYNC251 - it blocks the loop
                await asyncio.to_thread(wait_for_heartbeats, telemetry)
        await engine.dispose()

    asyncio.run(run())
    assert runtime, NOTHING_TESTED
