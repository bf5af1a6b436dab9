"""The rules over a picture to the point: of which leases each speaks, and of which it does not."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED, SLOW_CONNECT
from poolscope.core.catalogue.pools import FOREIGN_EVENT_LOOP, FORKED_POOL, STRANDED_CONNECTIONS
from poolscope.core.finding_kind import Source
from poolscope.core.lease import Outcome
from poolscope.core.pool_identity import Foreign
from poolscope.detectors.diagnosis.describe import place_of
from poolscope.detectors.diagnosis.holders import blocked_part
from poolscope.detectors.diagnosis.outcomes import AT_ONCE, ending_of, outcome_of
from poolscope.detectors.diagnosis.rules.blocked_loop import blocked_wait
from poolscope.detectors.diagnosis.rules.foreign import fix_of, foreign, kind_of, words_of
from poolscope.detectors.diagnosis.rules.listeners import listeners
from poolscope.detectors.diagnosis.rules.nested import nested
from poolscope.detectors.diagnosis.rules.refusals import refusals
from poolscope.detectors.diagnosis.rules.starvation import starvation
from poolscope.detectors.diagnosis.rules.validation import validation
from poolscope.detectors.diagnosis.workers import Crew
from tests.support.likeness import Like
from tests.unit.detectors.test_figures import held

BLOCKED_LOOP = sys.modules[blocked_wait.__module__]  # the package has a function of that name


@pytest.mark.parametrize(
    ("is_pool", "limit", "used", "theirs", "found"),
    [
        (True, None, 9, 0, True),
        (True, 3, 2, 0, True),
        (True, 3, 3, 0, False),  # it is full, whatever it can make
        (True, 3, 4, 0, False),
        (False, 3, 3, 2, True),
        (False, None, 2, 2, True),
        (False, 3, 3, 0, False),
    ],
)
def test_a_foreign_pool_makes_no_connections_and_foreign_ones_are_used_twice(
    is_pool: bool, limit: int | None, used: int, theirs: int, found: bool
) -> None:
    """As long as the pool has room; connections where some lease has one."""
    leases = [held() for _ in range(3)]
    known = Foreign("process", is_pool, tuple(one.lease for one in leases[:theirs]))
    picture: Any = Like(foreign=known, limit=limit, used=used)
    expected = (is_pool, tuple(leases[:theirs]), FORKED_POOL)
    assert [(one.whole, one.held, one.cause) for one in foreign(picture, leases)] == [expected] * found
    assert list(foreign(Like(foreign=None), leases)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "is_pool", "is_closed", "words"),
    [
        ("process", True, False, "the pool was opened in another process"),
        ("process", False, False, "two processes use one socket"),
        ("loop", True, False, "the pool was opened in another event loop"),
        ("loop", True, True, "the pool was opened in an event loop that is closed"),
        ("loop", False, False, "its connections were made in another event loop"),
        ("loop", False, True, "its connections were made in an event loop that is closed"),
    ],
)
def test_a_pool_belongs_to_a_process_or_to_an_event_loop(case: str, is_pool: bool, is_closed: bool, words: str) -> None:
    """The pool itself, or its connections."""
    known = Foreign(case, is_pool, (), is_closed)
    assert words in words_of(known)
    assert kind_of(known) == (FORKED_POOL if case == "process" else FOREIGN_EVENT_LOOP)
    assert bool(fix_of(known)) is not is_pool


def test_who_listens_is_named_with_the_oldest() -> None:
    """The first that listens, and not another lease."""
    leases = [held(9.0), held(5.0, listens=True), held(3.0, listens=True)]
    for place, one in enumerate(leases):
        one.listens = place > 0
        one.lease.origin = ((compile(f"x = {place}", f"/application/{place}.py", "exec"), 0),)
    (explained,) = listeners(Like(capacity=4), leases)  # type: ignore[arg-type]
    assert explained.held == tuple(leases[1:])
    assert "2 of 4 connections are subscribed to notifications, for 5.0 s and less" in explained.summary
    assert "/application/1.py" in explained.chain[1]
    assert list(listeners(Like(capacity=4), leases[:1])) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(("waiting", "capacity", "is_deadlock"), [(2, 3, False), (3, 3, True), (4, 3, True)])
def test_a_nested_checkout_is_a_deadlock_where_all_wait(waiting: int, capacity: int, is_deadlock: bool) -> None:
    """While one does not, its connection comes back."""
    leases = [held(nested=True) for _ in range(waiting)]
    picture: Any = Like(capacity=capacity, pool=Like(identity=Like(name="shop")))
    (explained,) = nested(picture, [*leases, held()])
    assert explained.held == tuple(leases)
    assert explained.summary.startswith("a deadlock" if is_deadlock else "nested checkouts")
    assert list(nested(picture, [held()])) == []


@pytest.mark.parametrize(("ages", "words"), [((0.05,), ""), ((0.1,), "100 ms"), ((0.25, 2.0, 0.5), "2.0 s")])
def test_a_validation_is_slow_from_a_tenth_of_a_second_on(ages: tuple[float, ...], words: str) -> None:
    """The longest is said; what a caller has is validated."""
    leases = [held(acquired=False, age=age) for age in ages]
    explained = list(validation(Like(capacity=9), [*leases, held(age=99.0)]))  # type: ignore[arg-type]
    assert [one.held for one in explained] == ([tuple(leases)] if words else [])
    for one in explained:
        assert f"{len(leases)} of 9 connections are being opened or validated, for up to {words}" in one.summary


def picture_of(**changes: Any) -> Any:
    """What is like a picture of a pool that is not full, ten minutes after it had connected."""
    pool: dict[str, Any] = {"connected_at": 0.0, "refusals": (), "failed_connect": None}
    given = {name: changes.pop(name) for name in pool if name in changes}
    usual: dict[str, Any] = {"full": False, "totals": Like(moment=600.0), "waited": 5.0}
    return Like(pool=Like(**{**pool, **given}), **{**usual, **changes})


def refused(moment: float, limit: str = "role") -> Any:
    """A refusal at a moment."""
    return Like(moment=moment, limit=limit)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"refusals": (refused(599.0),)}, "too many connections"),
        ({"refusals": (refused(540.0),)}, "too many connections"),  # a minute ago
        ({"refusals": (refused(539.0),)}, None),
        ({"refusals": (refused(539.0),), "waited": 61.0}, "too many connections"),
        ({"refusals": (refused(590.0),), "connected_at": 591.0}, None),  # it could connect since
        ({"refusals": (refused(590.0),), "connected_at": 590.0}, "too many connections"),
        ({"refusals": (refused(599.0),), "full": True}, None),
        ({"failed_connect": (599.0, "OSError")}, "cannot connect"),
        ({"failed_connect": (540.0, "OSError")}, "cannot connect"),
        ({"failed_connect": (539.0, "OSError")}, None),
        ({"refusals": (refused(539.0),), "failed_connect": (599.0, "OSError")}, "cannot connect"),
        ({"refusals": (refused(541.0),), "failed_connect": (599.0, "OSError")}, "too many connections"),
        ({}, None),
    ],
)
def test_a_pool_that_cannot_connect_says_why(changes: dict[str, Any], words: str | None) -> None:
    """By its last refusal, or failed connect, of the last minute or of the wait; since it could connect."""
    explained = list(refusals(picture_of(**dict(changes)), ()))
    assert len(explained) == (words is not None)
    for one in explained:
        assert one.summary.startswith(words or "")
        assert one.whole


def test_of_several_refusals_the_last_one_counts() -> None:
    """With its limit; the text of another error is its type."""
    (explained,) = refusals(picture_of(refusals=(refused(598.0, "server"), refused(599.0, "role"))), ())
    assert explained.case == "role"
    (explained,) = refusals(picture_of(failed_connect=(599.0, "OSError")), ())
    assert (explained.cause, "(OSError)" in explained.summary) == (SLOW_CONNECT, True)


def test_the_crew_that_most_wait_for_is_named() -> None:
    """Of several the one with most that wait; with what these run, where that is known."""
    origin: Any = ((compile("x = 1", "/application/load.py", "exec").replace(co_name="load"), 0),)
    few = Crew("few", frozenset((1, 2, 3)), (Like(origin=()),))  # type: ignore[arg-type]
    many = Crew("many", frozenset((4, 5)), (Like(origin=()), Like(origin=origin)))  # type: ignore[arg-type]
    picture: Any = Like(capacity=5, pool=Like(identity=Like(name="shop")))
    for queues, workers in (
        ([(few, many)], "2 of 2 worker threads run "),
        ([(few,), (few,), (many,)], "1 of 3 worker threads wait for this pool"),
    ):
        leases = [held(queues=one) for one in queues]
        (explained,) = starvation(picture, [*leases, held()])
        assert workers in explained.summary
        assert explained.held == tuple(leases)
        assert explained.root == (origin if "run" in workers else ())


def overlap(seconds: float, *, explains: bool = True, line: str = "line", is_checkout: bool = False) -> Any:
    """How much a loop was blocked at a line."""
    stack = ((compile(f"x = {line!r}", f"/application/{line}.py", "exec"), 0),)
    return Like(seconds=seconds, explains=explains, stack=stack, is_checkout=is_checkout)


def test_tasks_that_cannot_go_on_are_in_groups_by_what_blocks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest of each is said; who blocks others and holds a connection counts with them, alone it does not."""
    first, other = overlap(2.0), overlap(1.0, line="other")
    same, nothing = Like(**{**vars(first), "seconds": 3.0}), overlap(0.0, explains=False)
    loops = {name: {"others": others, "own": own} for name, others, own in (
        ("a", first, None), ("b", same, None), ("c", other, None), ("blocks", nothing, first),
        ("alone", nothing, overlap(9.0, line="alone")), ("short", nothing, nothing),
    )}  # fmt: skip
    spans: list[tuple[Any, ...]] = []

    def overlap_of(thread: str, began: float, ended: float, task: Any, more: Any) -> Any:
        spans.append((began, ended, list(more)))
        return loops[thread]["own" if task is None else "others"]

    monkeypatch.setattr(BLOCKED_LOOP, "loop_of", lambda lease: (lease.thread, "task" if lease.thread else None))
    leases = [held(age=4.0) for _ in (*loops, None)]
    for one, thread in zip(leases, (*loops, None), strict=True):
        one.lease.thread, one.lease.acquired_at, one.lease.requested_at = thread, 1.0, 0.5
    leases[1].lease.acquired_at = None
    known = Like(overlap=overlap_of, by_checkout=lambda pending: pending)
    picture: Any = Like(pool=Like(event_loops=known), waiting=("block", None), waiter=None, full=False, capacity=9)
    found = list(BLOCKED_LOOP.blocked_loop(picture, leases))
    assert [one.held for one in found] == [(leases[0], leases[1], leases[3]), (leases[2],)]
    assert "for 3.0 s, at /application/line.py" in found[0].summary
    assert {span[:2] for span in spans} == {(1.0, 5.0), (0.5, 4.5)}
    assert all(span[2] == ["block"] for span in spans)
    picture.pool.event_loops = None
    assert list(BLOCKED_LOOP.blocked_loop(picture, leases)) == []


