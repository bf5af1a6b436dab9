"""Blocked event loops: the lag, the line that blocks, what it holds up, and how much of a hold or a wait it was."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core import event_loops
from poolscope.core.blocks import MOST_HELD_UP, NO_OVERLAP, Block, Blocks
from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED, SLOW_CONNECT
from poolscope.core.catalogue.holds import LONG_HOLD
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP, BY_CHECKOUT
from poolscope.core.lease import Outcome
from poolscope.detectors import blocked_event_loop
from poolscope.detectors.blocked_event_loop import found
from tests.support.likeness import Like
from tests.support.loops import Loop, event_loop
from tests.support.scene import Scene, line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.lease import Lease


@pytest.fixture
def scene() -> Scene:
    """A pool of two."""
    return Scene(2, long_hold_threshold=1.5)


@pytest.fixture
def loop(scene: Scene) -> Iterator[Loop]:
    """A loop whose tasks use it."""
    with event_loop(scene.pool) as made:
        yield made


def turns(scene: Scene, loop: Loop, seconds: float) -> None:
    """Time in which the loop does what it is to do, at once."""
    for _ in range(round(seconds / 0.2)):
        scene.tick()
        loop.turn()
        scene.clock.advance(0.2)
    scene.tick()
    loop.turn()


def blocked(scene: Scene, loop: Loop, seconds: float = 1.0, at: str = "work") -> None:
    """Time in which the loop executes one line."""
    scene.tick()
    loop.block(at)
    until = scene.clock.now + seconds
    while scene.clock.now < until:
        scene.clock.advance(min(0.2, until - scene.clock.now))
        scene.tick()
    loop.unblock()
    loop.turn()
    scene.tick()


def request(scene: Scene, loop: Loop) -> Lease:
    """A task of a request checks out a connection."""
    lease = loop.checkout()
    lease.unit = scene.pool_registry.units.begin("http", "GET /orders")
    return lease


def lags(scene: Scene) -> list[int]:
    """How many lags there are by bucket."""
    assert scene.event_loops.lag is not None
    return scene.event_loops.lag.read().counts


def test_the_line_that_blocks_is_found_with_what_it_holds_up(scene: Scene, loop: Loop) -> None:
    """A loop that goes on does its heartbeats at once, and nothing is found; one that is blocked is, for how long."""
    loop.checkout()
    turns(scene, loop, 2)
    assert scene.found() == []
    assert sum(lags(scene)) == lags(scene)[0] > 5
    blocked(scene, loop)
    (finding,) = scene.found(BLOCKED_EVENT_LOOP)
    assert finding.pool == scene.pool.identity
    assert finding.evidence["blocked"] == pytest.approx(1.0, abs=0.3)
    assert finding.evidence["stack"][0] == "/application/work.py:2 in work"  # type: ignore[index]
    assert finding.evidence["held_up"] == 1
    assert "was blocked for" in finding.summary
    assert (
        "by synchronous work at /application/work.py:2 in work; it held up 1 lease or checkout of shop"
        in finding.summary
    )
    assert "a connection of shop, from /application/view.py:2 in view" in finding.report
    assert finding.fix == finding.kind.fix
    assert lags(scene)[-1] == 0
    assert sum(lags(scene)[6:]) == 1


def test_a_block_that_lasts_is_reported_before_its_end(scene: Scene, loop: Loop) -> None:
    """The process may be killed for it; its end is no second finding."""
    loop.checkout()
    turns(scene, loop, 1)
    loop.block()
    for _ in range(16):
        scene.clock.advance(0.2)
        scene.tick()
    (finding,) = scene.found(BLOCKED_EVENT_LOOP)
    assert "has been blocked for" in finding.summary
    loop.unblock()
    loop.turn()
    scene.pass_time(40)
    assert scene.ids() == [BLOCKED_EVENT_LOOP]


def test_what_is_short_is_not_reported(scene: Scene, loop: Loop) -> None:
    """The threshold is a setting; the lag is measured all the same."""
    loop.checkout()
    turns(scene, loop, 1)
    blocked(scene, loop, 0.22)
    assert scene.found() == []
    assert sum(lags(scene)[4:]) == 1


@pytest.mark.parametrize("setting", [{"event_loop_heartbeat": False}, {"blocked_event_loop_threshold": 0}])
def test_it_can_be_switched_off(setting: dict[str, Any]) -> None:
    """Without a heartbeat nothing is called in a loop; without a threshold only the lag is measured."""
    scene = Scene(2, **setting)
    with event_loop(scene.pool) as loop:
        loop.checkout()
        turns(scene, loop, 1)
        blocked(scene, loop)
        assert scene.found() == []
        assert (scene.event_loops.lag is None) == ("event_loop_heartbeat" in setting)


def test_a_loop_in_which_nothing_waits_harms_no_one(scene: Scene, loop: Loop) -> None:
    """A script that computes between two queries blocks only itself; a server's loop has others that wait."""
    lease = loop.checkout()
    turns(scene, loop, 1)
    loop.do(lease.released)
    blocked(scene, loop)
    assert scene.found() == []
    request(scene, loop)
    turns(scene, loop, 1)
    for held in scene.pool.leases.copy():
        loop.do(held.released)
    blocked(scene, loop)
    (finding,) = scene.found(BLOCKED_EVENT_LOOP)
    assert finding.summary.endswith("no other task of it had a connection or waited for one")


