"""Event loops to the point: when one gets a heartbeat, when that is late, what is believed of a block and reported."""

from __future__ import annotations

import asyncio
from threading import get_ident
from typing import Any

import pytest

from poolscope.core import event_loops as module
from poolscope.core.blocks import MOST_HELD_UP, NO_OVERLAP, SHORTEST, Block
from poolscope.core.event_loops import EventLoops
from poolscope.core.guard import guard
from poolscope.core.watched_loop import Samples, WatchedLoop, is_waiting, running_in, runs_callbacks
from poolscope.core.work import CURRENT_UNIT
from tests.support.clocks import FakeClock
from tests.support.likeness import Like

#: Of a threshold: less, as much, and more.
TIMES = [(0.5, False), (1.0, True), (1.5, True), (1000.0, True)]
STACK: Any = ((compile("", "/application/view.py", "exec"), 0),)
#: A thread, by an identifier as large as they are; twice, as two readers have two objects of one number.
THREAD, SAME = int("1000000007"), int("1000000007")


def loops(now: float = 0.0, **given: Any) -> tuple[EventLoops, FakeClock]:
    """Event loops on a clock that stands still."""
    clock = FakeClock(now)
    return EventLoops(clock, bounds=(1.0, 2.0), sleep=clock.advance, **given), clock


def loop_of_test(**given: Any) -> Any:
    """What is like an event loop that runs: it keeps what it is to call."""
    calls: list[Any] = []
    methods = {"is_closed": lambda: False, "is_running": lambda: True, "call_soon_threadsafe": calls.append}
    return Like(calls=calls, **{**methods, **given})


def watched_in(known: EventLoops, loop: Any, thread: int = THREAD) -> Any:
    """The loop becomes known, and is looked at with the next tick, which comes without the search for others."""
    known._looked_at = float("inf")
    return known._watched(loop, thread)


def test_a_loop_in_which_a_connection_is_made_is_known() -> None:
    """With its thread, and whether a request runs in it, which it keeps; where heartbeats are wanted."""
    known, _ = loops()
    off, _ = loops(heartbeat=False)
    ended, _ = loops()
    ended.stop()

    async def connects() -> list[Any]:
        seen = []
        for unit in (None, object(), None):
            token = CURRENT_UNIT.set(unit)  # type: ignore[arg-type]
            for one in (known, off, ended):
                one.connected()
            CURRENT_UNIT.reset(token)
            (watched,) = known._loops.values()
            seen.append((watched.reference() is asyncio.get_running_loop(), watched.thread, watched.serves))
        return seen

    assert asyncio.run(connects()) == [(True, get_ident(), serves) for serves in (False, True, True)]
    assert off._loops == ended._loops == {}
    known.forget()
    known.connected()
    assert known._loops == {}


@pytest.mark.parametrize(("times", "counted"), TIMES)
@pytest.mark.parametrize("end", ["acquired_at", "ended_at", "now"])
def test_a_wait_in_a_blocked_loop_counts_from_the_shortest_block_on(end: str, times: float, counted: bool) -> None:
    """Until it had a connection or failed, or until now; and never for more than it was in the queue."""
    for queue in (500.0 * SHORTEST, 0.25 * SHORTEST):
        known, clock = loops(times * SHORTEST)
        known._blocks.add(Block(SAME, -1.0, 1e9))
        resumed: list[float] = []
        ends = {"acquired_at": None, "ended_at": None, **({end: clock.now} if end != "now" else {})}
        if end != "now":
            clock.advance(7.0)
        checkout: Any = Like(
            requested_at=0.0, thread=THREAD, task=None, packed_stack=(), resume_time=0.0, **ends,
            wait_phases=lambda queue=queue: {"queue": queue}, pool=Like(resumed=Like(add=resumed.append)),
        )  # fmt: skip
        known.waited(checkout)
        assert resumed == ([pytest.approx(min(times * SHORTEST, queue))] if counted else [])
        assert checkout.resume_time == sum(resumed)
        known.stop()
        known.waited(checkout)
        assert len(resumed) == counted


