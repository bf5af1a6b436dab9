"""
Connections of a pool that are held in order to listen for notifications: they come back only when the listener ends.

Known from the statements of the lease (LISTEN and its end). A lease that listens is neither a leak nor a long hold:
this is its finding.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.kept import LISTENER_HOLD
from poolscope.detectors.detector import Detector, Occurrence, Released, mark, place_of_lease
from poolscope.detectors.diagnosis.describe import (
    current_stack,
    finding_about,
    lines_of,
    owner_of,
    place_of,
    seconds,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.work import UnitOfWork
    from poolscope.detectors.detector import Context

# From this share of a hold on, it was for listening.
_MAJORITY: Final = 0.5


class ListenerHoldDetector(Detector[Released, "Lease"]):
    """Looks at what is checked out for longer than the threshold of leaks; observes what returns after a long hold."""

    kinds = (LISTENER_HOLD,)
    observes = Released

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._long_hold = context.settings.long_hold_threshold
        self._overdue = context.settings.leak_threshold
        self._known: weakref.WeakSet[Lease] = weakref.WeakSet()

    def observe(self, event: Released) -> None:
        """A lease ended that listened."""
        lease = event.lease
        if not lease.abandoned and _listens(lease) and lease.held() >= self._long_hold:
            mark(lease, LISTENER_HOLD)
            self.keep(lease)

    def diagnose(self, seen: Lease) -> Iterator[Occurrence]:
        """One that ended, if it is not known from before."""
        if seen not in self._known:
            yield self._occurrence(seen)

    def look(self, pool: Pool) -> Iterator[Occurrence]:
        """Those that are held."""
        for lease in pool.leases.copy() if self._overdue else ():
            if lease not in self._known and _listens(lease) and lease.held() >= self._overdue:
                self._known.add(lease)
                mark(lease, LISTENER_HOLD)
                yield self._occurrence(lease)

    def mark(self, unit: UnitOfWork) -> None:
        """Mark a unit of work that listens for long already."""
        for usage in tuple(unit.usages.values()):
            if any(_listens(lease) and lease.held() >= self._long_hold for lease in usage.leases.copy()):
                unit.findings.add(LISTENER_HOLD)

    def forget(self) -> None:
        """In a child process after a fork: what was observed and reported is the parent's."""
        super().forget()
        self._known = weakref.WeakSet()

    def _occurrence(self, lease: Lease) -> Occurrence:
        return Occurrence(place_of_lease(LISTENER_HOLD, lease), lambda repeated: found(lease, repeated))


def explains(lease: Lease) -> bool:
    """Whether a lease is as long as it is because it listens, or listened."""
    return lease.kept is not None and lease.listened() >= max(_MAJORITY * lease.held(), 1e-9)


def _listens(lease: Lease) -> bool:
    return explains(lease) and lease.excuse is None and not lease.silent


def found(lease: Lease, repeated: int) -> Finding:
    """
    Put a hold in words.

    Args:
        lease: The lease.
        repeated: How many more of its place were found since the last report.
    """
    is_held = lease.ended_at is None
    how = "has held" if is_held else "held"
    return finding_about(
        lease,
        LISTENER_HOLD,
        f"{owner_of(lease)} {how} a connection of pool {lease.pool.identity.name} for {seconds(lease.held())} in order "
        f"to listen for notifications; checked out at {place_of(lease.origin)}",
        {
            "held": lease.held(),
            "listened": lease.listened(),
            "owner": owner_of(lease),
            "checkout_stack": lines_of(lease.origin),
            "current_location": lines_of(current_stack(lease)) if is_held else [],
            "repeated": repeated,
        },
    )
