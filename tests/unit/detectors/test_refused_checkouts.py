"""
Checkouts that go without a connection otherwise than by the pool's timeout: refused at once, or given up by who waits.
What they met, what the cause is, and what is none of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import BURST, POOL_EXHAUSTED, POOL_TOO_SMALL
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION
from poolscope.core.finding_kind import Severity
from poolscope.core.lease import Outcome
from tests.support.scene import Scene

if TYPE_CHECKING:
    from poolscope.core.finding import Finding


def refuse(scene: Scene, at: str = "view", name: str = "GET /items") -> set[str]:
    """
    A request that the pool refuses at once.

    Returns:
        What is known about the request at its end.
    """
    with scene.unit(name) as unit:
        scene.begin_checkout(at).failed(Outcome.REJECTED, "psycopg2.pool.PoolError")
    return unit.findings


def give_up(scene: Scene, waited: float, error: str = "asyncio.CancelledError") -> set[str]:
    """A request that waits and is cancelled. Returns the same."""
    with scene.unit("GET /items") as unit:
        lease = scene.begin_checkout()
        scene.clock.advance(waited)
        lease.failed(Outcome.CANCELLED, error)
    return unit.findings


def of_exhaustion(scene: Scene) -> list[Finding]:
    """What was found, once the holders were watched for long enough."""
    scene.tick()
    scene.pass_time(1)
    return scene.found(POOL_EXHAUSTED)


def test_who_is_refused_at_a_full_pool_is_found_with_who_holds() -> None:
    """
    With the line, the holders and the pool's figures. A request that comes when there is room gets a connection, and
    nothing is found.
    """
    scene = Scene(2)
    scene.request()
    assert scene.found() == []
    with scene.unit("GET /report"):
        held = [scene.checkout("report"), scene.checkout("report")]
        assert refuse(scene) == {POOL_EXHAUSTED}
        for lease in held:
            lease.released()
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.severity is Severity.CRITICAL
    assert finding.summary.startswith(
        "pool shop is exhausted (2 of 2 in use, 1 waiting): http GET /items was refused at once; "
    )
    assert {name: finding.evidence[name] for name in ("outcome", "used", "limit", "pending")} == {
        "outcome": "rejected",
        "used": 2,
        "limit": 2,
        "pending": 1,
    }
    assert all(
        "by http GET /report, idle; checked out at /application/report.py:2 in report" in one
        for one in _holders(finding)
    )
    assert "  held 0 ms by http GET /report, idle" in finding.report


def _holders(finding: Finding) -> list[str]:
    holders = finding.evidence["holders"]
    assert isinstance(holders, list)
    assert len(holders) == 2
    return holders


def test_the_cause_is_what_the_holders_do_afterwards() -> None:
    """
    They have just begun when the pool refuses: whether they hold their connections for long shows later. Holders that
    return at once leave a burst, whose fix is to let no more requests in than there are connections.
    """
    scene = Scene(2)
    held = [scene.checkout("report"), scene.checkout("report")]
    refuse(scene)
    for lease in held:
        scene.query(lease)
    scene.pass_time(0.6)
    assert scene.found(POOL_EXHAUSTED) == []
    scene.clock.advance(0.4)
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == IDLE_IN_TRANSACTION
    assert all(holder.startswith("1.0 s by") and "idle in a transaction" in holder for holder in _holders(finding))

    scene = Scene(2)
    held = [scene.checkout("report"), scene.checkout("report")]
    refuse(scene)
    for lease in held:
        lease.released()
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == BURST
    assert finding.fix == KINDS[BURST].fix_for("rejected") != KINDS[BURST].fix


def test_a_process_that_ends_says_what_it_knows() -> None:
    """The cause of a refusal is not clear yet: it is reported all the same."""
    scene = Scene(1)
    scene.checkout()
    refuse(scene)
    assert scene.found() == []
    scene.watchdog.end()
    assert [finding.id for finding in scene.found()] == [POOL_EXHAUSTED]


def test_who_gives_up_at_a_full_pool_went_without() -> None:
    """
    ``asyncio.wait_for`` around a checkout, or a client that goes away: after a real wait at a full pool. One that ends
    with the process, that has not waited, or that waited for the database, tells nothing about the pool.
    """
    scene = Scene(1)
    scene.checkout()
    assert give_up(scene, 0.5) == {POOL_EXHAUSTED}
    (finding,) = scene.found()
    assert finding.evidence["outcome"] == "cancelled"
    assert "http GET /items was cancelled after 500 ms; " in finding.summary

    scene = Scene(1)
    scene.checkout()
    assert give_up(scene, 0.05) == set()
    assert give_up(scene, 2, "KeyboardInterrupt") == set()
    assert give_up(Scene(1), 2) == set()
    assert of_exhaustion(scene) == []


@pytest.mark.parametrize(
    ("outcome", "ids"),
    [(Outcome.TIMEOUT, [POOL_EXHAUSTED]), (Outcome.ERROR, []), (Outcome.CANCELLED, [])],
)
def test_no_other_failure_is_a_refusal(outcome: Outcome, ids: list[str]) -> None:
    """A timeout is an exhausted pool, also of no wait; an error of another kind is none."""
    scene = Scene(1)
    scene.checkout()
    scene.begin_checkout().failed(outcome, "Error")
    assert [finding.id for finding in of_exhaustion(scene)] == ids


def test_of_many_refusals_one_is_described_and_all_are_counted() -> None:
    """A service in trouble is refused thousands of times: one picture an interval, and the number."""
    scene = Scene(1, finding_interval=30, leak_threshold=600)
    with scene.unit("GET /report"):
        scene.checkout("report")
        for _ in range(5):
            refuse(scene)
        scene.tick()
        scene.clock.advance(31)
        scene.tick()
        refuse(scene)
        found = of_exhaustion(scene)
    assert [finding.evidence["repeated"] for finding in found] == [4, 0]


def test_each_pool_has_its_own() -> None:
    """What one pool refuses hides nothing of another."""
    scene = Scene(1)
    other = scene.pool_registry.register(scene.pool.identity, scene.source)
    refuse(scene)
    other.checkout().failed(Outcome.REJECTED, "PoolError")
    assert [finding.pool for finding in of_exhaustion(scene)] == [scene.pool.identity, other.identity]


def test_a_pool_without_a_limit_says_none() -> None:
    """A pool whose size is not known refuses since it is full, and is not slow to connect."""
    scene = Scene(None)
    refuse(scene)
    (finding,) = of_exhaustion(scene)
    assert "limit" not in finding.evidence
    assert "(0 in use, no limit, 1 waiting)" in finding.summary
    assert finding.evidence["cause"] == POOL_TOO_SMALL


def test_what_is_not_to_be_watched_does_not_report() -> None:
    """Where the application suppressed instrumentation."""
    scene = Scene(1)
    lease = scene.begin_checkout()
    lease.silent = True
    lease.failed(Outcome.REJECTED, "PoolError")
    assert of_exhaustion(scene) == []


def test_a_child_process_starts_anew() -> None:
    """What was refused, and when a picture was taken, is the parent's; so is what was not clear yet."""
    scene = Scene(1)
    scene.checkout()
    refuse(scene)
    scene.watchdog.forget()
    refuse(scene)
    scene.tick()
    scene.watchdog.forget()
    assert of_exhaustion(scene) == []
    refuse(scene)
    assert len(of_exhaustion(scene)) == 1
