"""A pool under test beside the truth: the test counts what it does, and compares what was exported."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.adapters.base import Capability
from poolscope.core.guard import guard
from poolscope.core.pool_registry import open_pool_registries
from tests.contract.drivers.base import DEADLINE, Feature

if TYPE_CHECKING:
    from tests.contract.drivers.base import Driver, Handle, PendingCheckout
    from tests.support.telemetry import Collected, Telemetry

#: Sums of floats, added up in another order, differ by this at most.
TOLERANCE = 1e-6


def error_name(error: BaseException) -> str:
    """An exception's name as ``error.type`` carries it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class Subject:
    """
    Drives a pool, and counts.

    Args:
        driver: The open pool.
        telemetry: Where its figures arrive.
    """

    def __init__(self, driver: Driver, telemetry: Telemetry) -> None:
        self.driver = driver
        self.telemetry = telemetry
        self.held: set[Handle] = set()
        self.pending: set[PendingCheckout] = set()
        self.acquired = 0
        self.returned = 0
        self.failed: Counter[str] = Counter()
        self._errors_before = sum(guard.counts().values())

    def can(self, *wanted: Capability) -> bool:
        """Whether the adapter measures all of that."""
        return all(one in self.driver.capabilities for one in wanted)

    # What an application does ------------------------------------------------------------

    def acquire(self) -> Handle:
        """Ask and have, or fail; counted either way."""
        try:
            handle = self.driver.acquire()
        except BaseException as error:
            self.failed[error_name(error)] += 1
            raise
        return self._granted(handle)

    def begin(self) -> PendingCheckout:
        """Ask elsewhere; `finish` counts the outcome."""
        checkout = self.driver.begin()
        self.pending.add(checkout)
        return checkout

    def finish(self, checkout: PendingCheckout) -> Handle:
        """Wait for what was begun."""
        self.pending.remove(checkout)
        try:
            handle = checkout.wait()
        except BaseException as error:
            self.failed[error_name(error)] += 1
            raise
        return self._granted(handle)

    def release(self, handle: Handle) -> None:
        """Return the connection."""
        self.gone(handle)
        self.driver.release(handle)

    def invalidate(self, handle: Handle) -> None:
        """Declare broken: the connection is no longer held."""
        self.gone(handle)
        self.driver.invalidate(handle)

    def detach(self, handle: Handle) -> None:
        """Take out of the pool; the caller closes it for himself."""
        self.gone(handle)
        self.driver.detach(handle)
        self.driver.close_detached(handle)

    def abandon(self, handle: Handle) -> None:
        """Drop it."""
        self.gone(handle)
        self.driver.abandon(handle)
        shared = Feature.SHARED in self.driver.features
        expected = min(1, len(self.held)) if shared else len(self.held)
        waiting = bool(self.pending)  # who waits may have it by now

        def ended() -> bool:
            return waiting or self.telemetry.collect().used(self.driver.pool) == expected

        wait_until(ended, DEADLINE, "the abandoned lease to end")

    def gone(self, handle: Handle) -> None:
        """Count the end of a lease."""
        self.held.remove(handle)
        self.returned += 1

    def _granted(self, handle: Handle) -> Handle:
        self.held.add(handle)
        self.acquired += 1
        return handle

    # What must be true ------------------------------------------------------------

    def check_figures(self) -> None:
        """The same laws as `check`, of the figures that metrics are read from: cheap enough for every step."""
        pool = open_pool_registries[-1].pools.get(self.driver.pool)
        if pool is None:
            assert not self.acquired
            return
        shared = Feature.SHARED in self.driver.features
        assert pool.used() == (min(1, len(self.held)) if shared else len(self.held))
        if self.can(Capability.WAIT):
            assert pool.waits.read().count == self.acquired
            assert {kind: waits.read().count for kind, waits in pool.failed_waits.copy().items()} == self.failed
        if self.can(Capability.USE):
            assert pool.holds.read().count == self.returned
        assert sum(guard.counts().values()) == self._errors_before, guard.counts()

    def check(self) -> Collected:
        """The laws that hold at every moment."""
        collected = self.telemetry.collect()
        pool = self.driver.pool
        if not self.acquired and not self.failed:
            return collected
        limit = self.driver.limit
        used = collected.used(pool)
        assert used is not None
        shared = Feature.SHARED in self.driver.features
        assert used == (min(1, len(self.held)) if shared else len(self.held)), f"{used} used, {len(self.held)} held"
        if limit is not None and self.can(Capability.LIMIT):
            assert collected.value(semconv.CONNECTION_MAX, pool) == limit
        self._check_waits(collected)
        self._check_uses(collected)
        assert sum(guard.counts().values()) == self._errors_before, guard.counts()
        return collected

    def check_at_rest(self) -> Collected:
        """The laws that hold when no connection is held and no checkout is pending."""
        assert not self.held
        assert not self.pending
        collected = self.check()
        pool = self.driver.pool
        if self.can(Capability.DRIFT):
            assert collected.value(semconv.DRIFT, pool) in (0, None)
        assert collected.value(semconv.PENDING_REQUESTS, pool) in (0, None)
        assert collected.value(semconv.OLDEST_LEASE_AGE, pool) in (0, None)
        assert sum(collected.counts(semconv.USE_TIME, pool).values()) == self.acquired
        return collected

    def _check_waits(self, collected: Collected) -> None:
        pool = self.driver.pool
        if not self.can(Capability.WAIT):
            return
        expected = Counter(self.failed)
        if self.acquired:
            expected[""] = self.acquired
        assert collected.counts(semconv.WAIT_TIME, pool) == dict(expected)
        failed: Counter[str] = Counter()
        for point in collected.points(semconv.FAILED_CHECKOUTS, pool):
            failed[point.attributes[semconv.ERROR_TYPE]] += point.value
        assert failed == self.failed
        timeouts = self.failed[self.driver.timeout_error]
        if self.can(Capability.TIMEOUT):
            assert collected.value(semconv.TIMEOUTS, pool) == timeouts
        if self.can(Capability.WAIT_PHASES):
            phases = collected.total(semconv.WAIT_PHASE_TIME, pool)
            assert phases == pytest.approx(collected.total(semconv.WAIT_TIME, pool), abs=TOLERANCE)

    def _check_uses(self, collected: Collected) -> None:
        pool = self.driver.pool
        if not self.can(Capability.USE):
            return
        assert sum(collected.counts(semconv.USE_TIME, pool).values()) == self.returned
        if self.can(Capability.HOLD_PHASES):
            phases = collected.total(semconv.HOLD_PHASE_TIME, pool)
            assert phases == pytest.approx(collected.total(semconv.USE_TIME, pool), abs=TOLERANCE)


def use_time_of(collected: Collected, pool: str) -> Any:
    """The one point of use time."""
    (point,) = collected.points(semconv.USE_TIME, pool)
    return point
