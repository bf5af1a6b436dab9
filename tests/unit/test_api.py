"""The public API: units of work as blocks and decorators, and what is meant to be as it is."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import logging
import subprocess
import sys
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import poolscope
from poolscope.core.execution import ThreadToken
from poolscope.core.pool_registry import PoolRegistry, open_pool_registries
from poolscope.core.work_scope import current
from tests.support.clocks import FakeClock
from tests.support.units import Queries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator

    from poolscope.core.work import UnitOfWork


@contextmanager
def is_open(pool_registry: PoolRegistry) -> Iterator[PoolRegistry]:
    """As between `instrument()` and `uninstrument()`."""
    open_pool_registries.append(pool_registry)
    try:
        yield pool_registry
    finally:
        open_pool_registries.remove(pool_registry)


@pytest.fixture
def pool_registry() -> Iterator[PoolRegistry]:
    """An open pool registry."""
    with is_open(PoolRegistry((1.0,), count_bounds=(10.0,), now=FakeClock())) as opened:
        yield opened


@pytest.fixture
def queries(pool_registry: PoolRegistry) -> Queries:
    """A pool."""
    return Queries()


def recorded(pool_registry: PoolRegistry) -> dict[str, tuple[int, float]]:
    """How many units of work ended and how many queries they ran."""
    return {
        f"{kind} {name}": (series.queries.read().count, series.queries.read().total)
        for (kind, name, _), series in pool_registry.units.series.items()
    }


def test_queries_in_a_block_belong_to_it(pool_registry: PoolRegistry, queries: Queries) -> None:
    """What runs inside is counted for the unit of work, once, and what runs outside is not."""
    queries(1)
    with poolscope.unit_of_work("nightly-import"):
        queries(2)
        queries(3)
    queries(4)
    assert recorded(pool_registry) == {"job nightly-import": (1, 5.0)}


def test_it_is_over_also_after_an_error(pool_registry: PoolRegistry, queries: Queries) -> None:
    """The error passes on as it is, and nothing belongs to the unit of work afterwards."""
    error = RuntimeError("theirs")

    @poolscope.unit_of_work("import", kind="task")
    def fail() -> None:
        queries(2)
        raise error

    with pytest.raises(RuntimeError) as raised:
        fail()
    assert raised.value is error
    assert current() is None
    assert recorded(pool_registry) == {"task import": (1, 2.0)}


def test_inside_another_it_is_one_of_its_own(pool_registry: PoolRegistry, queries: Queries) -> None:
    """A query belongs to the innermost unit of work only; after it the outer one goes on."""
    with poolscope.unit_of_work("outer"):
        queries(1)
        with poolscope.unit_of_work("inner"):
            queries(2)
        queries(4)
    assert recorded(pool_registry) == {"job outer": (1, 5.0), "job inner": (1, 2.0)}


def test_the_asynchronous_block(pool_registry: PoolRegistry, queries: Queries) -> None:
    """`async with` does the same; concurrent tasks do not get into one another's."""

    async def one(number: int) -> None:
        async with poolscope.unit_of_work(f"job-{number}"):
            await asyncio.sleep(0)
            queries(number)
            await asyncio.sleep(0)
            queries(number)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(1, 9)))

    asyncio.run(all_of_them())
    assert recorded(pool_registry) == {f"job job-{number}": (1, 2.0 * number) for number in range(1, 9)}


def test_each_call_of_a_decorated_function_is_one(pool_registry: PoolRegistry, queries: Queries) -> None:
    """Also when it calls itself; name, signature and result are the function's."""

    @poolscope.unit_of_work("descend")
    def descend(depth: int) -> int:
        """Count down."""
        queries(1)
        return descend(depth - 1) + 1 if depth else 0

    assert descend(2) == 2
    assert recorded(pool_registry) == {"job descend": (3, 3.0)}
    assert descend.__name__ == "descend"
    assert list(inspect.signature(descend).parameters) == ["depth"]


def test_each_call_of_a_decorated_coroutine_function_is_one(pool_registry: PoolRegistry, queries: Queries) -> None:
    """It stays a coroutine function."""

    @poolscope.unit_of_work("fetch")
    async def fetch(number: int) -> int:
        await asyncio.sleep(0)
        queries(number)
        return number

    assert inspect.iscoroutinefunction(fetch)
    assert asyncio.run(fetch(3)) == 3
    assert recorded(pool_registry) == {"job fetch": (1, 3.0)}


