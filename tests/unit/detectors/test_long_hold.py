"""Long holds, distinguished by what the connection did meanwhile."""

from __future__ import annotations

import pytest

from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD
from poolscope.core.work import EXPECTED_LONG_HOLD
from poolscope.detectors.long_hold import phase_of
from tests.support.scene import Scene


@pytest.mark.parametrize(
    ("query", "in_transaction", "idle", "phase"),
    [
        (1.0, 0.0, 0.0, "query"),
        (0.5, 0.5, 0.0, "query"),
        (0.49, 0.51, 0.0, "idle_in_transaction"),
        (0.4, 0.3, 0.3, "idle_in_transaction"),
        (0.4, 0.2, 0.4, "idle"),
        (0.0, 0.0, 1.0, "idle"),
        (0.0, 0.0, 0.0, "query"),
    ],
)
def test_what_a_hold_was_for(query: float, in_transaction: float, idle: float, phase: str) -> None:
    """The database's work if it is half of it or more; else the longer kind of idleness."""
    assert phase_of({"query": query, "idle_in_transaction": in_transaction, "idle": idle}) == phase


def test_a_long_query_is_a_long_hold() -> None:
    """With the query as a shape; a quick one is nothing."""
    scene = Scene()
    with scene.unit("GET /report") as bad:
        lease = scene.checkout("report")
        scene.query(lease, "select sum(total) from orders where day > '2024-01-01'", seconds=0.6)
        lease.released()
        assert scene.pool_registry.units.findings_of(bad) == [LONG_HOLD]
    with scene.unit("GET /fixed") as fixed:
        scene.request(query=0.4)
        assert scene.pool_registry.units.findings_of(fixed) == []
    (finding,) = scene.found()
    assert finding.id == LONG_HOLD
    assert finding.summary == (
        "http GET /report held a connection of pool shop for 600 ms, 600 ms of it in queries; "
        "checked out at /application/report.py:2 in report"
    )
    assert finding.evidence["statement"] == "select sum(total) from orders where day > ?"
    assert "faster" in finding.fix
    assert (finding.evidence["held"], finding.evidence["queries"]) == (pytest.approx(0.6), 1)


def test_the_slowest_statement_is_named() -> None:
    """
    Not the last one, nor the end of the transaction; a fetch is work of its statement. Without a slow one it is the
    last, and a hold for other work has the last as well.
    """
    scene = Scene()
    with scene.unit("GET /report"):
        lease = scene.checkout()
        scene.query(lease, "select quick from t", at="a", seconds=0.1)
        scene.query(lease, "select slow from t", at="b", seconds=0.05)
        lease.call_begins()
        scene.clock.advance(0.5)
        lease.call_ends(in_transaction=True)
        scene.query(lease, "update t set a = 1", at="c", seconds=0.2)
        lease.call_begins()
        scene.clock.advance(0.6)
        lease.call_ends(in_transaction=False)
        scene.query(lease, "select last from t", at="d", seconds=0.001)
        lease.released()
    with scene.unit("GET /many"):
        lease = scene.checkout()
        for number in range(60):
            scene.query(lease, f"select c{number} from t", at=f"line{number}", seconds=0.009)
        lease.released()
    with scene.unit("GET /idle"):
        lease = scene.checkout()
        scene.query(lease, "select slow from t", at="b", seconds=0.2)
        scene.query(lease, "select last from t", at="d", seconds=0.001)
        scene.clock.advance(1.0)
        lease.released()
    slow, many, idle = scene.found()
    assert (slow.evidence["statement"], "1.5 s of it in queries, up to 500 ms in one" in slow.summary) == (
        "select slow from t",
        True,
    )
    assert (many.evidence["statement"], "up to" in many.summary) == ("select c59 from t", False)
    assert (idle.id, idle.evidence["statement"]) == (IDLE_IN_TRANSACTION, "select last from t")


def test_other_work_within_a_transaction_is_idleness_in_it() -> None:
    """A call to a service between the query and the commit; after the commit and the return it is nothing."""
    scene = Scene()
    scene.request("POST /checkout", query=0.01, idle=1.0)
    with scene.unit("POST /fixed"):
        lease = scene.checkout()
        scene.query(lease, seconds=0.01)
        lease.released()
        scene.clock.advance(1.0)
    (finding,) = scene.found()
    assert finding.id == IDLE_IN_TRANSACTION
    assert "held a connection of pool shop for 1.0 s, 1.0 s of it idle in a transaction" in finding.summary
    assert "before the first query or after the commit" in finding.fix


def test_other_work_outside_of_a_transaction_is_a_long_hold() -> None:
    """Checked out too early; the fix is another than for a long query, and no transaction is blamed."""
    scene = Scene()
    with scene.unit():
        lease = scene.checkout()
        scene.clock.advance(1.0)
        scene.query(lease, seconds=0.01)
        lease.released()
    (finding,) = scene.found()
    assert finding.id == LONG_HOLD
    assert "1.0 s of it without a query or a transaction" in finding.summary
    assert "check out as late" in finding.fix


def test_the_threshold_is_a_setting() -> None:
    """Half a second by default, to the moment."""
    for threshold, found in ((0.5, True), (2.0, False)):
        scene = Scene(long_hold_threshold=threshold)
        scene.request(query=0.5)
        assert bool(scene.found()) == found


def test_what_is_excused_is_no_long_hold() -> None:
    """Asked for inside `expected_long_hold`."""
    scene = Scene()
    token = EXPECTED_LONG_HOLD.set("a nightly export")
    scene.request(query=100)
    EXPECTED_LONG_HOLD.reset(token)
    assert scene.found() == []


def test_what_is_still_held_is_diagnosed_on_request() -> None:
    """
    Django gives a request's connection back after the span around the request has ended: the span has the id in time,
    and the event comes with the return.
    """
    scene = Scene()
    with scene.unit() as unit:
        lease, excused = scene.checkout(), scene.checkout()
        excused.excuse = "listens"
        scene.query(lease, seconds=0.4)
        assert LONG_HOLD not in scene.pool_registry.units.findings_of(unit)
        scene.clock.advance(0.6)
        assert IDLE_IN_TRANSACTION in scene.pool_registry.units.findings_of(unit)
        assert scene.found(IDLE_IN_TRANSACTION) == []
        lease.released()
        excused.released()
    assert len(scene.found(IDLE_IN_TRANSACTION)) == 1


def test_outside_of_any_unit_the_thread_is_named() -> None:
    """A script's hold is one too."""
    scene = Scene()
    lease = scene.checkout()
    scene.clock.advance(1)
    lease.released()
    (finding,) = scene.found()
    assert finding.unit is None
    assert finding.summary.startswith("thread MainThread held a connection")


def test_one_place_is_reported_once_in_an_interval() -> None:
    """Each place and each unit of work by itself."""
    scene = Scene()
    for name, at in (("GET /a", "x"), ("GET /a", "x"), ("GET /a", "y"), ("GET /b", "x"), ("GET /a", "x")):
        scene.request(name, query=1.0, at=at)
    assert len(scene.found()) == 3
    scene.clock.advance(31)
    scene.request("GET /a", query=1.0, at="x")
    assert scene.found()[-1].evidence["repeated"] == 2
