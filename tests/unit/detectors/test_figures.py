"""What the figures of a pool, and the words of rules over them, are made of: each of them by itself."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from typing import Any

import pytest

from poolscope.core import blocks
from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import MIXED
from poolscope.core.catalogue.holds import FAN_OUT, IDLE_IN_TRANSACTION, LONG_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.finding_kind import FindingKind
from poolscope.core.making import Making
from poolscope.core.phases import HOLD_PHASES
from poolscope.detectors.diagnosis import cause, census, load
from poolscope.detectors.diagnosis.census import Share, Use
from poolscope.detectors.diagnosis.figures import Figures, figures_of
from poolscope.detectors.diagnosis.load import MOMENT, Sample
from poolscope.detectors.diagnosis.picture import Picture
from poolscope.detectors.diagnosis.rules.blocked_loop import blocked_wait
from poolscope.detectors.diagnosis.rules.fan_out import fan_out
from poolscope.detectors.diagnosis.rules.leaks import left_over
from poolscope.detectors.diagnosis.rules.long_holds import held_long
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of
from poolscope.detectors.diagnosis.rules.starvation import starvation
from poolscope.detectors.diagnosis.workers import Crew
from tests.support.likeness import Like
from tests.support.pools import Source
from tests.support.scene import Scene

BLOCKED_LOOP = sys.modules[blocked_wait.__module__]  # the package has a function of that name
LONG_HOLDS = sys.modules[held_long.__module__]  # the same
LEAKS = sys.modules[left_over.__module__]  # the same
FIGURES = Figures(
    limit=10, used_before=0, leaked=0, deadlocked=0, rate=2.0, rate_now=6.0, rate_before=2.0, known_before=MOMENT,
    mean_hold=1.0, typical_hold=1.0, saturated=0.0, needed_short=0.0, young_long=0.0, query_share=0.5,
    in_transaction_share=0.25, idle_share=0.25,
)  # fmt: skip


def held(seconds: float = 1.0, *, unit: Any = None, stack: Any = (), **changes: Any) -> Any:
    """What is like a lease in a picture that was held for so long, the half of it for queries."""
    phases = {**dict.fromkeys(HOLD_PHASES, 0.0), "query": seconds / 2, "idle_in_transaction": seconds / 4}
    phases["idle"] = seconds / 4
    lease = Like(unit=unit, adopted=False, origin=(), listens=False)
    given = {"lost": False, "nested": False, "acquired": True, "queues": (), "phase": "idle", "running_for": 0.0}
    return Like(lease=lease, seconds=seconds, phases=phases, stack=stack, **{**given, **changes})


def test_figures_are_of_the_minute_and_of_what_is_held() -> None:
    """Each is the difference of the totals, and what the leases that are held add to it."""
    first = Sample(1, checkouts=5, used=2, holds=3, held=4, squares=6, short=2, long_holds=1, querying=1,
                   in_transaction=3, saturated=1)  # fmt: skip
    recent = replace(first, moment=4, checkouts=50, saturated=3)
    now = Sample(8, checkouts=80, used=4, holds=23, held=34, squares=106, short=12, long_holds=9, querying=16,
                 in_transaction=8, saturated=5)  # fmt: skip
    old = held(64.0)
    old.lease.adopted = True
    leases = (held(2.0), held(0.5, nested=True), held(50.0, lost=True), held(70.0, acquired=False), old)
    picture: Any = Like(totals=now, held=leases, pool=Like(long_hold=2.0), capacity=7, lost=1)
    record: Any = Like(span=lambda now: (first, recent))
    figures = figures_of(picture, record)
    expected = Figures(
        limit=7, used_before=2, leaked=2, deadlocked=1,
        rate=75 / 7, rate_now=30 / 4, rate_before=45 / 3, known_before=3,
        mean_hold=32.5 / 22, typical_hold=104.25 / 32.5, saturated=2 / 4,
        needed_short=10.5 / 7, young_long=9 / 7 * 2.0,
        query_share=16.25 / 32.5, in_transaction_share=5.625 / 32.5, idle_share=(32.5 - 16.25 - 5.625) / 32.5,
    )  # fmt: skip
    assert vars(figures) == pytest.approx(vars(expected))


def test_a_pool_that_was_not_used_needs_nothing() -> None:
    """Every figure is 0, and nothing is divided by it; as every total is, of which nothing is known."""
    assert [getattr(Sample(0.0), field.name) for field in fields(Sample)] == [0] * len(fields(Sample))
    picture: Any = Like(totals=Sample(10.0), held=(), pool=Like(long_hold=2.0), capacity=0, lost=0)
    figures = figures_of(picture, Like(span=lambda now: (Sample(10.0), Sample(10.0))))  # type: ignore[arg-type]
    assert set(vars(figures).values()) == {0}
    assert (figures.needed, figures.likely_long, figures.bursting) == (0.0, 0.0, False)


@pytest.mark.parametrize(
    ("changes", "bursts"),
    [
        ({}, True),
        ({"rate_now": 5.75}, False),
        ({"rate_now": 60.0}, True),
        ({"known_before": MOMENT - 0.5}, False),
        ({"known_before": MOMENT * 9}, True),
        ({"mean_hold": 3.5}, False),
        ({"mean_hold": 3.25}, True),
        ({"limit": 18}, False),
        ({"rate_now": 0.0, "rate_before": 0.0}, False),
    ],
)
def test_a_burst_is_a_multiple_of_what_the_pool_could_carry(changes: dict[str, Any], bursts: bool) -> None:
    """At least three times what came before, known for long enough, which fits; and more than the pool at once."""
    assert replace(FIGURES, **changes).bursting is bursts


def test_the_sum_of_a_histogram_is_that_of_the_middles() -> None:
    """What lies above the last bound counts as that."""
    assert load._sum_of((1.0, 2.0), (1, 2, 4), 1) == 0.5 + 2 * 1.5 + 4 * 2.0
    assert load._sum_of((1.0, 2.0), (1, 2, 4), 2) == 0.25 + 2 * 2.25 + 4 * 4.0


@pytest.mark.parametrize(
    ("lost", "limit", "used", "capacity"), [(1, 3, 2, 4), (1, 3, 5, 6), (0, None, 3, 3), (2, None, 3, 5)]
)
def test_a_pool_has_as_many_as_it_may_have_or_has(lost: int, limit: int | None, used: int, capacity: int) -> None:
    """With those that it has lost."""
    assert Picture.capacity.fget(Like(lost=lost, limit=limit, used=used)) == capacity  # type: ignore[attr-defined]


def test_a_picture_says_for_how_long_a_statement_runs() -> None:
    """Nothing where none runs."""
    scene = Scene()
    lease = scene.checkout()
    scene.clock.advance(1.5)
    assert Picture.take(scene.pool).held[0].running_for == 0.0
    lease.statement_begins("select 1")
    scene.clock.advance(0.5)
    assert Picture.take(scene.pool).held[0].running_for == 0.5


@pytest.mark.parametrize(
    ("source", "connections"),
    [(Source(idle=2, in_use=3), 5), (Source(idle=2, in_use=None), 2), (Source(idle=0, in_use=3), 3)],
)
def test_a_pool_has_its_idle_connections_and_those_in_use(source: Source, connections: int) -> None:
    """None when it is gone."""
    making: Any = Like(source=source)
    assert Making.connections(making) == connections
    source.lives = False
    assert Making.connections(making) == 0


@pytest.mark.parametrize(
    ("units", "text"),
    [
        ([], "code outside of any unit of work"),
        ([None], "code outside of any unit of work"),
        (["a", "b", "b", None], "b, a"),
        (["a", "b", "b", "c", "d"], "b, a and 2 more"),
        (["a", "b", "c"], "a, b and 1 more"),
    ],
)
def test_holders_are_named_the_most_frequent_first(units: list[str | None], text: str) -> None:
    """Two of them, and how many more there are."""
    assert names_of(held(unit=unit) for unit in units) == text


@pytest.mark.parametrize(
    ("holders", "waiting", "is_deadlock"), [(3, 2, True), (4, 3, True), (2, 2, False), (3, 1, False), (9, 9, True)]
)
def test_threads_are_in_a_deadlock_where_all_wait(holders: int, waiting: int, is_deadlock: bool) -> None:
    """Every connection of the pool is held for a thread, and every thread waits for a connection."""
    crew = Crew("pool", frozenset((1, 2)), tuple(Like(origin=()) for _ in range(waiting)))  # type: ignore[misc]
    leases = [held(queues=(crew,)) for _ in range(holders)]
    (explained,) = starvation(Like(capacity=3, pool=Like(identity=Like(name="shop"))), leases)  # type: ignore[arg-type]
    assert ("deadlock" in explained.summary) is is_deadlock
    assert f"{holders} of 3 connections" in explained.summary
    assert f"{waiting} of 2 worker threads" in explained.summary


@pytest.mark.parametrize(
    ("capacity", "holds", "waits", "found"),
    [
        (12, 5, 0, False),
        (12, 5, 1, True),  # half of the pool
        (12, 9, 0, True),
        (12, 1, 2, True),  # a quarter of it, and two queue
        (12, 2, 1, False),
        (12, 1, 4, True),
        (16, 1, 2, False),
        (16, 2, 2, True),
        (4, 1, 1, False),  # at least three
        (4, 2, 1, True),
        (12, 0, 6, False),  # nothing is held
    ],
)
def test_a_fan_out_wants_a_large_part_of_the_pool(capacity: int, holds: int, waits: int, found: bool) -> None:
    """Half of it, or a quarter where two of its own wait; the root is what its first lease does."""
    leases = [held(unit="mine", stack=(f"frame {number}",)) for number in range(holds)]
    waiting = tuple(Like(unit="mine", origin=()) for _ in range(waits))
    picture: Any = Like(capacity=capacity, waiting=waiting, held=tuple(leases), before=())
    explained = list(fan_out(picture, [*leases, held(unit="other")]))
    assert [(one.held, one.root) for one in explained] == [(tuple(leases), ("frame 0",))] * found


@pytest.mark.parametrize(
    ("holders", "is_checkout", "is_deadlock"), [(2, True, False), (3, True, True), (4, True, True), (3, False, False)]
)
def test_an_event_loop_is_in_a_deadlock_where_all_wait_for_its_checkout(
    holders: int, is_checkout: bool, is_deadlock: bool
) -> None:
    """Every connection is held by its tasks; while others hold one, it comes back."""
    overlap: Any = Like(is_checkout=is_checkout, seconds=2.0, stack=())
    explained = BLOCKED_LOOP._blocked(Like(capacity=3), [held()] * holders, overlap)  # type: ignore[arg-type]
    assert ("deadlock" in explained.summary) is is_deadlock


@pytest.mark.parametrize("missing", ["event_loops", "waiter", "thread", "theirs", ""])
def test_a_wait_is_for_a_loop_that_was_blocked_where_all_is_known(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loops, who waits, its thread, and the leases of that."""
    overlap = Like(explains=True, is_checkout=False, seconds=2.0, stack=())
    lease = held()
    threads = {id(lease.lease): {"theirs": 2, "thread": None}.get(missing, 1)}
    monkeypatch.setattr(
        BLOCKED_LOOP, "loop_of", lambda one: (threads.get(id(one), None if missing == "thread" else 1), None)
    )
    picture: Any = Like(
        pool=Like(event_loops=None if missing == "event_loops" else Like(overlap=lambda *_: overlap)),
        waiter=None if missing == "waiter" else Like(requested_at=1.0), waited=2.0, capacity=3,
    )  # fmt: skip
    found = [one.held for one in blocked_wait(picture, [lease])]
    assert found == ([] if missing else [(lease,)])


