"""Leaks to the point: whose end counts, and from when on."""

from __future__ import annotations

from typing import Any

import pytest

from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.pool_figures import DISPOSED
from poolscope.detectors import leak
from tests.support.likeness import Like
from tests.support.scene import Scene


def lease_of(**changes: Any) -> Any:
    """What is like a lease of a thread that has finished, which has done nothing for ten seconds."""
    usual: dict[str, Any] = {
        "leak": None, "excuse": None, "acquired_at": 1.0, "silent": False, "listens": False, "adopted": False,
        "running": False, "unit": None, "task": None, "thread_reference": lambda: None, "last_used": 90.0,
        "over_since": 0.0, "pool": Like(now=lambda: 100.0), "age": lambda: 10.0,
    }  # fmt: skip
    return Like(**{**usual, **changes})


@pytest.mark.parametrize(
    ("changes", "threshold", "is_unheld", "kind"),
    [
        ({}, 0.0, False, leak.OWNER_FINISHED),
        ({"leak": "overdue"}, 0.0, False, None),
        ({"excuse": "queue"}, 0.0, False, None),
        ({"acquired_at": None}, 0.0, False, None),
        ({"silent": True}, 0.0, False, None),
        ({"listens": True}, 0.0, True, None),
        ({}, 0.0, True, leak.ABANDONED),
        ({"adopted": True}, 0.0, False, None),
        ({"running": True}, 0.0, False, None),
        ({"adopted": True}, 10.0, False, leak.OVERDUE),
        ({"running": True}, 9.0, False, leak.OVERDUE),
        ({"running": True}, 10.5, False, None),
        ({"last_used": 95.5}, 0.0, False, None),
        ({"last_used": 95.0}, 0.0, False, leak.OWNER_FINISHED),
        ({"over_since": 95.5}, 0.0, False, None),
        ({"over_since": 95.0}, 0.0, False, leak.OWNER_FINISHED),
        ({"over_since": 95.5}, 5.0, False, leak.OVERDUE),
        ({"thread_reference": lambda: 1}, 0.0, False, None),
    ],
)
def test_what_is_a_leak(changes: dict[str, Any], threshold: float, is_unheld: bool, kind: str | None) -> None:
    """Of whose owner has finished and not used it since; or that is older than the threshold, where there is one."""
    if "over_since" not in changes:
        changes = {"over_since": 1.0, **changes}
    assert leak._kind(lease_of(**changes), {}, threshold, is_unheld) == kind


def test_it_is_known_since_when_an_owner_is_over() -> None:
    """From the look on that showed it, for good."""
    moments = [100.0, 200.0]
    lease = lease_of(pool=Like(now=lambda: moments.pop(0)))
    for _ in range(2):
        assert leak._owner_is_over(lease, {})
        assert lease.over_since == 100.0
    scene = Scene()
    fresh = scene.checkout()
    fresh.task = lambda: None  # type: ignore[assignment]
    scene.clock.advance(2.0)
    assert leak._owner_is_over(fresh, {})
    assert fresh.over_since == scene.clock.now
    going_on = lease_of(thread_reference=lambda: 1)
    assert not leak._owner_is_over(going_on, {})
    assert going_on.over_since == 0.0


@pytest.mark.parametrize(
    ("unit", "task", "over"),
    [
        (None, None, True),  # its thread has finished
        (None, "gone", True),
        (None, "done", True),
        (None, "runs", False),
        ({"ended": True, "by_default": False}, "runs", True),
        ({"ended": True, "by_default": False, "is_left": False}, None, False),
        ({"ended": False, "by_default": False}, None, False),
        ({"ended": True, "by_default": True}, None, True),
        ({"ended": False, "by_default": True}, None, True),  # by its thread
        ({"ended": False, "by_default": True}, "runs", False),
        ({"ended": True, "by_default": False, "hands_on": True}, None, False),
    ],
)
def test_the_owner_is_the_unit_of_work_else_the_task_or_thread(
    unit: dict[str, bool] | None, task: str | None, over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that no framework knows may last for as long as its thread; what was handed on has other owners."""
    given = {"is_left": True, "hands_on": False, **(unit or {})}
    monkeypatch.setattr(leak, "is_left", lambda lease, frames: given["is_left"])
    owner: Any = None if task == "gone" else Like(done=lambda: task == "done")
    lease = lease_of(
        unit=Like(**given) if unit is not None else None, task=(lambda: owner) if task is not None else None
    )
    assert leak._owner_is_over(lease, {}) is over


@pytest.mark.parametrize(
    ("unit", "runs", "grace"),
    [
        (None, False, leak.OWNER_GRACE),
        (None, True, leak.OWNER_GRACE),
        (False, False, leak.UNIT_GRACE),
        (True, True, leak.UNIT_GRACE),
        (True, False, leak.OWNER_GRACE),
    ],
)
def test_some_only_fetch_a_connection_and_end(unit: bool | None, runs: bool, grace: float) -> None:
    """Threads outside of any unit of work, and jobs that no framework knows: these get longer."""
    lease = lease_of(unit=Like(by_default=unit) if unit is not None else None, thread_reference=lambda: runs or None)
    assert leak._grace(lease) == grace


@pytest.mark.parametrize(
    ("kind", "task", "words"),
    [("http", None, "request"), ("rpc", None, "call"), ("task", None, "task"), ("job", None, "job"),
     ("test", None, "unit of work"), (None, object(), "task"), (None, None, "thread")],
)  # fmt: skip
def test_an_owner_is_called_what_it_is(kind: str | None, task: object, words: str) -> None:
    """A request, call, task or job; else a task or a thread."""
    assert leak._work_of(lease_of(unit=Like(kind=kind) if kind is not None else None, task=task)) == words


@pytest.mark.parametrize(
    ("abandoned", "closed", "ending"),
    [
        (True, DISPOSED, leak.GARBAGE_COLLECTED),
        (False, None, leak.RETURNED),
        (False, DISPOSED, leak.CLOSED_WITH_POOL),
        (False, "recycled", leak.CLOSED),
        (False, "a", leak.CLOSED),
    ],
)
def test_a_leak_ends_in_one_of_four_ways(abandoned: bool, closed: str | None, ending: str) -> None:
    """Each is said."""
    assert leak.ending_of(lease_of(abandoned=abandoned, closed=closed)) == ending


def test_a_leak_is_entered_once_and_counts_for_its_unit_of_work() -> None:
    """All of a pool in one look; a leak that is known is no new one."""
    scene = Scene(4)
    with scene.unit() as unit:
        leases = [scene.checkout(), scene.checkout()]
    assert leak.new_leaks(scene.pool, 0.0) == []
    scene.clock.advance(leak.UNIT_GRACE)
    assert set(leak.new_leaks(scene.pool, 0.0)) == set(leases)
    assert leak.new_leaks(scene.pool, 0.0) == []
    assert {lease.leak for lease in leases} == {leak.OWNER_FINISHED}
    assert all(lease.noted for lease in leases)
    assert scene.pool.leaks[leak.OWNER_FINISHED].read() == 2
    assert LEAK in unit.findings
