"""Connections that are held to listen: found as that, and as nothing else."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import LONG_HOLD
from poolscope.core.catalogue.kept import LISTENER_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.finding_kind import Severity
from poolscope.core.work import EXPECTED_LONG_HOLD
from poolscope.detectors import listener_hold
from poolscope.detectors.diagnosis.lost import is_lost
from tests.support.likeness import Like
from tests.support.scene import Scene


def test_a_stream_that_listens_is_found_while_it_lasts() -> None:
    """
    Once, after the threshold of leaks, with its line and what it executes; it is no leak. A stream beside it that was
    given its events by the process is not found, and one that holds without listening is overdue.
    """
    scene = Scene(3)
    with scene.unit("GET /notifications") as unit:
        lease = scene.checkout("stream")
        scene.query(lease, 'LISTEN "news"')
        scene.query(lease, "listen sports")
        scene.pass_time(59)
        assert scene.ids() == []
        scene.pass_time(2)
        assert LISTENER_HOLD in scene.pool_registry.units.findings_of(unit)
    (finding,) = scene.found()
    assert (finding.id, finding.severity, str(finding.unit)) == (
        LISTENER_HOLD,
        Severity.WARNING,
        "http GET /notifications",
    )
    assert (finding.evidence["listened"], finding.evidence["held"]) == (60.0, 60.0)
    assert "has held a connection of pool shop for 60.0 s in order to listen" in finding.summary
    assert "at /application/stream.py:2 in stream" in finding.summary
    assert "outside of the pool" in finding.fix
    assert finding.evidence["current_location"]
    lease.released()
    with scene.unit("GET /fixed/notifications"):
        scene.checkout("subscribe").released()
        scene.pass_time(70)
    assert scene.ids() == [LISTENER_HOLD]
    with scene.unit("GET /export"):
        scene.checkout("export")
        scene.pass_time(61)
        assert scene.ids() == [LISTENER_HOLD, LEAK]


def test_a_stream_that_has_ended_is_found_as_that() -> None:
    """
    Instead of as a long hold, also where it has unsubscribed by then; one that worked on for longer than it listened is
    a long hold.
    """
    scene = Scene()
    for rest in (0.0, 7.0):
        with scene.unit("GET /notifications"):
            lease = scene.checkout("stream")
            for statement, seconds in (("listen a", 5.0), ("unlisten *", rest)):
                lease.statement_begins(statement)
                lease.call_ends(in_transaction=False)
                scene.clock.advance(seconds)
            lease.released()
    assert scene.ids() == [LISTENER_HOLD, LONG_HOLD]
    assert "held a connection of pool shop for 5.0 s" in scene.found()[0].summary
    assert "current_location" not in scene.found()[0].evidence


def test_a_listener_without_a_task_or_a_request_is_not_lost() -> None:
    """
    Notifications call functions of the application: the request that subscribed may have finished long ago. The same
    without a subscription is a leak.
    """
    scene = Scene()
    with scene.unit("startup"):
        lease = scene.checkout("subscribe")
        scene.query(lease, "listen a")
    with scene.unit("GET /cart"):
        forgotten = scene.checkout("forgets")
    scene.pass_time(8)
    assert (is_lost(lease), is_lost(forgotten)) == (False, True)
    assert scene.ids() == [LEAK]
    scene.pass_time(60)
    assert scene.ids() == [LEAK, LISTENER_HOLD]


def test_an_expected_listener_is_no_finding() -> None:
    """The application says why; neither while it lasts nor at its end."""
    scene = Scene()
    token = EXPECTED_LONG_HOLD.set("the process listens here")
    lease = scene.checkout("subscribe")
    EXPECTED_LONG_HOLD.reset(token)
    scene.query(lease, "listen a")
    scene.pass_time(90)
    lease.released()
    assert scene.ids() == []


def test_a_pool_full_of_listeners_names_them() -> None:
    """
    Once they hold the larger part of the pool: the cause is that they listen, not that they are idle. The same streams
    without a subscription are long holds.
    """
    causes = []
    for statement in ("listen news", "select 1"):
        scene = Scene(3)
        with contextlib.ExitStack() as streams:
            for _ in range(3):
                streams.enter_context(scene.unit("GET /notifications"))
                lease = scene.checkout("stream")
                lease.statement_begins(statement)
                lease.call_ends(in_transaction=False)
            scene.clock.advance(3)
            scene.timeout()
            scene.query(lease, "unlisten *")  # after the picture was taken, and before it is read
        (finding,) = scene.found(POOL_EXHAUSTED)
        causes.append(finding.evidence["cause"])
        if not causes[1:]:
            assert finding.evidence["share"] == 1.0
            assert "3 of 3 connections are subscribed to notifications" in finding.summary
            assert "-> which http GET /notifications listens on -> checked out at" in str(finding.evidence["chain"])
            assert "outside of the pool" in finding.fix
    assert causes == [LISTENER_HOLD, LONG_HOLD]


def test_without_a_threshold_of_leaks_it_is_found_at_its_end() -> None:
    """As everything that is overdue."""
    scene = Scene(leak_threshold=0)
    lease = scene.checkout("subscribe")
    scene.query(lease, "listen a")
    scene.pass_time(90)
    assert scene.ids() == []
    lease.released()
    assert scene.ids() == [LISTENER_HOLD]


@pytest.mark.parametrize(
    ("listened", "held", "kept", "explains"),
    [
        (1.0, 2.0, True, True),
        (0.99, 2.0, True, False),
        (9.0, 2.0, True, True),
        (0.0, 0.0, True, False),
        (9.0, 2.0, False, False),
    ],
)
def test_a_hold_is_for_listening_where_that_was_half_of_it(
    listened: float, held: float, kept: bool, explains: bool
) -> None:
    """Of what never listened it is not."""
    lease: Any = Like(kept=Like() if kept else None, listened=lambda: listened, held=lambda: held)
    assert listener_hold.explains(lease) is explains
    lease.excuse, lease.silent = None, False
    assert listener_hold._listens(lease) is explains
    lease.silent = True
    assert not listener_hold._listens(lease)
    lease.excuse, lease.silent = "queue", False
    assert not listener_hold._listens(lease)


@pytest.mark.parametrize(
    ("setting", "passed", "found"), [(10.0, 9.5, False), (10.0, 10.0, True), (10.0, 99.0, True), (0.0, 99.0, False)]
)
def test_a_listener_is_overdue_from_the_threshold_on(setting: float, passed: float, found: bool) -> None:
    """Once; without a threshold never while it is held."""
    scene = Scene(leak_threshold=setting)
    (detector,) = [one for one in scene.watchdog.detectors if LISTENER_HOLD in one.kinds]
    with scene.unit() as unit:
        lease = scene.checkout()
        scene.query(lease, "listen news")
        scene.clock.advance(passed)
        assert len(list(detector.look(scene.pool))) == found
        assert (LISTENER_HOLD in unit.findings) is found
        assert list(detector.look(scene.pool)) == []
        lease.released()
    seen = detector.observations.popleft()
    assert len(list(detector.diagnose(seen))) == (not found)
    detector.forget()
    assert len(list(detector.diagnose(seen))) == 1


def test_what_was_dropped_while_it_listened_is_a_leak() -> None:
    """And no hold of a listener."""
    for abandoned in (True, False):
        scene = Scene(leak_threshold=0)
        (detector,) = [one for one in scene.watchdog.detectors if LISTENER_HOLD in one.kinds]
        lease = scene.checkout()
        scene.query(lease, "listen news")
        scene.clock.advance(9.0)
        lease.released(abandoned=abandoned)
        assert len(detector.observations) == (not abandoned)