def test_a_group_of_long_holds_says_what_they_were_for() -> None:
    """In the share of their time together."""
    group = [held(2.0), held(1.0)]
    explained = held_long(Like(capacity=4), "idle_in_transaction", group)  # type: ignore[arg-type]
    assert explained.summary.startswith("held too long: 2 of 4 connections, for 2.0 s or less, 25% of the time ")
    assert explained.cause == IDLE_IN_TRANSACTION
    short = held_long(Like(capacity=4), "idle_in_transaction", [held(0.25)])  # type: ignore[arg-type]
    assert short.summary.startswith("held too long: 1 of 4 connections, for 250 ms or less, 25% of the time ")
    none = held_long(Like(capacity=4), "idle_in_transaction", [held(0.0)])  # type: ignore[arg-type]
    assert ", 0% of the time " in none.summary


def test_what_is_held_for_is_decided_to_the_point() -> None:
    """A half is a majority, a hold of the threshold is long, and of two equal shares the transaction counts."""
    picture: Any = Like(pool=Like(long_hold=1.0))
    (queries,) = [cause._held_long(picture, replace(FIGURES, in_transaction_share=0.0), ())]
    assert queries is not None
    assert (queries.cause, "50% of the time running queries" in queries.summary) == (LONG_HOLD, True)
    assert cause._held_long(picture, replace(FIGURES, in_transaction_share=0.0, typical_hold=0.75), ()) is None
    assert cause._held_long(picture, replace(FIGURES, in_transaction_share=0.0, query_share=0.25), ()) is None
    assert cause._held_idle(FIGURES, ()).cause == IDLE_IN_TRANSACTION
    assert cause._held_idle(replace(FIGURES, idle_share=0.5), ()).cause == LONG_HOLD


