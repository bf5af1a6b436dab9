"""The cause of an exhausted pool, from simulated loads: each cause, and the same load without it."""

from __future__ import annotations

import heapq
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.catalogue.exhaustion import BURST, POOL_EXHAUSTED, POOL_TOO_SMALL, SLOW_CONNECT, UNKNOWN
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.lease import Outcome
from poolscope.detectors.diagnosis.cause import cause_of
from poolscope.detectors.diagnosis.figures import Figures, figures_of
from poolscope.detectors.diagnosis.load import Record, Sample
from poolscope.detectors.diagnosis.lost import is_lost
from poolscope.detectors.diagnosis.picture import Picture
from tests.support.pools import Source
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.core.work import UnitOfWork


@dataclass(order=True)
class Arrival:
    """
    One request of a simulated load.

    Args:
        at: When it asks, in seconds from the beginning.
        query: Seconds in queries.
        in_transaction: Seconds idle in a transaction.
        idle: Seconds idle outside of one, before the first query.
        returns: Whether it gives the connection back.
    """

    at: float
    query: float = field(default=0.0, compare=False)
    in_transaction: float = field(default=0.0, compare=False)
    idle: float = field(default=0.0, compare=False)
    returns: bool = field(default=True, compare=False)


def every(seconds: float, until: float, start: float = 0.0, **kind: Any) -> list[Arrival]:
    """Arrivals at even distances."""
    count = int((until - start) / seconds)
    return [Arrival(start + number * seconds, **kind) for number in range(count)]


