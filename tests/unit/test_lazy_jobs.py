"""Jobs that no framework knows, on a clock that stands still."""

from __future__ import annotations

import asyncio
import datetime as dt
import tracemalloc
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core import lazy_jobs
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.execution import running_thread
from poolscope.core.guard import guard
from poolscope.core.lazy_jobs import LazyJob, LazyJobScope, excuses_here
from poolscope.core.work import CURRENT_UNIT
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def scene() -> Scene:
    """A pool and what looks at it."""
    return Scene()


@pytest.fixture
def job(scene: Scene) -> Iterator[LazyJob]:
    """A job that this thread runs."""
    before = running_thread().job
    running_thread().job = made = LazyJob(scene.pool_registry.units, lambda: "consume")
    yield made
    running_thread().job = before


def work(scene: Scene, runs: int, pause: float = 0.0) -> None:
    """Handle so many messages, or rows, after some seconds of waiting for them; a connection for each."""
    scene.clock.advance(pause)
    for _ in range(runs):
        lease = scene.checkout()
        scene.query(lease, seconds=0.001)
        lease.call_begins()
        lease.call_ends(in_transaction=False)
        lease.released()


@pytest.mark.parametrize(
    ("bursts", "found"), [((1, 40, 0.0), 1), ((9, 5, 0.0), 1), ((4, 200, 1.0), 1), ((9, 7, 1.0), 0)], ids=str
)
def test_messages_that_are_worked_off_are_no_repetition(
    scene: Scene, job: LazyJob, bursts: tuple[int, int, float], found: int
) -> None:
    """A loop over rows is, with a stall now and then; what waits for more again and again is a consumer."""
    number, runs, pause = bursts
    for _ in range(number):
        work(scene, runs, pause)
    job.end()
    assert len(scene.found(N_PLUS_ONE)) == found


def test_it_is_begun_with_its_first_checkout_and_none_is_around_it(scene: Scene, job: LazyJob) -> None:
    """Whatever begins a unit of work finds no other; checkouts inside that are none of the job's."""
    assert job.unit is None
    with scene.unit():
        work(scene, 1)
    assert job.unit is None
    work(scene, 1)
    assert job.unit is not None
    assert CURRENT_UNIT.get() is not job.unit
    assert scene.checkout().unit is job.unit
    job.end()
    assert scene.checkout().unit is None
    assert scene.pool.unattributed.read() == 1


def test_of_an_event_loop_the_main_task_is_part_of_it(scene: Scene, job: LazyJob) -> None:
    """Not what runs beside it, nor a loop that was started for no task; the next loop's main task is again."""

    async def checkout() -> Any:
        return scene.checkout().unit

    async def main() -> list[Any]:
        beside = [await asyncio.create_task(checkout()), *await asyncio.gather(checkout(), checkout())]
        return [*beside, await checkout()]

    for _ in range(2):
        *beside, own = asyncio.run(main())
        assert set(beside) == {None}
        assert own is job.unit is not None
    loop = asyncio.new_event_loop()
    found: list[Any] = []
    loop.create_task(checkout()).add_done_callback(lambda done: (found.append(done.result()), loop.stop()))
    loop.run_forever()
    loop.close()
    assert found == [None]


def test_a_child_process_begins_its_own(scene: Scene, job: LazyJob) -> None:
    """What the parent began is the parent's to end."""
    parents = scene.checkout().unit
    scene.pool_registry.forget_leases()
    forked = scene.checkout().unit
    assert forked is not parents
    assert (str(forked), forked and forked.by_default) == ("job consume", True)
    job.end()
    assert (parents and parents.ended, forked and forked.ended) == (False, True)


def test_none_begins_once_poolscope_has_ended(scene: Scene, job: LazyJob) -> None:
    """A thread may live on."""
    scene.pool_registry.units.closed = True
    assert scene.checkout().unit is None
    assert job.unit is None


@pytest.mark.parametrize(
    ("result", "hands_on"),
    [
        (1, False),
        ([{"id": 1}], False),
        ([object()], True),
        ([None] * 500_000, True),
        (dict.fromkeys(range(500_000)), True),
    ],
    ids=["a number", "a row", "an object", "many rows", "many pairs"],
)
def test_what_a_job_returns_is_looked_at_and_not_copied(
    scene: Scene, job: LazyJob, result: object, hands_on: bool
) -> None:
    """While it holds a connection: that may be in the result, unless this is data, of which there is not too much."""
    scene.checkout()
    assert job.unit is not None
    tracemalloc.start()
    try:
        LazyJobScope(job, None).returns(result)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert job.unit.hands_on is hands_on
    assert most < 200_000


