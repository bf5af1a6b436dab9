"""A picture of a pool, to the point: whether a wait is for the pool, and which leases wait for another connection."""

from __future__ import annotations

from typing import Any

import pytest

from poolscope.core.lease import Outcome
from poolscope.detectors.diagnosis import picture
from poolscope.detectors.diagnosis.picture import Picture
from tests.support.likeness import Like
from tests.support.scene import Scene


@pytest.mark.parametrize(
    ("limit", "leases", "idle", "waiter", "waits"),
    [
        (None, 9, 0, {"used_at_checkout": 3}, False),
        (3, 2, 0, None, False),
        (3, 3, 0, None, True),
        (3, 4, 0, None, True),  # more than it may have
        (3, 2, 0, {}, False),
        (3, 2, 0, {"used_at_checkout": 1}, True),  # it was full when the wait began
        (3, 2, 1, {}, True),  # one was returned, and others are first
        (3, 2, 3, {}, True),
        (3, 2, 1, {"connecting": True}, False),
        (3, 2, 1, {"connect_time": 0.5}, False),
        (3, 2, 1, {"handed_over_at": 1.0}, False),
        (3, 2, 1, {"handed_over_at": 1.0, "used_at_checkout": 3}, True),
    ],
)
def test_a_wait_is_for_the_pool_or_for_a_connect(
    limit: int | None, leases: int, idle: int, waiter: dict[str, Any] | None, waits: bool
) -> None:
    """For the pool where that is or was full, or where an idle connection goes to others."""
    pool: Any = Like(limit=limit, leases=range(leases), idle=lambda: idle)
    usual: dict[str, Any] = {"used_at_checkout": 0, "connecting": False, "connect_time": 0.0, "handed_over_at": None}
    checkout: Any = Like(**{**usual, **waiter}) if waiter is not None else None
    assert picture._waits_for_pool(pool, checkout) is waits


def test_a_picture_is_of_all_who_wait_and_hold() -> None:
    """The oldest lease first; the wait of one that failed until it did, of one that is pending until now."""
    scene = Scene(3)
    first = scene.checkout()
    scene.clock.advance(1.0)
    second = scene.checkout()
    scene.clock.advance(1.0)
    validated = scene.begin_checkout()
    validated.handed_over()
    pending = scene.begin_checkout()
    scene.clock.advance(2.0)
    taken = Picture.take(scene.pool, pending, (first,))
    assert [held.lease for held in taken.held] == [first, second, validated]
    assert [(held.age, held.acquired) for held in taken.held] == [(4.0, True), (3.0, True), (2.0, False)]
    assert (taken.waiter, taken.waited, taken.waiting, taken.before) == (pending, 2.0, (pending,), (first,))
    assert (taken.used, taken.capacity, taken.limit, taken.lost) == (3, 3, 3, 0)
    pending.failed(Outcome.TIMEOUT, "TimeoutError")
    scene.clock.advance(5.0)
    later = Picture.take(scene.pool, pending)
    assert (later.waited, later.waiting) == (2.0, (pending,))
    alone = Picture.take(scene.pool)
    assert (alone.waiter, alone.waited, alone.waiting) == (None, 0.0, ())


def test_a_lease_whose_statement_runs_does_not_wait_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only leases of the waiter's unit of work that it had already; and of very many waiters the first."""
    asked: list[tuple[Any, list[Any]]] = []

    def held_meanwhile(one: Any, earlier: list[Any], frames: Any, *, every: bool) -> list[Any]:
        asked.append((one, earlier))
        return earlier if every else earlier[:1]

    def lease(requested_at: float, unit: str = "mine", *, running: bool = False) -> Any:
        return Like(requested_at=requested_at, unit=unit, running=running)

    monkeypatch.setattr(picture, "held_meanwhile", held_meanwhile)
    out = [lease(1.0), lease(2.0), lease(2.5), lease(1.0, running=True), lease(1.0, "other")]
    waiting = lease(2.0)
    assert picture._nested([waiting], out, {}) == {out[0], out[1]}
    assert asked == [(waiting, out[:2])]
    asked.clear()
    many = [lease(float(number)) for number in range(picture._MOST_WALKS + 5)]
    picture._nested(many[::-1], out, {})
    assert [one for one, _ in asked] == many[: picture._MOST_WALKS]
