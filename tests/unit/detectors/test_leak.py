"""Leaks: each kind, when it is known, what it says, and what is none."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.finding_kind import Severity
from poolscope.core.work import EXPECTED_LONG_HOLD
from poolscope.detectors.diagnosis.lost import is_lost
from poolscope.detectors.diagnosis.picture import Picture
from tests.support.scene import Scene, line

if TYPE_CHECKING:
    from poolscope.core.lease import Lease


@pytest.fixture
def scene() -> Scene:
    """A pool that is not used yet."""
    return Scene()


def leaks(scene: Scene) -> dict[str, float]:
    """The pool's counters of leaks that are not 0."""
    return {kind: total.read() for kind, total in scene.pool.leaks.items() if total.read()}


# abandoned ------------------------------------------------------------------------------------------------------------


def test_what_the_garbage_collector_found_is_abandoned(scene: Scene) -> None:
    """Reported once, counted at once, and known to the unit of work while that still runs; a return is nothing."""
    with scene.unit() as bad:
        scene.checkout("forgets").released(abandoned=True)
        assert leaks(scene) == {"abandoned": 1}
        assert LEAK in scene.pool_registry.units.findings_of(bad)
    with scene.unit("GET /fixed") as fixed:
        scene.checkout("returns").released()
    assert scene.pool_registry.units.findings_of(fixed) == []

    (finding,) = scene.found()
    assert (finding.id, finding.severity, finding.resolved) == (LEAK, Severity.CRITICAL, False)
    assert finding.evidence["leak_kind"] == "abandoned"
    assert "http GET /orders at /application/forgets.py:2 in forgets" in finding.summary
    assert finding.origin is not None
    assert finding.origin[0] is line("forgets").__code__


def test_what_only_a_librarys_pool_keeps_alive_is_abandoned(scene: Scene) -> None:
    """Some libraries refer to what they handed out, so that it is never garbage-collected: their source says so."""
    dropped, kept = scene.checkout("drops"), scene.checkout("keeps")
    scene.source.unheld = lambda: [dropped]  # type: ignore[method-assign]
    assert [held.lost for held in Picture.take(scene.pool).held if held.lease is dropped] == [True]
    assert [held.lost for held in Picture.take(scene.pool).held if held.lease is kept] == [False]
    scene.pass_time(2)
    assert (dropped.leak, kept.leak) == ("abandoned", None)
    assert (is_lost(dropped), is_lost(kept)) == (True, False)
    assert leaks(scene) == {"abandoned": 1}


# owner_finished -------------------------------------------------------------------------------------------------------


def test_a_unit_that_is_over_and_still_holds_has_leaked(scene: Scene) -> None:
    """Known a second after its end, while the connection is held; its twin returned it before the end."""
    with scene.unit("GET /fixed"):
        scene.checkout().released()
    with scene.unit() as unit:
        lease = scene.checkout("forgets")
        scene.query(lease, "select * from carts where token = 'secret'", seconds=0.1)
    scene.pass_time(1.0)
    assert scene.found() == [], "it may be on its way back"
    scene.pass_time(1.0)

    (finding,) = scene.found(LEAK)
    assert leaks(scene) == {"owner_finished": 1}
    assert lease.ended_at is None
    assert str(finding.unit) == str(unit)
    assert finding.evidence["leak_kind"] == "owner_finished"
    assert finding.evidence["owner"] == "http GET /orders"
    assert finding.evidence["phase"] == "idle_in_transaction"
    assert finding.evidence["statement"] == "select * from carts where token = ?"
    assert finding.evidence["checkout_stack"][0] == "/application/forgets.py:2 in forgets"  # type: ignore[index]
    assert "current_location" not in finding.evidence
    assert "secret" not in str(finding)
    scene.pass_time(300)
    assert scene.ids() == [LEAK], "the same leak is reported once"


def test_what_a_unit_left_behind_may_go_on_using_it(scene: Scene) -> None:
    """As long as statements run on it, it is no leak; a second after the last one it is."""
    with scene.unit():
        lease = scene.checkout()
    for _ in range(10):
        scene.pass_time(0.9)
        scene.query(lease)
    lease.statement_begins("select pg_sleep(5)")
    scene.pass_time(5)
    assert scene.found() == []
    lease.call_ends(in_transaction=True)
    scene.pass_time(2)
    assert scene.ids() == [LEAK]


