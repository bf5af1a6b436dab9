"""Thresholds to the point: just below one there is nothing; at it, and far beyond it, there is."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from poolscope.core.blocks import SHORTEST
from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.holds import LONG_HOLD
from poolscope.core.catalogue.kept import LISTENER_HOLD, SESSION_LOCK_LEAK
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.pools import POOL_PER_REQUEST
from poolscope.core.lease import Outcome
from poolscope.core.lock_wait import LockWait
from poolscope.core.sql.locks import Lock, Mode
from poolscope.detectors import (
    leak,
    lock_wait,
    nested_checkout,
    pool_exhausted,
    pool_per_request,
    server_probe,
    session_lock_leak,
)
from poolscope.detectors.detector import Context
from poolscope.detectors.diagnosis import describe
from poolscope.detectors.diagnosis.lock_words import lock_in_words
from poolscope.detectors.diagnosis.pace import Pace
from tests.support.likeness import Like
from tests.support.scene import Scene

#: Of a threshold: less, as much, and more.
TIMES = [(0.5, False), (1.0, True), (8.0, True)]


@pytest.mark.parametrize(("times", "found"), TIMES)
def test_a_lock_is_left_once_the_pool_had_its_time_to_close(times: float, found: bool) -> None:
    """It is looked for from a second after the return on, however late that look is."""
    scene = Scene()
    with scene.unit():
        lease = scene.checkout()
        scene.query(lease, "select pg_advisory_lock(31415926)")
        lease.released()
    scene.clock.advance(times * session_lock_leak._TO_CLOSE)
    assert scene.ids() == [SESSION_LOCK_LEAK] * found


@pytest.mark.parametrize(("times", "found"), TIMES)
@pytest.mark.parametrize("is_held", [True, False])
def test_a_listener_holds_for_long_from_the_threshold_on(times: float, is_held: bool, found: bool) -> None:
    """As any long hold: a unit of work that listens is marked, and what has listened is found at its end."""
    scene = Scene(leak_threshold=0)
    with scene.unit() as unit:
        lease = scene.checkout()
        scene.query(lease, "listen news")
        scene.clock.advance(times * scene.settings.long_hold_threshold)
        if is_held:
            assert (LISTENER_HOLD in scene.pool_registry.units.findings_of(unit)) is found
        else:
            lease.released()
            assert scene.ids() == [LISTENER_HOLD] * found


@pytest.mark.parametrize(("times", "explained"), [(0.5, True), (1.0, False), (8.0, False)])
def test_a_nested_checkout_explains_a_hold_that_is_short_without_it(times: float, explained: bool) -> None:
    """What is left of the hold without the wait is a long hold from the threshold on."""
    usage = Like(nested=True, wait_time=Like(read=lambda: 3.0))
    lease: Any = Like(usage=usage, pool=Like(limit=5), held=lambda: 3.0 + times)
    assert nested_checkout.explains(lease, 1.0) is explained


@pytest.mark.parametrize(("times", "goes_without"), [*TIMES, (1.0 / pool_exhausted.AT_ONCE, True)])
def test_a_caller_that_waited_goes_without_where_the_wait_was_one(times: float, goes_without: bool) -> None:
    """However long before it had begun. One of a pool that is not full waits for nothing of it."""
    lease: Any = Like(
        outcome=Outcome.CANCELLED, error_type="CancelledError", requested_at=1.0, used_at_checkout=1,
        ended_at=1.0 + times * pool_exhausted.AT_ONCE, handed_over_at=None, pool=Like(limit=None, leases=()),
    )  # fmt: skip
    assert pool_exhausted._goes_without(lease) is goes_without
    lease.used_at_checkout = 0
    assert not pool_exhausted._goes_without(lease)
    for limit, leases, full in ((2, 1, False), (2, 2, True), (2, 3, True), (None, 3, False)):
        lease.pool = Like(limit=limit, leases=range(leases))
        assert pool_exhausted._goes_without(lease) is (full and goes_without)


def pending(scene: Scene, times: float, **changes: Any) -> Any:
    """What is like a checkout that blocks the event loop of its task for so many times the shortest block."""
    began = 1.0
    scene.clock.now = began + times * SHORTEST
    task = Like(get_coro=lambda: Like(cr_running=True))
    given = {"requested_at": began, "acquired_at": None, "ended_at": None, "thread": 1, "origin": ()}
    return Like(task=lambda: task, **{**given, **changes})


@pytest.mark.parametrize(("times", "found"), [*TIMES, (1.0 / SHORTEST, True)])
def test_a_checkout_blocks_its_event_loop_from_the_shortest_block_on(times: float, found: bool) -> None:
    """However long before it had begun."""
    scene = Scene()
    block = scene.event_loops.by_checkout(pending(scene, times))
    assert (block is not None) is found
    if block is not None:
        assert (block.thread, block.began, block.ended, block.is_checkout) == (1, 1.0, None, True)


@pytest.mark.parametrize("changes", [{"acquired_at": 1.5}, {"ended_at": 1.5}])
def test_a_checkout_that_is_over_blocks_nothing(changes: dict[str, float]) -> None:
    """Whether it has a connection or failed."""
    scene = Scene()
    assert scene.event_loops.by_checkout(pending(scene, 8.0, **changes)) is None


@pytest.mark.parametrize(("ran", "blocks"), [(None, True), (0.5, True), (1.0, True), (1.1, False)])
def test_a_loop_that_ran_since_is_not_blocked(ran: float | None, blocks: bool) -> None:
    """A heartbeat that came back after the checkout began says that its task has given way."""
    scene = Scene()
    beat = Like(sent=0.25, ran=ran)
    scene.event_loops._loops[1] = Like(thread=1, beat=beat, block=None)  # type: ignore[assignment]
    assert (scene.event_loops.by_checkout(pending(scene, 8.0)) is not None) is blocks


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"excuse": "expected"}, False),
        ({"leak": "overdue"}, False),
        ({"abandoned": True}, False),
        ({"lock_wait": None}, False),
        ({"locked_before": 0.25}, False),
    ],
)
def test_a_lease_that_has_waited_for_a_lock_is_kept(
    changes: dict[str, Any], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is excused, a leak, dropped, or that waited for less than a long hold is not."""
    scene = Scene()
    detector = lock_wait.LockWaitDetector(Context(scene.settings, scene.clock, scene.spans.append, scene.event_loops))
    seen: list[Any] = []
    monkeypatch.setattr(detector, "keep", seen.append)
    monkeypatch.setattr(lock_wait, "mark", lambda *_: None)
    wait = LockWait(1.0, 0.0, 1.0, None, None, "")
    given = {"excuse": None, "leak": None, "abandoned": False, "lock_wait": wait, "running": False, "query_time": 0.0}
    given |= {"locked_before": scene.settings.long_hold_threshold}
    lease = Like(**{**given, **changes})
    detector.observe(Like(lease=lease))  # type: ignore[arg-type]
    assert seen == [lease] * kept


