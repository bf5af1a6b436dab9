"""Jobs that no framework knows, on a clock that stands still."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.execution import running_thread
from poolscope.core.lazy_jobs import LazyJob, LazyJobScope
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
