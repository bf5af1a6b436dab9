"""Nested checkouts: which unit of work checks out a second connection, and the size at which that cannot deadlock."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.finding_kind import Severity
from poolscope.core.lease import Outcome
from poolscope.detectors.nested_checkout import safe_size
from tests.support.scene import Scene, line

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease


@pytest.mark.parametrize(("workers", "connections", "size"), [(1, 1, 1), (1, 2, 2), (8, 2, 9), (3, 4, 10), (40, 2, 41)])
def test_the_formula_is_hikaricps(workers: int, connections: int, size: int) -> None:
    """Threads x (connections per thread - 1) + 1."""
    assert safe_size(workers, connections) == size


def test_the_second_connection_is_found_and_both_lines_are_reported() -> None:
    """Once for each unit of work; one after the other is nothing."""
    scene = Scene(10)
    with scene.unit("GET /profile") as bad:
        first = scene.checkout("outer")
        second = scene.checkout("inner")
        third = scene.checkout("innermost")
        assert scene.pool_registry.units.findings_of(bad) == [NESTED_CHECKOUT]
        for lease in (third, second, first):
            lease.released()
    with scene.unit("GET /fixed") as fixed:
        scene.checkout("outer").released()
        scene.checkout("inner").released()
        assert scene.pool_registry.units.findings_of(fixed) == []
    (finding,) = scene.found()
    assert (finding.id, finding.severity, str(finding.unit)) == (NESTED_CHECKOUT, Severity.WARNING, str(bad))
    assert finding.evidence["first_checkout"][0] == "/application/outer.py:2 in outer"  # type: ignore[index]
    assert finding.evidence["second_checkout"][0] == "/application/inner.py:2 in inner"  # type: ignore[index]
    assert {name: finding.evidence[name] for name in ("connections", "workers", "safe_size")} == {
        "connections": 3,
        "workers": 1,
        "safe_size": 3,
    }
    assert scene.pool.nested_checkouts.read() == 2


def test_a_pool_that_can_deadlock_is_critical() -> None:
    """Six at once with two each need seven; in a pool without a limit no one waits for another, and none is found."""
    for limit, severity in ((6, Severity.CRITICAL), (7, Severity.WARNING), (None, None)):
        scene = Scene(limit)
        for _ in range(5):
            with scene.unit():
                scene.checkout()
        with scene.unit("GET /profile"):
            scene.checkout()
            scene.begin_checkout()
        found = scene.found(NESTED_CHECKOUT)
        assert [finding.severity for finding in found] == ([severity] if severity else [])
        for finding in found:
            assert (finding.evidence["workers"], finding.evidence["safe_size"]) == (6, 7)
            assert f"its limit is {limit}" in finding.summary


@pytest.mark.parametrize(("limit", "expected"), [(2, NESTED_CHECKOUT), (None, LONG_HOLD)])
def test_a_hold_during_the_wait_for_another_one_has_one_finding(limit: int | None, expected: str) -> None:
    """The nested checkout, where that is one; in a pool without a limit the hold is long for itself."""
    scene = Scene(limit)
    with scene.unit() as unit:
        first = scene.checkout()
        second = scene.begin_checkout()
        scene.clock.advance(60)
        second.acquired()
        second.released()
        first.released()
    either = {NESTED_CHECKOUT, LONG_HOLD}
    assert unit.findings & either == set(scene.ids()) & either == {expected}


def test_the_most_at_once_are_remembered() -> None:
    """The formula counts with the busiest moment, not with the one at which it was told last."""
    scene = Scene(10, finding_interval=0)
    with scene.unit():
        scene.checkout()
        with scene.unit():
            scene.checkout()
            with scene.unit("GET /profile"):
                for lease in (scene.checkout(), scene.checkout()):
                    lease.released()
    for lease in scene.pool.leases.copy():
        lease.released()
    with scene.unit("GET /profile"):
        scene.checkout()
        scene.checkout()
    assert [finding.evidence["workers"] for finding in scene.found(NESTED_CHECKOUT)] == [3, 3]


def test_workers_are_units_tasks_and_threads() -> None:
    """Outside of units of work whoever holds counts once for each thread."""
    scene = Scene(10)
    thread = threading.Thread(target=scene.checkout)
    thread.start()
    thread.join(60)
    scene.checkout()
    with scene.unit():
        scene.checkout()
        scene.checkout()
    assert scene.found(NESTED_CHECKOUT)[0].evidence["workers"] == 3


@pytest.mark.parametrize("at", ["fetches", "works"])
def test_what_a_thread_has_fetched_for_a_request_is_held_by_the_request(at: str) -> None:
    """
    FastAPI runs synchronous dependencies and routes in threads, mostly in several: the second one asks while the first
    one's connection stays held until the request has finished. A thread that still works returns its own.
    """
    scene = Scene(10)
    handed_over, done = threading.Event(), threading.Event()

    def dependency() -> None:
        scene.checkout("dependency")
        handed_over.set()
        if at == "works":
            done.wait(60)

    def inside(function: Callable[[], Any]) -> Callable[[], Any]:
        return functools.partial(contextvars.copy_context().run, line("dependency"), function)

    async def request() -> None:
        loop = asyncio.get_running_loop()
        with scene.unit(), ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
            first = loop.run_in_executor(one, inside(dependency))
            await loop.run_in_executor(other, handed_over.wait, 60)
            if at == "fetches":
                await first
            await loop.run_in_executor(
                other, functools.partial(contextvars.copy_context().run, scene.checkout, "route")
            )
            done.set()
            await first

    asyncio.run(request())
    assert [finding.id for finding in scene.found(NESTED_CHECKOUT)] == [NESTED_CHECKOUT] * (at == "fetches")


def test_another_thread_of_the_unit_may_have_its_own() -> None:
    """It returns its connection without waiting for ours: nothing is nested."""
    scene = Scene(10)
    with scene.unit() as unit:
        scene.checkout()

        def in_thread() -> None:
            lease = scene.begin_checkout()
            lease.unit, lease.usage = unit, unit.usage_of(scene.pool)
            lease.acquired()
            lease.released()

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join(60)
    assert scene.found(NESTED_CHECKOUT) == []


@pytest.mark.parametrize("holder", ["parent", "sibling", "nobody"])
def test_a_task_that_awaits_another_one_holds_meanwhile(holder: str) -> None:
    """
    The holder waits for the task that checks out, so that each of them needs a connection. Tasks beside one another,
    and one that was only started, return theirs without waiting.
    """
    scene = Scene(10)

    async def child() -> None:
        lease = scene.checkout("inner")
        await asyncio.sleep(0)
        lease.released()

    async def request() -> None:
        with scene.unit("GET /profile"):
            first = scene.checkout("outer") if holder != "sibling" else None
            if holder == "nobody":
                task = asyncio.create_task(child())
                await asyncio.sleep(0.01)
                await task
            else:
                await asyncio.gather(child(), child())
            if first is not None:
                first.released()

    asyncio.run(request())
    found = scene.found(NESTED_CHECKOUT)
    assert [one.evidence["first_checkout"][0] for one in found] == (  # type: ignore[index]
        ["/application/outer.py:2 in outer"] if holder == "parent" else []
    )
    assert scene.pool.nested_checkouts.read() == (2 if holder == "parent" else 0)


def test_a_task_that_awaits_a_thread_holds_meanwhile() -> None:
    """The job of a thread that the holder awaits checks out in its turn; two such jobs do not wait for each other."""
    scene = Scene(10)
    awaited = threading.Event()

    def job() -> None:
        assert awaited.wait(60)
        scene.checkout("inner").released()

    async def last() -> None:
        awaited.set()  # the others await their jobs by now

    async def request(*, holds: bool) -> None:
        awaited.clear()
        with scene.unit():
            first = scene.checkout("outer") if holds else None
            await asyncio.gather(asyncio.to_thread(job), asyncio.to_thread(job), last())
            if first is not None:
                first.released()

    asyncio.run(request(holds=False))
    assert scene.pool.nested_checkouts.read() == 0
    asyncio.run(request(holds=True))
    assert scene.pool.nested_checkouts.read() == 2


@pytest.mark.parametrize("awaits", [True, False])
def test_a_deadlock_through_a_task_is_the_cause(awaits: bool) -> None:
    """
    All connections are held by requests whose child tasks wait for another one: the holder's own wait is no other
    work. Where the holder does not await the child, it will return its connection, and the cause is another.
    """
    scene = Scene(1)

    async def child() -> None:
        lease = scene.begin_checkout("inner")  # the holder waits for something by now
        scene.clock.advance(2)
        lease.failed(Outcome.TIMEOUT, "TimeoutError")

    async def request() -> None:
        with scene.unit("GET /profile"):
            lease = scene.checkout("outer")
            scene.query(lease, at="outer")
            task = asyncio.create_task(child())
            if not awaits:
                await asyncio.sleep(0.01)
            await task
            lease.released()

    asyncio.run(request())
    (exhausted,) = scene.found(POOL_EXHAUSTED)
    assert exhausted.evidence["cause"] == (NESTED_CHECKOUT if awaits else IDLE_IN_TRANSACTION)
    assert (IDLE_IN_TRANSACTION in scene.ids()) is not awaits


def test_its_wait_is_no_long_hold_of_its_own() -> None:
    """
    One cause is reported once: the first connection was held for long only because of the wait for the second. Held for
    long besides, it is both.
    """
    scene = Scene(2, exhaustion_threshold=0)
    for work, ids in ((0.0, [NESTED_CHECKOUT]), (2.0, [NESTED_CHECKOUT, IDLE_IN_TRANSACTION])):
        with scene.unit(f"GET /profile/{work}") as unit:
            first = scene.checkout()
            scene.query(first)
            second = scene.begin_checkout()
            scene.clock.advance(3)
            second.acquired()
            second.released()
            scene.clock.advance(work)
            first.released()
            assert scene.pool_registry.units.findings_of(unit) == sorted(ids)


def test_what_may_deadlock_now_is_reported_at_once() -> None:
    """A place reported when few were about is reported again when more are than the pool is safe with; once."""
    scene = Scene(4)

    def nests(others: int) -> None:
        held = [_alone(scene) for _ in range(others)]
        with scene.unit("GET /profile"):
            for lease in (scene.checkout(), scene.checkout()):
                lease.released()
        for lease in held:
            lease.released()

    for others in (0, 1, 2, 3, 3):
        nests(others)
    told = scene.found(NESTED_CHECKOUT)
    assert [(one.severity, one.evidence["workers"], one.evidence["repeated"]) for one in told] == [
        (Severity.WARNING, 1, 0),
        (Severity.CRITICAL, 4, 2),
    ]


def _alone(scene: Scene) -> Lease:
    with scene.unit("GET /other"):
        return scene.checkout()


def test_one_place_is_reported_once_in_an_interval() -> None:
    """With the number of those left out at the next."""
    scene = Scene(10)
    for seconds in (0, 0, 0, 40):
        scene.clock.advance(seconds)
        with scene.unit():
            for lease in (scene.checkout(), scene.checkout()):
                lease.released()
        scene.found()
    assert [finding.evidence["repeated"] for finding in scene.found()] == [0, 2]