@pytest.mark.parametrize("went_on", [True, False])
def test_a_wait_that_gave_way_to_no_other_has_blocked_its_loop(went_on: bool) -> None:
    """A synchronous one; where the loop ran a heartbeat meanwhile, it was not."""
    known, clock = loops(3.0)
    resumed: list[float] = []
    task: Any = object()
    checkout: Any = Like(
        requested_at=1.0, acquired_at=2.0, ended_at=None, thread=THREAD, task=task, origin=STACK, resume_time=0.0,
        wait_phases=lambda: {"queue": 1.0}, pool=Like(resumed=Like(add=resumed.append)),
    )  # fmt: skip

    def view() -> None:
        known.waited(checkout)

    checkout.packed_stack = (view.__code__, 0)
    if went_on:
        known._blocks.beat(THREAD, 1.0, 1.5)
    view()
    overlap = known.overlap(SAME, 0.0, clock.now)
    assert overlap == (NO_OVERLAP if went_on else (1.0, 1 / 3, STACK, True, 1.0))
    assert known.overlap(SAME, 0.0, clock.now, task) == NO_OVERLAP
    assert len(resumed) == went_on


def test_a_loop_knows_the_task_that_it_runs() -> None:
    """Held weakly; none where it runs none."""

    async def runs() -> None:
        reference = running_in(asyncio.get_running_loop())
        assert reference is not None
        assert reference() is asyncio.current_task()

    asyncio.run(runs())
    loop = asyncio.new_event_loop()
    assert running_in(loop) is None
    loop.close()


@pytest.mark.parametrize(
    ("threshold", "seconds", "reported"),
    [(0.25, 0.2, False), (0.25, 0.25, True), (0.25, 9.0, True), (0.0, 9.0, False), (0.5, 0.25, False)],
)
def test_a_block_is_reported_from_the_threshold_on(threshold: float, seconds: float, reported: bool) -> None:
    """Without one none is."""
    known, _ = loops(threshold=threshold)
    assert known.reports(seconds) is reported


def test_a_span_without_a_length_overlaps_nothing() -> None:
    """Nor one that ends before it begins."""
    known, _ = loops()
    known._blocks.add(Block(1, 0.0, 9.0, STACK))
    assert known.overlap(1, 1.0, 2.0).seconds == 1.0
    assert known.overlap(1, 2.0, 2.0) == known.overlap(1, 3.0, 2.0) == NO_OVERLAP


def test_a_late_heartbeat_counts_as_a_block_of_its_loop_alone() -> None:
    """Before the background thread has seen it; and what is known otherwise counts with it."""
    known, clock = loops(5.0)
    known._loops[1] = Like(thread=THREAD, beat=Like(sent=1.0, ran=None), block=None)  # type: ignore[assignment]
    assert known.overlap(SAME, 0.0, 9.0).seconds == 8.0
    assert known.overlap(2, 0.0, 9.0) == NO_OVERLAP
    assert known.overlap(SAME, 0.0, 9.0, more=[Block(SAME, 0.0, 0.5)]).seconds == 8.5
    clock.now = 1.0
    assert known.overlap(SAME, 0.0, 9.0) == NO_OVERLAP


@pytest.mark.parametrize(
    ("thread", "ran", "went_on"),
    [
        (SAME, 2.5, True),
        (2, 2.5, False),
        (SAME, 2.0, False),
        (SAME, 3.0, False),
        (SAME, 3.5, False),
        (SAME, 1.0, False),
        (SAME, None, False),
    ],
)
def test_a_loop_went_on_where_its_own_heartbeat_ran(thread: int, ran: float | None, went_on: bool) -> None:
    """Within the span, and not at its ends; whether the background thread has seen it or not."""
    known, _ = loops()
    known._loops[1] = Like(thread=THREAD, beat=Like(ran=ran))  # type: ignore[assignment]
    assert known._went_on(thread, 2.0, 3.0) is went_on
    known._loops[1] = Like(thread=THREAD, beat=None)  # type: ignore[assignment]
    assert not known._went_on(thread, 2.0, 3.0)
    if ran is not None:
        known._blocks.beat(THREAD, 0.0, ran)
        assert known._went_on(thread, 2.0, 3.0) is went_on