def test_a_statement_that_waits_has_waited_since_it_began() -> None:
    """By the clock, and only while that statement runs; afterwards by what its lease was seen to wait."""
    wait = LockWait(1.0, 2.0, 4.0, None, None, "")
    runs: Any = Like(running=True, last_used=sum([0.5, 0.5]), pool=Like(now=lambda: 3.0), query_time=4.5)
    assert wait.concerns(runs)
    assert wait.seconds(runs) == 2.0
    runs.last_used = 2.5
    assert not wait.concerns(runs)
    assert wait.seconds(runs) == 2.5
    runs.query_time = 99.0  # the statement ran on without the lock: a moment longer than the wait was seen
    assert wait.seconds(runs) == 3.5
    later = LockWait(3.0, 2.0, 4.0, None, None, "")
    assert later.seconds(runs) == 1.5
    runs.query_time = 1.5
    assert later.seconds(runs) == 0.0
    runs.running, runs.last_used = False, 3.0
    assert not later.concerns(runs)


def test_a_leak_is_suspected_only_where_it_may_just_take_long() -> None:
    """Where the owner has finished it is certain, and there is no place where it is by now."""
    scene = Scene()
    with scene.unit("GET /cart"):
        forgotten = scene.checkout("cart")
    scene.pass_time(8)
    (finding,) = scene.found(LEAK)
    assert forgotten.leak == leak.OWNER_FINISHED
    assert (finding.severity, finding.fix) == (KINDS[LEAK].severity, KINDS[LEAK].fix_for(leak.OWNER_FINISHED))
    assert not finding.evidence.get("current_location")


