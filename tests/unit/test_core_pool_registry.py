"""
The ledger: names of pools, waking, the background round, and what becomes of it in a child process.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.guard import guard
from poolscope.core.histogram import KeepingDistribution
from poolscope.core.listener import NullObserver, Observers
from poolscope.core.pool_registry import Ledger
from tests.support.clocks import FakeClock
from tests.support.pools import Source, identity

if TYPE_CHECKING:
    from collections.abc import Collection

    from poolscope.core.lease import Lease

BOUNDS = (0.5, 1.0)


@pytest.fixture
def clock() -> FakeClock:
    """
    The clock.
    """
    return FakeClock()


@pytest.fixture
def ledger(clock: FakeClock) -> Ledger:
    """
    An empty ledger.
    """
    return Ledger(BOUNDS, now=clock)


def test_a_pool_has_the_name_it_should_have(ledger: Ledger) -> None:
    """
    The first pool of a name has it; the next live ones get numbers.
    """
    pools = [ledger.register(identity("shop"), Source()) for _ in range(3)]
    assert [pool.identity.name for pool in pools] == ["shop", "shop#2", "shop#3"]
    assert list(ledger.pools) == ["shop", "shop#2", "shop#3"]


def test_the_name_of_a_dead_pool_is_used_again(ledger: Ledger) -> None:
    """
    An engine made anew again and again continues the series of the one before, and makes no new ones.
    """
    source = Source()
    first = ledger.register(identity("shop"), source)
    source.lives = False
    second = ledger.register(identity("shop"), Source(4))
    assert (second, second.limit, list(ledger.pools)) == (first, 4, ["shop"])


def test_the_name_of_a_retired_pool_is_used_again(ledger: Ledger) -> None:
    """
    A pool whose place was taken does not keep the name from others.
    """
    source = Source(4)
    first = ledger.register(identity("shop"), source)
    source.retired = True
    assert ledger.register(identity("shop"), Source(8)) is first
    assert (first.limit, len(first.sources)) == (8, 2)


def test_a_pool_that_takes_anothers_place_continues_it(ledger: Ledger) -> None:
    """
    After `Engine.dispose()` the new pool goes on under the old name; only its limit counts.
    """
    before, after = Source(4), Source(6)
    pool = ledger.register(identity("shop"), before)
    assert ledger.register(identity("other"), after, continues=pool) is pool
    assert (before.retired, after.retired, pool.limit) == (True, False, 6)
    assert pool.sources == [before, after]


def test_names_beyond_the_allowed_number_share_one(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """
    Series are bounded, and it is said once.
    """
    ledger = Ledger(BOUNDS, most_pools=2, now=clock)
    with caplog.at_level(logging.WARNING, "poolscope"):
        pools = [ledger.register(identity(f"tenant{number}"), Source(5)) for number in range(5)]
    assert list(ledger.pools) == ["tenant0", "tenant1", "overflow"]
    assert pools[2] is pools[3] is pools[4]
    assert (pools[4].limit, pools[4].identity.address) == (15, None)
    assert len(caplog.records) == 1
    assert "POOLSCOPE_MAX_POOLS" in caplog.text


def test_pools_keep_the_kind_of_histogram_of_their_ledger(ledger: Ledger) -> None:
    """
    What a pool keeps is decided before the first one is entered.
    """
    ledger.distribution = KeepingDistribution
    ledger.long_hold = 7.0
    pool = ledger.register(identity(), Source())
    assert isinstance(pool.waits, KeepingDistribution)
    assert pool.long_hold == 7.0


def test_it_sleeps_until_somebody_listens(ledger: Ledger, clock: FakeClock) -> None:
    """
    Asked at most once a second; once awake it asks no more, and an error of the question leaves it asleep.
    """
    answers = [False, RuntimeError("ours"), True]
    asked: list[float] = []

    def somebody_listens() -> bool:
        asked.append(clock())
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert ledger.still_asleep() is False
    ledger.asleep = True
    assert ledger.still_asleep() is True
    ledger.somebody_listens = somebody_listens
    assert [ledger.still_asleep() for _ in range(5)] == [True] * 5
    clock.advance(1.0)
    assert ledger.still_asleep() is True
    clock.advance(1.0)
    assert ledger.still_asleep() is True
    clock.advance(1.0)
    assert [ledger.still_asleep() for _ in range(3)] == [False] * 3
    assert asked == [1001.0, 1002.0, 1003.0]


def test_it_turns_its_pools_once_a_second(ledger: Ledger, clock: FakeClock) -> None:
    """
    Peaks are put away at most once a second, however often the background thread comes by.
    """
    pool = ledger.register(identity(), Source())
    pool.used_peak.seen.add(9)
    ledger.turn()
    assert pool.used_peak.seen == {9}
    clock.advance(1.0)
    ledger.turn()
    assert pool.used_peak.seen == {0}
    assert pool.used_peak.highest(0) == 9


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_in_a_child_everything_starts_anew(ledger: Ledger, clock: FakeClock) -> None:
    """
    Leases are the parent's; the start of all sums is the fork; errors are counted from none.
    """
    pool = ledger.register(identity(), Source())
    pool.ask().grant()
    began = ledger.began_at
    reading, writing = os.pipe()
    guard.count("tests.ledger")
    child = os.fork()
    if child == 0:
        own = ledger.pools["db:5432/shop"]
        fresh = own is pool and not own.leases and ledger.began_at > began and not guard.counts()
        os.write(writing, b"fresh" if fresh else b"stale")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"fresh"
    os.close(reading)
    os.close(writing)
    assert pool.used() == 1
    guard.reset()


class Watcher(NullObserver):
    """
    Keeps the names of what it was told.
    """

    def __init__(self) -> None:
        self.told: list[str] = []

    def waited(self, lease: Lease, holders: Collection[Lease]) -> None:
        self.told.append("waited")

    def nested(self, lease: Lease, held: Lease) -> None:
        self.told.append("nested")

    def returned(self, lease: Lease) -> None:
        self.told.append("returned")

    def traced(self, lease: Lease) -> None:
        self.told.append("traced")


def test_observers_are_all_told_in_order(clock: FakeClock) -> None:
    """
    A fan-out tells each of what happens, and one of leases inside a span; the null observer does nothing with it.
    """
    one, two = Watcher(), Watcher()
    both: Any = Observers(one, NullObserver(), two, traced=two)
    ledger = Ledger(BOUNDS, observer=both, slow_wait=0.0, now=clock)
    pool = ledger.register(identity(), Source())
    lease = pool.ask()
    lease.grant()
    both.nested(lease, lease)
    lease.end(abandoned=True)
    assert one.told == two.told == ["waited", "nested", "returned"]
    traced = pool.ask()
    traced.trace = object()
    traced.grant()
    traced.end()
    assert (one.told[3:], two.told[3:]) == (["waited"], ["waited", "traced"])