@pytest.mark.parametrize(
    ("full", "explains", "found"), [(False, True, True), (True, True, False), (False, False, False)]
)
@pytest.mark.parametrize("is_checkout", [True, False])
def test_a_wait_at_a_pool_with_room_may_be_for_the_loop(
    full: bool, explains: bool, found: bool, is_checkout: bool
) -> None:
    """Where that was blocked for half of it or more; then nothing could be received."""
    spans: list[tuple[float, float]] = []

    def overlap_of(waiter: Any, began: float, ended: float, more: Any) -> Any:
        spans.append((began, ended))
        return overlap(2.0, explains=explains, is_checkout=is_checkout)

    waiter = Like(requested_at=3.0)
    pool = Like(event_loops=Like(overlap_of=overlap_of, by_checkout=None))
    picture: Any = Like(pool=pool, waiting=(), waiter=waiter, full=full, waited=2.5, capacity=3)
    explained = list(BLOCKED_LOOP.blocked_loop(picture, ()))
    assert len(explained) == found
    assert spans == [(3.0, 5.5)] * (not full)
    for one in explained:
        assert one.whole
        assert "for 2.0 s of the 2.5 s nothing could be received, since " in one.summary
        assert ("a synchronous checkout" in one.summary) is is_checkout
        assert bool(one.case) is is_checkout
    picture.waiter = None
    assert list(BLOCKED_LOOP.blocked_loop(picture, ())) == []


