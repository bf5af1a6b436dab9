"""
No lock of ours is held while anything is called that may log, run code of somebody else or collect garbage.

A logging handler holds a lock of its own while it works, and a garbage collection in it may end a unit of work or a
pool's first checkout may happen there. If another thread logged while it held a lock of ours, both would wait for ever.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import wait_until
from poolscope.adapters.pools import Pools
from poolscope.core.guard import guard
from poolscope.core.pool_registry import OVERFLOW, PoolRegistry
from poolscope.core.stepping import stepping
from poolscope.core.work import CURRENT_UNIT
from poolscope.core.work_scope import begin
from tests.support.pools import Source, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity

BOUNDS = (0.5, 1.0)
DEADLINE = 30.0


class Busy(logging.Handler):
    """
    The application's handler: while it works on a record of the application's, something else happens.

    Args:
        work: What happens.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self.work = work

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "application":
            self.work()


@contextlib.contextmanager
def handled_by(handler: logging.Handler) -> Iterator[logging.Logger]:
    """One handler for the application and for poolscope, as in a service that configures the root logger."""
    loggers = [logging.getLogger(name) for name in ("application", "poolscope")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield loggers[0]
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
        handler.lock = None  # a thread that waits for ever would have it when the interpreter ends


def both_end(logs: Callable[[], object], needs: Callable[[], object]) -> bool:
    """
    Whether two threads go on: one comes to log while the other one is inside the logging handler, and does something
    there once the first one is on its way into the handler, or has kept its line for later.

    Args:
        logs: Makes poolscope log.
        needs: What happens inside the handler.
    """
    about_to_log = threading.Event()
    first = threading.Thread(target=logs, daemon=True)

    def work() -> None:
        first.start()
        wait_until(lambda: about_to_log.is_set() or not first.is_alive(), DEADLINE, "the first one to log, or to end")
        needs()

    def sees(_: logging.LogRecord) -> bool:
        about_to_log.set()
        return True

    ours = logging.getLogger("poolscope")
    with handled_by(Busy(work)) as application:
        ours.addFilter(sees)
        try:
            second = threading.Thread(target=application.warning, args=("something",), daemon=True)
            second.start()
            second.join(DEADLINE)
            first.join(DEADLINE)
            return not first.is_alive() and not second.is_alive()
        finally:
            ours.removeFilter(sees)


@pytest.fixture
def _collected_on_demand() -> Iterator[None]:
    """Garbage is collected where the test does it, and nowhere else."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_collected_on_demand")
def test_a_generator_that_is_collected_in_a_logging_handler_ends_its_unit_of_work() -> None:
    """While another thread reports that there are too many names of units of work."""
    pool_registry = PoolRegistry(BOUNDS, most_units=1)
    pool = pool_registry.register(identity("shop"), Source())
    pool_registry.units.series_of("job", "known", "shop")

    def rows() -> Iterator[int]:
        unit = CURRENT_UNIT.get()
        assert unit is not None
        unit.usage_of(pool)
        yield 1
        yield 2

    generator = stepping(lambda: begin(pool_registry, "job", "streamed"), rows)()
    assert next(generator) == 1
    cycle: list[Any] = [generator]
    cycle.append(cycle)
    del generator, cycle

    assert both_end(lambda: pool_registry.units.series_of("job", "another", "shop"), gc.collect)
    assert pool_registry.units.series_of("job", OVERFLOW, "shop").queries.read().count == 1


def test_a_pool_may_be_made_in_a_logging_handler() -> None:
    """While another thread reports that there are too many pools."""
    pool_registry = PoolRegistry(BOUNDS, most_pools=1)
    pool_registry.register(identity("known"), Source(1))
    made: list[Pool] = []

    assert both_end(
        lambda: pool_registry.register(identity("another"), Source(2)),
        lambda: made.append(pool_registry.register(identity("in the handler"), Source(4))),
    )
    assert made == [pool_registry.pools[OVERFLOW]]
    assert made[0].limit == 6


class Library:
    """
    A library's pool.

    Args:
        name: Its name.
        held: What callers hold.
    """

    def __init__(self, name: str, held: tuple[object, ...] = ()) -> None:
        self.name = name
        self.held = held


class Hooked(Pools):
    """
    An adapter for such pools.

    Args:
        pool_registry: Where it enters them.
        during: By the name of a method, what else happens while it is called.
    """

    name = "test"

    def __init__(self, pool_registry: PoolRegistry, **during: Callable[[], object]) -> None:
        super().__init__()
        self.pool_registry = pool_registry
        self.during = during
        self.adopted: list[object] = []

    def _now(self, method: str) -> None:
        self.during.get(method, lambda: None)()

    def identify(self, library_pool: Library) -> Identity:
        self._now("identify")
        return identity(library_pool.name)

    def source(self, anchor: Library) -> Source:
        self._now("source")
        source = Source(4)
        for method in ("alive", "limit"):
            self._slow(source, method)
        return source

    def _slow(self, source: Source, method: str) -> None:
        original = getattr(source, method)

        def slow() -> object:
            self._now(method)
            return original()

        setattr(source, method, slow)

    def held(self, library_pool: Library) -> list[object]:
        self._now("held")
        return list(library_pool.held)

    def entered(self, library_pool: Library, pool: Pool, held: list[object]) -> None:
        self._now("entered")
        for one in held:
            pool.adopt(0.0)
            self.adopted.append(one)


@pytest.mark.parametrize("method", ["identify", "source", "held", "alive", "limit", "entered"])
def test_a_library_is_called_without_a_lock(method: str) -> None:
    """Whatever it does, such as to log, in the meantime another thread can enter a pool."""
    pool_registry = PoolRegistry(BOUNDS)
    ended: list[bool] = []

    def another_thread_enters_one() -> None:
        adapter.during = {}
        thread = threading.Thread(target=lambda: adapter.enter(Library("another")), daemon=True)
        thread.start()
        thread.join(DEADLINE)
        ended.append(not thread.is_alive())

    adapter = Hooked(pool_registry)
    adapter.enter(Library("known"))
    adapter.during = {method: another_thread_enters_one}
    assert adapter.enter(Library("known")) is pool_registry.pools["known#2"]
    assert ended == [True]
    assert list(pool_registry.pools) == ["known", "known#2", "another"] or list(pool_registry.pools) == [
        "known",
        "another",
        "known#2",
    ]


@pytest.mark.parametrize("threads", [2, 8])
def test_of_threads_that_enter_one_pool_at_once_one_does(threads: int) -> None:
    """All get the same pool; it has one source, and what was held already is adopted once."""
    pool_registry, library = PoolRegistry(BOUNDS), Library("shop", held=(object(), object()))
    meeting = threading.Barrier(threads, timeout=DEADLINE)
    adapter = Hooked(pool_registry, held=meeting.wait)
    found: list[Pool | None] = []
    entering = [threading.Thread(target=lambda: found.append(adapter.enter(library))) for _ in range(threads)]
    for thread in entering:
        thread.start()
    for thread in entering:
        thread.join()
    assert found == [pool_registry.pools["shop"]] * threads
    assert list(pool_registry.pools) == ["shop"]
    assert (len(pool_registry.pools["shop"].sources), pool_registry.pools["shop"].limit) == (1, 4)
    assert adapter.adopted == list(library.held)
    assert pool_registry.pools["shop"].used() == 2


def test_of_threads_that_enter_pools_of_one_name_each_gets_its_own() -> None:
    """
    No name is given twice, however the threads meet; and those beyond the allowed number are all in
    the one they share.
    """
    pool_registry, threads = PoolRegistry(BOUNDS, most_pools=3), 8
    meeting = threading.Barrier(threads, timeout=DEADLINE)
    adapter = Hooked(pool_registry, limit=meeting.wait)

    def enter() -> None:
        adapter.enter(Library("shop"))

    def limits() -> None:
        meeting.abort()  # from the second look on no thread waits

    adapter.during = {"limit": lambda: _meet(meeting)}
    entering = [threading.Thread(target=enter) for _ in range(threads)]
    for thread in entering:
        thread.start()
    for thread in entering:
        thread.join()
    limits()
    assert list(pool_registry.pools) == ["shop", "shop#2", "shop#3", OVERFLOW]
    assert [len(pool.sources) for pool in pool_registry.pools.values()] == [1, 1, 1, threads - 3]
    assert pool_registry.pools[OVERFLOW].limit == 4 * (threads - 3)


def _meet(meeting: threading.Barrier) -> None:
    with contextlib.suppress(threading.BrokenBarrierError):
        meeting.wait()
        meeting.abort()


def test_of_threads_that_bring_one_name_at_once_it_takes_one_place() -> None:
    """Names of units of work are counted exactly, whatever the threads do between one step and the next."""
    pool_registry = PoolRegistry(BOUNDS, most_units=3)
    meeting = threading.Barrier(8, timeout=DEADLINE)

    def end(name: str) -> None:
        meeting.wait()
        pool_registry.units.series_of("job", name, "shop").queries.record(1.0)

    for name in ("one", "two", "three", "four"):
        ending = [threading.Thread(target=end, args=(name,)) for _ in range(8)]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()
    counts = {name: series.queries.read().count for (_, name, _), series in pool_registry.units.series.items()}
    assert counts == {"one": 8, "two": 8, "three": 8, OVERFLOW: 8}
    assert guard.counts() == {}
