"""
What is held back: told within a bounded time, also when nothing of it happens any more, and when
the process ends.
"""
# ruff: noqa: D103 - what the application does is named for it

from __future__ import annotations

import gc
import logging
import weakref
from typing import TYPE_CHECKING

import pytest

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.finding import Finding, FindingCounts
from poolscope.core.finding_kind import Severity
from poolscope.core.lease import Outcome
from poolscope.core.pool_registry import open_pool_registries
from poolscope.detectors import throttle
from tests.support.clocks import FakeClock
from tests.support.pools import Source, identity
from tests.support.scene import Scene
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable


TIMES = 7
INTERVAL = 30


def leaks(scene: Scene) -> None:
    with scene.unit():
        scene.checkout()


def times_out(scene: Scene) -> None:
    scene.timeout(waited=0.1)


def holds_long(scene: Scene) -> None:
    scene.request(query=1.0)


def nests(scene: Scene) -> None:
    with scene.unit():
        first = scene.checkout()
        scene.checkout("inner").released()
        first.released()


def repeats(scene: Scene) -> None:
    with scene.unit():
        lease = scene.checkout()
        for _ in range(8):
            scene.query(lease, "select * from posts where user_id = ?")
        lease.released()


CAUSES = {
    LEAK: leaks, POOL_EXHAUSTED: times_out, LONG_HOLD: holds_long, NESTED_CHECKOUT: nests, N_PLUS_ONE: repeats,
}  # fmt: skip


def occurrences(found: list[Finding]) -> int:
    """What the events stand for: each for itself and for those that it says were held back."""
    return sum(1 + int(finding.evidence["repeated"]) for finding in found)  # type: ignore[arg-type]


@pytest.mark.parametrize(("identity", "cause"), CAUSES.items(), ids=CAUSES)
def test_what_is_held_back_is_reported_when_the_interval_is_over(identity: str, cause: Callable[[Scene], None]) -> None:
    """By the background thread, with no further event of its kind; after that there is nothing left to tell."""
    scene = Scene(None if identity == LEAK else 20, finding_interval=INTERVAL)
    for _ in range(TIMES):
        cause(scene)
    scene.pass_time(3)
    assert [finding.evidence["repeated"] for finding in scene.found(identity)] == [0]
    assert scene.pool_registry.findings.read()[identity, "shop"] == TIMES
    scene.pass_time(INTERVAL)
    first, second = scene.found(identity)
    assert occurrences([first, second]) == TIMES
    assert (second.summary, second.fix, second.origin, str(second.unit)) == (
        first.summary, first.fix, first.origin, str(first.unit),
    )  # fmt: skip
    assert second.report.startswith("6 more occurrences in the last 30.")
    assert first.summary in second.report
    scene.pass_time(3 * INTERVAL)
    assert len(scene.found(identity)) == 2
    assert scene.pool_registry.findings.read()[identity, "shop"] == TIMES


def test_what_happens_after_the_interval_is_reported_at_once() -> None:
    """The count that was told does not hold it back."""
    scene = Scene(finding_interval=INTERVAL)
    for _ in range(3):
        nests(scene)
    scene.pass_time(INTERVAL + 2)
    assert len(scene.found()) == 2
    nests(scene)
    assert [finding.evidence["repeated"] for finding in scene.found()] == [0, 1, 0]


def test_every_finding_counts_once() -> None:
    """
    Also one that is counted before the first of its place is described, as where two threads look at a pool at once;
    the end of an earlier one is none; a child process begins at nothing.
    """
    scene = Scene(1, finding_interval=INTERVAL)
    scene.checkout()
    for _ in range(3):
        scene.begin_checkout().failed(Outcome.REJECTED, "PoolError")  # described once their cause shows
    scene.tick()
    assert scene.pool_registry.findings.read() == {}
    scene.pass_time(2)
    assert scene.pool_registry.findings.read() == {(POOL_EXHAUSTED, "shop"): 3}

    scene = Scene(1)
    with scene.unit():
        lease = scene.checkout()
    scene.pass_time(2)
    lease.released()
    assert [finding.resolved for finding in scene.found(LEAK)] == [False, True]
    assert scene.pool_registry.findings.read()[LEAK, "shop"] == 1
    scene.watchdog.forget()
    assert scene.pool_registry.findings.read() == {}


def test_at_the_end_nothing_is_held_back() -> None:
    """The last turn does not wait for the interval."""
    scene = Scene(finding_interval=INTERVAL)
    for _ in range(TIMES):
        nests(scene)
    assert len(scene.found()) == 1
    scene.watchdog.end()
    assert occurrences(scene.found()) == TIMES
    assert len(scene.found()) == 2


def test_uninstrumenting_reports_what_is_held_back(caplog: pytest.LogCaptureFixture) -> None:
    """As the end of the process does."""
    telemetry = Telemetry(finding_interval=1000)
    telemetry.start()
    pool = open_pool_registries[-1].register(identity("shop"), Source(2))
    with caplog.at_level(logging.WARNING, "poolscope.findings"):
        for _ in range(3):
            lease = pool.checkout()
            lease.acquired()
            lease.released(abandoned=True)
        telemetry.instrumentor.flush()
        assert len(caplog.records) == 1
        telemetry.shutdown()
    _, rest = caplog.messages
    assert rest.startswith(f"[{LEAK}] 2 more occurrences in the last ")