def test_of_a_decorated_generator_the_steps_are_inside(pool_registry: PoolRegistry, queries: Queries) -> None:
    """What the consumer does between two steps does not belong to it; values and errors go both ways as ever."""

    @poolscope.unit_of_work("rows")
    def rows() -> Generator[int, int, str]:
        handed_over = yield 1
        queries(handed_over)
        try:
            yield 2
        except KeyError:
            queries(1)
            yield 3
        return "done"

    assert inspect.isgeneratorfunction(rows)
    generator = rows()
    assert next(generator) == 1
    assert current() is None
    queries(50)
    assert generator.send(4) == 2
    assert generator.throw(KeyError()) == 3
    with pytest.raises(StopIteration) as stopped:
        next(generator)
    assert stopped.value.value == "done"
    assert recorded(pool_registry) == {"job rows": (1, 5.0)}


def test_a_decorated_generator_that_is_closed_early_is_over(pool_registry: PoolRegistry, queries: Queries) -> None:
    """Its `finally` runs inside."""

    @poolscope.unit_of_work("rows")
    def rows() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            queries(2)

    generator = rows()
    next(generator)
    generator.close()
    assert recorded(pool_registry) == {"job rows": (1, 2.0)}


def test_of_a_decorated_asynchronous_generator_the_steps_are_inside(
    pool_registry: PoolRegistry, queries: Queries
) -> None:
    """The same for both its ends."""

    @poolscope.unit_of_work("stream")
    async def stream() -> AsyncGenerator[int, int]:
        try:
            queries((yield 1))
            try:
                yield 2
            except KeyError:
                queries(1)
                yield 3
        finally:
            queries(10)

    async def consume() -> None:
        generator = stream()
        assert await generator.__anext__() == 1
        assert current() is None
        queries(50)
        assert await generator.asend(4) == 2
        assert await generator.athrow(KeyError()) == 3
        await generator.aclose()
        assert [item async for item in short()] == [7]

    @poolscope.unit_of_work("short")
    async def short() -> AsyncGenerator[int, None]:
        queries(1)
        yield 7

    assert inspect.isasyncgenfunction(stream)
    asyncio.run(consume())
    assert recorded(pool_registry) == {"job stream": (1, 15.0), "job short": (1, 1.0)}


@pytest.mark.parametrize("dormant", [False, True])
def test_without_anybody_who_listens_it_does_nothing(dormant: bool) -> None:
    """Before `instrument()`, and while no provider is set, everything runs as if it were not there."""

    @poolscope.unit_of_work("rows")
    def rows() -> Iterator[int]:
        yield from (1, 2)

    @poolscope.unit_of_work("stream")
    async def stream() -> AsyncGenerator[int, None]:
        yield 3

    def run() -> None:
        with poolscope.unit_of_work("a"), poolscope.expected_long_hold("b"), poolscope.expected_repetition("c"):
            assert current() is None
        assert list(rows()) == [1, 2]

    async def run_async() -> list[int]:
        async with poolscope.unit_of_work("a"), poolscope.expected_long_hold("b"), poolscope.expected_repetition("c"):
            return [item async for item in stream()]

    if dormant:
        with is_open(PoolRegistry((1.0,), count_bounds=(10.0,), now=FakeClock())) as pool_registry:
            pool_registry.dormant = True
            run()
    run()
    assert asyncio.run(run_async()) == [3]


def test_a_wrong_kind_counts_as_a_job(
    pool_registry: PoolRegistry, queries: Queries, caplog: pytest.LogCaptureFixture
) -> None:
    """It gives a warning that names what is allowed, and no error."""
    with caplog.at_level(logging.WARNING, "poolscope"), poolscope.unit_of_work("x", kind="cron"):
        queries(1)
    assert recorded(pool_registry) == {"job x": (1, 1.0)}
    assert "http, task, rpc, job" in caplog.text


