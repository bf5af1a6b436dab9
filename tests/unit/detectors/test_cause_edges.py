"""The cause of exhaustion to the point: when a wait is for the pool, and what the usual load amounts to, in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import BURST, MIXED, POOL_TOO_SMALL, SLOW_CONNECT, UNKNOWN
from poolscope.core.catalogue.holds import FAN_OUT, IDLE_IN_TRANSACTION, LONG_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.lease import Outcome
from poolscope.detectors.diagnosis import cause, load
from poolscope.detectors.diagnosis.figures import FITS
from poolscope.detectors.diagnosis.load import MOMENT, WINDOW, Record, Sample
from poolscope.detectors.diagnosis.rules.rule import Explained
from tests.support.likeness import Like
from tests.unit.detectors.test_figures import FIGURES, blamed, held

#: A load of short holds that a pool of ten carries: its connections are held for queries, for a moment each.
CARRIED = replace(FIGURES, rate=2.0, rate_now=2.0, typical_hold=0.01, in_transaction_share=0.0, idle_share=0.0)


def picture_of(**given: Any) -> Any:
    """What is like a picture of a pool of ten in which a checkout has waited for a second."""
    usual: dict[str, Any] = {
        "capacity": 10, "limit": 10, "full": True, "waiter": None, "waited": 1.0, "waiting": (), "held": (),
        "totals": Like(moment=100.0), "pool": Like(long_hold=1.0),
    }  # fmt: skip
    return Like(**{**usual, **given})


@pytest.mark.parametrize(
    ("full", "limit", "saturated", "explained", "is_full"),
    [
        (True, 10, 0.0, 0, True),
        (True, None, 0.0, 0, True),
        (False, None, 1.0, 20, False),
        (False, 10, 0.0, 0, False),
        (False, 10, 0.05, 9, False),
        (False, 10, 0.1, 0, True),  # it was, for a tenth of the last seconds
        (False, 10, 0.9, 0, True),
        (False, 10, 0.0, 10, True),
        (False, 10, 0.0, 11, True),
    ],
)
def test_a_wait_is_for_the_pool_where_that_is_or_was_full(
    full: bool, limit: int | None, saturated: float, explained: int, is_full: bool
) -> None:
    """Or where all of its connections are explained."""
    parts = [blamed(LEAK, explained)] if explained else []
    picture = picture_of(full=full, limit=limit)
    assert cause._is_full(picture, replace(FIGURES, saturated=saturated), parts) is is_full


@pytest.mark.parametrize(
    ("young_long", "needed_short", "joined"),
    [(0.0, 1.0, 0), (1.0, 3.0, 1), (1.0, 1.0, 2), (1.0, 0.0, 4), (3.0, 1.0, 3)],
)
def test_of_young_leases_as_many_are_long_as_usually_are(young_long: float, needed_short: float, joined: int) -> None:
    """They count with the largest group of long holds; not those whose age is unknown."""
    young = [held(0.25) for _ in range(4)]
    adopted = held(0.25)
    adopted.lease.adopted = True
    few = Explained(LONG_HOLD, (held(),), "few", phase="query")
    long = Explained(LONG_HOLD, (held(2.0), held(2.0)), "long", phase="idle")
    leak = Explained(LEAK, (held(), held(), held()), "leak")
    figures = replace(FIGURES, young_long=young_long, needed_short=needed_short)
    explained, rest = cause._with_young(picture_of(), [few, leak, long], [adopted, *young], figures)
    assert explained[:2] == [few, leak]
    assert explained[2].held == (*long.held, *young[:joined])
    assert (explained[2] is long) is (not joined)
    assert rest == [adopted, *young[joined:]]
    assert cause._with_young(picture_of(), [leak], young, figures) == ([leak], young)


def loaded(figures: Any, explained: Any = (), rest: int = 6, adopted: int = 0, **given: Any) -> list[tuple[str, int]]:
    """What the usual load amounts to: causes with the number of their leases."""
    leases = [held(0.01) for _ in range(rest + adopted)]
    for one in leases[rest:]:
        one.lease.adopted = True
    return [(one.cause, len(one.held)) for one in cause._load(picture_of(**given), figures, list(explained), leases)]


def test_what_was_checked_out_before_is_unknown_where_it_is_the_most() -> None:
    """More than half of what no rule explains; else the others are what the load is."""
    assert loaded(CARRIED, rest=2, adopted=3) == [(UNKNOWN, 5)]
    assert loaded(CARRIED, rest=2, adopted=2) == [(UNKNOWN, 2)]
    (found,) = cause._load(picture_of(), CARRIED, [], [held() for _ in range(3)])
    assert found.summary == ("unknown: the load needs 2.0 of 10 connections on average, and none is held for long")
    adopted = [held() for _ in range(4)]
    for one in adopted[1:]:
        one.lease.adopted = True
    (found,) = cause._load(picture_of(), CARRIED, [], adopted)
    assert found.summary == "unknown: 3 of 10 connections were checked out before poolscope started"


def test_the_usual_load_is_no_cause_beside_what_is_explained() -> None:
    """Where the whole pool carries it; nor where nothing is left that it could be."""
    part = [blamed(LEAK, 4)]
    assert loaded(replace(CARRIED, needed_short=1.0), part) == []
    assert loaded(replace(CARRIED, needed_short=9.0), part, rest=0) == []
    assert loaded(replace(CARRIED, needed_short=9.0), part) == [(POOL_TOO_SMALL, 6)]
    assert loaded(replace(CARRIED, needed_short=1.0), [blamed(LEAK, 1)]) == [(UNKNOWN, 6)]
    burst = replace(FIGURES, needed_short=1.0, rate_now=60.0)
    assert burst.bursting
    assert loaded(burst, part) == [(BURST, 6)]
    assert loaded(burst, part, rest=0) == []


@pytest.mark.parametrize(
    ("needed", "taken", "usual"),
    [
        (FITS * 10, 5, False),  # the whole pool does not carry it
        (6.5, 5, True),
        (FITS * 5, 5, True),  # the half that is left does not
        (3.0, 2, False),  # eight carry it, and what is taken is no large part
        (3.0, 3, True),
        (FITS * 8, 2, True),
        (0.5, 9, True),
        (0.5, 0, False),
    ],
)
def test_a_load_is_the_usual_one_where_the_whole_pool_carries_it(needed: float, taken: int, usual: bool) -> None:
    """And the others have left too little for it, or have three tenths of the pool."""
    assert cause._is_usual(replace(FIGURES, needed_short=needed), 10, taken) is usual


@pytest.mark.parametrize(("needed", "found"), [(6.9, UNKNOWN), (FITS * 10, POOL_TOO_SMALL), (20.0, POOL_TOO_SMALL)])
def test_a_pool_is_too_small_from_seven_tenths_on(needed: float, found: str) -> None:
    """Of what is left of it: of the whole load, or beside what is explained of its short holds alone."""
    assert loaded(replace(CARRIED, rate=needed, rate_now=0.0, mean_hold=1.0)) == [(found, 6)]
    beside = replace(CARRIED, rate=0.0, rate_now=0.0, needed_short=needed)
    assert loaded(beside, [blamed(LEAK, 12)], capacity=100) == [(UNKNOWN, 6)]
    assert loaded(replace(CARRIED, needed_short=7.5), [blamed(LEAK, 12)]) == [(POOL_TOO_SMALL, 6)]


@pytest.mark.parametrize(
    ("known", "quiet", "found"),
    [
        (MOMENT / 2, 5.0, BURST),
        (MOMENT / 2, 9.0, BURST),
        (MOMENT / 2, 4.5, POOL_TOO_SMALL),
        (MOMENT, 9.0, POOL_TOO_SMALL),
    ],
)
def test_a_bunch_at_the_start_is_a_burst(known: float, quiet: float, found: str) -> None:
    """Of which nothing came in half of the wait, and of which it is not known what came before."""
    figures = replace(CARRIED, rate=20.0, known_before=known, mean_hold=2.0)
    waiting = (Like(requested_at=100.0 - quiet),)
    assert loaded(figures, waiting=waiting, waited=10.0) == [(found, 6)]
    assert loaded(figures, waiting=waiting, waited=0.0) == [(POOL_TOO_SMALL, 6)]


def test_a_pool_without_a_queue_refuses_what_comes_at_once() -> None:
    """That is a burst, as is what came at once; else it is not known why a pool that fits is full."""
    assert loaded(CARRIED) == [(UNKNOWN, 6)]
    assert loaded(CARRIED, waiter=Like(outcome=Outcome.REJECTED)) == [(BURST, 6)]
    assert loaded(CARRIED, waiter=Like(outcome=Outcome.TIMEOUT)) == [(UNKNOWN, 6)]
    assert loaded(replace(CARRIED, rate_now=4.0, known_before=0.0)) == [(BURST, 6)]


@pytest.mark.parametrize(
    ("transaction", "idle", "typical", "found"),
    [
        (0.25, 0.25, 0.25, IDLE_IN_TRANSACTION),
        (0.25, 0.25, 0.2, IDLE_IN_TRANSACTION),  # a tenth of a second
        (0.25, 0.25, 0.19, None),
        (0.25, 0.125, 9.0, LONG_HOLD),  # queries are the most of it
        (0.125, 0.5, 0.25, LONG_HOLD),
        (0.0, 0.49, 0.99, None),
        (0.0, 0.49, 1.0, LONG_HOLD),
    ],
)
def test_what_is_held_for_other_work_is_held_too_long(
    transaction: float, idle: float, typical: float, found: str | None
) -> None:
    """Half of the time, and a tenth of a second of a typical hold; or for queries as long as a long hold."""
    figures = replace(
        FIGURES, in_transaction_share=transaction, idle_share=idle, query_share=1.0 - transaction - idle,
        typical_hold=typical,
    )  # fmt: skip
    explained = cause._held_long(picture_of(), figures, ())
    assert (explained.cause if explained is not None else None) == found


def test_the_load_is_put_in_words() -> None:
    """With the figures that it is decided from."""
    figures = replace(
        FIGURES, rate=2.5, rate_now=40.25, rate_before=1.5, mean_hold=1.5, typical_hold=0.045, query_share=0.25,
        in_transaction_share=0.5, idle_share=0.25,
    )  # fmt: skip
    kept = (held(),)
    hold = "held too long: mean 1.5 s, time-weighted mean 45 ms"
    burst = (
        "a burst: 40.2 checkouts per second, after 1.5 before; the pool of 10 is large enough for the average load, "
        "and not for so many at once"
    )
    bunch = (
        "a burst: 2.5 checkouts per second at first, and none in the last 2.2 s; they are too many at once for the "
        "pool of 10, and what it needs on average is not known yet"
    )
    too_small = (
        "too small: 2.5 checkouts per second, each held for 1.5 s, need 3.8 connections on average; the pool has 10 "
        "(needing 70% or more counts as too small)"
    )
    longer_idle = cause._held_idle(replace(figures, idle_share=0.75), kept)
    for made, kind, summary in (
        (cause._burst(figures, kept), BURST, burst),
        (cause._bunch(figures, kept, 2.25), BURST, bunch),
        (cause._too_small(figures, kept), POOL_TOO_SMALL, too_small),
        (cause._held_idle(figures, kept), IDLE_IN_TRANSACTION, f"{hold}, 50% of the time idle in a transaction"),
        (longer_idle, LONG_HOLD, f"{hold}, 75% of the time without a query or a transaction"),
    ):
        assert (made.cause, made.held, made.summary) == (kind, kept, summary)


def test_a_wait_for_a_connect_is_no_share_of_the_pool() -> None:
    """What explains the whole wait is all of it."""
    found = cause._cause(cause._slow_connect(), 0.0, (), FIGURES)
    assert (found.id, found.share, found.shares) == (SLOW_CONNECT, 0.0, ())
    assert found.chain == ("which opens a connection, or validates one",)
    assert found.evidence == FIGURES.evidence()


def test_mixed_causes_have_the_chains_of_the_largest() -> None:
    """Of the three that are named, as far as these have one, and one line for each."""
    parts = [
        Explained(kind, (), kind, chain, count=count)
        for kind, chain, count in (
            (LEAK, ("a", "b"), 2), (LONG_HOLD, (), 3), (IDLE_IN_TRANSACTION, ("c",), 4), (FAN_OUT, ("d",), 1),
        )
    ]  # fmt: skip
    found = cause._mixed(parts, 0.25, ("shares",), FIGURES)
    assert (found.id, found.share, found.shares) == (MIXED, 0.25, ("shares",))
    assert found.summary == f"mixed causes: {IDLE_IN_TRANSACTION}; {LONG_HOLD}; {LEAK}"
    assert found.chain == ("c", "a; b")
    assert found.fix == f"{KINDS[IDLE_IN_TRANSACTION].fix}; {KINDS[LONG_HOLD].fix}"
    assert found.evidence == FIGURES.evidence()


@pytest.mark.parametrize(
    ("votes", "is_tie"),
    [
        ({LEAK: 2}, False),
        ({LEAK: 2, LONG_HOLD: 1}, False),
        ({LEAK: 2, LONG_HOLD: 2}, True),
        ({LEAK: 2, LONG_HOLD: 2, FAN_OUT: 2}, True),
        ({LEAK: 2, BURST: 2}, False),
        ({LEAK: 2, POOL_TOO_SMALL: 2}, False),
        ({LEAK: 2, LONG_HOLD: 1, FAN_OUT: 1}, False),
    ],
)
def test_what_explains_as_much_as_the_load_is_no_tie(votes: dict[str, int], is_tie: bool) -> None:
    """Two other causes of the same number are."""
    assert cause._is_tie(Counter(votes)) is is_tie


def test_shares_are_of_the_pool_and_never_more_than_all_of_it() -> None:
    """The largest first; what explains nothing that is held counts as one."""
    parts = [blamed(LONG_HOLD, 1), blamed(LEAK, 12), blamed(FAN_OUT, 0)]
    found = cause._largest(picture_of(), FIGURES, parts)
    assert found.shares == ("connection_leak 100%", "long_hold 10%", "fan_out 10%")
    assert (found.id, found.share) == (LEAK, 1.0)
    mixed = cause._largest(picture_of(), FIGURES, [blamed(LONG_HOLD, 12), blamed(LEAK, 12)])
    assert (mixed.id, mixed.share) == (MIXED, 1.0)


def test_a_record_is_of_the_last_minute() -> None:
    """A sample of a minute ago is the first; what is older is gone. A young pool began with nothing."""
    for age, first in ((WINDOW - 1.0, [40.0]), (WINDOW, []), (WINDOW + 1.0, [])):
        pool: Any = Like(now=lambda age=age: 40.0 + age, began_at=40.0)
        assert [one.moment for one in Record(pool)._samples] == first
    record = Record(Like(now=lambda: 100.0, began_at=0.0))  # type: ignore[arg-type]
    now = Sample(100.0)
    assert record.span(now) == (now, now)
    for moment in (100.0, 130.0, 160.0):
        record.add(Sample(moment))
    assert [one.moment for one in record._samples] == [100.0, 130.0, 160.0]
    record.add(Sample(160.5))
    assert [one.moment for one in record._samples] == [130.0, 160.0, 160.5]
    for moment, recent in ((160.0, 130.0), (162.5, 130.0), (163.0, 160.0), (163.5, 160.5), (900.0, 160.5)):
        first_one, last_one = record.span(Sample(moment))
        assert (first_one.moment, last_one.moment) == (130.0, recent)
    assert record.span(Sample(131.0))[1].moment == 130.0


def test_what_is_below_a_bound_is_in_the_buckets_that_end_there() -> None:
    """Those that end at it or before; of a pool without holds the share is none."""
    bounds, counts = (1.0, 2.0, 4.0), (1, 2, 4, 8)
    assert load._below(2.0, bounds, counts) == [1, 2, 0, 0]
    assert load._below(1.5, bounds, counts) == [1, 0, 0, 0]
    assert load._below(0.5, bounds, counts) == [0, 0, 0, 0]
    assert load._share_below(2.0, bounds, counts) == pytest.approx(3.5 / (3.5 + 12.0 + 32.0))
    assert load._share_below(2.0, bounds, (0, 0, 0, 0)) == 0.0
