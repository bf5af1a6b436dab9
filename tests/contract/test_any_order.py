"""Whatever an application does, in whatever order, over threads and tasks: the laws hold after every step."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from examples.lab.processes import wait_until
from poolscope import semconv
from tests.contract.drivers.base import DEADLINE, Feature
from tests.contract.subject import Subject
from tests.support.skips import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres
    from tests.contract.drivers.base import Driver, Handle, PendingCheckout
    from tests.support.telemetry import Telemetry

SIZE = 3
#: The budget: sequences for each kind of pool, and steps of a sequence; 1 to 8 s for each kind.
SEQUENCES = 8
STEPS = 25
#: The same where threads are late on purpose: a step takes a second then.
LATE_SEQUENCES = 3
LATE_STEPS = 12
#: After so many steps all that is exported is compared, and at the end of a sequence; after the others what it is read
#: from. A collection of all metrics takes a hundred times as long.
EXPORTED_EVERY = 6
#: Returned connections that may be returned again.
KEPT = 2
#: The timeout of a checkout that finds the pool full: short, so that it can be waited for.
TIMEOUT = 0.02
#: The timeout of a checkout that is to wait until it is cancelled or served.
PATIENCE = 2 * DEADLINE


def can(*features: Feature) -> Any:
    """A rule for pools that can do all of that."""
    return precondition(lambda machine: all(one in machine.subject.driver.features for one in features))


def something_is_held() -> Any:
    """A rule for when a connection is checked out."""
    return precondition(lambda machine: machine.handles)


def a_checkout_waits() -> Any:
    """A rule for when a checkout is pending."""
    return precondition(lambda machine: machine.checkouts)


class PoolMachine(RuleBasedStateMachine):
    """An application on one pool. The test sets what stands here."""

    kind: type[Driver]
    where: Postgres | None
    telemetry: Telemetry

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="poolscope-any-order-"))
        driver = self.kind()
        driver.start(self.where, self.folder, size=SIZE, timeout=TIMEOUT if self.impatient() else PATIENCE)
        self.subject = Subject(driver, self.telemetry)
        self.steps = 0
        self.handles: list[Handle] = []
        self.checkouts: list[PendingCheckout] = []
        #: What was returned, where the library allows a second return.
        self.returned: list[Handle] = []
        #: What was checked out when the pool was disposed of.
        self.outdated: set[Handle] = set()

    def impatient(self) -> bool:
        """Whether checkouts beyond the limit time out; else they wait, and can be cancelled or served."""
        return Feature.CANCEL not in self.kind.features and Feature.LIMIT in self.kind.features

    def full(self) -> bool:
        """Whether the next ask would wait."""
        return self.taken() >= self.limit()

    def limit(self) -> int:
        """How many may be checked out; psycopg_pool loses the slot of what is dropped."""
        if Feature.MANY not in self.kind.features:
            return 1
        limit = None if Feature.SHARED in self.kind.features else self.subject.driver.limit
        return 4 * SIZE if limit is None else limit

    def taken(self) -> int:
        """How many connections are out of the pool that checkouts go to now."""
        return sum(handle not in self.outdated for handle in self.handles)

    def some(self, data: st.DataObject) -> Handle:
        """One of what is held, which is held no longer."""
        return self.handles.pop(data.draw(st.integers(0, len(self.handles) - 1)))

    def served(self) -> None:
        """What came back, or a slot that became free, went to those who wait."""
        while self.checkouts and not self.full():
            # The library need not serve in order: it may have served another before the checkout reached its queue.
            checkouts = self.checkouts
            done = wait_until(
                lambda waiting=checkouts: [one for one in waiting if one.over()], DEADLINE, "a waiter to be served"
            )
            self.checkouts.remove(done[0])
            self.handles.append(self.subject.finish(done[0]))

    @rule()
    @precondition(lambda machine: not machine.full())
    def acquire(self) -> None:
        self.handles.append(self.subject.acquire())

    @rule(count=st.integers(2, 4), give_back=st.booleans())
    @can(Feature.MANY)
    @precondition(lambda machine: not machine.full() and machine.kind.threads and not machine.kind.stalls)
    def acquire_at_once(self, count: int, give_back: bool) -> None:
        count = min(count, self.limit() - self.taken())
        begun = [self.subject.begin() for _ in range(count)]
        for checkout in begun:
            handle = self.subject.finish(checkout)
            if give_back:
                self.subject.release(handle)
            else:
                self.handles.append(handle)

    @rule()
    @precondition(lambda machine: machine.full() and (machine.impatient() or Feature.REJECTS in machine.kind.features))
    def acquire_until_timeout(self) -> None:
        before = self.subject.failed[self.subject.driver.refusal]
        with contextlib.suppress(Exception):  # each library has its own
            self.subject.acquire()
        assert self.subject.failed[self.subject.driver.refusal] == before + 1, self.subject.failed

    @rule()
    @can(Feature.WAITS)
    @precondition(lambda machine: machine.full() and not machine.impatient() and len(machine.checkouts) < 3)
    def wait(self) -> None:
        before = len(self.checkouts)
        self.checkouts.append(self.subject.begin())
        wait_until(lambda: self.pending() == before + 1, DEADLINE, "the checkout to be pending")

    def pending(self) -> float | None:
        """How many checkouts wait, as exported."""
        return self.telemetry.collect().value(semconv.PENDING_REQUESTS, self.subject.driver.pool)

    @rule(data=st.data())
    @a_checkout_waits()
    @can(Feature.CANCEL)
    def cancel(self, data: st.DataObject) -> None:
        checkout = self.checkouts.pop(data.draw(st.integers(0, len(self.checkouts) - 1)))
        checkout.cancel()
        with pytest.raises(asyncio.CancelledError):
            self.subject.finish(checkout)

    @rule(data=st.data())
    @something_is_held()
    def release(self, data: st.DataObject) -> None:
        handle = self.some(data)
        self.subject.release(handle)
        if Feature.REPEATED_RELEASE in self.kind.features:
            self.returned = [handle, *self.returned[: KEPT - 1]]
        self.served()

    @rule(data=st.data())
    @precondition(lambda machine: machine.returned)
    def release_again(self, data: st.DataObject) -> None:
        self.subject.driver.release(data.draw(st.sampled_from(self.returned)))

    @rule(data=st.data())
    @something_is_held()
    def query(self, data: st.DataObject) -> None:
        handle = self.handles[data.draw(st.integers(0, len(self.handles) - 1))]
        if handle in self.outdated:
            return  # some pools close what is checked out when they are disposed of
        assert self.subject.driver.query(handle) == (1,)

    @rule(data=st.data(), close=st.booleans())
    @something_is_held()
    @can(Feature.INVALIDATE)
    def invalidate(self, data: st.DataObject, close: bool) -> None:
        handle = self.some(data)
        self.subject.invalidate(handle)
        if close:
            self.subject.driver.release(handle)
        self.served()

    @rule(data=st.data())
    @something_is_held()
    @can(Feature.SOFT_INVALIDATE)
    def invalidate_softly(self, data: st.DataObject) -> None:
        self.subject.driver.invalidate(self.handles[data.draw(st.integers(0, len(self.handles) - 1))], soft=True)

    @rule(data=st.data())
    @something_is_held()
    @can(Feature.DETACH)
    def detach(self, data: st.DataObject) -> None:
        self.subject.detach(self.some(data))
        self.served()

    @rule(data=st.data())
    @something_is_held()
    @can(Feature.ABANDON)
    def abandon(self, data: st.DataObject) -> None:
        self.subject.abandon(self.some(data))
        self.served()

    @rule()
    @can(Feature.DISPOSE)
    @precondition(lambda machine: not machine.checkouts)
    def dispose(self) -> None:
        self.subject.driver.dispose()
        self.outdated.update(self.handles)

    @invariant()
    def exact(self) -> None:
        if hasattr(self, "subject"):
            self.subject.check_figures()
            self.steps += 1
            if self.steps % EXPORTED_EVERY == 0:
                self.subject.check()

    def teardown(self) -> None:
        if not hasattr(self, "subject"):
            return
        try:
            while self.checkouts and Feature.CANCEL in self.kind.features:
                checkout = self.checkouts.pop()
                checkout.cancel()
                with pytest.raises(asyncio.CancelledError):
                    self.subject.finish(checkout)
            while self.handles:
                self.subject.release(self.handles.pop())
                self.served()
            collected = self.subject.check_at_rest()
            for metric in (semconv.WAIT_TIME, semconv.USE_TIME):
                assert all(point.sum >= 0 for point in collected.points(metric, self.subject.driver.pool))
        finally:
            self.subject.driver.stop()
            shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def _no_logs() -> Iterator[None]:
    """
    Nothing is logged: pytest keeps the records, and with them the connections that libraries log, which are never
    collected then.
    """
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.stateful
@pytest.mark.usefixtures("_no_logs")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
# The SDK draws ids in a background thread, also while hypothesis draws.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.timeout(300)
def test_in_any_order(driver: Driver, telemetry: Telemetry, request: pytest.FixtureRequest, *, late: bool) -> None:
    """
    After every step of a random sequence `used` is what is held, waits and uses are what was checked out and returned;
    at rest nothing is in use, everything is one point and nothing drifts.
    """
    where = request.getfixturevalue("database") if driver.on_postgres else None
    machine = type("Machine", (PoolMachine,), {"kind": type(driver), "where": where, "telemetry": telemetry})
    budget = settings(
        max_examples=LATE_SEQUENCES if late else SEQUENCES,
        stateful_step_count=LATE_STEPS if late else STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # A shorter example helps who is there to read it; a run in CI would only wait for it.
        phases=[phase for phase in Phase if phase is not Phase.shrink or "CI" not in os.environ],
    )
    require(driver.missing() is None, str(driver.missing()), "make env")
    run_state_machine_as_test(machine, settings=budget)