def test_a_thread_of_a_unit_may_outlive_it(scene: Scene) -> None:
    """While the code that checked out is on its thread's stack it can still be returned; then it cannot."""
    started, go_on = threading.Event(), threading.Event()

    def checkout_and_stay() -> Lease:
        def hook() -> Lease:
            lease = scene.pool.checkout()
            lease.acquired()
            started.set()
            assert go_on.wait(60)
            return lease

        return line("report")(hook)  # type: ignore[no-any-return]

    with ThreadPoolExecutor(1) as executor:
        with scene.unit():
            future = executor.submit(contextvars.copy_context().run, checkout_and_stay)
            assert started.wait(60)
        scene.pass_time(20)
        assert scene.found() == []
        go_on.set()
        lease = future.result(60)
        scene.pass_time(3)
        assert scene.ids() == [LEAK], "the thread is there, but does something else"
        assert lease.thread != threading.get_ident()


def test_a_thread_that_is_over_has_leaked(scene: Scene) -> None:
    """Known five seconds later, even though another thread has got its number; a thread that lives has not."""
    held: list[Lease] = []
    thread = threading.Thread(target=lambda: held.append(scene.checkout("job")))
    thread.start()
    thread.join(60)
    lease = held[0]
    # The number of a thread that lives: the system may give it out again.
    lease.thread_reference.ident = threading.get_ident()
    here = scene.checkout("main")
    scene.pass_time(5)
    assert scene.found() == []
    scene.pass_time(2)

    (finding,) = scene.found()
    assert (lease.leak, here.leak) == ("owner_finished", None)
    assert "checked out by a finished thread" in finding.summary


def test_a_task_that_is_over_has_leaked(scene: Scene) -> None:
    """Finished, cancelled or collected makes no difference; a task that awaits something has not leaked."""

    async def forgets() -> Lease:
        return scene.checkout("forgets")

    async def is_cancelled(handed_over: asyncio.Event) -> None:
        scene.checkout("is_cancelled")
        handed_over.set()
        await asyncio.Event().wait()

    async def keeps(handed_over: asyncio.Event, release: asyncio.Event) -> None:
        lease = scene.checkout("keeps")
        handed_over.set()
        await release.wait()
        lease.released()

    async def main() -> None:
        release, handed_over = asyncio.Event(), asyncio.Event()
        collected = await asyncio.create_task(forgets())
        finished = asyncio.create_task(forgets())
        await finished
        cancelled = asyncio.create_task(is_cancelled(handed_over))
        await handed_over.wait()
        cancelled.cancel()
        handed_over.clear()
        keeping = asyncio.create_task(keeps(handed_over, release))
        await handed_over.wait()
        scene.pass_time(8)
        release.set()
        await keeping
        assert collected.task is not None
        assert collected.task() is None
        assert sum(leaks(scene).values()) == 3

    asyncio.run(main())
    # The two of `forgets` are one place: the second is counted, not reported.
    assert [finding.evidence["leak_kind"] for finding in scene.found(LEAK)] == ["owner_finished"] * 2


# overdue --------------------------------------------------------------------------------------------------------------


def test_what_is_out_for_longer_than_the_threshold_is_overdue(scene: Scene) -> None:
    """With what its holder is executing; one that came back in time is not."""
    scene.checkout("quick").released()
    with scene.unit() as unit:
        scene.checkout("slow")
        scene.pass_time(59)
        assert scene.found() == []
        scene.pass_time(1)
        (finding,) = scene.found()
        assert LEAK in scene.pool_registry.units.findings_of(unit)
    assert (finding.severity, finding.evidence["leak_kind"]) == (Severity.WARNING, "overdue")
    assert "has been checked out for 60.0 s" in finding.summary
    assert "expected_long_hold" in finding.fix
    stands = finding.evidence["current_location"]
    assert "test_what_is_out_for_longer_than_the_threshold_is_overdue" in " ".join(stands)  # type: ignore[arg-type]


def test_a_threshold_of_0_is_never_overdue() -> None:
    """The setting turns overdue leaks off, and only these."""
    scene = Scene(leak_threshold=0)
    scene.checkout("slow")
    scene.pass_time(1000)
    assert scene.found() == []
    with scene.unit():
        scene.checkout("forgets")
    scene.pass_time(2)
    assert scene.ids() == [LEAK]


# None of these --------------------------------------------------------------------------------------------------------


def test_what_is_excused_is_no_leak(scene: Scene) -> None:
    """What was asked for inside `expected_long_hold` is neither overdue nor finished; beside it the same is both."""
    token = EXPECTED_LONG_HOLD.set("it listens for notifications")
    with scene.unit():
        scene.checkout("listener")
    EXPECTED_LONG_HOLD.reset(token)
    scene.pass_time(600)
    assert scene.found() == []
    with scene.unit():
        scene.checkout("listener")
    scene.pass_time(3)
    assert scene.ids() == [LEAK]


