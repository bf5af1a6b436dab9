"""The pool registry: names of pools, waking, the background round, and what becomes of it in a child process."""

from __future__ import annotations

import logging
import os
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.dormancy import Dormancy
from poolscope.core.guard import guard
from poolscope.core.histogram import KeepingDistribution
from poolscope.core.listener import Listeners, NullListener
from poolscope.core.pool_registry import PoolRegistry
from tests.support.clocks import FakeClock
from tests.support.instructions import interrupt
from tests.support.pools import Source, identity

if TYPE_CHECKING:
    from collections.abc import Collection

    from poolscope.core.lease import Lease

BOUNDS = (0.5, 1.0)


@pytest.fixture
def clock() -> FakeClock:
    """The clock."""
    return FakeClock()


@pytest.fixture
def pool_registry(clock: FakeClock) -> PoolRegistry:
    """An empty pool registry."""
    return PoolRegistry(BOUNDS, now=clock)


def test_a_pool_has_the_name_it_should_have(pool_registry: PoolRegistry) -> None:
    """The first pool of a name has it; the next live ones get numbers."""
    pools = [pool_registry.register(identity("shop"), Source()) for _ in range(3)]
    assert [pool.identity.name for pool in pools] == ["shop", "shop#2", "shop#3"]
    assert list(pool_registry.pools) == ["shop", "shop#2", "shop#3"]


def test_the_name_of_a_dead_pool_is_used_again(pool_registry: PoolRegistry) -> None:
    """An engine made anew again and again continues the series of the one before, and makes no new ones."""
    source = Source()
    first = pool_registry.register(identity("shop"), source)
    source.lives = False
    second = pool_registry.register(identity("shop"), Source(4))
    assert (second, second.limit, list(pool_registry.pools)) == (first, 4, ["shop"])


def test_the_name_of_a_retired_pool_is_used_again(pool_registry: PoolRegistry) -> None:
    """A pool whose place was taken does not keep the name from others."""
    source = Source(4)
    first = pool_registry.register(identity("shop"), source)
    source.retired = True
    assert pool_registry.register(identity("shop"), Source(8)) is first
    assert (first.limit, len(first.sources)) == (8, 2)


def test_a_pool_that_takes_anothers_place_continues_it(pool_registry: PoolRegistry) -> None:
    """After `Engine.dispose()` the new pool goes on under the old name; only its limit counts."""
    before, after = Source(4), Source(6)
    pool = pool_registry.register(identity("shop"), before)
    assert pool_registry.register(identity("other"), after, continues=pool) is pool
    assert (before.retired, after.retired, pool.limit) == (True, False, 6)
    assert pool.sources == [before, after]


def test_names_beyond_the_allowed_number_share_one(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Series are bounded, and it is said once."""
    pool_registry = PoolRegistry(BOUNDS, most_pools=2, now=clock)
    with caplog.at_level(logging.WARNING, "poolscope"):
        pools = [pool_registry.register(identity(f"tenant{number}"), Source(5)) for number in range(5)]
    assert list(pool_registry.pools) == ["tenant0", "tenant1", "overflow"]
    assert pools[2] is pools[3] is pools[4]
    assert (pools[4].limit, pools[4].identity.address) == (15, None)
    assert len(caplog.records) == 1
    assert "POOLSCOPE_MAX_POOLS" in caplog.text


def test_pools_keep_the_kind_of_histogram_of_their_registry(pool_registry: PoolRegistry) -> None:
    """What a pool keeps is decided before the first one is entered."""
    pool_registry.distribution = KeepingDistribution
    pool_registry.long_hold = 7.0
    pool = pool_registry.register(identity(), Source())
    assert isinstance(pool.waits, KeepingDistribution)
    assert pool.long_hold == 7.0


def test_it_is_dormant_until_a_listener_comes(pool_registry: PoolRegistry, clock: FakeClock) -> None:
    """Asked at most once a second; once awake it asks no more, and an error of the question leaves it dormant."""
    answers = [False, RuntimeError("ours"), True]
    asked: list[float] = []

    def has_listeners() -> bool:
        asked.append(clock())
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert pool_registry.still_dormant() is False
    pool_registry.dormant = True
    assert pool_registry.still_dormant() is True
    pool_registry.has_listeners = has_listeners
    assert [pool_registry.still_dormant() for _ in range(5)] == [True] * 5
    clock.advance(1.0)
    assert pool_registry.still_dormant() is True
    clock.advance(1.0)
    assert pool_registry.still_dormant() is True
    clock.advance(1.0)
    assert [pool_registry.still_dormant() for _ in range(3)] == [False] * 3
    assert asked == [1001.0, 1002.0, 1003.0]


def test_an_interrupt_of_the_look_leaves_the_next_one_to_be_made(clock: FakeClock) -> None:
    """Wherever an interrupt comes while a thread looks for listeners, the next look is made a second later."""
    for nth in count(1):
        dormancy = Dormancy(clock)
        dormancy.sleep()
        dormancy.has_listeners = lambda: True
        if not interrupt(nth, dormancy.still_dormant, Dormancy.still_dormant, Dormancy._look):
            break
        clock.advance(1.0)
        assert dormancy.still_dormant() is False, nth
    assert nth > 20


def test_it_turns_its_pools_once_a_second(pool_registry: PoolRegistry, clock: FakeClock) -> None:
    """Peaks are put away at most once a second, however often the background thread comes by."""
    pool = pool_registry.register(identity(), Source())
    pool.used_peak.seen.add(9)
    pool_registry.tick()
    assert pool.used_peak.seen == {9}
    clock.advance(1.0)
    pool_registry.tick()
    assert pool.used_peak.seen == {0}
    assert pool.used_peak.highest(0) == 9


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_in_a_child_everything_starts_anew(pool_registry: PoolRegistry, clock: FakeClock) -> None:
    """Leases are the parent's; the start of all sums is the fork; errors are counted from none."""
    pool = pool_registry.register(identity(), Source())
    pool.checkout().acquired()
    began = pool_registry.began_at
    reading, writing = os.pipe()
    guard.count("tests.ledger")
    child = os.fork()
    if child == 0:
        own = pool_registry.pools["db:5432/shop"]
        fresh = own is pool and not own.leases and pool_registry.began_at > began and not guard.counts()
        os.write(writing, b"fresh" if fresh else b"stale")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"fresh"
    os.close(reading)
    os.close(writing)
    assert pool.used() == 1
    guard.reset()


class Watcher(NullListener):
    """Keeps the names of what it was told."""

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


def test_listeners_are_all_called_in_order(clock: FakeClock) -> None:
    """A fan-out tells each of what happens, and one of leases inside a span; the null observer does nothing with it."""
    one, two = Watcher(), Watcher()
    both: Any = Listeners(one, NullListener(), two, traced=two)
    pool_registry = PoolRegistry(BOUNDS, listener=both, slow_wait=0.0, now=clock)
    pool = pool_registry.register(identity(), Source())
    lease = pool.checkout()
    lease.acquired()
    both.nested(lease, lease)
    lease.released(abandoned=True)
    assert one.told == two.told == ["waited", "nested", "returned"]
    traced = pool.checkout()
    traced.trace = object()
    traced.acquired()
    traced.released()
    assert (one.told[3:], two.told[3:]) == (["waited"], ["waited", "traced"])
