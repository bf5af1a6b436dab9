"""Counters and peaks, to the point."""

from __future__ import annotations

import pytest

from poolscope.core.counters import Peak, Sum, Tally


def test_a_sum_adds_up_and_starts_anew() -> None:
    """However often it is read meanwhile."""
    total = Sum()
    assert total.read() == 0.0
    for amount, expected in ((1.5, 1.5), (0.25, 1.75), (0.0, 1.75), (2.0, 3.75)):
        total.add(amount)
        assert total.read() == total.read() == expected
    total.add(1.0)
    total.add(1.0)
    assert total.read() == 5.75
    total.reset()
    assert total.read() == 0.0


def test_a_tally_counts_calls_alone() -> None:
    """Reading it is none."""
    tally = Tally()
    assert [tally.read() for _ in range(3)] == [0, 0, 0]
    tally.add()
    assert [tally.read() for _ in range(3)] == [1, 1, 1]
    tally.add()
    tally.add()
    assert tally.read() == 3
    tally.reset()
    assert tally.read() == 0


@pytest.mark.parametrize(("passed", "highest"), [(0.0, 9), (9.5, 9), (10.0, 9), (10.5, 5)])
def test_a_peak_is_of_its_window(passed: float, highest: int) -> None:
    """From when it was put away on; what is seen since and what is now count, too."""
    peak = Peak(10.0)
    assert peak.highest(0) == 0
    peak.seen.update((3, 9))
    assert (peak.highest(0), peak.highest(11)) == (9, 11)
    peak.tick(100.0, 5)
    assert peak.seen == {5}
    peak.tick(100.0 + passed, 5)
    assert peak.highest(2) == highest
    peak.seen.add(12)
    assert peak.highest(2) == 12
    peak.reset()
    assert peak.highest(2) == 2


@pytest.mark.parametrize(("passed", "highest"), [(59.5, 9), (60.0, 9), (60.5, 0)])
def test_a_peak_is_of_the_last_minute(passed: float, highest: int) -> None:
    """Where nothing else is said."""
    peak = Peak()
    peak.seen.add(9)
    peak.tick(100.0, 0)
    peak.tick(100.0 + passed, 0)
    assert peak.highest(0) == highest


def test_a_peak_of_nothing_is_not_kept() -> None:
    """Each set is put away once."""
    peak = Peak(10.0)
    peak.tick(1.0, 0)
    assert list(peak._past) == []
    peak.tick(2.0, 7)
    assert list(peak._past) == [(2.0, {0})]
    peak.tick(12.0, 1)
    assert list(peak._past) == [(2.0, {0}), (12.0, {7})]
    peak.tick(12.5, 1)
    assert list(peak._past) == [(12.0, {7}), (12.5, {1})]