def pools_of(*leases: Any) -> list[Any]:
    """One pool with such leases."""
    return [Like(pending=set(), leases=set(leases))]


def test_loops_are_looked_for_once_in_a_while() -> None:
    """At first, and again after the interval; one in which a lease is used is busy for as long."""
    known, clock = loops()
    looked: list[float] = []
    loop = loop_of_test(is_running=lambda: False)
    task = Like(get_loop=lambda: loop)
    lease: Any = Like(task=lambda: task, thread=THREAD, unit=None)

    class Pools(list[Any]):
        def __iter__(self) -> Any:
            looked.append(clock.now)
            return super().__iter__()

    for moment in (0.0, 0.5, 0.75, 1.0, 1.5, 1.75, 2.5):
        clock.now = moment
        known.tick(Pools(pools_of(lease)))
    assert looked == [0.0, 1.0, 2.5]
    (watched,) = known._loops.values()
    assert (watched.thread, watched.serves, watched.busy_until) == (THREAD, False, 3.5)
    lease.unit = object()
    for moment in (9.0, 19.0):
        clock.now = moment
        known.tick(Pools(pools_of(lease)))
        assert watched.serves
        lease.unit = None


@pytest.mark.parametrize("where", ["leases", "pending"])
def test_a_loop_is_known_by_what_is_held_and_what_waits(where: str) -> None:
    """Of a task that is still there."""
    known, clock = loops()
    loop, other = loop_of_test(), loop_of_test()
    task = Like(get_loop=lambda: loop)
    pool: Any = Like(**{"pending": set(), "leases": set(), where: {Like(task=lambda: task, thread=1, unit=None)}})
    known._find([pool], 0.0)
    (watched,) = known._loops.values()
    assert watched.reference() is loop
    assert known._watched(loop, 2) is watched
    known._loops[id(other)] = watched
    assert known._watched(other, 2).reference() is other  # another loop had that address before
    for gone in (Like(task=lambda: None, thread=1, unit=None), Like(task=None, thread=1, unit=None)):
        known.forget()
        known._find(pools_of(gone), clock.now)
        assert known._loops == {}


def test_a_busy_loop_gets_a_heartbeat_each_time_and_any_other_now_and_then() -> None:
    """Busy while leases are in use, and after a heartbeat that was late."""
    known, clock = loops()
    loop = loop_of_test()
    watched = watched_in(known, loop)
    sent = []

    def tick(moment: float, late: float = 0.0) -> None:
        clock.now = moment
        known.tick(())
        clock.advance(late)
        for call in loop.calls:
            sent.append(moment)
            call()
            watched.beat.thread = SAME
        loop.calls.clear()

    for moment in (0.0, 0.25, 0.5, 1.0, 1.25):
        tick(moment)
    assert sent == [0.0, 1.0]
    watched.busy_until = 3.0
    for moment in (2.0, 2.25, 2.5, 3.0, 3.25):
        tick(moment)
    assert sent == [0.0, 1.0, 2.0, 2.25, 2.5]
    tick(4.0, late=2 * SHORTEST)
    tick(4.25)
    tick(4.5)
    assert sent[5:] == [4.0, 4.25]
    assert known.lag is not None
    assert known.lag.read().counts == [7, 0, 0]
    assert known.lag.read().total == pytest.approx(2 * SHORTEST)
    assert known.overlap(THREAD, 0.0, 9.0).seconds == pytest.approx(2 * SHORTEST)


