"""
Turned away: a pool at its limit refused a checkout at once, where another pool would have let it wait.

psycopg2's and mysql-connector's pools never let a checkout wait; psycopg_pool refuses once its queue (``max_waiting``)
is full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from poolscope.core.catalogue.exhaustion import TURNED_AWAY
from poolscope.core.lease import Outcome
from poolscope.detectors.detector import Detector, Occurrence, Waited, mark
from poolscope.detectors.diagnosis.describe import finding_about, lines_of, owner_of, place_of, thread_names
from poolscope.detectors.diagnosis.holders import LONGEST_REPORT, described, holders_of
from poolscope.detectors.diagnosis.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.finding import Evidence, Finding
    from poolscope.core.lease import Lease
    from poolscope.detectors.detector import Context
    from poolscope.detectors.diagnosis.holders import Holder


@dataclass(frozen=True)
class Refusal:
    """
    A pool at the moment it refused: raw, to be put in words by the background thread.

    Args:
        lease: The checkout that it refused.
        used: How many connections were checked out.
        pending: How many checkouts waited; always 0 at a pool that lets none wait.
        holders: Who held the connections; None where a snapshot was taken within the interval.
    """

    lease: Lease
    used: int
    pending: int
    holders: tuple[Holder, ...] | None


class TurnedAwayDetector(Detector[Waited, Refusal]):
    """Observes refusals. The adapter says what is one: the library's own exception for a pool that is full."""

    kinds = (TURNED_AWAY,)
    observes = Waited

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._context = context
        self._pace = Pace(context.settings.finding_interval, context.now)

    def observe(self, event: Waited) -> None:
        """A checkout failed. The thread that was refused takes the snapshot: at this moment it shows the holders."""
        lease = event.lease
        if lease.outcome is not Outcome.REJECTED or lease.silent:
            return
        mark(lease, TURNED_AWAY)
        pool = lease.pool
        holders = holders_of(pool, lease) if self._pace.allows(pool) else None
        self.keep(Refusal(lease, len(pool.leases), len(pool.pending), holders))

    def diagnose(self, seen: Refusal) -> Iterator[Occurrence]:
        """One refusal; of many at one pool within the interval the first is reported."""
        place = (TURNED_AWAY, seen.lease.pool.identity.name)
        if seen.holders is None:
            yield Occurrence(place, None)
        else:
            yield Occurrence(place, lambda repeated: found(seen, repeated), at_once=True)

    def forget(self) -> None:
        """
        In a child process after a fork: start anew, with a new lock: a thread of the parent may
        have held the old one.
        """
        super().forget()
        self._pace = Pace(self._context.settings.finding_interval, self._context.now)


def found(seen: Refusal, repeated: int) -> Finding:
    """
    Put a refusal in words.

    Args:
        seen: The refusal.
        repeated: How many more were counted since the last report.
    """
    lease, pool = seen.lease, seen.lease.pool
    threads = thread_names()
    limit = f"{seen.used} of {pool.limit} in use" if pool.limit is not None else f"{seen.used} in use"
    summary = (
        f"pool {pool.identity.name} refused {owner_of(lease, threads)} a connection, at {place_of(lease.origin)} "
        f"({limit}, {seen.pending} waiting)"
    )
    holders = described(seen.holders or (), seen.used, threads, LONGEST_REPORT - len(summary))
    evidence: dict[str, Evidence] = {
        "used": seen.used,
        "pending": seen.pending,
        "checkout_stack": lines_of(lease.origin),
        "holders": holders.each,
        "holders_omitted": holders.omitted,
        "repeated": repeated,
    }
    if pool.limit is not None:
        evidence["limit"] = pool.limit
    return finding_about(lease, TURNED_AWAY, summary, evidence, report="\n".join((summary, *holders.report)))