def test_a_loop_that_waits_in_its_selector_is_not_blocked(scene: Scene, loop: Loop) -> None:
    """A heartbeat that is late although the loop's thread waits, as where all of the process was slow: no line."""
    loop.checkout()
    turns(scene, loop, 1)
    scene.clock.advance(0.3)
    scene.tick()
    loop.turn()
    scene.tick()
    assert scene.found() == []


def test_a_line_that_was_hardly_seen_is_believed_the_second_time(scene: Scene, loop: Loop) -> None:
    """
    What holds the interpreter's lock ends as soon as it can be looked at. Once that may be an accident of a process
    that was slow as a whole.
    """
    loop.checkout()
    turns(scene, loop, 1)
    sleep = scene.event_loops._sleep
    for expected in ([], [BLOCKED_EVENT_LOOP]):
        scene.tick()
        loop.block()
        scene.clock.advance(0.4)

        def end(seconds: float) -> None:
            sleep(seconds)
            if loop.callbacks:
                loop.unblock()
                loop.turn()

        scene.event_loops._sleep = end
        scene.tick()
        scene.event_loops._sleep = sleep
        turns(scene, loop, 1)
        assert scene.ids() == expected


def test_a_loop_may_stop_close_and_be_collected(scene: Scene) -> None:
    """A loop that does not run is not blocked, a closed one gets no heartbeat, and none is kept alive."""
    with event_loop(scene.pool) as loop:
        lease = loop.checkout()
        turns(scene, loop, 1)
        loop.running = False
        turns(scene, loop, 0.2)
        scene.clock.advance(5)
        scene.tick()
        assert loop.callbacks == []
        loop.running = True
        scene.tick()
        loop.do(lease.released)
        loop.callbacks.clear()
        loop.closed = True
        scene.clock.advance(5)
        scene.tick()
        assert loop.callbacks == []
    assert BLOCKED_EVENT_LOOP not in scene.ids()
    reference = weakref.ref(loop)
    del loop, lease
    scene.tick()
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("ends", ["running", "closed"])
def test_a_loop_that_ends_while_it_is_blocked_blocks_no_later_one(scene: Scene, ends: str) -> None:
    """Its heartbeat never comes back. The next loop of the same thread did not wait for it."""
    with event_loop(scene.pool) as loop:
        loop.checkout()
        turns(scene, loop, 1)
        scene.tick()
        loop.block("work")
        for _ in range(5):
            scene.clock.advance(0.2)
            scene.tick()
        (thread,) = {lease.thread for lease in scene.pool.leases}
        ended = scene.clock.now
        assert scene.event_loops.overlap(thread, ended - 1, ended).seconds >= 0.5
        setattr(loop, ends, ends == "closed")
        loop.callbacks.clear()
        loop.unblock()
        scene.clock.advance(5)
        scene.tick()
        assert scene.event_loops.overlap(thread, ended, scene.clock.now) == NO_OVERLAP