def blamed(kind: str, connections: int, words: str = "") -> Explained:
    """So many connections that one cause explains."""
    return Explained(kind, (), words or f"{kind} {connections}", count=connections)


@pytest.mark.parametrize(
    ("capacity", "causes", "expected", "share"),
    [
        (10, [(LEAK, 2), (LEAK, 3), (LONG_HOLD, 4)], LEAK, 0.5),
        (10, [(LEAK, 2), (LONG_HOLD, 1), (IDLE_IN_TRANSACTION, 1)], LEAK, 0.2),
        (10, [(LEAK, 2), (LONG_HOLD, 2)], MIXED, 0.2),
        (10, [(LEAK, 3), (LONG_HOLD, 2), (IDLE_IN_TRANSACTION, 2)], MIXED, 0.3),
        (10, [(LEAK, 5), (LONG_HOLD, 1)], LEAK, 0.5),
        (1, [(LEAK, 1)], LEAK, 1.0),
        (0, [(LEAK, 1)], LEAK, 1.0),
    ],
)
def test_the_cause_is_what_explains_half_of_what_is_explained(
    capacity: int, causes: list[tuple[str, int]], expected: str, share: float
) -> None:
    """Its summary is that of its largest part; what reaches no half, or is as large as another, is mixed."""
    parts = [blamed(*one) for one in causes]
    found = cause._largest(Like(capacity=capacity), FIGURES, parts)  # type: ignore[arg-type]
    assert (found.id, found.share) == (expected, share)
    largest = max((one for one in parts if one.cause == expected), key=lambda one: one.connections, default=None)
    assert largest is None or found.summary == largest.summary


