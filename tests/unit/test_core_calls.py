"""The calls of one lease to the server, to the point: what of its time is which call's, and what is slow."""

from __future__ import annotations

from typing import Any

import pytest

from poolscope.core.calls import SLOW, Calls
from poolscope.core.sql.repetition import PAUSE
from tests.support.clocks import FakeClock
from tests.support.likeness import Like


def calls(now: float = 0.0) -> tuple[Calls, FakeClock]:
    """What a new lease did: nothing."""
    clock = FakeClock(now)
    made = Calls()
    made.pool = Like(now=clock)  # type: ignore[assignment]
    return made, clock


@pytest.mark.parametrize(("upper", "counted"), [(None, False), ("gone", False), ("idle", False), ("runs", True)])
def test_a_statement_is_counted_above_while_the_lease_there_runs_one(upper: str | None, counted: bool) -> None:
    """Where there is a pool on top, and its lease of the connection."""
    made, _ = calls()
    lease: Any = None if upper == "gone" else Like(running=upper == "runs")
    made.above = None if upper is None else lambda: lease
    assert made.counted_above() is counted


def test_time_is_of_the_call_that_runs_else_of_the_transaction() -> None:
    """Two calls at once have it together; outside of a transaction it is of neither."""
    made, clock = calls(1.0)
    for step, seconds in (("begin", 1.0), ("begin", 2.0), ("end", 4.0), ("begin", 8.0), ("close", 0.0)):
        if step == "begin":
            made.call_begins()
        elif step == "end":
            made.call_ends(in_transaction=True)
        else:
            made._close_phase(clock.now)
        clock.advance(seconds)
    assert (made.query_time, made.idle_in_transaction_time, made.running) == (11.0, 4.0, False)
    made._mark, made.in_transaction = clock.now, True
    clock.advance(16.0)
    made._close_phase(clock.now)
    assert (made.query_time, made.idle_in_transaction_time) == (11.0, 20.0)
    made._mark, made.in_transaction = clock.now, False
    clock.advance(32.0)
    made._close_phase(clock.now)
    assert (made.query_time, made.idle_in_transaction_time) == (11.0, 20.0)


@pytest.mark.parametrize(
    ("seconds", "ends", "slowest"),
    [
        (SLOW / 2, False, None),
        (SLOW, False, None),
        (SLOW * 1.5, False, "second"),
        (9.0, False, "second"),
        (9.0, True, None),
    ],
)
def test_a_call_is_slow_from_a_hundredth_of_a_second_on(seconds: float, ends: bool, slowest: str | None) -> None:
    """The one that took longest is kept with its statement; not what ends a transaction."""
    made, clock = calls()
    made.statement, made.in_transaction = "second", ends
    made.call_begins()
    clock.advance(seconds)
    made.call_ends(in_transaction=False)
    assert (made.slowest, made.slowest_time) == (slowest, seconds if slowest is not None else 0.0)


def test_the_slowest_call_is_the_first_of_those_that_took_longest() -> None:
    """A later one of the same time is none that took longer."""
    made, clock = calls()
    for statement, seconds in (("a", 1.0), ("b", 0.5), ("c", 1.0), ("d", 2.0), ("e", 1.5)):
        made.statement = statement
        made.call_begins()
        clock.now += seconds
        made.call_ends(in_transaction=True)
        assert made.slowest == {"d": "d", "e": "d"}.get(statement, "a")
    assert made.slowest_time == 2.0


@pytest.mark.parametrize(
    ("apart", "busy", "pauses"),
    [
        (PAUSE, 0.0, 1),
        (PAUSE * 2, 0.0, 1),
        (PAUSE / 2, 0.0, 0),
        (PAUSE * 2.5, PAUSE, 1),
        (PAUSE * 2, PAUSE * 1.5, 0),
    ],
)
def test_a_repetition_pauses_while_its_lease_does_nothing(apart: float, busy: float, pauses: int) -> None:
    """From its last run on; the time of other calls does not count."""
    made, clock = calls(8.0)
    made.query_time = 2.0 + busy
    repetition: Any = Like(seconds=3.0, pauses=0, ended_at=8.0, queried=2.0)
    made.repetition = repetition
    clock.advance(apart)
    made.call_begins()
    clock.advance(0.5)
    made.call_ends(in_transaction=False)
    assert (repetition.seconds, repetition.pauses) == (3.5, pauses)
    assert (repetition.ended_at, repetition.queried) == (clock.now, made.query_time)
    assert made.repetition is None


def test_a_repetition_of_another_lease_began_before_this_ones_calls() -> None:
    """All that this lease has done came after it: that was no pause."""
    made, clock = calls(8.0)
    made.query_time = PAUSE * 1.5
    repetition: Any = Like(seconds=0.0, pauses=0, ended_at=8.0, queried=99.0)
    for _ in range(2):
        made.repetition = repetition
        clock.advance(PAUSE * 2)
        made.call_begins()
        made.call_ends(in_transaction=False)
        assert repetition.pauses == (0 if made.query_time == PAUSE * 1.5 and clock.now == 8.0 + PAUSE * 2 else 1)


def test_a_connect_counts_for_its_checkout() -> None:
    """Several do together; from then on the wait has parts."""
    made, _ = calls()
    made.connecting = True
    made.connected(1.5)
    made.connected(0.25)
    assert (made.connecting, made.connect_time, made._split) == (False, 1.75, True)


@pytest.mark.parametrize(("channels", "listens"), [(None, False), (0, False), (1, True), (3, True)])
def test_a_lease_listens_while_it_has_channels(channels: int | None, listens: bool) -> None:
    """However many."""
    made, _ = calls()
    made.kept = Like(channels=channels) if channels is not None else None  # type: ignore[assignment]
    assert made.listens is listens
