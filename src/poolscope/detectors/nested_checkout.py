"""
Nested checkouts: a unit of work checks out a second connection while it holds one of the same pool.

When every holder waits for a second connection, none is ever returned. The size at which that cannot happen is
HikariCP's: threads x (connections per thread - 1) + 1 (its wiki, "About Pool Sizing").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.catalogue.holds import NESTED_CHECKOUT
from poolscope.core.finding_kind import Severity
from poolscope.detectors.detector import Detector, Nested, Occurrence, mark, place_of_lease
from poolscope.detectors.diagnosis.describe import finding_about, lines_of, owner_of, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease
    from poolscope.detectors.detector import Context


class NestedCheckoutDetector(Detector[Nested, "tuple[Nested, int]"]):
    """
    Observes second checkouts. An observation is the event, and the most workers that used the pool
    at once by then.
    """

    kinds = (NESTED_CHECKOUT,)
    observes = Nested

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        # The busiest moment by pool; the formula counts with that, whenever the finding is reported.
        self._workers: dict[str, int] = {}

    def observe(self, event: Nested) -> None:
        """A second checkout begins. A pool without a limit hands it out in any case: no one waits for another there."""
        lease = event.lease
        if lease.pool.limit is None:
            return
        mark(lease, NESTED_CHECKOUT)
        concerned = lease.pool.leases.copy() | lease.pool.pending.copy()
        workers = len({id(one.unit) if one.unit else id(one.task) if one.task else one.thread for one in concerned})
        name = lease.pool.identity.name
        self._workers[name] = workers = max(workers, self._workers.get(name, 0))
        self.keep((event, workers))

    def diagnose(self, seen: tuple[Nested, int]) -> Iterator[Occurrence]:
        """One nested checkout; critical where the pool is too small to rule out a deadlock."""
        (lease, held), workers = seen
        yield Occurrence(
            place_of_lease(NESTED_CHECKOUT, lease),
            lambda repeated: found(lease, held, workers, repeated),
            critical=may_deadlock(lease, workers),
        )

    def forget(self) -> None:
        """In a child process after a fork: what was observed, and the number of workers, is the parent's."""
        super().forget()
        self._workers = {}


def safe_size(workers: int, connections: int) -> int:
    """
    The smallest pool in which nested checkouts cannot deadlock.

    Args:
        workers: How many threads or tasks use the pool at once.
        connections: The most connections that one of them holds at once.
    """
    return workers * (connections - 1) + 1


def explains(lease: Lease, threshold: float) -> bool:
    """
    Whether a long hold is only the wait for another connection of the same pool: one cause is reported once. Of a pool
    without a limit no nested checkout is reported, and none explains a hold.

    Args:
        lease: A lease that lasted for the threshold of long holds or longer.
        threshold: That threshold, in seconds.
    """
    usage = lease.usage
    if usage is None or not usage.nested or lease.pool.limit is None:
        return False
    return lease.held() - usage.wait_time.read() < threshold


def size_for(lease: Lease, workers: int) -> int:
    """
    The smallest pool in which nested checkouts as deep as this one cannot deadlock.

    Args:
        lease: The second checkout.
        workers: How many threads or tasks use the pool at once.
    """
    return safe_size(max(workers, 1), _depth(lease))


def may_deadlock(lease: Lease, workers: int) -> bool:
    """Whether the pool is smaller than that."""
    return lease.pool.limit is not None and lease.pool.limit < size_for(lease, workers)


def found(lease: Lease, held: Lease, workers: int, repeated: int) -> Finding:
    """
    Put a nested checkout in words.

    Args:
        lease: The second checkout.
        held: The lease that its unit of work held already.
        workers: The most units of work that were seen holding or waiting at once.
        repeated: How many more of its place were found since the last report.
    """
    pool, size = lease.pool, size_for(lease, workers)
    concurrent = "one request at a time needs" if workers <= 1 else f"{workers} concurrent requests need"
    limit = f"; its limit is {pool.limit}"
    return finding_about(
        lease,
        NESTED_CHECKOUT,
        f"{owner_of(lease)} checks out another connection of pool {pool.identity.name} at {place_of(lease.origin)} "
        f"while it holds the one from {place_of(held.origin)}; "
        f"{concurrent} a pool of at least {size} to rule out deadlock{limit}",
        {
            "first_checkout": lines_of(held.origin),
            "second_checkout": lines_of(lease.origin),
            "connections": _depth(lease),
            "workers": workers,
            "safe_size": size,
            "repeated": repeated,
        },
        severity=Severity.CRITICAL if may_deadlock(lease, workers) else None,
    )


def _depth(lease: Lease) -> int:
    return max(2, lease.usage.most_held() if lease.usage is not None else 2)