def test_what_is_kept_to_be_reported_again_keeps_nothing_alive() -> None:
    """Neither the unit of work nor what it held."""
    scene = Scene(finding_interval=INTERVAL)
    with scene.unit() as unit:
        lease = scene.checkout()
        scene.clock.advance(2.0)
        lease.released()
    reference, lease_reference = weakref.ref(unit), weakref.ref(lease)
    assert len(scene.found()) == 1
    scene.sink.findings.clear()
    del unit, lease
    gc.collect()
    assert (reference(), lease_reference()) == (None, None)


def test_of_very_many_places_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of those beyond the first few hundred the count is reported without the evidence; of those without
    one nothing stays.
    """
    monkeypatch.setattr(throttle, "_MOST_WHOLE", 3)
    scene = Scene(finding_interval=INTERVAL)
    for number in range(6):
        for _ in range(2):
            scene.request(f"GET /{number}", query=1.0)
    scene.pass_time(INTERVAL + 2)
    again = scene.found()[6:]
    assert [set(finding.evidence) == {"repeated"} for finding in again] == [False, False, False, True, True, True]
    assert scene.watchdog._throttle._reported == {}
    assert scene.watchdog._throttle._held_back == {}


class Kept:
    """A throttle on a clock that stands still, and what it reported: how many each finding says were held back."""

    def __init__(self, interval: float = 10.0) -> None:
        self.clock, self.counts = FakeClock(0.0), FindingCounts()
        self.findings: list[Finding] = []
        sink = Scene().sink
        sink.report = self.findings.append  # type: ignore[method-assign]
        self.throttle = throttle.Throttle(sink, interval, self.clock, self.counts)
        self.made: list[int] = []

    def finds(self, key: str = "place", *, critical: bool = False, severity: Severity = Severity.WARNING) -> int:
        """One more of a place; how many were reported by then."""

        def make(held_back: int) -> Finding:
            self.made.append(held_back)
            return Finding(
                KINDS[LEAK], severity, "s" * 1_000, "fix", evidence={"repeated": held_back}, trace=1, report="r"
            )

        self.throttle.report(key, make, critical=critical)
        return len(self.findings)

    @property
    def counted(self) -> int:
        """How many findings there were."""
        return sum(self.counts.read().values())


def test_a_place_is_reported_again_from_the_interval_on() -> None:
    """With how many were held back meanwhile; each counts once."""
    kept_by = Kept()
    reported = []
    for moment in (0.0, 0.5, 9.75, 10.0, 19.5, 20.0, 90.0):
        kept_by.clock.now = moment
        reported.append(kept_by.finds())
    assert reported == [1, 1, 1, 2, 2, 3, 4]
    assert kept_by.made == [0, 2, 1, 0]
    assert kept_by.counted == 7


def test_what_has_become_critical_is_reported_at_once() -> None:
    """Where the last one of its place was not; and only where it is."""
    kept_by = Kept()
    assert kept_by.finds() == 1
    assert kept_by.finds(critical=False, severity=Severity.CRITICAL) == 1
    assert kept_by.finds(critical=True, severity=Severity.CRITICAL) == 2
    assert kept_by.finds(critical=True, severity=Severity.CRITICAL) == 2
    assert kept_by.made == [0, 1]
    assert kept_by.counted == 4


@pytest.mark.parametrize(("passed", "everything", "again"), [(9.75, False, 0), (10.0, False, 1), (0.0, True, 1)])
def test_what_was_held_back_is_due_after_the_interval(passed: float, everything: bool, again: int) -> None:
    """Or when the process ends; it says how many there were besides the one that it stands for."""
    kept_by = Kept()
    for _ in range(4):
        kept_by.finds()
    kept_by.finds("alone")
    kept_by.finds("twice")
    kept_by.finds("twice")
    kept_by.clock.advance(passed)
    kept_by.throttle.report_due(everything=everything)
    late = kept_by.findings[3:]
    assert [finding.evidence["repeated"] for finding in late] == [2, 0] * again
    for finding, words in zip(late, ("3 more occurrences", "1 more occurrence"), strict=False):
        assert finding.report.startswith(
            f"{words} in the last {passed:.1f} s: " if passed >= 1 else f"{words} in the last 0 ms"
        )
    assert kept_by.counted == 7
    assert len(kept_by.throttle._reported) == (0 if again else 3)
    assert len(kept_by.throttle._held_back) == (0 if again else 2)


def test_of_the_first_places_the_whole_finding_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the others the beginning of the summary; of none the span, nor the report."""
    monkeypatch.setattr(throttle, "_MOST_WHOLE", 2)
    kept_by = Kept()
    for key in "abc":
        kept_by.finds(key)
    kept = [one.finding for one in kept_by.throttle._reported.values()]
    assert [(len(one.summary), len(one.evidence)) for one in kept] == [(1_000, 1), (1_000, 1), (throttle._SHORT, 0)]
    assert {(one.trace, one.report) for one in kept} == {(None, "")}


def test_so_many_places_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it begins anew; of what is counted without being reported as many."""
    monkeypatch.setattr(throttle, "_MOST_PLACES", 3)
    kept_by = Kept()
    for key in "abc":
        kept_by.finds(key)
    assert list(kept_by.throttle._reported) == ["a", "b", "c"]
    kept_by.finds("d")
    assert list(kept_by.throttle._reported) == ["d"]
    for key in "xyzzx":
        kept_by.throttle.count(key)
    assert kept_by.throttle._held_back == {"x": 2, "y": 1, "z": 2}
    kept_by.throttle.count("w")
    assert kept_by.throttle._held_back == {"w": 1}
    assert kept_by.counted == 4
    kept_by.throttle.count("d")
    assert kept_by.counted == 5
    kept_by.finds("w")
    assert (kept_by.made[-1], kept_by.counted) == (1, 7)
