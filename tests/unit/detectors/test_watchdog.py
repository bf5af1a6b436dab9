"""The watchdog: what it keeps, for how long, and that no error of its own stops it."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import TYPE_CHECKING

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import LONG_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.guard import guard
from poolscope.detectors import detector, throttle
from tests.support.scene import Scene

if TYPE_CHECKING:
    import pytest

    from poolscope.core.finding import Finding


def test_evidence_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """
    While the background thread does not come, no more is kept than there is room for; what is lost
    is counted and said.
    """
    monkeypatch.setattr(detector, "_MOST_KEPT", 3)
    before = guard.counts().get("watchdog.dropped", 0)
    scene = Scene(finding_interval=0)
    for number in range(5):
        scene.request(f"GET /{number}", query=1.0)
    assert len(scene.found(LONG_HOLD)) == 3
    assert guard.counts()["watchdog.dropped"] == before + 2
    scene.request("GET /later", query=1.0)
    assert len(scene.found(LONG_HOLD)) == 4
    caplog.clear()
    guard.reset()


def test_the_places_it_remembers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with endless places starts over: it reports some twice, and grows no more."""
    monkeypatch.setattr(throttle, "_MOST_PLACES", 3)
    scene = Scene()
    for number in (0, 1, 2, 0, 3, 0):
        scene.request(f"GET /{number}", query=1.0)
    names = [str(finding.unit) for finding in scene.found()]
    assert names == [f"http GET /{number}" for number in (0, 1, 2, 3, 0)]


def test_an_error_of_its_own_is_counted_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """A sink that raises loses its finding, and nothing else."""
    scene = Scene()
    report = scene.sink.report

    def raises_once(finding: Finding) -> None:
        scene.sink.report = report  # type: ignore[method-assign]
        raise OSError

    scene.sink.report = raises_once  # type: ignore[method-assign]
    scene.request("GET /a", query=1.0)
    scene.request("GET /b", query=1.0)
    with caplog.at_level(logging.WARNING, "poolscope"):
        assert len(scene.found()) == 1
    assert guard.counts()["watchdog.report"] == 1
    guard.reset()


def test_a_pool_that_cannot_be_looked_at_does_not_hide_the_others() -> None:
    """Each is looked at under the guard."""
    scene = Scene()
    scene.pool_registry.pools = {"broken": object(), **scene.pool_registry.pools}  # type: ignore[dict-item]
    with scene.unit():
        scene.checkout()
    scene.pass_time(3)
    assert scene.ids() == [LEAK]
    assert guard.counts()["watchdog.look"] == 3
    guard.reset()


def test_it_looks_at_the_pools_once_a_second() -> None:
    """However often it turns."""
    scene = Scene()
    with scene.unit():
        scene.checkout()
    for _ in range(18):
        scene.clock.advance(0.1)
        scene.tick()
    assert scene.sink.findings == []
    scene.clock.advance(0.3)
    assert scene.ids() == [LEAK]


def test_nothing_is_retained_after_a_unit_of_work() -> None:
    """Unit and leases go without the garbage collector's help once their findings were told."""
    scene = Scene(1, finding_interval=0)
    gc.collect()
    gc.disable()
    try:
        with scene.unit() as unit:
            lease = scene.checkout()
            for _ in range(10):
                scene.query(lease, at="loop", seconds=0.1)
            lost = scene.timeout(name=None)
            lease.released()
        references = [weakref.ref(one) for one in (unit, lease, lost)]
        scene.found()
        scene.sink.findings.clear()
        del unit, lease, lost
        assert [reference() for reference in references] == [None, None, None]
    finally:
        gc.enable()


def test_a_leak_that_came_back_is_not_retained() -> None:
    """Reported leaks are remembered weakly."""
    scene = Scene()
    with scene.unit():
        lease = scene.checkout()
    scene.pass_time(3)
    lease.released()
    scene.found()
    scene.sink.findings.clear()
    scene.spans.clear()
    reference = weakref.ref(lease)
    del lease
    assert reference() is None


def test_a_child_process_starts_anew() -> None:
    """What was kept, reported and held back is the parent's."""
    scene = Scene(1)
    scene.checkout()
    scene.timeout()
    assert scene.ids() == [POOL_EXHAUSTED]
    scene.timeout()
    scene.request(query=1.0)
    scene.watchdog.forget()
    assert len(scene.found()) == 1
    scene.timeout()
    assert scene.found()[-1].evidence["repeated"] == 0
