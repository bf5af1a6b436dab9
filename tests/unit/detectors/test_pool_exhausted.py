"""What is an exhausted pool, to the point: which waits are too long, and when the cause of a refusal has shown."""

from __future__ import annotations

from typing import Any

import pytest

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.lease import Outcome
from poolscope.detectors import pool_exhausted
from poolscope.detectors.detector import Waited
from poolscope.detectors.diagnosis.outcomes import AT_ONCE
from poolscope.detectors.diagnosis.picture import Picture
from poolscope.detectors.pool_exhausted import PoolExhaustedDetector, Unclear
from tests.support.likeness import Like
from tests.support.pools import Source
from tests.support.scene import Scene


def detector_of(scene: Scene) -> PoolExhaustedDetector:
    """The scene's."""
    (detector,) = [one for one in scene.watchdog.detectors if POOL_EXHAUSTED in one.kinds]
    assert isinstance(detector, PoolExhaustedDetector)
    return detector


@pytest.mark.parametrize(
    ("setting", "waited", "found"),
    [(2.0, 1.75, False), (2.0, 2.0, True), (2.0, 60.0, True), (0.0, 60.0, False)],
)
def test_a_wait_is_too_long_from_the_threshold_on(setting: float, waited: float, found: bool) -> None:
    """While it lasts; without a threshold none is."""
    scene = Scene(1, exhaustion_threshold=setting)
    with scene.unit() as unit:
        scene.begin_checkout()
        scene.clock.advance(waited)
        assert len(list(detector_of(scene).glance([scene.pool]))) == found
    assert unit.findings == ({POOL_EXHAUSTED} if found else set())


@pytest.mark.parametrize("way", ["silent", "over", "has"])
def test_what_does_not_wait_any_more_is_no_long_wait(way: str) -> None:
    """Nor what is not to be watched."""
    scene = Scene(1, exhaustion_threshold=1.0)
    with scene.unit():
        lease = scene.begin_checkout()
    if way != "over":
        lease.unit = None
    lease.silent = way == "silent"
    if way == "has":
        lease.acquired()
    scene.clock.advance(9.0)
    assert list(detector_of(scene).glance([scene.pool])) == []


def test_of_long_waits_the_longest_is_reported_and_all_are_marked() -> None:
    """Once in the interval for each pool, with those that held the connections when it began."""
    scene = Scene(1, exhaustion_threshold=1.0)
    other = scene.pool_registry.register(type(scene.pool.identity)("batch", "postgresql", "b", "db", 5432), Source(1))
    units = []
    leases = []
    for place in range(3):
        with scene.unit(f"GET /{place}") as unit:
            leases.append(scene.begin_checkout())
            units.append(unit)
        unit.ended = False
        scene.clock.advance(0.25)
    scene.clock.advance(0.5)
    detector = detector_of(scene)
    (occurrence,) = detector.glance([scene.pool, other])
    assert [bool(unit.findings) for unit in units] == [True, True, False]
    assert occurrence.at_once
    assert occurrence.place == (POOL_EXHAUSTED, "shop")
    assert occurrence.describe is not None
    finding = occurrence.describe(7)
    assert (finding.evidence["waited"], finding.evidence["repeated"]) == (1.25, 7)
    assert "http GET /0 " in finding.summary
    scene.clock.advance(1.0)
    assert list(detector.glance([scene.pool])) == []
    assert units[2].findings == {POOL_EXHAUSTED}
    pending = other.checkout()
    scene.clock.advance(1.0)
    (second,) = detector.glance([scene.pool, other])
    assert second.place == (POOL_EXHAUSTED, "batch")
    pending.failed(Outcome.CANCELLED, "CancelledError")


