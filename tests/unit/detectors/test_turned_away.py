"""Pools without a queue: which checkout is turned away, who holds meanwhile, and what is no refusal."""

from __future__ import annotations

import pytest

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED, TURNED_AWAY
from poolscope.core.finding_kind import Severity
from poolscope.core.lease import Outcome
from tests.support.scene import Scene


def refuse(scene: Scene, at: str = "view", name: str = "GET /items") -> set[str]:
    """
    A request that the pool turns away at once.

    Returns:
        What is known about the request at its end.
    """
    with scene.unit(name) as unit:
        scene.begin_checkout(at).failed(Outcome.REJECTED, "psycopg2.pool.PoolError")
    return unit.findings


def test_who_is_turned_away_at_a_full_pool_is_found_with_who_holds() -> None:
    """
    With the line, the holders and the pool's figures. A request that comes when there is room gets a connection, and
    nothing is found.
    """
    scene = Scene(2)
    scene.request()
    assert scene.found() == []
    with scene.unit("GET /report"):
        held = [scene.checkout("report"), scene.checkout("report")]
        assert refuse(scene) == {TURNED_AWAY}
        for lease in held:
            lease.released()
    (finding,) = scene.found(TURNED_AWAY)
    assert finding.severity is Severity.CRITICAL
    assert finding.summary == (
        "pool shop refused http GET /items a connection, at /application/view.py:2 in view (2 of 2 in use, 0 waiting)"
    )
    assert {name: finding.evidence[name] for name in ("used", "limit", "pending")} == {
        "used": 2,
        "limit": 2,
        "pending": 0,
    }
    assert all("by http GET /report, idle; checked out at /application/report.py:2" in one for one in _holders(finding))
    assert "  held 0 ms by http GET /report, idle" in finding.report
    assert finding.fix == finding.kind.fix


def _holders(finding: object) -> list[str]:
    holders = finding.evidence["holders"]  # type: ignore[attr-defined]
    assert len(holders) == 2
    return holders  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("outcome", "ids"),
    [(Outcome.TIMEOUT, [POOL_EXHAUSTED]), (Outcome.ERROR, []), (Outcome.CANCELLED, [])],
)
def test_no_other_failure_is_a_refusal(outcome: Outcome, ids: list[str]) -> None:
    """A timeout is an exhausted pool; a connect that fails and a caller that goes away are neither."""
    scene = Scene(1)
    scene.checkout()
    scene.begin_checkout().failed(outcome, "Error")
    assert scene.ids() == ids


def test_of_many_refusals_one_is_described_and_all_are_counted() -> None:
    """A service in trouble is refused thousands of times: one picture an interval, and the number."""
    scene = Scene(1, finding_interval=30)
    with scene.unit("GET /report"):
        scene.checkout("report")
        for _ in range(5):
            refuse(scene)
        scene.clock.advance(31)
        refuse(scene)
    assert [finding.evidence["repeated"] for finding in scene.found(TURNED_AWAY)] == [0, 4]


def test_each_pool_has_its_own() -> None:
    """What one pool refuses hides nothing of another."""
    scene = Scene(1)
    other = scene.pool_registry.register(scene.pool.identity, scene.source)
    refuse(scene)
    other.checkout().failed(Outcome.REJECTED, "PoolError")
    assert [finding.pool for finding in scene.found(TURNED_AWAY)] == [scene.pool.identity, other.identity]


def test_a_pool_without_a_limit_says_none() -> None:
    """Of psycopg_pool's queue that is full while its size is not known."""
    scene = Scene(None)
    refuse(scene)
    (finding,) = scene.found(TURNED_AWAY)
    assert "limit" not in finding.evidence
    assert "(0 in use, 0 waiting)" in finding.summary


def test_what_is_not_to_be_watched_does_not_report() -> None:
    """Where the application suppressed instrumentation."""
    scene = Scene(1)
    lease = scene.begin_checkout()
    lease.silent = True
    lease.failed(Outcome.REJECTED, "PoolError")
    assert scene.found() == []


def test_a_child_process_starts_anew() -> None:
    """What was refused, and when a picture was taken, is the parent's."""
    scene = Scene(1)
    refuse(scene)
    scene.watchdog.forget()
    assert scene.found() == []
    refuse(scene)
    assert len(scene.found(TURNED_AWAY)) == 1
