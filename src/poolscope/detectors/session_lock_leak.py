"""
Locks that went back into the pool with their connection: a lock of the whole connection (PostgreSQL's advisory locks,
MySQL's GET_LOCK) that was taken and not released lasts until the connection is closed.

Known from the statements of the lease. Whether a lock that was only tried for was had, they do not say; but who had it
and returned the connection first unlocks on another one, which has no such lock. Nothing is found where the pool or
the application may clear the connection at its return, or may have closed it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.kept import SESSION_LOCK_LEAK
from poolscope.core.sql.fingerprint import shape_of
from poolscope.detectors.detector import Detector, Occurrence, Released, place_of_lease
from poolscope.detectors.diagnosis.describe import finding_about, lines_of, owner_of, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.finding import Evidence, Finding
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.detectors.detector import Context

# Seconds that a pool has for closing what was returned to it.
_TO_CLOSE: Final = 1.0
# Leases that tried for a lock and did not release one: so many are remembered, and for so many seconds.
_MOST_TRIED: Final = 100
_REMEMBERED: Final = 600.0


class SessionLockLeakDetector(Detector[Released, "Lease"]):
    """Observes returns of connections on which a statement took, or released, a lock of the whole connection."""

    kinds = (SESSION_LOCK_LEAK,)
    observes = Released

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._returned: list[Lease] = []
        self._tried: deque[Lease] = deque(maxlen=_MOST_TRIED)

    def observe(self, event: Released) -> None:
        """A lease ended."""
        lease = event.lease
        kept = lease.kept
        if kept is not None and not lease.abandoned and (kept.locks or kept.tries or kept.strange_unlocks):
            self.keep(lease)

    def diagnose(self, seen: Lease) -> Iterator[Occurrence]:
        """Nothing yet: the pool may be about to close the connection."""
        self._returned.append(seen)
        yield from ()

    def look(self, pool: Pool) -> Iterator[Occurrence]:
        """What came back to a pool a moment ago, with a lock."""
        now = pool.now()
        due: list[Lease] = []
        later: list[Lease] = []
        for lease in self._returned:
            is_due = lease.pool is pool and now - _end_of(lease) >= _TO_CLOSE
            (due if is_due else later).append(lease)
        self._returned = later
        if not due or pool.clears_connections():
            return
        for lease in due:
            kept = lease.kept
            if kept is not None and kept.strange_unlocks:
                tried = self._tried_before(lease)
                if tried is not None:
                    yield _occurrence(tried, lease)
            elif kept is not None and pool.closed_at < _end_of(lease):
                if kept.locks:
                    yield _occurrence(lease)
                else:
                    self._tried.append(lease)

    def forget(self) -> None:
        """In a child process after a fork: what was observed is the parent's."""
        super().forget()
        self._returned = []
        self._tried.clear()

    def _tried_before(self, unlocked: Lease) -> Lease | None:
        since = unlocked.requested_at - _REMEMBERED
        for lease in reversed(self._tried):
            if lease.pool is unlocked.pool and since <= _end_of(lease) <= _end_of(unlocked):
                self._tried.remove(lease)
                return lease
        return None


def _end_of(lease: Lease) -> float:
    return lease.ended_at if lease.ended_at is not None else lease.requested_at


def _occurrence(lease: Lease, unlocked: Lease | None = None) -> Occurrence:
    return Occurrence(place_of_lease(SESSION_LOCK_LEAK, lease), lambda repeated: found(lease, unlocked, repeated))


def found(lease: Lease, unlocked: Lease | None, repeated: int) -> Finding:
    """
    Put a lock that was left in words.

    Args:
        lease: The lease that took it.
        unlocked: The later one that released a lock that it cannot have had, where that gave it away.
        repeated: How many more of its place were found since the last report.
    """
    kept = lease.kept
    statement = kept.statement if kept is not None else None
    elsewhere = (
        f"; it was unlocked after another checkout, at {place_of(unlocked.origin)}" if unlocked is not None else ""
    )
    evidence: dict[str, Evidence] = {
        "locks": max(1, kept.locks if kept is not None else 1),
        "owner": owner_of(lease),
        "statement": shape_of(statement, lease.pool.identity.system) if statement else "",
        "checkout_stack": lines_of(lease.origin),
        "unlocked_at": lines_of(unlocked.origin) if unlocked is not None else [],
        "repeated": repeated,
    }
    if lease.backend_process_id is not None:
        evidence["backend_process_id"] = lease.backend_process_id
    return finding_about(
        lease,
        SESSION_LOCK_LEAK,
        f"{owner_of(lease)} returned a connection of pool {lease.pool.identity.name} with a lock that lasts until the "
        f"connection is closed; checked out at {place_of(lease.origin)}{elsewhere}",
        evidence,
    )
