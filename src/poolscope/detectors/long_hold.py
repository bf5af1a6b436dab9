"""Long holds: a lease that kept its connection for long, and what it did with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP
from poolscope.core.lease import Lease
from poolscope.core.lock_wait import seconds_locked
from poolscope.detectors import blocked_event_loop, listener_hold, n_plus_one, nested_checkout
from poolscope.detectors.detector import Detector, Occurrence, Released, mark, place_of_lease
from poolscope.detectors.diagnosis.describe import (
    finding_about,
    lines_of,
    owner_of,
    place_of,
    seconds,
    slowest_of,
    statement_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from poolscope.core.finding import Finding
    from poolscope.core.work import UnitOfWork
    from poolscope.detectors.detector import Context

# From this share of the hold on the database was at work; below it something else was.
_MAJORITY: Final = 0.5


class LongHoldDetector(Detector[Released, Lease]):
    """Observes leases as they end. What another finding explains is reported as that one alone."""

    kinds = (LONG_HOLD, IDLE_IN_TRANSACTION)
    observes = Released

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._threshold = context.settings.long_hold_threshold
        self._repetitions = context.settings.n_plus_one_threshold

    def observe(self, event: Released) -> None:
        """A lease ended; leaks are not long holds."""
        lease = event.lease
        if lease.leak is None and not lease.abandoned and self._is_long(lease):
            if blocked_event_loop.explains(lease):
                mark(lease, BLOCKED_EVENT_LOOP)
                return
            mark(lease, kind_of(lease))
            self.keep(lease)

    def diagnose(self, seen: Lease) -> Iterator[Occurrence]:
        """One long hold, unless it is known by now that its event loop was blocked."""
        if blocked_event_loop.explains(seen):
            return
        yield Occurrence(place_of_lease(kind_of(seen), seen), lambda repeated: found(seen, repeated))

    def mark(self, unit: UnitOfWork) -> None:
        """
        Mark a unit of work for the holds that are long already: Django returns a request's connection after the span
        around it has ended.
        """
        for usage in tuple(unit.usages.values()):
            for lease in usage.leases.copy():
                if lease.leak is None and self._is_long(lease):
                    unit.findings.add(BLOCKED_EVENT_LOOP if blocked_event_loop.explains(lease) else kind_of(lease))

    def _is_long(self, lease: Lease) -> bool:
        locked = seconds_locked(lease)
        # A shorter wait for locks is not reported as such.
        explained = locked if locked >= self._threshold else 0.0
        return (
            lease.excuse is None
            and not lease.pool.is_foreign  # whoever shares a socket waits for the other's answers
            and lease.held() - explained >= self._threshold
            and not listener_hold.explains(lease)
            and not nested_checkout.explains(lease, self._threshold)
            and not n_plus_one.explains(lease, self._repetitions, self._threshold)
        )


def phase_of(phases: Mapping[str, float]) -> str:
    """
    What a hold was mostly for, of its seconds by phase: ``query`` when the database worked for half of it or more,
    else whichever kind of idleness was longer.
    """
    if phases["query"] >= _MAJORITY * sum(phases.values()):
        return "query"
    return max(("idle_in_transaction", "idle"), key=lambda phase: phases[phase])


def kind_of(lease: Lease) -> str:
    """Which finding a long hold is: `IDLE_IN_TRANSACTION` when that is what it was mostly for, else `LONG_HOLD`."""
    return IDLE_IN_TRANSACTION if phase_of(_phases_of(lease)) == "idle_in_transaction" else LONG_HOLD


def _phases_of(lease: Lease) -> dict[str, float]:
    # Without the waits for locks, which are reported as such.
    phases = lease.hold_phases()
    phases["query"] = max(0.0, phases["query"] - seconds_locked(lease))
    return phases


def found(lease: Lease, repeated: int) -> Finding:
    """
    Put a long hold in words.

    Args:
        lease: The lease, ended.
        repeated: How many more of its place were found since the last report.
    """
    phases = lease.hold_phases()
    phase, total = phase_of(_phases_of(lease)), sum(phases.values())
    slowest, longest = slowest_of(lease)
    spent = {
        "query": f"{seconds(phases['query'])} of it in queries"
        + (f", up to {seconds(longest)} in one" if longest and lease.queries > 1 else ""),
        "idle_in_transaction": f"{seconds(phases['idle_in_transaction'])} of it idle in a transaction",
        "idle": f"{seconds(phases['idle'])} of it without a query or a transaction",
    }[phase]
    kind = kind_of(lease)
    return finding_about(
        lease,
        kind,
        f"{owner_of(lease)} held a connection of pool {lease.pool.identity.name} for {seconds(total)}, {spent}; "
        f"checked out at {place_of(lease.origin)}",
        {
            "held": total,
            **phases,
            **blocked_event_loop.evidence_of(lease),
            "queries": lease.queries,
            "statement": slowest if phase == "query" else statement_of(lease),
            "checkout_stack": lines_of(lease.origin),
            "repeated": repeated,
        },
        fix=KINDS[kind].fix_for(phase),
    )
