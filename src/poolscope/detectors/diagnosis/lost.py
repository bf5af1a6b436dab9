"""Leases that no code will return, known as leaks or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.detectors.diagnosis.describe import is_left
from poolscope.detectors.leak import ABANDONED, OVERDUE, OWNER_FINISHED

if TYPE_CHECKING:
    from poolscope.core.execution import Frames
    from poolscope.core.lease import Lease

# A lease that no code is left to return, and that has not been used for so long, is lost, known or not.
_UNUSED: Final = 5.0


def is_lost(lease: Lease, frames: Frames | None = None) -> bool:
    """
    Whether a lease will not be returned: a known leak that no query runs on, or one that has long not been used and
    that no code is left to return.

    Args:
        lease: A lease that is still held.
        frames: The current frame of each thread; looked up when not given.
    """
    if lease.leak in (ABANDONED, OWNER_FINISHED):
        return True
    if lease.running or lease.adopted or lease.listens:
        return False
    unused = lease.pool.now() - lease.last_used >= _UNUSED
    return unused and (lease.leak == OVERDUE or lease.excuse is None) and is_left(lease, frames)