def test_mixed_causes_are_named_the_largest_first() -> None:
    """Three of them, and the fixes of two."""
    parts = [blamed(*one) for one in ((LONG_HOLD, 2), (LEAK, 3), (IDLE_IN_TRANSACTION, 2), (FAN_OUT, 1))]
    found = cause._largest(Like(capacity=10), FIGURES, parts)  # type: ignore[arg-type]
    assert found.summary == "mixed causes: connection_leak 3; long_hold 2; idle_in_transaction 2"
    assert found.fix == f"{KINDS[LEAK].fix}; {KINDS[LONG_HOLD].fix}"


@pytest.mark.parametrize(
    ("threads", "requests", "is_apart"), [(1, 1, True), (2, 1, True), (3, 0, True), (1, 2, False), (0, 2, False)]
)
def test_threads_have_the_connections_where_half_are_theirs(threads: int, requests: int, is_apart: bool) -> None:
    """Then the advice is how they are closed, in the library's words."""
    served: Any = Like(ended=False, kind="http", thread=1)
    uses = [Use(Like(unit=None), "idle", 0.0)] * threads  # type: ignore[arg-type]
    uses += [Use(Like(unit=served, thread=1), "idle", 0.0)] * requests  # type: ignore[arg-type]
    pool: Any = Like(closed_by="call close_all()", identity=Like(namespace="shop", address="db"))
    share = Share(pool, 0, tuple(uses))
    fix = census._fix(Like(limit=""), [share], len(uses))  # type: ignore[arg-type]
    assert fix.endswith(": call close_all()") is is_apart


