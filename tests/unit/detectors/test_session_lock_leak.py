"""Locks of a whole connection that go back into the pool with it, and those that do not."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.catalogue.kept import SESSION_LOCK_LEAK
from poolscope.detectors.detector import Released
from poolscope.detectors.session_lock_leak import _REMEMBERED, _TO_CLOSE, SessionLockLeakDetector
from tests.support.likeness import Like
from tests.support.scene import Scene

if TYPE_CHECKING:
    from poolscope.core.lease import Lease

LOCK, UNLOCK = "select pg_advisory_lock(31415926)", "select pg_advisory_unlock(31415926)"
TRY = "select pg_try_advisory_lock(31415926)"


@pytest.fixture
def scene() -> Scene:
    """A pool of two."""
    return Scene()


def job(scene: Scene, *statements: str, at: str = "nightly", name: str = "POST /rebuild") -> Lease:
    """A request that runs these on one connection, and returns it."""
    with scene.unit(name):
        lease = scene.checkout(at)
        for statement in statements:
            scene.query(lease, statement)
        lease.released()
    return lease


def test_a_lock_that_goes_back_with_its_connection_is_found(scene: Scene) -> None:
    """With the line and the statement, without its literal; unlocked on the same connection, it is not."""
    job(scene, LOCK, "update t set a = 1", UNLOCK, at="fixed")
    job(scene, "select pg_advisory_xact_lock(31415926)", at="fixed")
    scene.pass_time(3)
    assert scene.ids() == []
    job(scene, LOCK, "update t set a = 1").backend_process_id = 4711
    scene.pass_time(3)
    (finding,) = scene.found()
    assert (finding.id, str(finding.unit)) == (SESSION_LOCK_LEAK, "http POST /rebuild")
    assert finding.evidence["statement"] == "select pg_advisory_lock(?)"
    assert (finding.evidence["locks"], finding.evidence["backend_process_id"]) == (1, 4711)
    assert "returned a connection of pool shop with a lock that lasts until" in finding.summary
    assert "at /application/nightly.py:2 in nightly" in finding.summary
    assert "pg_advisory_xact_lock" in finding.fix
    assert "31415926" not in str(finding.evidence)


def test_a_lock_that_was_tried_for_is_found_by_its_unlock(scene: Scene) -> None:
    """
    Whoever was refused it does not unlock; an unlock on a connection that cannot have it says that it was had, on the
    one before. Once: the next has to be tried for anew.
    """
    job(scene, TRY)
    job(scene, TRY, "update t set a = 1", UNLOCK)
    scene.pass_time(3)
    assert scene.ids() == []
    job(scene, UNLOCK, at="ends")
    scene.pass_time(3)
    (finding,) = scene.found()
    assert finding.id == SESSION_LOCK_LEAK
    assert finding.evidence["unlocked_at"][0] == "/application/ends.py:2 in ends"  # type: ignore[index]
    assert (
        "at /application/nightly.py:2 in nightly; it was unlocked after another checkout, at /application/ends.py"
        in finding.summary
    )
    job(scene, UNLOCK, at="ends")
    scene.pass_time(600)
    job(scene, TRY)
    scene.pass_time(700)
    job(scene, UNLOCK, at="ends")
    scene.pass_time(3)
    assert len(scene.found()) == 1, "nothing was tried for, or long ago"


def test_what_the_pool_closes_takes_its_locks_with_it(scene: Scene) -> None:
    """Overflow and null pools close what is returned: while the pool closes, nothing is certain."""
    job(scene, LOCK)
    scene.pool.closed("overflow")
    scene.pass_time(3)
    dropped = scene.checkout()
    scene.query(dropped, LOCK)
    dropped.released(abandoned=True)
    scene.pass_time(3)
    assert scene.found(SESSION_LOCK_LEAK) == []
    job(scene, LOCK)
    scene.pass_time(3)
    assert len(scene.found(SESSION_LOCK_LEAK)) == 1


def test_a_return_waits_for_no_reader_of_figures(scene: Scene) -> None:
    """A reader may be in a garbage collection, which waits for whatever the thread that returns has locked."""
    scene.pool.closed("overflow")
    returns = threading.Thread(target=lambda: job(scene, LOCK), daemon=True)
    with scene.pool.closures["overflow"]._readers:
        returns.start()
        returns.join(10)
        assert not returns.is_alive()


def test_where_the_connection_is_cleared_there_is_no_lock_left(scene: Scene) -> None:
    """By its library, or by the application."""
    scene.source.clears_connections = lambda: True  # type: ignore[method-assign]
    job(scene, LOCK)
    scene.pass_time(3)
    assert scene.ids() == []
    scene.source.clears_connections = lambda: False  # type: ignore[method-assign]
    job(scene, LOCK)
    scene.pass_time(3)
    assert scene.ids() == [SESSION_LOCK_LEAK]


def test_a_lock_that_is_still_held_is_none_yet(scene: Scene) -> None:
    """A connection that is not returned has its lock rightly."""
    lease = scene.checkout()
    scene.query(lease, LOCK)
    scene.pass_time(10)
    scene.query(lease, UNLOCK)
    lease.released()
    scene.pass_time(3)
    assert SESSION_LOCK_LEAK not in scene.ids()


@pytest.mark.parametrize(
    ("ended", "is_before"),
    [(None, True), (0.75, False), (1.0, True), (2.0, True), (_REMEMBERED + 1.0, True), (_REMEMBERED + 1.25, False)],
)
def test_a_lock_is_of_a_checkout_that_ended_before_it_was_unlocked(ended: float | None, is_before: bool) -> None:
    """Of the same pool, and not longer ago than is remembered; it counts once."""
    scene = Scene()
    (detector,) = [one for one in scene.watchdog.detectors if SESSION_LOCK_LEAK in one.kinds]
    assert isinstance(detector, SessionLockLeakDetector)
    pool, other = Like(), Like()
    tried: Any = Like(pool=pool, ended_at=ended, requested_at=1.5)
    detector._tried += [tried, Like(pool=other, ended_at=1.5, requested_at=1.5)]  # type: ignore[list-item]
    unlocked: Any = Like(pool=pool, ended_at=_REMEMBERED + 1.0, requested_at=_REMEMBERED + 1.0)
    assert detector._tried_before(unlocked) is (tried if is_before else None)
    assert len(detector._tried) == 2 - is_before
    assert detector._tried_before(unlocked) is None


@pytest.mark.parametrize(
    ("after", "found"), [(-9.0, False), (0.0, False), (_TO_CLOSE / 2, False), (_TO_CLOSE, True), (60.0, True)]
)
def test_what_was_returned_is_looked_at_once_the_pool_had_time_to_close_it(after: float, found: bool) -> None:
    """Each lease with its own pool; what is not due stays."""
    scene = Scene()
    (detector,) = [one for one in scene.watchdog.detectors if SESSION_LOCK_LEAK in one.kinds]
    assert isinstance(detector, SessionLockLeakDetector)
    pool: Any = Like(
        now=lambda: 5.0 + after, clears_connections=lambda: False, closed_at=1.0, identity=scene.pool.identity
    )
    kept = Like(strange_unlocks=0, locks=1, tries=0)
    mine: Any = Like(pool=pool, ended_at=5.0, kept=kept, origin=(), unit=None)
    other: Any = Like(pool=object(), ended_at=0.0, kept=kept)
    detector._returned = [other, mine]
    assert len(list(detector.look(pool))) == found
    assert detector._returned == ([other] if found else [other, mine])


@pytest.mark.parametrize(
    ("change", "clears", "found", "tried"),
    [
        ({}, False, 1, 0),
        ({}, True, 0, 0),
        ({"locks": 0}, False, 0, 1),
        ({"locks": 3}, False, 1, 0),
        ({"closed_at": 5.0}, False, 0, 0),  # the connection may be the one that was closed then
        ({"closed_at": 6.0}, False, 0, 0),
        ({"strange_unlocks": 1}, False, 0, 0),
    ],
)
def test_a_lock_is_left_where_its_connection_was_not_closed(
    change: dict[str, Any], clears: bool, found: int, tried: int
) -> None:
    """And the pool does not clear connections; one that was only tried for may have been taken."""
    scene = Scene()
    (detector,) = [one for one in scene.watchdog.detectors if SESSION_LOCK_LEAK in one.kinds]
    assert isinstance(detector, SessionLockLeakDetector)
    pool: Any = Like(
        now=lambda: 60.0, clears_connections=lambda: clears, closed_at=change.pop("closed_at", 4.0),
        identity=scene.pool.identity,
    )  # fmt: skip
    kept = Like(**{"strange_unlocks": 0, "locks": 1, "tries": 1, **change})
    lease: Any = Like(pool=pool, ended_at=5.0, requested_at=2.0, kept=kept, origin=(), unit=None)
    detector._returned = [lease]
    assert len(list(detector.look(pool))) == found
    assert len(detector._tried) == tried
    assert detector._returned == []


@pytest.mark.parametrize("kept", [None, "locks", "tries", "strange_unlocks", "none", "abandoned"])
def test_a_return_is_observed_where_a_lock_was_taken_or_released(kept: str | None) -> None:
    """Not of a connection that was dropped: its pool closes it."""
    scene = Scene()
    (detector,) = [one for one in scene.watchdog.detectors if SESSION_LOCK_LEAK in one.kinds]
    counts = {name: int(name == kept) for name in ("locks", "tries", "strange_unlocks")}
    if kept == "abandoned":
        counts["locks"] = 1
    lease: Any = Like(kept=Like(**counts) if kept is not None else None, abandoned=kept == "abandoned")
    detector.observe(Released(lease))
    assert len(detector.observations) == (kept in {"locks", "tries", "strange_unlocks"})