@pytest.mark.parametrize("step", ["enter", "leave", "end", "returns"])
def test_what_fails_in_a_scope_is_an_error_of_ours(
    scene: Scene, job: LazyJob, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and not passed on; a unit of work ends all the same."""

    def fails(*_: object) -> None:
        raise LookupError(step)

    scene.checkout()
    unit = job.unit
    assert unit is not None
    scope = LazyJobScope(job, None)
    before = guard.counts().get(f"job.{step}", 0)
    with monkeypatch.context() as failing:
        if step in {"enter", "leave"}:
            failing.setattr(LazyJobScope, f"_{step}", fails)
        elif step == "end":
            failing.setattr(scene.pool_registry.units, "end", fails)
        else:
            failing.setattr(lazy_jobs, "_hand_on", fails)
        if step == "returns":
            scope.returns(None)
        else:
            scope.enter()
            scope.leave()
    assert guard.counts()[f"job.{step}"] == before + 1
    assert unit.ended is (step != "returns")


def test_a_scope_leaves_all_as_it_was(scene: Scene, job: LazyJob) -> None:
    """The thread's job, the unit of work, and what is declared; leaving twice is leaving once."""
    other = LazyJob(scene.pool_registry.units, lambda: "other")
    with scene.unit() as unit, scene.unit() as outer:
        scope = LazyJobScope(other, unit, ("queue", None))
        scope.enter()
        assert (running_thread().job, CURRENT_UNIT.get()) == (other, unit)
        assert excuses_here() == ("queue", None)
        for _ in range(2):
            scope.leave()
            assert (running_thread().job, CURRENT_UNIT.get(), excuses_here()) == (job, outer, None)
        alone = LazyJobScope(other, None)
        alone.enter()
        assert (running_thread().job, CURRENT_UNIT.get(), excuses_here()) == (other, None, None)
        alone.leave()
        assert CURRENT_UNIT.get() is outer


def test_only_what_holds_a_connection_hands_one_on(scene: Scene, job: LazyJob) -> None:
    """Whatever it returns; and what holds one returns it with plain data at the most."""
    LazyJobScope(job, None).returns(object())
    assert job.unit is None
    lease = scene.checkout()
    assert job.unit is not None
    for result, hands_on in (
        (object(), True),
        ({"a": (1, "b", None)}, False),
        ({"a": object()}, True),
        ({1: 2}, False),
    ):
        LazyJobScope(job, None).returns(result)
        assert job.unit.hands_on is hands_on
    lease.released()
    LazyJobScope(job, None).returns(object())
    assert not job.unit.hands_on


@pytest.mark.parametrize(
    ("parts", "is_data"), [(1, True), (lazy_jobs._MOST_PARTS - 2, True), (lazy_jobs._MOST_PARTS + 2, False)]
)
def test_so_many_parts_are_looked_at(parts: int, is_data: bool) -> None:
    """In what has more, a connection may be."""
    assert lazy_jobs._is_data([0] * parts) is is_data
    assert not lazy_jobs._is_data([0, object()])
    assert not lazy_jobs._is_data([[0], {1: (object(),)}])
    assert not lazy_jobs._is_data({object(): 0})
    assert lazy_jobs._is_data([1.5, b"", True, {1, 2}, frozenset((None,)), 1j, Decimal(1), dt.timedelta(1)])


def test_what_is_no_job_after_all_stays_none(scene: Scene) -> None:
    """Its name says so, once."""
    named: list[int] = []

    def name() -> None:
        named.append(1)

    before = running_thread().job
    running_thread().job = job = LazyJob(scene.pool_registry.units, name)
    try:
        assert [scene.checkout().unit for _ in range(2)] == [None, None]
    finally:
        running_thread().job = before
    assert (len(named), job.unit, scene.pool.unattributed.read()) == (1, None, 2)


def test_checkouts_of_a_job_may_be_nested(scene: Scene, job: LazyJob) -> None:
    """As those of a request are; and its repetitions may last."""
    first = scene.checkout()
    assert scene.pool.nested_checkouts.read() == 0
    second = scene.checkout()
    assert scene.pool.nested_checkouts.read() == 1
    assert first.usage is second.usage is not None
    assert first.usage.repetitions.may_last
    assert job.unit is second.unit
