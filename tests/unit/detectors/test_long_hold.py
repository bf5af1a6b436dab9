"""Long holds, distinguished by what the connection did meanwhile."""

from __future__ import annotations

import pytest

from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP
from poolscope.core.work import EXPECTED_LONG_HOLD
from poolscope.detectors import blocked_event_loop, long_hold
from poolscope.detectors.long_hold import LongHoldDetector, kind_of, phase_of
from poolscope.detectors.long_hold import _phases_of as phases_of
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


@pytest.mark.parametrize(
    ("locked", "is_long"),
    [(0.0, True), (0.25, True), (0.49, True), (0.5, False), (0.51, False)],
)
def test_the_waits_for_locks_of_a_hold_are_none_of_it(locked: float, is_long: bool) -> None:
    """From the threshold on: a shorter wait is no finding of its own."""
    scene = Scene(long_hold_threshold=0.5)
    (detector,) = [one for one in scene.watchdog.detectors if LONG_HOLD in one.kinds]
    assert isinstance(detector, LongHoldDetector)
    scene.clock.now = 0.0
    lease = scene.checkout()
    lease.locked_before = locked
    scene.clock.now = 0.75
    assert detector._is_long(lease) is is_long


@pytest.mark.parametrize("way", ["", "leak", "abandoned", "excuse", "is_foreign", "blocked"])
def test_a_hold_with_another_explanation_is_no_long_one(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leak, what was dropped, what is excused or foreign; of a blocked loop only that is marked."""
    scene = Scene()
    with scene.unit() as unit:
        lease = scene.checkout()
        scene.clock.advance(9.0)
        if way in {"leak", "excuse"}:
            setattr(lease, way, "reason")
        if way == "is_foreign":
            scene.pool.is_foreign = True
        if way == "blocked":
            monkeypatch.setattr(blocked_event_loop, "explains", lambda _: True)
        lease.released(abandoned=way == "abandoned")
    assert LONG_HOLD not in unit.findings or way == ""
    assert (BLOCKED_EVENT_LOOP in unit.findings) is (way == "blocked")
    assert (LONG_HOLD in scene.ids()) is (way == "")


def test_a_unit_of_work_is_marked_for_what_it_still_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is no leak, by what it is due to."""
    scene = Scene()
    findings_of = scene.pool_registry.units.findings_of
    with scene.unit() as unit:
        lease = scene.checkout()
        scene.clock.advance(9.0)
        lease.leak = "reason"
        assert findings_of(unit) == []
        lease.leak = None
        monkeypatch.setattr(blocked_event_loop, "explains", lambda _: True)
        assert findings_of(unit) == [BLOCKED_EVENT_LOOP]
        monkeypatch.undo()
        assert findings_of(unit) == [BLOCKED_EVENT_LOOP, LONG_HOLD]
        lease.released()


@pytest.mark.parametrize(
    ("queries", "longest", "words"),
    [(1, 0.5, ""), (2, 0.5, ", up to 500 ms in one"), (2, 0.0, ""), (9, 1.5, ", up to 1.5 s in one")],
)
def test_the_longest_of_several_queries_is_said(queries: int, longest: float, words: str) -> None:
    """Of one query that is all of it."""
    scene = Scene()
    lease = scene.checkout()
    lease.queries, lease.slowest, lease.slowest_time, lease.query_time = queries, "select 1", longest, 2.0
    lease.statement = "select 2"
    scene.clock.advance(2.0)
    finding = long_hold.found(lease, 3)
    assert f"for 2.0 s, 2.0 s of it in queries{words}; checked out at " in finding.summary
    assert (finding.evidence["queries"], finding.evidence["repeated"], finding.evidence["held"]) == (queries, 3, 2.0)


def test_what_waited_for_a_lock_was_no_query() -> None:
    """The hold is what was done besides; where it waited for longer than its queries ran, they are nothing."""
    scene = Scene()
    lease = scene.checkout()
    lease.query_time, lease.idle_in_transaction_time = 4.0, 1.0
    scene.clock.advance(5.0)
    assert kind_of(lease) == LONG_HOLD
    lease.locked_before = 3.5
    assert kind_of(lease) == IDLE_IN_TRANSACTION
    lease.locked_before = 99.0
    assert kind_of(lease) == IDLE_IN_TRANSACTION
    assert phases_of(lease)["query"] == 0.0
