"""That a lease's statement waits for a lock: a fact of the lease, set by whoever observes it, in the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import weakref

    from poolscope.core.lease import Lease
    from poolscope.core.origin import RawStack
    from poolscope.core.sql.locks import Lock

# The wait may go on for so long after it was last seen, in seconds: the background thread looks at intervals.
_UNSEEN: Final = 0.5


@dataclass
class LockWait:
    """
    The last wait of a lease for a lock. Moments are seconds of the pool's clock.

    Args:
        began: When the statement that waits began.
        queried: How long the lease had run queries by then, in seconds.
        seen: When it was last seen to wait.
        wanted: The lock that it waits for; None where only the server knows.
        holder: The lease that holds the lock; None where it is another process's.
        blocker: Who holds the lock, in words.
        executing: What the holder executed when it was last looked at, raw; empty for one of another process.
        is_proven: Whether the server said so; else it is likely, by what both leases ran.
    """

    began: float
    queried: float
    seen: float
    wanted: Lock | None
    holder: weakref.ref[Lease] | None
    blocker: str
    executing: RawStack = ()
    is_proven: bool = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether the lock is held by another process, by the word of the server."""
        return self.is_proven and self.holder is None

    def concerns(self, lease: Lease) -> bool:
        """Whether the lease's statement still waits."""
        return lease.running and lease.last_used == self.began

    def seconds(self, lease: Lease) -> float:
        """How long the lease has waited."""
        if self.concerns(lease):
            return max(0.0, lease.pool.now() - self.began)
        return max(0.0, min(lease.query_time - self.queried, self.seen - self.began + _UNSEEN))


def seconds_locked(lease: Lease) -> float:
    """How long a lease has waited for locks in all, as far as that is known; 0 where it is not."""
    wait = lease.lock_wait
    return lease.locked_before + (wait.seconds(lease) if wait is not None else 0.0)