def test_a_kind_without_a_title_has_its_id_in_words() -> None:
    """Its heading and page are texts."""
    kind: Any = Like(title="", id="pool_per_request")
    assert FindingKind.heading.fget(kind) == "pool per request"  # type: ignore[attr-defined]
    assert FindingKind.page.fget(kind) == "docs/findings/pool_per_request.md"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("", ""),
        ("53300", " (SQLSTATE 53300)"),
        ("1040", " (error 1040)"),
        ("912516", " (error 912516)"),
        ("ORA-12516", " (ORA-12516)"),
        ("53xxx", " (53xxx)"),
    ],
)
def test_the_code_of_a_refusal_is_called_what_it_is(code: str, text: str) -> None:
    """Five digits are a SQLSTATE, another number is the server's own, and what has letters says it itself."""
    assert census._code(code) == text


def test_the_worst_line_is_that_of_the_most_time_together() -> None:
    """Its longest block stands for it, whenever that was."""

    def block(place: int) -> Any:
        return Like(stack=((f"line {place}", 0), ("caller", place)))

    often, longest, once = block(1), block(1), block(2)
    spans: Any = [(90.0, 92.0, often), (1.0, 4.0, longest), (50.0, 54.5, once)]
    for order in (spans, spans[::-1], spans[1:] + spans[:1]):
        assert blocks._worst(order) is longest
    assert blocks._worst(spans[1:]) is once
    assert blocks._worst([(1.0, 4.0, longest), (50.0, 52.0, once)]) is longest
    assert blocks._worst([(1.0, 4.0, often), (50.0, 60.0, longest)]) is longest


def test_a_sample_is_what_the_pool_counted() -> None:
    """Each hold counts for the middle of its bucket."""
    scene = Scene(3, long_hold_threshold=1.0)
    for query, idle in ((2.0, 0.25), (0.125, 0.0625)):
        scene.request(query=query, idle=idle)
    scene.timeout(waited=0.5)
    scene.checkout()
    scene.begin_checkout()
    sample = Sample.of(scene.pool)
    assert vars(sample) == pytest.approx(
        {
            "moment": scene.clock.now, "checkouts": 5, "used": 1, "holds": 2, "held": 2.4375,
            "squares": 1.75**2 + 0.175**2, "short": 2.4375 * 0.175 / 1.925, "long_holds": 1,
            "querying": 2.125, "in_transaction": 0.3125, "saturated": 0.0,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("thread", "began", "ended", "ran"),
    [(1, 1.0, 3.0, True), (1, 2.0, 3.0, False), (1, 1.0, 2.0, False), (1, 2.5, 3.0, False), (2, 1.0, 3.0, False)],
)
def test_a_loop_ran_where_a_heartbeat_did_within_a_span(thread: int, began: float, ended: float, ran: bool) -> None:
    """Not at its ends: there it ends or begins to be blocked."""
    known = Scene().event_loops._blocks
    known.beat(1, 0.5, 2.0)
    assert known.ran(thread, began, ended) is ran


def test_the_evidence_has_every_figure_to_some_digits() -> None:
    """Rates and shares to a thousandth, holds to a microsecond, connections to a hundredth."""
    figures = replace(
        FIGURES, used_before=3, leaked=4, deadlocked=5, rate=1.23456, rate_now=2.34567, rate_before=3.45678,
        mean_hold=0.12345678, typical_hold=0.23456789, query_share=0.45678, in_transaction_share=0.56789,
        idle_share=0.67891,
    )  # fmt: skip
    assert figures.evidence() == {
        "arrival_rate": 1.235, "arrival_rate_now": 2.346, "arrival_rate_before": 3.457, "mean_hold": 0.123457,
        "typical_hold": 0.234568, "connections_needed": 0.15, "limit": 10, "used_before": 3, "query_share": 0.457,
        "idle_in_transaction_share": 0.568, "idle_share": 0.679, "leaked": 4, "deadlocked": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "is_apart"),
    [
        ({}, False),
        ({"ended": True}, True),
        ({"kind": "job"}, True),
        ({"thread": 2}, True),
        ({"ended": True, "kind": "job", "thread": 2}, True),
    ],
)
def test_a_connection_that_no_request_ends_with_is_apart(changes: dict[str, Any], is_apart: bool) -> None:
    """Of a job, of a request that has finished, of another thread than the request's, or of none."""
    unit = Like(**{"ended": False, "kind": "http", "thread": 1, **changes})
    assert census._is_apart(Like(unit=unit, thread=1)) is is_apart  # type: ignore[arg-type]
    assert census._is_apart(Like(unit=None, thread=1))  # type: ignore[arg-type]


