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

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.lease import Outcome
from poolscope.core.pool_registry import open_pool_registries
from poolscope.detectors import throttle
from tests.support.pools import Source, identity
from tests.support.scene import Scene
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.finding import Finding

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