@pytest.mark.parametrize(
    ("outcome", "waited", "value", "words"),
    [
        (None, 2.0, "pending", "still waits after 2.0 s"),
        (Outcome.TIMEOUT, 2.0, "timeout", "timed out after 2.0 s"),
        (Outcome.REJECTED, AT_ONCE / 2, "rejected", "was refused at once"),
        (Outcome.REJECTED, AT_ONCE, "rejected", f"was refused after {AT_ONCE * 1000:.0f} ms"),
        (Outcome.CANCELLED, 2.0, "cancelled", "was cancelled after 2.0 s"),
        (Outcome.CONNECT_FAILED, 2.0, "connect_failed", "failed (OSError) after 2.0 s"),
    ],
)
def test_how_a_checkout_ended_is_said(outcome: Outcome | None, waited: float, value: str, words: str) -> None:
    """With how long it took."""
    checkout: Any = Like(outcome=outcome, error_type="OSError")
    assert (outcome_of(checkout), ending_of(checkout, waited)) == (value, words)


@pytest.mark.parametrize(
    ("seconds", "line", "words"),
    [
        (0.0, True, ""),
        (0.25, True, "its event loop was blocked at {place} for 250 ms of it"),
        (2.0, False, "its event loop was blocked for 2.0 s of it"),
    ],
)
def test_of_a_hold_the_time_of_a_blocked_loop_is_said(seconds: float, line: bool, words: str) -> None:
    """With the line, where that is known; of what has no connection yet it is nothing."""
    spans: list[tuple[float, float]] = []

    def overlap_of(lease: Any, began: float, ended: float) -> Any:
        spans.append((began, ended))
        return Like(seconds=seconds, stack=overlap(1.0).stack if line else ())

    pool = Like(event_loops=Like(overlap_of=overlap_of))
    one: Any = Like(lease=Like(pool=pool, acquired_at=1.0), age=4.0)
    assert blocked_part(one) == words.format(place=place_of(overlap(1.0).stack))
    assert spans == [(1.0, 5.0)]
    one.lease.acquired_at = None
    assert blocked_part(one) == ""
    one.lease.acquired_at, pool.event_loops = 1.0, None
    assert blocked_part(one) == ""


def test_what_no_detector_finds_at_a_line_is_of_the_pool() -> None:
    """And so is what one finds wherever it happens to look: who was there is not the cause."""
    kinds = KINDS.values()
    assert all(kind.of_pool for kind in kinds if kind.source is not Source.DETECTOR)
    assert {kind.id for kind in kinds if kind.of_pool and kind.source is Source.DETECTOR} == {
        FORKED_POOL, FOREIGN_EVENT_LOOP, STRANDED_CONNECTIONS, TOO_MANY_CONNECTIONS, POOL_EXHAUSTED,
    }  # fmt: skip