@pytest.mark.parametrize("way", ["closed", "gone", "own", "stopped", "closes"])
def test_a_loop_that_cannot_run_gets_no_heartbeat(way: str) -> None:
    """Closed or collected it is forgotten; one of the background thread itself, or that does not run, is kept."""
    known, clock = loops()
    calls: list[Any] = []
    others = [loop_of_test() for _ in range(3)]

    def closes(call: Any) -> None:
        raise RuntimeError("Event loop is closed")

    loop: Any = loop_of_test(
        is_closed=lambda: way == "closed", is_running=lambda: way != "stopped",
        call_soon_threadsafe=closes if way == "closes" else calls.append,
    )  # fmt: skip
    watched_in(known, others[0], get_ident() - 1)
    watched = watched_in(known, loop, get_ident() if way == "own" else THREAD)
    watched_in(known, others[1], get_ident() + 1)
    watched_in(known, others[2])
    watched.beat = old = Like(sent=0.0, ran=None, thread=THREAD, outer=None)
    watched.block = block = Block(THREAD, 0.0)
    watched.looked_at = 1.0
    if way == "closes":
        watched.beat = watched.block = None
    if way == "gone":
        del loop
    clock.now = 2.0
    known.tick(())
    assert calls == []
    assert watched.beat is None is not old
    assert (block.ended == 1.0) is (way != "closes")
    assert (watched in known._loops.values()) is (way not in {"closed", "gone"})
    assert [len(other.calls) for other in others] == [1, 1, 1]


def test_a_loop_that_raises_is_not_late() -> None:
    """It is an error of ours, which is counted; no thread is looked at for it."""

    def raises(call: Any) -> None:
        raise LookupError("no loop of asyncio's")

    known, clock = loops(1.0)
    loop = loop_of_test(call_soon_threadsafe=raises)
    watched_in(known, loop)
    before = guard.counts().get("event_loops.beat", 0)
    known.tick(())
    assert guard.counts()["event_loops.beat"] == before + 1
    assert clock.now == 1.0
    assert known._blocks.overlap(THREAD, 0.0, 9.0) == NO_OVERLAP


def test_without_heartbeats_nothing_is_looked_at() -> None:
    """No loop is looked for, and none is called."""
    known, _ = loops(heartbeat=False)
    known.tick(None)  # type: ignore[arg-type]
    assert known._looked_at == float("-inf")


@pytest.mark.parametrize(("times", "late"), TIMES)
def test_a_heartbeat_is_late_from_the_shortest_block_on(times: float, late: bool) -> None:
    """Then its loop is looked at; while it is pending, no other is sent."""
    known, clock = loops()
    loop = loop_of_test()
    watched = watched_in(known, loop)
    assert not known._attend(watched, loop)
    clock.advance(times * SHORTEST)
    assert known._attend(watched, loop) is late
    assert len(loop.calls) == 1


def late_loop(known: EventLoops, sent: float = 0.0, **given: Any) -> tuple[Any, Any]:
    """A loop whose heartbeat has not come back."""
    loop = loop_of_test(**given)
    watched = watched_in(known, loop)
    watched.beat = Like(sent=sent, ran=None, thread=THREAD, outer=None)
    watched.serves = True
    return watched, loop


def seen_at(known: EventLoops, monkeypatch: pytest.MonkeyPatch, *stacks: Any) -> list[int]:
    """What the thread executes at each look, the last one from then on; a list of the looks so far."""
    looks: list[int] = []

    def look(watched: Any, loop: Any, stack: Any) -> None:
        looks.append(1)
        seen = stacks[min(len(looks), len(stacks)) - 1]
        if seen:
            watched.samples.add(seen)
        else:
            watched.samples.waiting += 1

    monkeypatch.setattr(known, "_look_at", look)
    return looks