@pytest.mark.parametrize(("had", "kept"), [(5, 3), (6, 1), (4, 0)])
def test_a_fan_out_that_is_over_counts_for_what_it_has_returned(had: int, kept: int) -> None:
    """What it still holds is among its leases already."""
    leases = [held(unit="mine") for _ in range(kept)]
    others = [held(unit="other") for _ in range(2)]
    before = [*(one.lease for one in (*leases, *others)), *(Like(unit="mine", origin=()) for _ in range(had - kept))]
    picture: Any = Like(capacity=8, waiting=(), held=(*leases, *others), before=tuple(before))
    assert [(one.count, one.held) for one in fan_out(picture, leases)] == [(had - kept, tuple(leases))]


def test_it_is_quiet_since_the_last_checkout_began() -> None:
    """Whether that waits or has a connection; where there is none, nothing is known of a silence."""
    waiting = (Like(requested_at=3.0), Like(requested_at=7.0))
    leases = (Like(lease=Like(requested_at=8.5)), Like(lease=Like(requested_at=5.0)))
    for pending, kept, quiet in ((waiting, leases, 11.5), (waiting, (), 13.0), ((), leases, 11.5), ((), (), 0.0)):
        picture: Any = Like(waiting=pending, held=kept, totals=Like(moment=20.0))
        assert cause._quiet_since(picture) == quiet


def test_figures_may_be_of_less_than_a_second() -> None:
    """A rate is per second all the same."""
    first, now = Sample(7.5), Sample(8.0, checkouts=3, holds=2, held=1.0, short=0.25, long_holds=1, saturated=0.125)
    picture: Any = Like(totals=now, held=(held(0.5),), pool=Like(long_hold=1.0), capacity=7, lost=0)
    figures = figures_of(picture, Like(span=lambda now: (first, first)))  # type: ignore[arg-type]
    assert (figures.rate, figures.rate_now, figures.rate_before, figures.saturated) == (6.0, 6.0, 0.0, 0.25)
    assert (figures.needed_short, figures.young_long, figures.known_before) == (1.5, 2.0, 0.0)
    assert (figures.mean_hold, figures.query_share) == (0.5, 0.25 / 1.5)
    small = replace(FIGURES, young_long=0.25, needed_short=0.25, rate_now=0.5, rate_before=0.0, limit=1)
    assert (small.likely_long, small.bursting) == (0.5, True)


@pytest.mark.parametrize(
    ("sent", "late"), [((0.5, 2.0, 3.0), 2 / 3), ((1.0, 1.5, 2.0), 1.0), ((1.0, 1.5, 2.25), 0.0), ((1.0, 2.0), 0.0)]
)
def test_of_heartbeats_within_a_span_some_are_late(sent: tuple[float, ...], late: float) -> None:
    """Those that were sent from its beginning to its end; three are enough to estimate by. Others do not count."""
    known = blocks.Blocks()
    for moment in sent:
        known.beat(1, moment, moment + (blocks.SHORTEST * 2 if moment >= 1.0 else 0.0))
        known.beat(2, moment, moment)
    span = (1.0, 2.0) if late != 2 / 3 else (0.5, 3.0)
    assert known._late(1, *span) == pytest.approx(late)


@pytest.mark.parametrize(("lost", "slots", "share"), [(2, 2, "4 of 5"), (0, 3, "3 of 5"), (1, 0, "1 of 5")])
def test_a_leak_is_of_leases_and_of_slots(lost: int, slots: int, share: str) -> None:
    """Together; where there is no lease, the slots themselves are lost."""
    leases = tuple(held(unit="GET /a") for _ in range(lost))
    for one in leases:
        one.lease.origin = ("line",)
    explained = LEAKS._leaked(Like(capacity=5), leases, slots)
    assert explained.summary.startswith(f"a leak: {share} connections were not returned")
    assert (explained.held, explained.count, explained.connections) == (leases, slots, lost + slots)
    assert explained.root == (("line",) if lost else ())
    chain = "which GET /a did not return" if lost else f"{share} connections of which are lost"
    assert explained.chain == (chain,)


