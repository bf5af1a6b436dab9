"""The way of a lease through its pool: outcomes, phases, peaks, saturation; on a clock that stands still."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.histogram import KeepingDistribution
from poolscope.core.lease import Lease, Outcome
from poolscope.core.location import resolve
from poolscope.core.origin import Origins
from poolscope.core.pool import SUPPRESSED, UNRECORDED, Pool
from tests.support.clocks import FakeClock
from tests.support.pools import Source, identity

if TYPE_CHECKING:
    from collections.abc import Collection

BOUNDS = (0.5, 1.0, 10.0)


class Recorder:
    """A listener that keeps what it receives."""

    def __init__(self) -> None:
        self.waits: list[tuple[Lease, set[Lease]]] = []
        self.returns: list[Lease] = []
        self.traces: list[Lease] = []
        self.nestings: list[tuple[Lease, Lease]] = []

    def pool_added(self, pool: Pool) -> None:
        raise NotImplementedError

    def suspected(self, lease: Lease) -> None:
        pass

    def waited(self, lease: Lease, holders: Collection[Lease]) -> None:
        self.waits.append((lease, set(holders)))

    def returned(self, lease: Lease) -> None:
        self.returns.append(lease)

    def traced(self, lease: Lease) -> None:
        self.traces.append(lease)

    def nested(self, lease: Lease, held: Lease) -> None:
        self.nestings.append((lease, held))


@pytest.fixture
def clock() -> FakeClock:
    """The clock."""
    return FakeClock()


@pytest.fixture
def pool(clock: FakeClock) -> Pool:
    """A pool of two connections."""
    return make(clock, limit=2)


def make(clock: FakeClock, limit: int | None = 2, **options: Any) -> Pool:
    """A pool with an observer that keeps everything."""
    made = Pool(identity(), BOUNDS, now=clock, **options)
    made.listener = Recorder()
    made.sources = [Source(limit)]
    made.refresh_limit()
    return made


def held(pool: Pool) -> Lease:
    """A lease that has not ended."""
    lease = pool.checkout()
    lease.handed_over()
    lease.acquired()
    return lease


def test_a_wait_splits_into_queue_connect_and_validation(pool: Pool, clock: FakeClock) -> None:
    """Before the connection is handed over it is queueing, less the time of physical connects; after it, validation."""
    lease = pool.checkout()
    clock.advance(3.0)
    lease.connected(1.0)
    lease.handed_over()
    clock.advance(0.5)
    lease.acquired()
    assert lease.wait_phases() == {"queue": 2.0, "connect": 1.0, "validate": 0.5, "resume": 0.0}
    assert tuple(pool.wait_phase_times().values()) == (2.0, 1.0, 0.5, 0.0)
    totals = pool.waits.read()
    assert (totals.count, totals.total) == (1, 3.5)


def test_a_connect_during_validation_counts_as_connect(pool: Pool, clock: FakeClock) -> None:
    """A pre-ping that fails connects anew after the connection was handed over: that time is no validation."""
    lease = pool.checkout()
    lease.handed_over()
    clock.advance(2.0)
    lease.connected(1.5)
    lease.acquired()
    assert lease.wait_phases() == {"queue": 0.0, "connect": 1.5, "validate": 0.5, "resume": 0.0}


def test_a_failed_validation_puts_the_checkout_back(pool: Pool, clock: FakeClock) -> None:
    """
    A connection that fails its validation is not in use; the checkout goes on, and the time of both
    validations adds up.
    """
    lease = pool.checkout()
    lease.invalid()
    lease.handed_over()
    clock.advance(1.0)
    lease.invalid()
    assert (pool.used(), len(pool.pending)) == (0, 1)
    clock.advance(2.0)
    lease.handed_over()
    clock.advance(0.5)
    lease.acquired()
    assert (pool.used(), len(pool.pending)) == (1, 0)
    assert lease.wait_phases() == {"queue": 2.0, "connect": 0.0, "validate": 1.5, "resume": 0.0}


def test_a_failed_validation_of_the_last_connection_ends_saturation(clock: FakeClock) -> None:
    """While the checkout goes on without a connection the pool is not full."""
    pool = make(clock, limit=1)
    lease = pool.checkout()
    lease.handed_over()
    clock.advance(1.0)
    lease.invalid()
    clock.advance(5.0)
    assert pool.saturation_time() == 1.0


def test_an_acquisition_alone_hands_over_as_well(pool: Pool, clock: FakeClock) -> None:
    """Where a library has no moment between handing over and granting, all the wait is queueing."""
    lease = pool.checkout()
    clock.advance(1.0)
    lease.acquired()
    assert lease.wait_phases() == {"queue": 1.0, "connect": 0.0, "validate": 0.0, "resume": 0.0}
    assert pool.used() == 1


def test_a_hold_splits_into_query_transaction_and_idle(pool: Pool, clock: FakeClock) -> None:
    """Calls to the server, the time between them in a transaction, and the rest add up to the hold."""
    lease = held(pool)
    clock.advance(1.0)
    lease.statement_begins("select 1")
    clock.advance(2.0)
    assert lease.phase == "query"
    lease.call_ends(in_transaction=True)
    clock.advance(4.0)
    assert lease.phase == "idle_in_transaction"
    assert lease.hold_phases() == {"query": 2.0, "idle_in_transaction": 4.0, "idle": 1.0}
    lease.call_begins()
    clock.advance(0.5)
    assert lease.hold_phases() == {"query": 2.5, "idle_in_transaction": 4.0, "idle": 1.0}
    lease.call_ends(in_transaction=False)
    assert lease.phase == "idle"
    clock.advance(8.0)
    lease.released()
    assert lease.hold_phases() == {"query": 2.5, "idle_in_transaction": 4.0, "idle": 9.0}
    assert tuple(pool.hold_phase_times().values()) == (2.5, 4.0, 9.0)
    assert (pool.holds.read().count, pool.holds.read().total) == (1, 15.5)
    assert (lease.queries, lease.statement) == (1, "select 1")


@pytest.mark.parametrize(("in_transaction", "parts"), [(True, (1.0, 2.0, 0.0)), (False, (1.0, 0.0, 2.0))])
def test_a_return_closes_the_phase_that_runs(
    pool: Pool, clock: FakeClock, in_transaction: bool, parts: tuple[float, ...]
) -> None:
    """Returned in a transaction or idle, the last phase counts up to the return."""
    lease = held(pool)
    lease.call_begins()
    clock.advance(1.0)
    lease.call_ends(in_transaction=in_transaction)
    clock.advance(2.0)
    lease.released()
    assert tuple(pool.hold_phase_times().values()) == parts


def test_a_return_during_a_call_counts_it(pool: Pool, clock: FakeClock) -> None:
    """A connection cut off in the middle of a query was querying up to then."""
    lease = held(pool)
    lease.call_begins()
    clock.advance(3.0)
    lease.released()
    assert tuple(pool.hold_phase_times().values()) == (3.0, 0.0, 0.0)


def test_two_calls_at_once_count_no_time_twice(pool: Pool, clock: FakeClock) -> None:
    """Where two tasks share a connection, their calls never add up to more than the hold."""
    lease = held(pool)
    lease.call_begins()
    clock.advance(1.0)
    lease.call_begins()
    clock.advance(1.0)
    lease.call_ends(in_transaction=False)
    lease.call_ends(in_transaction=False)
    lease.released()
    assert sum(pool.hold_phase_times().values()) == pool.holds.read().total == 2.0


def test_phases_before_the_lease_starts_are_nothing(pool: Pool, clock: FakeClock) -> None:
    """A checkout that waits holds nothing; its wait phases run up to now."""
    lease = pool.checkout()
    clock.advance(2.0)
    assert set(lease.hold_phases().values()) == {0.0}
    assert lease.wait_phases() == {"queue": 2.0, "connect": 0.0, "validate": 0.0, "resume": 0.0}
    assert (lease.age(), lease.held()) == (2.0, 0.0)


def test_ages(pool: Pool, clock: FakeClock) -> None:
    """A lease's age runs from its start, and the pool tells the oldest; what is still validated has none."""
    assert pool.oldest_lease_age() == 0.0
    first = held(pool)
    clock.advance(5.0)
    held(pool)
    validating = pool.checkout()
    validating.handed_over()
    clock.advance(1.0)
    assert (first.age(), first.held(), pool.oldest_lease_age()) == (6.0, 6.0, 6.0)
    first.released()
    clock.advance(1.0)
    assert (first.held(), pool.oldest_lease_age()) == (6.0, 2.0)


