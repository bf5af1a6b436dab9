"""The lock-free aggregation: nothing is lost, nothing is counted twice, and each reader has a view of its own."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.counters import Peak, Sum, Tally
from poolscope.core.histogram import Distribution, KeepingDistribution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOUNDS = (1.0, 2.0, 5.0)


@pytest.fixture
def _frequent_switches() -> Iterator[None]:
    """Threads take turns as often as the interpreter allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run the same work in several threads at once."""
    ready = threading.Barrier(count)

    def begin() -> None:
        ready.wait()
        work()

    threads = [threading.Thread(target=begin) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_value_falls_into_the_bucket_whose_bound_includes_it() -> None:
    """Upper bounds are inclusive (data model of OpenTelemetry); what lies beyond the last goes into one bucket more."""
    distribution: Distribution[Any] = Distribution(BOUNDS)
    for value in (0.5, 1.0, 1.5, 2.0, 5.0, 7.0):
        distribution.record(value)
    totals = distribution.read()
    assert totals.counts == [2, 2, 1, 1]
    assert (totals.count, totals.total, totals.least, totals.most) == (6, 17.0, 0.5, 7.0)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_phases_are_summed_beside_the_value(number: int) -> None:
    """
    The phases of each value, however many there are, add up for all readings so far; each reading that starts anew has
    its own.
    """
    names = tuple(f"phase {index}" for index in range(number))
    distribution: Distribution[Any] = Distribution(BOUNDS, names)
    anew = distribution.tap(delta=True)
    distribution.record(6.0, None, *(float(index) for index in range(number)))
    assert distribution.take(anew).phases == {name: float(index) for index, name in enumerate(names)}
    distribution.record(3.0, None, *(index / 2 for index in range(number)))
    assert distribution.take(anew).phases == {name: index / 2 for index, name in enumerate(names)}
    totals = distribution.read()
    assert (totals.total, totals.phases) == (9.0, {name: 1.5 * index for index, name in enumerate(names)})


def test_the_last_traced_value_of_each_bucket_is_its_exemplar() -> None:
    """An exemplar is kept for each bucket, the last one, and only where there is a trace."""
    distribution: Distribution[str] = Distribution(BOUNDS)
    distribution.record(0.1, "first")
    distribution.record(0.2, "second")
    distribution.record(9.0, "slow")
    distribution.record(1.5)
    assert distribution.read().exemplars == {0: (0.2, "second"), 3: (9.0, "slow")}


@pytest.mark.usefixtures("_frequent_switches")
def test_more_phases_than_a_cell_has_are_refused() -> None:
    """Not lost in silence: the error names them."""
    with pytest.raises(ValueError, match="3 phases at the most, not 4: a, b, c, d"):
        Distribution(BOUNDS, ("a", "b", "c", "d"))


def test_many_threads_and_a_reader_lose_nothing() -> None:
    """While eight threads write and another reads all the time, at the end every value is there once, in each tap."""
    distribution: Distribution[Any] = Distribution(BOUNDS, ("query", "idle"))
    tap = distribution.tap(delta=True)
    done = threading.Event()
    taken: list[int] = []
    sums: list[float] = []

    def read() -> None:
        while not done.is_set():
            totals = distribution.take(tap)
            taken.append(totals.count)
            sums.append(totals.total)

    def write() -> None:
        for _ in range(2_000):
            distribution.record(1.0, None, 0.25, 0.75)

    reader = threading.Thread(target=read)
    reader.start()
    in_threads(8, write)
    done.set()
    reader.join()
    last = distribution.take(tap)
    assert sum(taken) + last.count == 16_000
    assert sum(sums) + last.total == 16_000.0
    totals = distribution.read()
    assert (totals.count, totals.phases) == (16_000, {"query": 4_000.0, "idle": 12_000.0})


def test_recording_inside_a_finaliser_that_runs_inside_recording() -> None:
    """A write that the garbage collector interrupts with another write into the same distribution loses neither."""
    distribution: Distribution[Any] = Distribution(BOUNDS)

    class Dropped:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            distribution.record(1.0)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            Dropped()
            distribution.record(1.0)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert distribution.read().count == 400


def test_a_delta_reader_sees_each_value_once() -> None:
    """A delta view starts anew with each reading; it begins with everything recorded before it was made."""
    distribution: Distribution[str] = Distribution(BOUNDS)
    distribution.record(1.0, "early")
    tap = distribution.tap(delta=True)
    distribution.record(2.0)
    assert distribution.take(tap).count == 2
    distribution.record(3.0)
    totals = distribution.take(tap)
    assert (totals.count, totals.total, totals.least, totals.most, totals.exemplars) == (1, 3.0, 3.0, 3.0, {})
    assert distribution.take(tap).count == 0


def test_a_cumulative_reader_sees_everything_and_each_exemplar_once() -> None:
    """A cumulative view goes on growing; its exemplars are those since its last reading."""
    distribution: Distribution[str] = Distribution(BOUNDS)
    tap = distribution.tap(delta=False)
    distribution.record(1.0, "trace")
    assert distribution.take(tap).exemplars == {0: (1.0, "trace")}
    distribution.record(4.0)
    totals = distribution.take(tap)
    assert (totals.count, totals.total, totals.exemplars) == (2, 5.0, {})


def test_readers_do_not_disturb_one_another() -> None:
    """Whatever one view takes, another still gets; what was handed out is never changed afterwards."""
    distribution: Distribution[Any] = Distribution(BOUNDS)
    delta, cumulative = distribution.tap(delta=True), distribution.tap(delta=False)
    distribution.record(1.0)
    first = distribution.take(delta)
    distribution.record(2.0)
    assert distribution.take(cumulative).count == 2
    assert distribution.take(delta).count == 1
    assert first.count == 1


def test_a_view_whose_reader_is_gone_is_forgotten() -> None:
    """A view need not be closed: it goes with its reader, and the others go on."""
    distribution: Distribution[Any] = Distribution(BOUNDS)
    gone, stays = distribution.tap(delta=True), distribution.tap(delta=True)
    forgotten = weakref.ref(gone)
    del gone
    gc.collect()
    distribution.record(1.0)
    assert forgotten() is None
    assert distribution.take(stays).count == 1


def test_reset_starts_at_nothing() -> None:
    """After a reset there are no values and no views."""
    distribution: KeepingDistribution[Any] = KeepingDistribution(BOUNDS)
    tap = distribution.tap(delta=True)
    distribution.record(1.0)
    distribution.reset()
    distribution.record(2.0)
    assert distribution.read().total == 2.0
    assert distribution.take(tap).count == 0
    assert distribution.take_kept() == [(2.0, None)]


def test_kept_values_are_taken_once() -> None:
    """A keeping distribution aggregates as any other, and hands each value out once besides, in order."""
    distribution: KeepingDistribution[str] = KeepingDistribution(BOUNDS)
    distribution.record(1.0)
    distribution.record(2.0, "trace")
    assert distribution.take_kept() == [(1.0, None), (2.0, "trace")]
    assert distribution.take_kept() == []
    assert distribution.read().count == 2


@pytest.mark.parametrize("kind", [Sum, Tally])
@pytest.mark.usefixtures("_frequent_switches")
def test_a_sum_loses_nothing_and_never_falls(kind: type[Sum | Tally]) -> None:
    """What many threads add is all there, however often a reader comes between them; reading changes nothing."""
    total = kind()
    add = total.add if isinstance(total, Tally) else partial(total.add, 1)
    seen: list[float] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(total.read())

    reader = threading.Thread(target=read)
    reader.start()
    in_threads(8, lambda: [add() for _ in range(2_000)] and None)
    done.set()
    reader.join()
    assert [total.read(), total.read()] == [16_000, 16_000]
    assert seen == sorted(seen)
    total.reset()
    assert total.read() == 0


def test_a_peak_is_the_highest_within_the_window() -> None:
    """A number that was seen stays the peak for the window and not longer; every reader gets the same."""
    peak = Peak(window=60.0)
    assert peak.highest(0) == 0
    peak.seen.update({3, 9, 4})
    assert [peak.highest(2), peak.highest(2)] == [9, 9]
    peak.tick(100.0, 2)
    assert peak.highest(2) == 9
    for second in range(101, 160):
        peak.tick(float(second), 2)
    assert peak.highest(2) == 9
    peak.tick(161.0, 2)
    assert peak.highest(2) == 2
    assert peak.highest(5) == 5


def test_a_peak_forgets() -> None:
    """After a reset nothing was seen; turning it over without numbers keeps nothing."""
    peak = Peak()
    peak.seen.add(7)
    peak.tick(1.0, 7)
    peak.reset()
    peak.tick(2.0, 1)
    assert peak.highest(0) == 1


def test_a_value_without_phases_adds_to_none() -> None:
    """Nor does one with some add to the others; in a distribution that keeps values as in any other."""
    for kind in (Distribution, KeepingDistribution):
        distribution: Distribution[Any] = kind(BOUNDS, ("a", "b", "c"))
        distribution.record(1.0)
        assert distribution.read().phases == {"a": 0.0, "b": 0.0, "c": 0.0}
        distribution.record(1.0, None, 0.5)
        distribution.record(1.0, None, 0.5, 0.25)
        assert distribution.read().phases == {"a": 1.0, "b": 0.25, "c": 0.0}