def test_a_blocked_loop_is_looked_at_some_times_at_first_and_then_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a moment between two looks; the block is since the heartbeat was sent."""
    known, clock = loops(0.0, threshold=9.0)
    pair = watched, _ = late_loop(known)
    looks = seen_at(known, monkeypatch, STACK)
    clock.now = 1.0
    known._look([pair], ())
    assert len(looks) == module._LOOKS
    assert clock.now == pytest.approx(1.0 + (module._LOOKS - 1) * module._DISTANCE)
    assert (watched.block.thread, watched.block.began, watched.block.ended) == (THREAD, 0.0, None)
    assert (watched.block.stack, watched.looked_at) == (STACK, clock.now)
    assert known.overlap(SAME, 0.0, 1.0).seconds == 1.0
    first = watched.block
    clock.now = 1.5
    known._look([pair], ())
    assert len(looks) == module._LOOKS + 1
    assert (watched.block, watched.looked_at, clock.now) == (first, 1.5, 1.5)
    other = late_loop(known)
    known._look([pair, other], ())
    assert len(looks) == 3 * module._LOOKS + 1
    watched.beat = None
    known._look([pair], ())
    assert (watched.block, watched.looked_at) == (first, pytest.approx(1.5 + 4 * module._DISTANCE))


def test_a_line_that_was_not_seen_often_enough_is_not_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the block lasts: at its end it is believed when it is seen again."""
    known, _ = loops()
    pair = watched, _ = late_loop(known)
    seen_at(known, monkeypatch, STACK, STACK, ())
    known._look([pair], ())
    assert watched.block.stack == ()


@pytest.mark.parametrize(("seconds", "reported"), [(1.75, False), (2.0, True), (9.0, True)])
def test_a_block_that_lasts_is_reported_after_some_seconds(
    seconds: float, reported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once."""
    seen: list[Block] = []
    known, clock = loops(on_block=seen.append)
    known._sleep = lambda _: None
    pair = watched, _ = late_loop(known)
    seen_at(known, monkeypatch, STACK)
    clock.now = seconds
    for _ in range(2):
        known._look([pair], ())
    assert seen == [watched.block] * reported


def test_a_block_that_is_over_when_it_is_looked_at_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop may have run its heartbeat between two looks."""
    known, clock = loops(4.0)
    pair = watched, _ = late_loop(known)
    watched.beat.ran = 3.0
    seen_at(known, monkeypatch, STACK)
    known._look([pair], ())
    assert (watched.block.began, watched.block.ended) == (0.0, 3.0)
    assert known.overlap(THREAD, 0.0, clock.now).seconds == 3.0


@pytest.mark.parametrize(
    ("change", "waits", "seen"),
    [
        ({}, 0, 1),
        ({"stack": ()}, 1, 0),
        ({"beat": None}, 0, 0),
        ({"ran": 1.0}, 0, 0),
        ({"running": False}, 0, 0),
        ({"outer": STACK[0][0]}, 1, 0),
        ({"outer": None}, 1, 0),  # what runs its callbacks is not known yet, and no callback of asyncio's is seen
        ({"outer": None, "stack": (*STACK, ("run", 0))}, 0, 1),
    ],
)
def test_a_look_sees_a_line_or_that_the_loop_waits(change: dict[str, Any], waits: int, seen: int) -> None:
    """While the heartbeat is pending and the loop runs."""
    known, _ = loops()
    watched, loop = late_loop(known, is_running=lambda: change.get("running", True))
    run = (compile("def _run(): pass", asyncio.events.__file__, "exec").co_consts[0], 0)
    stack = tuple(run if code == "run" else (code, place) for code, place in change.get("stack", STACK))
    watched.outer = change.get("outer", run[0])
    watched.beat = None if "beat" in change else Like(ran=change.get("ran"))
    known._look_at(watched, loop, stack)
    assert watched.samples.waiting == waits
    assert len(watched.samples._stacks) == seen


@pytest.mark.parametrize("trims", [True, False])
def test_of_a_line_so_many_frames_are_kept(trims: bool) -> None:
    """Of the application, where its frames are known."""
    origins: Any = Like(trim=lambda stack: stack[1:])
    known, _ = loops(origins=origins if trims else None)
    watched, loop = late_loop(known)
    watched.outer = (lambda: None).__code__
    stack: Any = tuple((STACK[0][0], place) for place in range(9))
    known._look_at(watched, loop, stack)
    (kept,) = [stack for _, stack in watched.samples._stacks.values()]
    assert [place for _, place in kept] == list(range(trims, trims + module._DEPTH))


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({}, True),
        ({"reported": True}, False),
        ({"stack": ()}, False),
        ({"serves": False}, False),
        ({"serves": False, "held_up": ("lease",)}, True),
        ({"ended": 0.125}, False),
        ({"ended": 0.25}, True),
    ],
)
def test_a_block_is_reported_where_others_wait_for_it(change: dict[str, Any], reported: bool) -> None:
    """Once, from the threshold on, with the line; where the loop serves or something is held up."""
    seen: list[Block] = []
    known, _ = loops(9.0, on_block=seen.append)
    block = Block(THREAD, 0.0, stack=STACK)
    for name, value in change.items():
        if name != "serves":
            setattr(block, name, value)
    known._report(Like(serves=change.get("serves", True)), block)  # type: ignore[arg-type]
    assert seen == [block] * reported
    assert block.reported is (reported or "reported" in change)
    known.on_block = None
    other = Block(THREAD, 0.0, stack=STACK)
    known._report(Like(serves=True), other)  # type: ignore[arg-type]
    assert not other.reported