def test_leaving_in_another_context_leaves_all_the_same(pool_registry: PoolRegistry, queries: Queries) -> None:
    """A block that another thread leaves ends the unit of work and raises nothing."""
    block = poolscope.unit_of_work("import")
    expectation = poolscope.expected_repetition("polling")

    def enter() -> None:
        block.__enter__()
        expectation.__enter__()
        queries(2)

    def leave() -> None:
        expectation.__exit__(None, None, None)
        block.__exit__(None, None, None)

    here = contextvars.copy_context()
    here.run(enter)
    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    assert recorded(pool_registry) == {"job import": (1, 2.0)}
    assert here.run(current) is None, "it is ended, so nothing belongs to it"
    here.run(queries, 3)
    assert recorded(pool_registry) == {"job import": (1, 2.0)}


def test_nothing_keeps_a_unit_of_work_once_it_is_over(pool_registry: PoolRegistry, queries: Queries) -> None:
    """Not the pool registry, not the pool, not a lease that has ended: it goes without the garbage collector."""
    gc.disable()
    try:
        with poolscope.unit_of_work("import"):
            unit: UnitOfWork | None = current()
            assert unit is not None
            queries(20, "select * from t where id = 1")
            reference = weakref.ref(unit)
            del unit
        assert reference() is None
    finally:
        gc.enable()


def test_expected_repetition_excuses_what_is_repeated_inside(pool_registry: PoolRegistry, queries: Queries) -> None:
    """A polling loop is an N+1 only without the annotation."""
    found: dict[str, list[int]] = {}

    def ended(unit: UnitOfWork) -> None:
        usages = unit.usages.values()
        found[unit.name] = [one.count for share in usages for one in share.repetitions.beyond_threshold(5)]

    pool_registry.units.on_end = ended
    with poolscope.unit_of_work("bad"):
        queries(9, "select * from t where id = 1")
    with poolscope.unit_of_work("good"), poolscope.expected_repetition("it polls"):
        queries(9, "select * from t where id = 1")
    assert found == {"bad": [9], "good": []}


def test_expected_long_hold_excuses_what_is_checked_out_inside(pool_registry: PoolRegistry, queries: Queries) -> None:
    """The reason is on the lease; not on one that is asked for afterwards."""
    with poolscope.expected_long_hold("a report"):
        inside = queries.pool.checkout()
    assert (inside.excuse, queries.pool.checkout().excuse) == ("a report", None)


def test_expected_long_hold_excuses_what_is_held_already(pool_registry: PoolRegistry, queries: Queries) -> None:
    """Entered after the checkout, it reaches what this thread holds, and nothing else."""
    mine = queries.pool.checkout()
    mine.acquired()
    theirs: list[Any] = []

    def check_out() -> None:
        theirs.append(queries.pool.checkout())
        theirs[0].acquired()

    thread = threading.Thread(target=check_out)
    thread.start()
    thread.join()
    leaked = queries.pool.checkout()
    leaked.acquired()
    leaked.thread_reference = ThreadToken().reference  # of a thread that has finished; this one has its identifier now
    with poolscope.expected_long_hold("a report"):
        pass
    assert (mine.excuse, theirs[0].excuse, leaked.excuse) == ("a report", None, None)


def test_expected_long_hold_excuses_what_the_running_task_holds(pool_registry: PoolRegistry, queries: Queries) -> None:
    """Of two tasks in one thread only the one that says so is excused."""
    excuses: dict[str, str | None] = {}

    async def hold(name: str, *, long: bool) -> None:
        lease = queries.pool.checkout()
        lease.acquired()
        await asyncio.sleep(0)
        if long:
            async with poolscope.expected_long_hold(name):
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        excuses[name] = lease.excuse

    async def both() -> None:
        await asyncio.gather(hold("long", long=True), hold("short", long=False))

    asyncio.run(both())
    assert excuses == {"long": "long", "short": None}


def test_importing_poolscope_loads_no_sdk_and_no_pool_library() -> None:
    """Neither does using the API."""
    code = (
        "import sys, poolscope\n"
        "with poolscope.unit_of_work('a'), poolscope.expected_repetition('b'): pass\n"
        "heavy = {'opentelemetry', 'sqlalchemy', 'psycopg', 'psycopg_pool', 'asyncpg', 'wrapt', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_package_offers_what_it_says() -> None:
    """Every name in `__all__` is there, and a wrong one is an ordinary `AttributeError`."""
    assert all(getattr(poolscope, name) for name in poolscope.__all__)
    assert set(poolscope.__all__) <= set(dir(poolscope))
    with pytest.raises(AttributeError, match="unit_of_wrok"):
        poolscope.unit_of_wrok  # noqa: B018
