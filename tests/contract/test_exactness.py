"""The laws of exactness, on every kind of pool."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.adapters.base import Capability
from poolscope.api import unit_of_work
from tests.contract.drivers.base import DEADLINE, Feature
from tests.contract.subject import Subject, use_time_of
from tests.support.skips import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.drivers.base import Driver
    from tests.support.telemetry import Telemetry


def test_a_lease_is_in_use_from_handover_to_return(subject: Subject) -> None:
    """One lease: one point of wait, one in use while it is checked out, one point of use afterwards."""
    handle = subject.acquire()
    assert subject.check().used(subject.driver.pool) == 1
    assert subject.driver.query(handle) == (1,)
    subject.release(handle)
    assert use_time_of(subject.check_at_rest(), subject.driver.pool).count == 1


def test_many_leases_one_after_another(subject: Subject) -> None:
    """Each of many leases is one point of wait and one of use."""
    for _ in range(20):
        subject.release(subject.acquire())
    subject.check_at_rest()


@pytest.mark.needs(Feature.STATEMENTS)
def test_queries_are_counted_and_timed(subject: Subject) -> None:
    """
    Each statement is one query of the unit of work that checked the connection out, and its time is
    of the phase `query`.
    """
    driver = subject.driver
    require(subject.can(Capability.HOLD_PHASES), f"{driver.adapter} does not see queries", "none: it is in the docs")
    with unit_of_work("law"):
        handle = subject.acquire()
        for _ in range(3):
            driver.query(handle)
        subject.release(handle)
    collected = subject.check_at_rest()
    (point,) = collected.points(semconv.UNIT_QUERIES, driver.pool)
    assert (point.count, point.sum) == (1, 3)
    assert collected.total(semconv.HOLD_PHASE_TIME, driver.pool, HOLD_PHASE="query") > 0


@pytest.mark.needs(Feature.MANY)
def test_several_at_once_in_any_order(subject: Subject) -> None:
    """Returned in another order than taken, every lease ends for itself."""
    first, second = subject.acquire(), subject.acquire()
    subject.check()
    subject.release(first)
    subject.check()
    subject.release(subject.acquire())
    subject.release(second)
    subject.check_at_rest()


@pytest.mark.needs(Feature.LIMIT)
def test_a_pool_timeout_is_one_failed_wait_and_one_timeout(subject: Subject) -> None:
    """A checkout beyond the limit ends in one failed point of wait with the library's error, and in one timeout."""
    held = [subject.acquire(), subject.acquire()]
    with pytest.raises(Exception, match=r"(?i)timeout|timed out|") as caught:
        subject.acquire()
    assert subject.failed == {subject.driver.timeout_error: 1}, caught.value
    collected = subject.check()
    assert collected.total(semconv.SATURATION_TIME, subject.driver.pool) > 0
    for handle in held:
        subject.release(handle)
    subject.check_at_rest()


@pytest.mark.needs(Feature.WAITS)
def test_who_waits_is_pending_until_it_has(telemetry: Telemetry, opened: Callable[..., Driver]) -> None:
    """
    While the pool is full a checkout is pending and holds nothing; a return turns it into a lease whose wait
    lies in the queue.
    """
    subject = Subject(opened(size=1, timeout=DEADLINE), telemetry)
    pool = subject.driver.pool
    holder = subject.acquire()
    checkout = subject.begin()
    wait_until(
        lambda: telemetry.collect().value(semconv.PENDING_REQUESTS, pool) == 1, DEADLINE, "the checkout to be pending"
    )
    began = time.perf_counter()
    collected = subject.check()
    waited = time.perf_counter() - began
    subject.release(holder)
    waiter = subject.finish(checkout)
    collected = subject.check()
    assert collected.value(semconv.PENDING_REQUESTS, pool) == 0
    if subject.can(Capability.WAIT_PHASES):
        assert collected.total(semconv.WAIT_PHASE_TIME, pool, WAIT_PHASE="queue") >= waited
    assert collected.value(semconv.PENDING_PEAK, pool) == 1
    assert collected.value(semconv.USED_PEAK, pool) == 1
    subject.release(waiter)
    subject.check_at_rest()


@pytest.mark.needs(Feature.WAITS, Feature.CANCEL)
def test_a_cancelled_checkout_is_one_failed_wait(telemetry: Telemetry, opened: Callable[..., Driver]) -> None:
    """Cancelled while it waits, a checkout is one failed point of wait, no timeout, and takes no connection with it."""
    subject = Subject(opened(size=1, timeout=DEADLINE), telemetry)
    pool = subject.driver.pool
    holder = subject.acquire()
    checkout = subject.begin()
    wait_until(
        lambda: telemetry.collect().value(semconv.PENDING_REQUESTS, pool) == 1, DEADLINE, "the checkout to be pending"
    )
    checkout.cancel()
    with pytest.raises(asyncio.CancelledError):
        subject.finish(checkout)
    subject.check()
    subject.release(holder)
    subject.release(subject.acquire())
    subject.check_at_rest()


@pytest.mark.needs(Feature.INVALIDATE)
def test_an_invalidated_connection_is_no_longer_in_use(subject: Subject) -> None:
    """A hard invalidation ends the lease at once and closes the connection; closing the handle later ends nothing."""
    handle = subject.acquire()
    subject.invalidate(handle)
    collected = subject.check()
    if subject.can(Capability.CLOSE):
        assert collected.value(semconv.CLOSURES, subject.driver.pool, CLOSE_REASON="invalidated") == 1
    if Feature.REPEATED_RELEASE in subject.driver.features:
        subject.driver.release(handle)
    subject.release(subject.acquire())
    subject.check_at_rest()


