"""
Nested check-outs: a unit of work asks for a second connection while it holds one of the same pool.

When every connection is held by somebody who waits for a second one, nobody ever returns any. The size at which that
cannot happen is HikariCP's: threads x (connections per thread - 1) + 1 (its wiki, "About Pool Sizing").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.finding import NESTED_CHECKOUT, Finding, Severity
from poolscope.detectors.diagnosis.describe import lines_of, owner_of, place_of, trace_of

if TYPE_CHECKING:
    from poolscope.core.lease import Lease

_CURE = "use the connection or session that is open already, or return it before the next check-out"


def safe_size(workers: int, connections: int) -> int:
    """
    The smallest pool in which nested check-outs cannot deadlock.

    Args:
        workers: How many threads or tasks use the pool at once.
        connections: The most connections that one of them holds at once.
    """
    return workers * (connections - 1) + 1


def explains(lease: Lease) -> bool:
    """
    Whether a long hold is only the wait for another connection of the same pool: one cause is told of once.

    Args:
        lease: A lease that lasted for the threshold of long holds or longer.
    """
    share = lease.share
    if share is None or not share.nested:
        return False
    return lease.held() - share.wait_time.read() < lease.pool.long_hold


def size_for(lease: Lease, workers: int) -> int:
    """
    The smallest pool in which nested check-outs as deep as this one cannot deadlock.

    Args:
        lease: The second ask.
        workers: How many threads or tasks use the pool at once.
    """
    return safe_size(max(workers, 1), _depth(lease))


def may_deadlock(lease: Lease, workers: int) -> bool:
    """
    Whether the pool is smaller than that.
    """
    return lease.pool.limit is not None and lease.pool.limit < size_for(lease, workers)


def found(lease: Lease, held: Lease, workers: int, suppressed: int) -> Finding:
    """
    Tell of a nested check-out.

    Args:
        lease: The second ask.
        held: The lease that its unit of work held already.
        workers: The most units of work that were seen holding or asking at once.
        suppressed: How often the same was found since it was last told of.
    """
    pool = lease.pool
    depth, size = _depth(lease), size_for(lease, workers)
    limit = f"; it has {pool.limit}" if pool.limit is not None else ""
    summary = (
        f"{owner_of(lease)} asks pool {pool.identity.name} for another connection at {place_of(lease.origin)} "
        f"while it holds the one from {place_of(held.origin)}; "
        f"with {workers} at once the pool needs {size} not to deadlock{limit}"
    )
    return Finding(
        NESTED_CHECKOUT,
        Severity.CRITICAL if may_deadlock(lease, workers) else Severity.WARNING,
        summary,
        _CURE,
        pool=pool,
        evidence={
            "first_checkout": lines_of(held.origin),
            "second_checkout": lines_of(lease.origin),
            "connections": depth,
            "workers": workers,
            "safe_size": size,
            "repeated": suppressed,
        },
        unit=lease.unit,
        origin=lease.origin[0] if lease.origin else None,
        trace=trace_of(lease),
    )


def _depth(lease: Lease) -> int:
    return max(2, lease.share.most_held() if lease.share is not None else 2)