def samples_of(*stacks: Any, waiting: int = 0) -> Any:
    """What was seen of a block."""
    samples = Samples()
    samples.waiting = waiting
    for stack in stacks:
        samples.add(stack)
    return samples


def test_what_was_seen_once_is_believed_when_it_is_seen_again_soon() -> None:
    """Within a minute; then it has to be seen twice again. What was seen three times is certain."""
    known, clock = loops(100.0)
    once = samples_of(STACK)
    another: Any = ((compile("x = 1", "/application/other.py", "exec"), 0),)
    assert known._believed(samples_of(STACK, STACK, STACK)) == STACK
    assert known._believed(samples_of(waiting=1)) == ()
    assert [known._believed(once) for _ in range(4)] == [(), STACK, (), STACK]
    assert known._believed(samples_of(another)) == known._believed(once) == ()
    known._seen_once.clear()
    for passed, believed in ((module._AGAIN, STACK), (module._AGAIN + 0.5, ())):
        assert known._believed(once) == ()
        clock.advance(passed)
        known._find((), clock.now)
        assert known._believed(once) == believed
        known._seen_once.clear()


def test_a_heartbeat_that_comes_back_ends_the_block() -> None:
    """Its line is what was believed, it is reported, and a block that is not keeps no lease."""
    seen: list[Block] = []
    for serves in (True, False):
        known, clock = loops(9.0, on_block=seen.append)
        watched, _ = late_loop(known)
        watched.serves = serves
        watched.block = block = Block(THREAD, 0.0, by=Like(), held_up=())  # type: ignore[arg-type]
        watched.samples = samples_of(STACK, STACK, STACK)
        beat: Any = Like(sent=0.0, thread=5, outer=STACK[0][0])
        known._came_back(watched, beat, 3.0)
        assert (block.ended, block.stack, block.reported) == (3.0, STACK, serves)
        assert (block.by is None) is not serves
        assert (watched.thread, watched.outer, watched.beat, watched.block) == (5, STACK[0][0], None, None)
        assert watched.due_at == 0.0
        assert known.overlap(5, 0.0, clock.now) == NO_OVERLAP  # it was added when it began
        assert known._went_on(5, 2.0, 4.0)
    assert len(seen) == 1


@pytest.mark.parametrize(("times", "late"), TIMES)
def test_a_heartbeat_that_comes_back_late_is_a_block_from_the_shortest_on(times: float, late: bool) -> None:
    """Though no look came between; and the next one is due at once. Lags are counted together."""
    known, clock = loops()
    known._blocks.add(Block(THREAD, 0.0))
    known.forget()
    watched, _ = late_loop(known)
    for number in (1, 2):
        clock.now = 100.0 * number
        beat: Any = Like(sent=0.0, thread=THREAD, outer=None)
        known._came_back(watched, beat, times * SHORTEST)
        assert watched.due_at == (0.0 if late else module.INTERVAL)
        assert known.overlap(SAME, 0.0, 99.0).seconds == (times * SHORTEST if late else 0.0)
        assert known.lag is not None
        assert known.lag.read().count == number
    known.forget()
    assert known.lag is None