class Simulation:
    """
    A pool under a load, event by event, with the watchdog at work; it ends when the pool is first reported exhausted.

    Args:
        limit: The pool's.
        arrivals: The load.
    """

    def __init__(self, limit: int, arrivals: list[Arrival]) -> None:
        self.scene = Scene(limit, leak_threshold=0)
        self._limit = limit
        self._queue: list[tuple[Arrival, Lease, UnitOfWork]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._begin = self.scene.clock.now
        for arrival in arrivals:
            self._later(arrival.at, lambda arrival=arrival: self._arrive(arrival))  # type: ignore[misc]

    def run(self) -> Any:
        """
        Until the pool is exhausted, or the load is over.

        Returns:
            The finding; None when the pool held out.
        """
        clock, next_tick = self.scene.clock, 0.0
        while self._events:
            moment, _, event = heapq.heappop(self._events)
            while next_tick <= moment:
                clock.now = self._begin + next_tick
                if found := self.scene.found(POOL_EXHAUSTED):
                    return found[0]
                next_tick += 0.25
            clock.now = self._begin + moment
            event()
        return next(iter(self.scene.found(POOL_EXHAUSTED)), None)

    def _later(self, moment: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (moment, self._number, event))

    def _now(self) -> float:
        return self.scene.clock.now - self._begin

    def _arrive(self, arrival: Arrival) -> None:
        units = self.scene.pool_registry.units
        unit = units.begin("http", "GET /")
        lease = self.scene.begin_checkout()
        lease.unit, lease.usage = unit, unit.usage_of(self.scene.pool)
        if len(self.scene.pool.leases) < self._limit:
            self._hold(arrival, lease, unit)
        else:
            self._queue.append((arrival, lease, unit))

    def _hold(self, arrival: Arrival, lease: Lease, unit: UnitOfWork) -> None:
        lease.acquired()
        begins = self._now() + arrival.idle
        ends = begins + arrival.query
        self._later(begins, lambda: lease.statement_begins("select 1 from t"))
        self._later(ends, lambda: lease.call_ends(in_transaction=arrival.in_transaction > 0))
        self._later(ends + arrival.in_transaction, lambda: self._end(arrival, lease, unit))

    def _end(self, arrival: Arrival, lease: Lease, unit: UnitOfWork) -> None:
        if arrival.returns:
            lease.released()
        self.scene.pool_registry.units.end(unit)
        if arrival.returns and self._queue:
            self._hold(*self._queue.pop(0))


def cause(limit: int, *loads: list[Arrival]) -> Any:
    """What the first exhaustion report under these loads says."""
    return Simulation(limit, sorted(arrival for load in loads for arrival in load)).run()


BUSY = every(0.05, 40, query=0.2)  # 20 a second, 0.2 s each: four connections


# The causes -----------------------------------------------------------------------------------------------------------


def test_a_leak() -> None:
    """
    The load is constant and would fit; what is checked out grows until nothing is left. The same load
    without the leak holds.
    """
    finding = cause(10, BUSY, every(3, 40, query=0.01, returns=False))
    assert finding.evidence["cause"] == LEAK
    assert finding.evidence["leaked"] >= 3
    assert finding.evidence["arrival_rate"] == pytest.approx(20, rel=0.1)
    assert finding.evidence["connections_needed"] < 7
    assert "were not returned" in finding.summary
    assert cause(10, BUSY, every(3, 40, query=0.01)) is None


def test_a_leak_that_tips_the_pool_over() -> None:
    """Less than a third of the pool is lost, but the whole pool would carry the load and the rest does not."""
    load = every(0.05, 40, query=0.3), [Arrival(20, query=0.3) for _ in range(31)]
    finding = cause(10, *load, every(9, 20, query=0.01, returns=False))
    assert finding.evidence["cause"] == LEAK
    assert finding.evidence["leaked"] < 3
    assert cause(10, *load) is None


def test_a_pool_that_is_too_small() -> None:
    """Short, busy holds, and more of them than fit. Half the load fits."""
    finding = cause(3, BUSY)
    assert finding.evidence["cause"] == POOL_TOO_SMALL
    assert finding.evidence["connections_needed"] == pytest.approx(4, rel=0.3)
    assert finding.evidence["limit"] == 3
    assert finding.evidence["query_share"] == pytest.approx(1, abs=0.05)
    assert "need" in finding.summary
    assert cause(3, every(0.1, 40, query=0.2)) is None


def test_queries_that_take_too_long() -> None:
    """Few asks, each held for seconds by a running query. The same number of quick queries fits."""
    finding = cause(4, every(0.5, 40, query=4.0))
    assert finding.evidence["cause"] == LONG_HOLD
    assert finding.evidence["mean_hold"] > 1
    assert "of the time running queries" in finding.summary
    assert "faster" in finding.fix
    assert cause(4, every(0.5, 40, query=0.4)) is None


def test_other_work_within_a_transaction() -> None:
    """A call to a service before the commit. With the call outside the pool suffices."""
    finding = cause(4, every(0.1, 40, query=0.01, in_transaction=0.6))
    assert finding.evidence["cause"] == IDLE_IN_TRANSACTION
    assert finding.evidence["idle_in_transaction_share"] > 0.9
    assert "idle in a transaction" in finding.summary
    assert cause(4, every(0.1, 40, query=0.01)) is None


def test_other_work_without_a_transaction() -> None:
    """Checked out long before the first query: held too long, and with another fix."""
    finding = cause(4, every(0.1, 40, idle=0.6, query=0.01))
    assert finding.evidence["cause"] == LONG_HOLD
    assert finding.evidence["idle_share"] > 0.9
    assert "without a query or a transaction" in finding.summary
    assert "check out as late" in finding.fix


def test_a_few_long_holds_among_many_short_ones() -> None:
    """The mean is short; a connection that one looks at is in a long hold all the same."""
    finding = cause(5, every(0.02, 40, query=0.002), every(0.5, 40, query=0.01, in_transaction=3.0))
    assert finding.evidence["cause"] == IDLE_IN_TRANSACTION
    assert finding.evidence["mean_hold"] < 0.3
    assert finding.evidence["typical_hold"] > 1


def test_the_applications_own_way_between_statements_is_no_other_work() -> None:
    """Most of a short hold may be idle in a transaction: the interpreter works. More connections are the fix."""
    finding = cause(3, every(0.01, 40, query=0.015, in_transaction=0.02))
    assert finding.evidence["cause"] == POOL_TOO_SMALL
    assert finding.evidence["idle_in_transaction_share"] > 0.5


def test_a_burst() -> None:
    """Five times the usual load for two seconds, which the pool has no room for; before that it had."""
    finding = cause(8, every(0.1, 40, query=0.4), every(0.02, 22, start=20, query=0.4))
    assert finding.evidence["cause"] == BURST
    assert finding.evidence["arrival_rate_now"] > 3 * finding.evidence["arrival_rate_before"]
    assert "checkouts per second, after" in finding.summary
    assert cause(8, every(0.1, 40, query=0.4)) is None


def test_a_load_that_comes_in_bunches() -> None:
    """
    On average it fits by far, at one moment it does not: no more connections are needed, but a
    limit on the bunch.
    """
    finding = cause(4, [Arrival(moment, query=0.4) for moment in (10.0, 20.0, 30.0) for _ in range(40)])
    assert finding.evidence["cause"] == BURST
    assert finding.evidence["connections_needed"] < 3


def test_a_bunch_right_after_the_start() -> None:
    """
    Of one second no average is known: what came at once and has not gone on since is a burst, as it is later. Where the
    same rate goes on, the pool is too small from the first second on.
    """
    finding = cause(4, [Arrival(0.5, query=0.4) for _ in range(40)])
    assert finding.evidence["cause"] == BURST
    assert "none in the last" in finding.summary
    assert "large enough" not in finding.summary
    assert cause(4, every(0.025, 40, query=0.4)).evidence["cause"] == POOL_TOO_SMALL


def test_a_deadlock_of_nested_checkouts() -> None:
    """Every holder checks out another: not a leak, not idleness."""
    scene = Scene(2)
    for _ in range(2):
        with scene.unit("GET /profile"):
            scene.checkout()
            scene.begin_checkout()
    scene.timeout(waited=2)
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == NESTED_CHECKOUT


# What it is decided from ----------------------------------------------------------------------------------------------


def test_a_cause_is_of_the_moment_of_the_timeout() -> None:
    """What was checked out then counts, though it is back when the background thread comes to decide."""
    scene = Scene(2)
    with scene.unit():
        leases = [scene.checkout(), scene.checkout()]
        for lease in leases:
            scene.query(lease)
        scene.clock.advance(10)
        scene.timeout(waited=1)
        for lease in leases:
            lease.released()
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == IDLE_IN_TRANSACTION
    assert finding.evidence["typical_hold"] > 10


def test_leases_that_no_code_can_return_are_lost() -> None:
    """Also outside of any unit of work, in a thread that lives on and does something else; not one in use."""
    scene = Scene(3, leak_threshold=0)
    with ThreadPoolExecutor(1) as executor:
        lost = executor.submit(scene.checkout, "forgets").result(60)
        go_on = threading.Event()

        def works() -> None:
            working.append(scene.checkout("works"))
            started.set()
            go_on.wait(60)

        working: list[Lease] = []
        started = threading.Event()
        thread = threading.Thread(target=works)
        thread.start()
        started.wait(60)
        excused = executor.submit(scene.checkout, "excused").result(60)
        excused.excuse = "listens"
        adopted = scene.pool.adopt(scene.clock())
        scene.clock.advance(6)
        assert [is_lost(one) for one in (lost, working[0], excused, adopted)] == [True, False, False, False]
        lost.running = True
        assert not is_lost(lost)
        lost.running = False
        assert [one.lease for one in Picture.take(scene.pool).held if one.lost] == [lost]
        go_on.set()
        thread.join(60)


def test_an_overdue_lease_counts_as_lost_only_when_no_code_can_return_it() -> None:
    """A long transaction whose holder executes in it is held too long; that is another fix."""
    scene = Scene(2, leak_threshold=30)
    with scene.unit():
        scene.query(scene.checkout())
        scene.query(scene.checkout())
        scene.pass_time(40)
        scene.timeout(waited=1)
    finding = scene.found(POOL_EXHAUSTED)[0]
    assert finding.evidence["leaked"] == 0
    assert finding.evidence["cause"] == IDLE_IN_TRANSACTION


def test_rates_are_those_of_the_last_minute() -> None:
    """What is older is forgotten; a pool that is younger counts from its beginning."""
    scene = Scene(4)
    record = Record(scene.pool)
    for _ in range(200):
        scene.request()
        scene.clock.advance(1)
        record.add(Sample.of(scene.pool))
    figures = figures_of(Picture.take(scene.pool), record)
    assert figures.rate == pytest.approx(1, rel=0.02)
    assert figures.rate_now == pytest.approx(1, rel=0.1)
    scene.clock.advance(200)
    old = Record(scene.pool)
    assert figures_of(Picture.take(scene.pool), old).rate == 0, "nothing is known of an old pool at first"


def test_the_shares_of_a_cause_add_up() -> None:
    """Query, idle in a transaction and idle are all of the time held; what is leaked has no part in it."""
    scene = Scene(4)
    with scene.unit():
        scene.checkout()
    scene.pass_time(3)
    for _ in range(10):
        scene.request(query=0.3, idle=0.1)
    record = Record(scene.pool)
    figures = figures_of(Picture.take(scene.pool), record)
    assert figures.leaked == 1
    assert figures.query_share + figures.in_transaction_share + figures.idle_share == pytest.approx(1)
    assert (figures.query_share, figures.mean_hold) == (pytest.approx(0.75), pytest.approx(0.4))
    assert figures.needed == pytest.approx(figures.rate * 0.4)
    cause = cause_of(Picture.take(scene.pool), record)
    assert cause.evidence["query_share"] == pytest.approx(0.75)


@pytest.mark.parametrize(("limit", "used"), [(10, 0), (10, 9), (None, 3)])
def test_who_waits_at_a_pool_that_is_not_full_waits_for_a_connect(limit: int | None, used: int) -> None:
    """
    The database does not answer. Neither size nor holders are the cause, and the report does not say
    that it is full.
    """
    scene = Scene(limit)
    for _ in range(30):
        scene.request(query=0.02)
        scene.pass_time(0.5)
    with scene.unit("GET /others"):
        _held = [scene.checkout() for _ in range(used)]
        scene.pass_time(1)
    with scene.unit("GET /waits"):
        scene.begin_checkout()
        scene.pass_time(2)
        (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == SLOW_CONNECT
    assert "provides no connection" in finding.summary
    assert "exhausted" not in finding.summary
    assert "database" in finding.fix


@pytest.mark.parametrize("opens", [None, "connects", "has connected", "validates"])
def test_who_waits_beside_idle_connections_waits_for_its_turn_unless_it_opens_one(opens: str | None) -> None:
    """
    Many threads at once: a connection is back in the pool, and none of those who wait has come to take it. That is no
    slow connect; one who had begun to connect before waits for that all the same.
    """
    scene = Scene(15)
    scene.pool.sources = [Source(15, idle=3)]
    for _ in range(30):
        scene.request(query=0.02)
        scene.pass_time(0.5)
    with scene.unit("GET /waits"):
        lease = scene.begin_checkout()
        if opens == "connects":
            lease.connecting = True
        elif opens == "has connected":
            lease.connected(0.5)
        elif opens == "validates":
            lease.handed_over()
        scene.clock.advance(2)
        lease.failed(Outcome.TIMEOUT, "TimeoutError")
        (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == (SLOW_CONNECT if opens else UNKNOWN)
    assert "provides no connection" in finding.summary


def test_a_pool_that_is_full_most_of_the_time_is_the_cause() -> None:
    """Though it has a connection left at the very moment of the report."""
    scene = Scene(1)
    lease = scene.checkout()
    scene.pass_time(5)
    with scene.unit():
        asked = scene.begin_checkout()
        scene.clock.advance(1)
        lease.released()
        asked.failed(Outcome.TIMEOUT, "TimeoutError")
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == LONG_HOLD

    scene = Scene(1)
    busy = scene.checkout()
    scene.pass_time(5)
    busy.released()
    scene.timeout(waited=0.2)
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == LONG_HOLD


def test_a_pool_of_which_nothing_is_known_is_diagnosed_all_the_same() -> None:
    """The first ask of a process may time out: no division by nothing."""
    scene = Scene(0)
    figures = figures_of(Picture.take(scene.pool), Record(scene.pool))
    assert (figures.mean_hold, figures.rate, figures.limit) == (0, 0, 0)
    assert isinstance(figures, Figures)
    assert cause_of(Picture.take(scene.pool), Record(scene.pool)).id == POOL_TOO_SMALL