def test_what_is_left_over_is_one_leak() -> None:
    """Of the leases alone; where nothing is, there is none."""
    left, going_on = (held(unit=Like(ended=ended, hands_on=False), whole=()) for ended in (True, False))
    for one in (left, going_on):
        one.lease.excuse, one.lease.last_used, one.phase = None, 1.0, "idle"
    picture: Any = Like(totals=Like(moment=9.0), capacity=5)
    (explained,) = left_over(picture, [going_on, left])
    assert (explained.held, explained.connections) == ((left,), 1)
    assert list(left_over(picture, [going_on])) == []


@pytest.mark.parametrize(
    ("change", "is_left"),
    [
        ({}, True),
        ({"phase": "query"}, False),
        ({"whole": ("frame",)}, False),
        ({"unit": None}, False),
        ({"ended": False}, False),
        ({"hands_on": True}, False),
        ({"excuse": "queue"}, False),
        ({"last_used": 9.75}, False),
        ({"last_used": 9.5}, True),
        ({"last_used": 0.0}, True),
        ({"phase": "idle_in_transaction"}, True),
    ],
)
def test_what_an_ended_request_still_holds_is_left_over(change: dict[str, Any], is_left: bool) -> None:
    """Where no code goes on with it, and it was not used for half a second."""
    unit = Like(ended=change.get("ended", True), hands_on=change.get("hands_on", False))
    lease = Like(unit=change.get("unit", unit), excuse=change.get("excuse"), last_used=change.get("last_used", 5.0))
    one: Any = Like(lease=lease, phase=change.get("phase", "idle"), whole=change.get("whole", ()))
    assert LEAKS._is_left_over(one, 10.0) is is_left


@pytest.mark.parametrize(
    ("stacks", "root", "shown"), [([(), ("a",), ("b",)], (), ("a",)), ([("a",)], ("root",), ("root",)), ([()], (), ())]
)
def test_what_stands_is_the_root_or_the_first_that_executes(stacks: list[Any], root: Any, shown: Any) -> None:
    """Of the leases, the oldest first."""
    explained = Explained(LEAK, tuple(held(stack=stack) for stack in stacks), "", root=root)
    assert explained.stands_at == shown


def test_long_holds_are_in_groups_by_what_they_were_for() -> None:
    """From the threshold on; without those of which the beginning is not known, and those that are validated."""

    def long(seconds: float, phase: str, **changes: Any) -> Any:
        one = held(seconds, **changes)
        one.phases = {**dict.fromkeys(HOLD_PHASES, 0.0), phase: seconds}
        one.lease.slowest = one.lease.statement = None
        one.lease.pool = Like(identity=Like(system="postgresql"))
        return one

    leases = [
        long(2.0, "query"), long(1.0, "idle"), long(0.75, "idle"), long(9.0, "query"),
        long(9.0, "idle", acquired=False), long(9.0, "idle"),
    ]  # fmt: skip
    leases[-1].lease.adopted = True
    picture: Any = Like(capacity=6, pool=Like(long_hold=1.0))
    queries, idle = LONG_HOLDS.long_holds(picture, leases)
    assert (queries.held, queries.phase, queries.case) == ((leases[0], leases[3]), "query", "")
    assert (idle.held, idle.phase, idle.case, idle.cause) == ((leases[1],), "idle", "idle", LONG_HOLD)
    assert list(LONG_HOLDS.long_holds(picture, [])) == []


@pytest.mark.parametrize(
    ("phase", "runs", "running_for", "words"),
    [
        ("query", "query", 3.0, "run select last"),
        ("query", "query", 2.0, "run select last"),  # as long as the slowest by now
        ("query", "query", 1.5, "ran select slow"),
        ("query", "idle", 9.0, "ran select slow"),
        ("idle", "query", 9.0, "execute unknown"),
        ("idle_in_transaction", "idle", 0.0, "execute unknown"),
    ],
)
def test_what_a_long_hold_does_is_the_statement_that_runs_or_was_slowest(
    phase: str, runs: str, running_for: float, words: str
) -> None:
    """Of one that was held for something else it is where its holder is."""
    one = held(phase=runs, running_for=running_for)
    one.lease.slowest, one.lease.slowest_time, one.lease.statement = "select slow", 2.0, "select last"
    one.lease.pool = Like(identity=Like(system="postgresql"))
    assert LONG_HOLDS._does(one, phase) == words