def test_a_block_holds_up_what_other_tasks_of_its_loop_have_and_wait_for() -> None:
    """The longest pending first, and not too many; who blocks is by itself: what it waits for, or what it holds."""

    def lease(requested_at: float, *, task: Any = None, thread: int = THREAD, has: bool = True) -> Any:
        acquired_at = requested_at if has else None
        return Like(task=task or object(), thread=thread, requested_at=requested_at, acquired_at=acquired_at)

    own = object()
    others = [lease(float(number)) for number in range(MOST_HELD_UP + 2)]
    thread_alone = Like(task=None, thread=THREAD)
    elsewhere = [lease(0.0, thread=THREAD - 1), lease(0.0, thread=THREAD + 1)]
    for waits in (True, False):
        mine = [lease(0.5, task=own), lease(0.75, task=own)]
        pending = lease(0.25, task=own, has=False)
        pools: Any = [
            Like(pending={thread_alone}, leases=set(others[1::2])),
            Like(pending={elsewhere[0]}, leases={mine[0]}),
            Like(pending={elsewhere[1]}, leases=set()),
            Like(pending={pending} if waits else set(), leases=set(others[::2])),
            Like(pending=set(), leases={mine[1]}),
        ]
        block = Block(SAME, 0.0, task=own)  # type: ignore[arg-type]
        block.hold_up(pools)
        assert block.held_up == tuple(others[:MOST_HELD_UP])
        assert (block.by, block.is_checkout) == ((pending, True) if waits else (mine[0], False))
        unknown = Block(SAME, 0.0)
        unknown.hold_up(pools)
        assert (unknown.by, unknown.is_checkout) == (None, False)
        assert {mine[0], mine[1]} < set(unknown.held_up)
        block.release()
        assert (block.by, block.held_up) == (None, ())


@pytest.mark.parametrize(
    ("function", "file", "runs"),
    [
        ("_run", asyncio.events.__file__, True),
        ("__init__", asyncio.events.__file__, False),
        ("run_forever", asyncio.events.__file__, False),
        ("_run", "/application/view.py", False),
    ],
)
def test_a_callback_is_run_by_one_function_of_asyncio(function: str, file: str, runs: bool) -> None:
    """Wherever that is on the stack."""
    one: Any = (Like(co_name=function, co_filename=file), 0)
    other: Any = (Like(co_name="view", co_filename="/application/view.py"), 0)
    assert runs_callbacks((other, one, other)) is runs
    assert not runs_callbacks(())


@pytest.mark.parametrize(
    ("stack", "waits"),
    [("selector", True), ("application", False), ("outer", True), ("outer further out", False), ("", True)],
)
def test_a_loop_waits_where_nothing_but_the_loop_is_executed(stack: str, waits: bool) -> None:
    """In its selector, or in what runs its callbacks."""
    selector: Any = (Like(co_name="select", co_filename="C:\\lib\\selectors.py"), 0)
    view: Any = (Like(co_name="view", co_filename="/application/view.py"), 0)
    outer: Any = (Like(co_name="run", co_filename="/application/main.py"), 0)
    stacks = {"selector": (selector, view), "application": (view, selector), "outer": (outer, view), "": ()}
    assert is_waiting(stacks.get(stack, (view, outer)), outer[0]) is waits


def test_what_ends_a_watch_ends_its_block() -> None:
    """When it was last seen to last; a block that has an end keeps that, and a heartbeat is forgotten in any case."""
    for looked_at, ended, expected in ((3.0, None, 3.0), (1.0, None, 2.0), (9.0, 4.0, 4.0)):
        watched = WatchedLoop(loop_of_test(), THREAD)
        block = Block(THREAD, 2.0, ended, by=Like())  # type: ignore[arg-type]
        watched.block, watched.looked_at, watched.samples.waiting = block, looked_at, 3
        watched.beat = Like()  # type: ignore[assignment]
        watched.end()
        assert (block.ended, watched.block, watched.beat, watched.samples.waiting) == (expected, None, None, 0)
        assert (block.by is None) is (ended is None)
