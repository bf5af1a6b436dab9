"""Every detector there is; one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.detectors.blocked_event_loop import BlockedEventLoopDetector
from poolscope.detectors.foreign_pool import ForeignPoolDetector
from poolscope.detectors.leak import LeakDetector
from poolscope.detectors.listener_hold import ListenerHoldDetector
from poolscope.detectors.lock_wait import LockWaitDetector
from poolscope.detectors.long_hold import LongHoldDetector
from poolscope.detectors.n_plus_one import NPlusOneDetector
from poolscope.detectors.nested_checkout import NestedCheckoutDetector
from poolscope.detectors.pool_exhausted import PoolExhaustedDetector
from poolscope.detectors.pool_per_request import PoolPerRequestDetector
from poolscope.detectors.session_lock_leak import SessionLockLeakDetector
from poolscope.detectors.stranded_connections import StrandedConnectionsDetector
from poolscope.detectors.too_many_connections import TooManyConnectionsDetector

if TYPE_CHECKING:
    from poolscope.detectors.detector import Context, Detector

#: In the order in which they diagnose: a leak is known before the exhaustion that it leads to.
DETECTORS: Final[tuple[type[Detector[Any, Any]], ...]] = (
    LeakDetector,
    BlockedEventLoopDetector,
    LockWaitDetector,
    ListenerHoldDetector,
    LongHoldDetector,
    NestedCheckoutDetector,
    NPlusOneDetector,
    TooManyConnectionsDetector,
    PoolExhaustedDetector,
    PoolPerRequestDetector,
    StrandedConnectionsDetector,
    SessionLockLeakDetector,
    ForeignPoolDetector,
)


def detectors(context: Context) -> tuple[Detector[Any, Any], ...]:
    """
    One of each.

    Args:
        context: What they are made from.
    """
    return tuple(detector(context) for detector in DETECTORS)