def makes(scene: Scene, number: int, at: str, name: str = "GET /a") -> None:
    """So many requests, each of which makes a pool."""
    for _ in range(number):
        with scene.unit(name):
            scene.make_pool(at)
        scene.tick()


def test_pools_that_were_made_long_ago_do_not_count() -> None:
    """Those of the last ten minutes do, without the first of the thread: the three before are forgotten."""
    scene = Scene()
    makes(scene, 3, "early")
    scene.clock.advance(pool_per_request._REMEMBERED + 0.5)
    makes(scene, pool_per_request._UNITS, "early")
    assert scene.ids() == []
    makes(scene, 1, "early")
    (finding,) = scene.found(POOL_PER_REQUEST)
    assert finding.evidence["pools_made"] == pool_per_request._UNITS


def test_each_line_that_makes_pools_counts_by_itself() -> None:
    """Also where they take turns; with the name that is the most frequent, and how many others there are."""
    scene = Scene()
    for name in ("GET /b", "GET /b", "GET /a", "GET /a", "GET /a", "GET /c"):
        for at in ("left", "right"):
            makes(scene, 1, at, name)
    first, second = scene.found(POOL_PER_REQUEST)
    assert {finding.origin[0].co_name for finding in (first, second)} == {"left", "right"}  # type: ignore[index]
    for finding in (first, second):
        assert ", in 5 units of work (http GET /a and 2 other names);" in finding.summary
        assert str(finding.unit) == "http GET /a"


def test_snapshots_keep_the_interval_of_each_pool() -> None:
    """One pool's does not end another's; it is over at its end."""
    scene = Scene()
    pace = Pace(10.0, scene.clock)
    assert [pace.allows(scene.pool, key) for key in ("a", "b", "a", "b", None, None)] == [
        True, True, False, False, True, False,
    ]  # fmt: skip
    scene.clock.advance(9.75)
    assert not pace.allows(scene.pool, "a")
    scene.clock.advance(0.25)
    assert pace.allows(scene.pool, "a")


@pytest.mark.parametrize(
    ("changes", "serves"),
    [
        ({}, True),
        ({"unit": "mine"}, False),
        ({"thread": 2}, False),
        ({"thread": 0}, False),
        ({"task": weakref.ref(Like())}, False),
        ({"requested_at": 1.0}, False),
        ({"requested_at": 0.5}, False),
    ],
)
@pytest.mark.parametrize("where", ["pending", "leases", "waiter"])
def test_a_thread_that_checks_out_for_another_request_serves_that(
    changes: dict[str, Any], serves: bool, where: str
) -> None:
    """By a later checkout of the same thread, outside of tasks, for another unit of work."""
    other: Any = Like(**{"thread": 1, "task": None, "unit": "another", "requested_at": 2.0, **changes})
    pool = Like(**{name: {other} if name == where else set() for name in ("pending", "leases")})
    lease: Any = Like(pool=pool, thread=1, task=None, unit="mine", requested_at=1.0)
    assert describe._serves_others(lease, other if where == "waiter" else None) is serves
    lease.task = weakref.ref(lease)
    assert not describe._serves_others(lease, other if where == "waiter" else None)


def test_a_place_is_reported_again_after_the_interval() -> None:
    """However long the process had run when it was reported first."""
    scene = Scene(finding_interval=60)
    for ends, found in ((11.0, 1), (22.0, 1), (70.75, 1), (88.0, 2)):
        scene.clock.now = ends - 1.0
        scene.request(query=1.0)
        assert len(scene.found(LONG_HOLD)) == found


@pytest.mark.parametrize("system", ["mysql", "mariadb", "oracle.db", "postgresql", "sqlite"])
@pytest.mark.parametrize("mode", list(Mode))
def test_a_server_lists_what_it_can(system: str, mode: Mode) -> None:
    """PostgreSQL every lock, the others those of rows and the like."""
    expected = system == "postgresql" or mode in server_probe._LISTED
    assert server_probe.lists(system, Lock(mode, ("t",))) is expected


def test_sqlite_has_one_lock() -> None:
    """Of the whole database, whatever a statement names."""
    wait = LockWait(1.0, 0.0, 1.0, Lock(Mode.ROWS, ("t",)), None, "")
    assert lock_in_words(wait, "sqlite") == "the lock of the database"
    for system in ("mysql", "postgresql", "teradata"):
        assert lock_in_words(wait, system) == "a row lock of table t"