@pytest.mark.parametrize(
    ("waited", "full", "is_unclear"),
    [(AT_ONCE / 2, True, True), (AT_ONCE, True, False), (9.0, True, False), (AT_ONCE / 2, False, False)],
)
def test_who_waited_for_nothing_has_a_cause_that_has_to_show(waited: float, full: bool, is_unclear: bool) -> None:
    """At a full pool; of a wait the cause is what was seen at its end."""
    scene = Scene(1)
    detector = detector_of(scene)
    picture: Any = Like(waited=waited, full=full, held=(Like(lease="lease"),), pool=scene.pool)
    occurred: list[Any] = []
    detector._occurrence = lambda picture, waiter: occurred.append(waiter)  # type: ignore[method-assign,assignment,return-value]
    waiter: Any = object()
    list(detector.diagnose((picture, waiter)))
    assert occurred == ([] if is_unclear else [waiter])
    unclear: list[Any] = [(one.waiter, one.holders, one.until) for one in detector._unclear]
    assert unclear == (
        [(waiter, frozenset({"lease"}), scene.clock.now + pool_exhausted._WATCHED)] if is_unclear else []
    )


def test_a_refusal_is_clear_once_all_of_its_holders_have_returned() -> None:
    """Or after a second; until then a later picture shows more, while each of them still holds."""
    scene = Scene(3)
    first, second = scene.checkout(), scene.checkout()
    waiter = scene.begin_checkout()
    one = Unclear(Picture.take(scene.pool, waiter, (first,)), waiter, frozenset({first, second}), 2_000.0)
    assert [one.is_clear(now) for now in (1_999.0, 2_000.0, 2_001.0)] == [False, True, True]
    before = one.picture
    third = scene.checkout()
    one.look()
    assert one.picture is not before
    assert third in {held.lease for held in one.picture.held}
    assert (one.picture.waiting, one.picture.before) == (before.waiting, (first,))
    first.released()
    later = one.picture
    one.look()
    assert one.picture is later
    assert not one.is_clear(1_999.0)
    scene.clock.advance(4.0)
    settled = one.settled()
    assert {held.lease: held.age for held in settled.held} == {first: 0.0, second: 4.0, third: 4.0}
    assert sum(held.seconds for held in settled.held) == 8.0
    second.released()
    assert one.is_clear(1_999.0)
    none = Unclear(before, waiter, frozenset(), 2_000.0)
    none.look()
    assert none.picture is before


def test_what_is_still_unclear_at_the_end_is_reported_as_it_is() -> None:
    """Else it is looked at again, until it is clear."""
    scene = Scene(1)
    detector = detector_of(scene)
    held = scene.checkout()
    with scene.unit():
        waiter = scene.begin_checkout()
        waiter.failed(Outcome.REJECTED, "PoolError")
    (seen,) = detector.observations
    assert list(detector.diagnose(seen)) == []
    assert list(detector.again(False)) == []
    assert len(detector._unclear) == 1
    assert len(list(detector.again(True))) == 1
    assert detector._unclear == []
    list(detector.diagnose(seen))
    held.released()
    assert len(list(detector.again(False))) == 1
    detector.forget()
    assert not detector.observations
    assert detector._unclear == []


def test_a_refusal_by_a_pool_that_is_not_full_was_by_one_that_was() -> None:
    """One connection was returned meanwhile, or it has no limit; of a timeout the picture is as it is."""
    scene = Scene(2)
    for outcome, full in ((Outcome.REJECTED, True), (Outcome.TIMEOUT, False)):
        waiter = scene.begin_checkout()
        waiter.failed(outcome, "Error")
        assert pool_exhausted._taken(waiter).full is full
    held = [scene.checkout(), scene.checkout()]
    assert pool_exhausted._taken(scene.begin_checkout(), held).before == tuple(held)


def test_only_what_may_be_seen_is_observed() -> None:
    """Within the interval only that there was one more; nothing of what is not to be watched."""
    scene = Scene(1)
    detector = detector_of(scene)
    for silent in (True, False, False):
        waiter = scene.begin_checkout()
        waiter.silent = silent
        waiter.outcome = Outcome.TIMEOUT
        detector.observe(Waited(waiter, ()))
    assert [one if isinstance(one, str) else one[1] is not None for one in detector.observations] == [True, "shop"]
    assert [occurrence.describe for occurrence in detector.diagnose("shop")] == [None]