def test_what_is_not_to_be_watched_is_no_leak() -> None:
    """
    Where the application suppressed instrumentation; and checkouts that still wait; and what was checked out before we
    came, unless it is overdue.
    """
    scene = Scene(limit=None, exhaustion_threshold=0)
    suppressed, waiting, adopted = scene.checkout(), scene.begin_checkout(), scene.pool.adopt(scene.clock())
    suppressed.silent = True
    suppressed.unit = waiting.unit = adopted.unit = scene.pool_registry.units.begin("http", "GET /")
    scene.pool_registry.units.end(suppressed.unit)
    scene.pass_time(50)
    assert scene.found() == []
    scene.pass_time(20)
    assert [lease.leak for lease in (suppressed, waiting, adopted)] == [None, None, "overdue"]


# Resolved -------------------------------------------------------------------------------------------------------------


def test_a_leak_that_comes_back_is_resolved(scene: Scene) -> None:
    """Once, with the time it was held; it is neither a leak again nor a long hold."""
    lease = scene.checkout("slow")
    scene.pass_time(61)
    scene.clock.advance(9)
    lease.released()
    lease.released()
    assert scene.ids() == [LEAK, LEAK]
    resolved = scene.found()[1]
    assert (resolved.resolved, resolved.severity) == (True, Severity.INFO)
    assert "reported as leaked (overdue), was returned after 70.0 s" in resolved.summary
    assert leaks(scene) == {"overdue": 1}


def test_a_leak_that_the_garbage_collector_brings_back_is_resolved_and_still_one(scene: Scene) -> None:
    """It is held no more, but was not returned: counted once, as what it was known to be first."""
    with scene.unit():
        lease = scene.checkout("forgets")
    scene.pass_time(3)
    lease.released(abandoned=True)
    assert [finding.resolved for finding in scene.found()] == [False, True]
    assert "was garbage-collected after 3.0 s" in scene.found()[1].summary
    assert leaks(scene) == {"owner_finished": 1}


@pytest.mark.parametrize(
    ("closed", "ending", "words"),
    [
        (None, "returned", "was returned after 3.0 s"),
        (
            "disposed",
            "closed_with_pool",
            "was not returned: it was closed with its pool, after 3.0 s",
        ),
        ("invalidated", "closed", "was not returned: it was closed after 3.0 s"),
    ],
)
def test_a_leak_that_is_closed_was_not_returned(scene: Scene, closed: str | None, ending: str, words: str) -> None:
    """The pool was shut down over it, or the connection was lost: the event says so, and the fix is the leak's."""
    with scene.unit():
        lease = scene.checkout("forgets")
    scene.pass_time(3)
    lease.closed = closed
    lease.released()
    found, resolved = scene.found()
    assert f"reported as leaked (owner_finished), {words}" in resolved.summary
    assert resolved.evidence["ending"] == ending
    assert "ending" not in found.evidence
    assert (resolved.fix == found.fix) is (closed is not None)


# How often ------------------------------------------------------------------------------------------------------------


def test_leaks_of_one_place_are_reported_once_in_an_interval(scene: Scene) -> None:
    """
    Each is counted and each has its span; when the interval is over an event stands for those that were held back. What
    was not reported is not resolved.
    """
    held = []
    for _ in range(5):
        with scene.unit():
            held.append(scene.checkout("forgets"))
    with scene.unit():
        scene.checkout("elsewhere")
    scene.pass_time(2)
    assert leaks(scene) == {"owner_finished": 6}
    assert len(scene.found(LEAK)) == 2, "one a place"
    for lease in held:
        lease.released()
    assert sum(finding.resolved for finding in scene.found()) == 1
    scene.pass_time(40)
    with scene.unit():
        scene.checkout("forgets")
    scene.pass_time(2)
    assert [finding.evidence["repeated"] for finding in scene.found(LEAK)[-2:]] == [3, 0]
    assert len(scene.spans) == 7, "the span of each is made while it is held"


def test_the_server_process_and_the_trace_are_reported(scene: Scene) -> None:
    """What leads to the server's own account, and to the trace."""

    class Context:
        trace_id = 0xABC

    class Span:
        def get_span_context(self) -> Context:
            return Context()

    with scene.unit():
        lease = scene.checkout()
        lease.backend_process_id, lease.trace = 4711, Span()
    scene.pass_time(2)
    (finding,) = scene.found()
    assert finding.evidence["backend_process_id"] == 4711
    assert finding.evidence["trace_id"] == "00000000000000000000000000000abc"
    assert finding.trace is lease.trace