def test_last_used_is_the_last_call(pool: Pool, clock: FakeClock) -> None:
    """Without a call it is the start, before that the checkout."""
    lease = pool.checkout()
    assert lease.last_used == 1000.0
    clock.advance(1.0)
    lease.acquired()
    assert lease.last_used == 1001.0
    lease.call_begins()
    clock.advance(1.0)
    lease.call_ends(in_transaction=False)
    assert lease.last_used == 1002.0


def test_a_lease_ends_once(pool: Pool) -> None:
    """Of several ends the first counts."""
    lease = held(pool)
    lease.released()
    lease.released()
    assert (pool.used(), pool.holds.read().count) == (0, 1)


def test_of_many_threads_that_end_a_lease_one_does(pool: Pool) -> None:
    """Ends at the same moment, as of a finaliser and a caller, are one point of use."""
    leases = [held(pool) for _ in range(200)]
    barrier = threading.Barrier(4)

    def end_all() -> None:
        barrier.wait()
        for lease in leases:
            lease.released()

    threads = [threading.Thread(target=end_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (pool.used(), pool.holds.read().count) == (0, 200)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_failed_checkout_is_a_wait_by_its_error(pool: Pool, clock: FakeClock, outcome: Outcome) -> None:
    """Every way to fail is one point of wait under the error's name; only a timeout is a timeout."""
    lease = pool.checkout()
    clock.advance(2.0)
    lease.failed(outcome, "some.Error")
    assert {name: waits.read().total for name, waits in pool.failed_waits.items()} == {"some.Error": 2.0}
    assert pool.timeouts.read() == (outcome is Outcome.TIMEOUT)
    assert (pool.used(), len(pool.pending), pool.waits.read().count) == (0, 0, 0)
    assert tuple(pool.wait_phase_times().values()) == (2.0, 0.0, 0.0, 0.0)
    assert pool.listener.waits == [(lease, set())]


def test_a_checkout_that_fails_in_validation_holds_nothing(clock: FakeClock) -> None:
    """
    Handed over and then failed, the connection is not in use, was never leased, and the pool is not
    full any more.
    """
    pool = make(clock, limit=1)
    lease = pool.checkout()
    clock.advance(1.0)
    lease.handed_over()
    clock.advance(2.0)
    lease.released()
    assert lease.ended_at is None
    lease.failed(Outcome.ERROR, "some.Error")
    clock.advance(9.0)
    assert (pool.used(), pool.holds.read().count, pool.saturation_time()) == (0, 0, 2.0)
    assert tuple(pool.wait_phase_times().values()) == (1.0, 0.0, 2.0, 0.0)


def test_too_many_kinds_of_error_share_one_name(pool: Pool) -> None:
    """Error names are bounded; what is beyond goes by the conventions' `_OTHER`, and none is lost."""
    for number in range(100):
        pool.checkout().failed(Outcome.ERROR, f"some.Error{number}")
    assert len(pool.failed_waits) == 33
    assert pool.failed_waits["_OTHER"].read().count == 68


def test_only_slow_and_failed_waits_reach_the_listener(clock: FakeClock) -> None:
    """A wait from the threshold on is reported, with those who held the connections when it began."""
    pool = make(clock, limit=1, slow_wait=1.0)
    holder = held(pool)
    quick = pool.checkout()
    clock.advance(0.5)
    holder.released()
    quick.acquired()
    assert (pool.listener.waits, quick.starved_by) == ([], ())
    slow = pool.checkout()
    assert (slow.pending_at_checkout, slow.used_at_checkout) == (1, 1)
    clock.advance(1.0)
    quick.released()
    slow.acquired()
    assert pool.listener.waits == [(slow, {quick})]
    assert slow.starved_by == ()


def test_returns_that_reach_the_listener(clock: FakeClock) -> None:
    """
    Told are leases of a recorded span, abandoned ones, long ones and those reported as leaked;
    others cost nothing.
    """
    spans: list[Any] = [None]
    pool = make(clock, ambient=lambda: spans[0])
    pool.long_hold = 10.0
    held(pool).released()
    assert pool.listener.returns == []
    dropped = held(pool)
    dropped.released(abandoned=True)
    assert dropped.abandoned
    long = held(pool)
    clock.advance(10.0)
    long.released()
    leaked = held(pool)
    leaked.leak, leaked.noted = "overdue", True
    leaked.released()
    spans[0] = object()
    traced = held(pool)
    traced.released()
    assert pool.listener.returns == [dropped, long, leaked]
    assert pool.listener.traces == [traced]


def test_what_surrounds_a_checkout(clock: FakeClock) -> None:
    """
    A recorded span is kept, one that is sampled out is marked, and where instrumentation is suppressed nothing is
    measured; in use is in use all the same.
    """
    around: list[Any] = [UNRECORDED]
    pool = make(clock, ambient=lambda: around[0], origins=Origins())
    lease = held(pool)
    assert (lease.unrecorded, lease.trace, lease.silent) == (True, None, False)
    lease.released()
    around[0] = SUPPRESSED
    silent = held(pool)
    assert (silent.silent, pool.used(), silent.origin) == (True, 1, ())
    silent.released()
    pool.checkout().failed(Outcome.ERROR, "some.Error")
    assert (pool.used(), pool.waits.read().count, pool.holds.read().count, pool.failed_waits) == (0, 1, 1, {})


def test_a_traced_value_carries_its_span_and_moment(clock: FakeClock) -> None:
    """Exemplars of waits, uses, failures and connects: the span around the lease, and when the value was known."""
    span = object()
    pool = make(clock, ambient=lambda: span)
    lease = pool.checkout()
    pool.created(0.1, lease)
    began = clock()
    clock.advance(0.001)
    lease.acquired()
    clock.advance(0.001)
    lease.released()
    failed = pool.checkout()
    clock.advance(0.001)
    failed.failed(Outcome.ERROR, "some.Error")
    seen = (pool.creates, pool.waits, pool.holds, pool.failed_waits["some.Error"])
    exemplars = [next(iter(each.read().exemplars.values()))[1] for each in seen]
    assert [around for around, _ in exemplars] == [span] * 4
    assert [moment - began for _, moment in exemplars] == pytest.approx([0.0, 0.001, 0.002, 0.003])
    pool.created(0.2)
    assert pool.creates.read().count == 2


def test_saturation_is_the_time_with_all_connections_in_use(pool: Pool, clock: FakeClock) -> None:
    """It runs from the last connection's going out to the first one's coming back, also while it is not read."""
    first = held(pool)
    clock.advance(1.0)
    assert pool.saturation_time() == 0.0
    second = held(pool)
    clock.advance(2.0)
    assert pool.saturation_time() == 2.0
    first.released()
    clock.advance(4.0)
    assert pool.saturation_time() == 2.0
    third = held(pool)
    clock.advance(8.0)
    second.released()
    third.released()
    assert pool.saturation_time() == 10.0


def test_saturation_goes_on_where_more_are_out_than_allowed(clock: FakeClock) -> None:
    """A pool whose limit was lowered is full until it is below the new limit."""
    pool = make(clock, limit=3)
    leases = [held(pool) for _ in range(3)]
    pool.sources = [Source(1)]
    pool.refresh_limit()
    clock.advance(1.0)
    for lease in leases:
        lease.released()
        clock.advance(1.0)
    assert pool.saturation_time() == 3.0


def test_a_pool_that_is_no_longer_full_when_it_is_marked(pool: Pool, clock: FakeClock) -> None:
    """The mark is taken away again by the same hand when a connection was returned in between."""
    pool.filled(clock())
    clock.advance(5.0)
    assert pool.saturation_time() == 0.0


def test_without_a_limit_there_is_no_saturation(clock: FakeClock) -> None:
    """A pool that grows without end is never full."""
    pool = make(clock, limit=None)
    held(pool)
    clock.advance(1.0)
    assert (pool.limit, pool.saturation_time()) == (None, 0.0)


def test_limits_of_several_sources_add_up(pool: Pool) -> None:
    """
    Live sources under one name share a limit; a retired or dead one counts no more, and one without
    a limit unlimits.
    """
    retired, dead = Source(8), Source(16)
    retired.retired = True
    dead.lives = False
    pool.sources = [Source(2), Source(3), retired, dead]
    pool.refresh_limit()
    assert pool.limit == 5
    assert dead not in pool.live_sources()
    pool.sources.append(Source(None))
    pool.refresh_limit()
    assert pool.limit is None
    pool.sources = []
    pool.refresh_limit()
    assert pool.limit is None


def test_peaks(pool: Pool, clock: FakeClock) -> None:
    """
    The most in use and the most waiting are seen though they are over at collection; turning keeps
    them for a minute.
    """
    leases = [held(pool), held(pool)]
    waiting = [pool.checkout() for _ in range(3)]
    for lease in leases:
        lease.released()
    clock.advance(1.0)
    for lease in waiting:
        lease.acquired()
        lease.released()
    pool.tick(clock())
    assert (pool.used_peak.highest(0), pool.pending_peak.highest(0)) == (2, 3)


def test_an_adopted_lease_counts_as_in_use_only(pool: Pool, clock: FakeClock) -> None:
    """
    A connection that was checked out before poolscope came is in use until it comes back; who holds it, and since when,
    is not known.
    """
    lease = pool.adopt(clock())
    assert (pool.used(), pool.waits.read().count) == (1, 0)
    assert (lease.thread_reference(), lease.task) == (None, None)
    lease.released()
    assert (pool.used(), pool.holds.read().count) == (0, 0)


def test_a_shared_connection_is_one_in_use(clock: FakeClock) -> None:
    """However many callers share the only connection of a pool, one is in use."""
    pool = make(clock, limit=1)
    pool.shared = True
    leases = [held(pool) for _ in range(3)]
    assert pool.used() == 1
    for lease in leases:
        lease.released()
    assert (pool.used(), pool.holds.read().count) == (0, 3)


def test_closures_are_counted_by_reason(pool: Pool) -> None:
    """Each reason has a sum of its own."""
    for reason in ("recycled", "overflow", "recycled"):
        pool.closed(reason)
    assert {reason: total.read() for reason, total in pool.closures.items()} == {"recycled": 2, "overflow": 1}


def test_after_a_fork_a_pool_starts_at_nothing(clock: FakeClock) -> None:
    """What was held, pending and measured belongs to the parent; ending an inherited lease counts nothing."""
    pool = make(clock, distribution=KeepingDistribution)
    lease = held(pool)
    pool.checkout()
    held(pool).released()
    pool.timeouts.add(1)
    pool.closed("recycled")
    pool.forget_leases()
    assert pool.inherited == {lease}
    lease.released()
    assert pool.inherited == set()
    counts = (pool.used(), len(pool.pending), pool.waits.read().count, pool.holds.read().count, pool.timeouts.read())
    assert counts == (0, 0, 0, 0, 0)
    assert (pool.closures, pool.used_peak.highest(0), pool.saturation_time()) == ({}, 0, 0.0)
    assert isinstance(pool.waits, KeepingDistribution)


def test_a_checkout_knows_where_it_was_made(clock: FakeClock) -> None:
    """The raw stack starts at the caller of the hook that asks."""
    pool = make(clock, origins=Origins(depth=2))

    def hook() -> Lease:
        return pool.checkout()

    lease = hook()
    assert resolve(lease.origin)[0].function == "test_a_checkout_knows_where_it_was_made"
    assert len(lease.origin) == 2
    assert lease.thread == threading.get_ident()
    assert lease.task is None


def test_the_waiter_is_the_innermost_checkout_of_this_thread_and_task(clock: FakeClock, pool: Pool) -> None:
    """Whoever connects for a checkout learns which: not that of another thread or task, and of two the later."""
    assert pool.waiter() is None
    theirs: list[Lease | None] = []

    def elsewhere() -> None:
        theirs.extend((pool.checkout(), pool.waiter()))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(60)
    assert theirs[0] is theirs[1]
    assert pool.waiter() is None
    first = pool.checkout()
    clock.now += 1
    second = pool.checkout()
    assert pool.waiter() is second
    second.handed_over()
    assert pool.waiter() is first

    async def in_a_task() -> Lease | None:
        assert pool.waiter() is None
        checkout = pool.checkout()
        return checkout if pool.waiter() is checkout else None

    assert asyncio.run(in_a_task()) is not None
    assert pool.waiter() is first


def test_a_checkout_that_fails_with_us_leaves_none_waiting(clock: FakeClock) -> None:
    """Whatever of ours raises in a checkout, the pool does not show a checkout that waits for ever."""

    def broken() -> None:
        raise LookupError

    pool = make(clock, ambient=broken)
    with pytest.raises(LookupError):
        pool.checkout()
    assert pool.pending == set()


def test_a_capture_goes_on_where_the_interpreter_itself_called(clock: FakeClock) -> None:
    """With no frame as far out as the library was called from, the checkout has no origin, but is counted."""
    pool = make(clock, origins=Origins())
    assert pool.checkout(None, 10_000).origin == ()