@pytest.mark.needs(Feature.REJECTS)
def test_a_checkout_that_is_turned_away_is_one_failed_wait(telemetry: Telemetry, opened: Callable[..., Driver]) -> None:
    """
    Where a checkout beyond the limit is turned away, it is one failed point of wait with the library's error, no
    timeout, and takes nothing with it.
    """
    subject = Subject(opened(size=1), telemetry)
    held = subject.acquire()
    with pytest.raises(Exception, match=r"(?i)exhausted|already checked out|"):
        subject.acquire()
    assert subject.failed == {subject.driver.refusal: 1}
    collected = subject.check()
    assert collected.value(semconv.TIMEOUTS, subject.driver.pool) in (0, None)
    assert collected.value(semconv.FAILED_CHECKOUTS, subject.driver.pool, CHECKOUT_OUTCOME="rejected") == 1
    subject.release(held)
    subject.release(subject.acquire())
    subject.check_at_rest()


@pytest.mark.needs(Feature.SOFT_INVALIDATE)
def test_a_soft_invalidation_ends_nothing(subject: Subject) -> None:
    """A soft invalidation leaves the connection in use; it is replaced at its next use."""
    handle = subject.acquire()
    subject.driver.invalidate(handle, soft=True)
    subject.check()
    subject.release(handle)
    subject.release(subject.acquire())
    collected = subject.check_at_rest()
    if subject.can(Capability.CREATE) and Feature.POOLED in subject.driver.features:
        assert collected.counts(semconv.CREATE_TIME, subject.driver.pool) == {"": 2}


@pytest.mark.needs(Feature.DETACH)
def test_a_detached_connection_is_no_longer_the_pools(subject: Subject) -> None:
    """Detaching ends the lease and counts one closure; closing the connection afterwards changes nothing."""
    handle = subject.acquire()
    subject.gone(handle)
    subject.driver.detach(handle)
    collected = subject.check()
    if subject.can(Capability.CLOSE):
        assert collected.value(semconv.CLOSURES, subject.driver.pool, CLOSE_REASON="detached") == 1
    subject.driver.close_detached(handle)
    subject.check_at_rest()


@pytest.mark.needs(Feature.DISPOSE)
def test_disposing_with_connections_out(subject: Subject) -> None:
    """What was held at `dispose()` stays in use until it comes back; the new pool goes on under the same name."""
    before = subject.acquire()
    subject.driver.dispose()
    subject.check()
    after = subject.acquire()
    subject.check()
    subject.release(before)
    subject.check()
    subject.release(after)
    subject.check_at_rest()
    subject.driver.dispose()
    subject.release(subject.acquire())
    assert {point.attributes[semconv.POOL_NAME] for point in subject.check_at_rest().points(semconv.WAIT_TIME)} == {
        subject.driver.pool
    }


@pytest.mark.needs(Feature.ABANDON)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # where SQLAlchemy 1.4 cannot close it, the driver complains
def test_an_abandoned_connection_ends_with_its_collection(subject: Subject) -> None:
    """A connection that the caller drops ends its lease when it is collected, and the pool works on."""
    subject.abandon(subject.acquire())
    subject.check_at_rest()
    subject.release(subject.acquire())
    subject.check_at_rest()


@pytest.mark.needs(Feature.REPEATED_RELEASE)
def test_giving_back_twice_ends_once(subject: Subject) -> None:
    """A second close of the same handle ends nothing, also when somebody else has the connection by then."""
    handle = subject.acquire()
    subject.release(handle)
    if Feature.MANY in subject.driver.features:
        other = subject.acquire()
        subject.driver.release(handle)
        subject.check()
        subject.release(other)
    else:
        subject.driver.release(handle)
    subject.check_at_rest()


@pytest.mark.needs(Feature.MANY)
def test_threads_at_once(telemetry: Telemetry, opened: Callable[..., Driver], driver: Driver, *, late: bool) -> None:
    """Leases from many threads are all counted: waits and uses match to one."""
    require(driver.threads, f"{driver.label} is for one thread", "none: that is its nature")
    each, threads = 5 if late else 25, 8
    subject = Subject(opened(size=threads if Feature.REJECTS in driver.features else 3, timeout=DEADLINE), telemetry)
    failures: list[BaseException] = []
    if Feature.SHARED in driver.features:  # StaticPool makes its one connection twice if two threads are first at once
        subject.release(subject.acquire())

    def work() -> None:
        try:
            for _ in range(each):
                subject.driver.release(subject.driver.acquire())
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    subject.acquired += each * threads
    subject.returned += each * threads
    collected = subject.check_at_rest()
    if subject.driver.limit is not None:
        assert (collected.value(semconv.USED_PEAK, subject.driver.pool) or 0) <= subject.driver.limit


def test_idle_connections_are_those_that_wait_to_be_used(telemetry: Telemetry, opened: Callable[..., Driver]) -> None:
    """A pool keeps what was returned as idle; what is checked out is not idle."""
    subject = Subject(opened(size=1), telemetry)
    handle = subject.acquire()
    collected = subject.check()
    assert collected.idle(subject.driver.pool) == 0
    subject.release(handle)
    assert subject.check_at_rest().idle(subject.driver.pool) == (Feature.POOLED in subject.driver.features)