def test_a_child_process_knows_no_loop_of_its_parent(scene: Scene, loop: Loop) -> None:
    """They do not run there."""
    loop.checkout()
    turns(scene, loop, 1)
    loop.block()
    scene.event_loops.forget()
    scene.pool.leases.clear()
    scene.clock.advance(5)
    scene.tick()
    loop.unblock()
    assert scene.found() == []


def test_a_hold_that_others_made_long_is_no_long_hold(
    scene: Scene, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fix is where the loop is blocked; where the hold's own task blocks it, both are true."""
    loop.do(request(scene, loop).released)
    lease = request(scene, loop)
    turns(scene, loop, 0.2)
    blocked(scene, loop, 2)
    loop.do(lease.released)
    assert lease.unit is not None
    assert lease.unit.findings == {BLOCKED_EVENT_LOOP}
    assert scene.ids() == [BLOCKED_EVENT_LOOP]
    own = request(scene, loop)
    monkeypatch.setattr(event_loops, "running_in", lambda _: own.task)
    blocked(scene, loop, 2)
    loop.do(own.released)
    assert scene.ids() == [BLOCKED_EVENT_LOOP, LONG_HOLD]


@pytest.mark.parametrize("threshold", [0.0, 0.45])
def test_a_hold_is_a_long_one_where_its_blocks_are_not_reported(threshold: float) -> None:
    """Blocks are not reported at all, or only longer ones are: each hold has a finding, and it says who blocked."""
    scene = Scene(2, long_hold_threshold=1.5, blocked_event_loop_threshold=threshold)
    with event_loop(scene.pool) as loop:
        lease = request(scene, loop)
        turns(scene, loop, 0.2)
        for _ in range(5):
            blocked(scene, loop, 0.4)
        loop.do(lease.released)
        assert lease.unit is not None
        assert lease.unit.findings == {LONG_HOLD}
        (finding,) = scene.found()
    assert finding.id == LONG_HOLD
    assert finding.evidence["event_loop_blocked_at"] == "/application/work.py:2 in work"


def test_of_a_long_hold_the_blocked_part_is_said(scene: Scene, loop: Loop) -> None:
    """A hold of which a quarter was a blocked loop stays a long hold."""
    lease = request(scene, loop)
    turns(scene, loop, 3)
    blocked(scene, loop)
    loop.do(lease.released)
    (finding,) = [one for one in scene.found() if one.id == LONG_HOLD]
    assert finding.evidence["event_loop_blocked"] == pytest.approx(1.0, abs=0.3)
    assert finding.evidence["event_loop_blocked_at"] == "/application/work.py:2 in work"


def test_the_wait_in_a_blocked_loop_is_a_phase_of_its_own(scene: Scene, loop: Loop) -> None:
    """It was not the queue: nothing could be received. A wait while the loop went on is a queue."""
    first = loop.begin_checkout()
    turns(scene, loop, 1)
    loop.do(first.acquired)
    assert first.wait_phases()["resume"] == 0
    second = loop.begin_checkout()
    scene.tick()
    blocked(scene, loop)
    loop.do(second.acquired)
    phases = second.wait_phases()
    assert phases["resume"] == pytest.approx(1.0, abs=0.3)
    assert sum(phases.values()) == pytest.approx(second.acquired_at - second.requested_at)  # type: ignore[operator]
    times = scene.pool.wait_phase_times()
    assert times["resume"] == phases["resume"]
    assert sum(times.values()) == pytest.approx(sum(sum(one.wait_phases().values()) for one in (first, second)))


def test_a_synchronous_checkout_is_a_block_by_itself(scene: Scene, loop: Loop) -> None:
    """Its wait is in the queue, and what it has held up knows from when to when, and that it was a checkout."""
    held = loop.checkout()
    began = scene.clock.now

    def hook() -> Lease:
        lease = scene.pool.checkout()
        lease.task = other.task
        scene.clock.advance(2)
        lease.acquired()
        return lease

    other = loop.begin_checkout()
    lease: Lease = loop.do(lambda: line("blocks")(hook))
    assert lease.wait_phases()["resume"] == 0
    overlap = scene.event_loops.overlap_of(held, began, scene.clock.now)
    assert (overlap.seconds, overlap.share, overlap.is_checkout) == (2.0, 1.0, True)
    assert overlap.stack == lease.origin
    assert scene.event_loops.overlap_of(lease, began, scene.clock.now).seconds == 0


def test_the_fix_of_a_checkout_is_another_one(scene: Scene, loop: Loop) -> None:
    """An async pool, or a thread; with the request that waits."""
    lease = loop.begin_checkout()
    block = Block(lease.thread, 0.0, 1.0, lease.origin, lease.task)
    block.hold_up([scene.pool])
    assert block.is_checkout
    finding = found(block, 1.0, block.by, block.held_up)
    assert "by a synchronous checkout of" in finding.summary
    assert finding.fix == finding.kind.fix_for(BY_CHECKOUT) != finding.kind.fix


def cause(scene: Scene) -> str:
    """Of the first exhausted pool."""
    return str(scene.found(POOL_EXHAUSTED)[0].evidence["cause"])


def test_it_is_the_cause_where_the_holders_could_not_go_on(scene: Scene, loop: Loop) -> None:
    """With the line that blocks; the same holders in a loop that goes on are held for what they do themselves."""
    held = [request(scene, loop) for _ in range(2)]
    turns(scene, loop, 0.2)
    blocked(scene, loop, 3)
    scene.timeout()
    assert cause(scene) == BLOCKED_EVENT_LOOP
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert "a blocked event loop: 2 of 2 connections are held by tasks that could not go on" in finding.summary
    assert "synchronous work blocks their event loop at /application/work.py:2 in work" in str(
        finding.evidence["chain"]
    )
    assert finding.fix == KINDS[BLOCKED_EVENT_LOOP].fix
    for holder in finding.evidence["holders"]:  # type: ignore[union-attr]
        assert "; its event loop was blocked at /application/work.py:2 in work for " in str(holder)
    for lease in held:
        loop.do(lease.released)
    other = Scene(2, long_hold_threshold=1.5)
    with event_loop(other.pool) as going_on:
        for _ in range(2):
            request(other, going_on)
        turns(other, going_on, 3)
        other.timeout()
        assert cause(other) == LONG_HOLD


@pytest.mark.parametrize(("elsewhere", "words"), [(0, "a deadlock through the event loop: 2 of 2"), (1, ": 2 of 3")])
def test_a_checkout_that_blocks_its_holders_is_a_deadlock_where_it_gets_no_connection(
    elsewhere: int, words: str
) -> None:
    """Where a third connection is used in a thread, it gets that in the end."""
    scene = Scene(2 + elsewhere)
    with event_loop(scene.pool) as loop:
        _held = [loop.checkout() for _ in range(2)]
        other = loop.begin_checkout()
        loop.do(other.acquired)
        loop.do(other.released)
        for _ in range(elsewhere):
            scene.checkout().statement_begins("select 1 from t")

        def hook() -> None:
            lease = scene.pool.checkout()
            lease.task = other.task
            scene.clock.advance(2)
            lease.failed(Outcome.TIMEOUT, "TimeoutError")

        loop.do(lambda: line("blocks")(hook))
        (finding,) = scene.found(POOL_EXHAUSTED)
        assert finding.fix == KINDS[BLOCKED_EVENT_LOOP].fix_for(BY_CHECKOUT)
        assert words in finding.summary
        assert ("a deadlock" in finding.summary) == (not elsewhere)


@pytest.mark.parametrize("is_blocked", [True, False])
def test_the_queue_that_a_block_has_left_is_its_doing(is_blocked: bool) -> None:
    """
    The connections that the waiter queues for are used again, each for a moment: what it waited for was the loop. Where
    that went on all the time it was something else.
    """
    scene = Scene(2, long_hold_threshold=5, exhaustion_threshold=0)
    with event_loop(scene.pool) as loop:
        before = [request(scene, loop) for _ in range(2)]
        turns(scene, loop, 1)
        waiter = loop.begin_checkout("other")
        (blocked if is_blocked else turns)(scene, loop, 2)
        for lease in before:
            loop.do(lease.released)
        for _ in range(2):
            request(scene, loop).statement_begins("select 1 from t")
        turns(scene, loop, 0.2)
        loop.do(lambda: waiter.failed(Outcome.TIMEOUT, "TimeoutError"))
        assert (cause(scene) == BLOCKED_EVENT_LOOP) == is_blocked


def test_who_blocks_and_holds_counts_with_those_who_cannot_go_on(
    scene: Scene, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone it is a long hold: in a thread, the work would keep the connection as long."""
    own = request(scene, loop)
    other = request(scene, loop)
    turns(scene, loop, 0.2)
    monkeypatch.setattr(event_loops, "running_in", lambda _: own.task)
    blocked(scene, loop, 3)
    scene.timeout()
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["shares"] == ["blocked_event_loop 100%"]
    loop.do(other.released)
    scene.clock.advance(31)
    third = request(scene, loop)
    turns(scene, loop, 0.2)
    loop.do(third.released)
    scene.checkout("beside")
    scene.timeout()
    assert BLOCKED_EVENT_LOOP not in scene.found(POOL_EXHAUSTED)[-1].evidence["shares"][0]  # type: ignore[index, operator]


@pytest.mark.parametrize(("is_blocked", "expected"), [(True, BLOCKED_EVENT_LOOP), (False, SLOW_CONNECT)])
def test_a_validation_whose_answer_a_blocked_loop_does_not_receive_is_not_slow(is_blocked: bool, expected: str) -> None:
    """The server may have answered at once. Where the loop goes on, the server is slow."""
    scene = Scene(2, exhaustion_threshold=0)
    with event_loop(scene.pool) as loop:
        for _ in range(2):
            loop.do(loop.begin_checkout().handed_over)
        turns(scene, loop, 1)
        (blocked if is_blocked else turns)(scene, loop, 3)
        scene.timeout(waited=0.2)
        assert cause(scene) == expected


def test_a_short_block_is_not_the_cause(scene: Scene, loop: Loop) -> None:
    """A fifth of the hold: it is long by itself."""
    for _ in range(2):
        request(scene, loop)
    turns(scene, loop, 4)
    blocked(scene, loop, 1)
    scene.timeout()
    assert cause(scene) == LONG_HOLD


@pytest.mark.parametrize(("is_blocked", "expected"), [(True, BLOCKED_EVENT_LOOP), (False, SLOW_CONNECT)])
def test_a_wait_for_what_is_there_is_the_loops(is_blocked: bool, expected: str) -> None:
    """A waiter that times out at a pool that is not full, since its loop was blocked; else connects are slow."""
    scene = Scene(2, exhaustion_threshold=0)
    with event_loop(scene.pool) as loop:
        checkout = loop.begin_checkout()
        turns(scene, loop, 1)
        (blocked if is_blocked else turns)(scene, loop, 3)
        loop.do(lambda: checkout.failed(Outcome.TIMEOUT, "TimeoutError"))
        assert cause(scene) == expected
        assert ("nothing could be received" in scene.found(POOL_EXHAUSTED)[0].summary) == is_blocked


def test_many_short_blocks_are_estimated_by_the_heartbeats() -> None:
    """Where two heartbeats of three are late, the loop is blocked for two thirds, though each is seen from within."""
    blocks = Blocks()
    for number in range(9):
        late = number % 3 > 0
        blocks.beat(1, number, number + (0.3 if late else 0.001))
        if late:
            blocks.add(Block(1, number, number + 0.3, ((cause.__code__, 0),)))
    overlap = blocks.overlap(1, 0.0, 9.0)
    assert (overlap.seconds, overlap.share) == (pytest.approx(1.8), pytest.approx(2 / 3))
    assert overlap.explains
    assert blocks.overlap(2, 0.0, 9.0) == NO_OVERLAP


def test_what_was_hardly_seen_at_a_line_explains_nothing() -> None:
    """Of a process that is slow as a whole one line may have been seen once."""
    blocks = Blocks()
    blocks.add(Block(1, 0.0, 3.0))
    blocks.add(Block(1, 3.0, 4.0, ((cause.__code__, 0),)))
    overlap = blocks.overlap(1, 0.0, 4.0)
    assert (overlap.share, overlap.stack, overlap.explains) == (1.0, (), False)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "no other task of it had a connection or waited for one"),
        (1, "it held up 1 lease or checkout of shop"),
        (2, "it held up 2 leases and checkouts of shop"),
        (MOST_HELD_UP - 1, f"it held up {MOST_HELD_UP - 1} leases and checkouts of shop"),
        (MOST_HELD_UP, f"it held up {MOST_HELD_UP} or more leases and checkouts of shop"),
    ],
)
def test_a_block_says_how_many_it_held_up(count: int, words: str) -> None:
    """Each is named with what it waits for, or holds."""
    scene = Scene(None)
    held = [scene.begin_checkout() if number % 2 else scene.checkout() for number in range(count)]
    block = Block(1, 0.0, 2.0, ((cause.__code__, 0), (lags.__code__, 0)))
    finding = found(block, 2.0, None, held, 3)
    assert finding.origin == (cause.__code__, 0)
    assert finding.summary.endswith(f"; {words}")
    assert (finding.evidence["held_up"], finding.evidence["repeated"], finding.evidence["blocked"]) == (count, 3, 2.0)
    assert [str(line).split(" of shop")[0].split(" ", 2)[2] for line in finding.evidence["holders"]] == [  # type: ignore[union-attr]
        "waits for a connection" if number % 2 else "holds a connection" for number in range(count)
    ]
    assert finding.report.count("  held up: ") == count
    assert finding.pool == (scene.pool.identity if count else None)
    assert "was blocked for 2.0 s by synchronous work at " in finding.summary
    assert "event loop of thread 1 " in finding.summary


def test_a_block_by_a_lease_is_that_leases(scene: Scene) -> None:
    """Its unit of work, its span and its pool; while it lasts it has no end."""
    span = object()
    with scene.unit("GET /a"):
        by = scene.checkout()
    by.trace = span
    finding = found(Block(1, 0.0, None, ((cause.__code__, 0),)), 2.0, by, ())
    assert "has been blocked for 2.0 s by synchronous work of http GET /a at " in finding.summary
    assert (str(finding.unit), finding.trace, finding.pool) == ("http GET /a", span, scene.pool.identity)
    assert finding.evidence["repeated"] == 0
    by.unit = None
    assert found(Block(1, 0.0, None, ((cause.__code__, 0),)), 2.0, by, ()).unit is None


@pytest.mark.parametrize(
    ("explained", "reported", "explains"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_blocks_explain_a_hold_where_they_are_reported(explained: bool, reported: bool, explains: bool) -> None:
    """By the longest of them; a lease of a pool without loops, or that has no connection, has none."""
    spans: list[tuple[float, float]] = []

    def overlap_of(lease: Any, began: float, ended: float) -> Any:
        spans.append((began, ended))
        return Like(explains=explained, longest=2.0, seconds=3.0, stack=())

    known = Like(overlap_of=overlap_of, reports=lambda seconds: reported and seconds == 2.0)
    pool = Like(event_loops=known, now=lambda: 9.0)
    lease: Any = Like(pool=pool, acquired_at=1.0, ended_at=None)
    assert blocked_event_loop.explains(lease) is explains
    lease.ended_at = 4.0
    assert blocked_event_loop.evidence_of(lease) == {"event_loop_blocked": 3.0}
    assert spans == [(1.0, 9.0), (1.0, 4.0)]
    lease.acquired_at = None
    assert not blocked_event_loop.explains(lease)
    assert blocked_event_loop.evidence_of(lease) == {}
    lease.acquired_at, pool.event_loops = 1.0, None
    assert not blocked_event_loop.explains(lease)
    assert len(spans) == 2


def test_blocks_before_and_after_a_span_are_none_of_it() -> None:
    """They do not count for their line, nor against it."""
    line, other = ((cause.__code__, 0),), ((lags.__code__, 0),)
    blocks = Blocks()
    for began, ended, stack in (
        (-9.0, 1.0, line),
        (1.0, 2.0, line),
        (2.25, 2.5, other),
        (3.0, 4.0, line),
        (10.0, 12.0, line),
    ):
        blocks.add(Block(1, began, ended, stack))
    overlap = blocks.overlap(1, 1.0, 3.0)
    assert (overlap.seconds, overlap.stack) == (1.25, line)
