"""The figures of a pool's load over the last minute, which describe the usual load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolscope.detectors.diagnosis.load import MOMENT

if TYPE_CHECKING:
    from poolscope.core.finding import Evidence
    from poolscope.detectors.diagnosis.load import Record, Sample
    from poolscope.detectors.diagnosis.picture import Picture

#: Below this share of the limit the mean load fits, and what did not fit was a moment.
FITS: Final = 0.7
# A burst is so many times the usual rate of checkouts.
_BURST_FACTOR: Final = 3.0


@dataclass(frozen=True)
class Figures:
    """
    A pool's load. Shares are of the time that connections were held.

    Args:
        limit: The most connections that may be checked out; as many as are, where the pool has no limit.
        used_before: How many were checked out, at the beginning of the minute.
        leaked: How many leases no code will return.
        deadlocked: How many leases are held by whoever waits for another connection of the pool.
        rate: Checkouts per second over the last minute.
        rate_now: The same over the last seconds.
        rate_before: The same before these.
        known_before: For how many seconds before these the load is known.
        mean_hold: The mean of the holds, in seconds.
        typical_hold: The time-weighted mean of the holds: the length of the hold at a random moment.
        saturated: The share of the last seconds in which every allowed connection was in use.
        needed_short: The connections that holds below the threshold of long holds need.
        young_long: How many connections are, on average, in a long hold that has not lasted for the threshold yet.
        query_share: Queries ran.
        in_transaction_share: Nothing ran, within a transaction.
        idle_share: Nothing ran, outside of one.
    """

    limit: int
    used_before: int
    leaked: int
    deadlocked: int
    rate: float
    rate_now: float
    rate_before: float
    known_before: float
    mean_hold: float
    typical_hold: float
    saturated: float
    needed_short: float
    young_long: float
    query_share: float
    in_transaction_share: float
    idle_share: float

    @property
    def needed(self) -> float:
        """The connections that the load needs."""
        return self.rate * self.mean_hold

    @property
    def likely_long(self) -> float:
        """How likely a lease that has not lasted for the threshold of long holds yet is a long hold."""
        young = self.young_long + self.needed_short
        return self.young_long / young if young > 0 else 0.0

    @property
    def bursting(self) -> bool:
        """Whether the load of the last seconds is a multiple of what came before, which the pool could carry."""
        return (
            self.known_before >= MOMENT
            and self.rate_now > 0
            and self.rate_now >= _BURST_FACTOR * self.rate_before
            and self.rate_before * self.mean_hold < FITS * self.limit
            and self.came_at_once
        )

    @property
    def came_at_once(self) -> bool:
        """Whether more checkouts began within the last seconds than the pool has connections."""
        return self.rate_now * MOMENT > self.limit

    def evidence(self) -> dict[str, Evidence]:
        """All of them."""
        return {
            "arrival_rate": round(self.rate, 3),
            "arrival_rate_now": round(self.rate_now, 3),
            "arrival_rate_before": round(self.rate_before, 3),
            "mean_hold": round(self.mean_hold, 6),
            "typical_hold": round(self.typical_hold, 6),
            "connections_needed": round(self.needed, 2),
            "limit": self.limit,
            "used_before": self.used_before,
            "query_share": round(self.query_share, 3),
            "idle_in_transaction_share": round(self.in_transaction_share, 3),
            "idle_share": round(self.idle_share, 3),
            "leaked": self.leaked,
            "deadlocked": self.deadlocked,
        }


def figures_of(picture: Picture, record: Record) -> Figures:
    """
    Combine the last minute and the moment of a picture. Leases that are still held count with what they have done so
    far; leaks do not count as holds.

    Args:
        picture: The pool at the moment.
        record: Its last minute.
    """
    now = picture.totals
    first, recent = record.span(now)
    kept = [held for held in picture.held if held.acquired and not held.lost and not held.lease.adopted]
    held = now.held - first.held + sum(one.seconds for one in kept)
    holds = now.holds - first.holds + len(kept)
    squares = now.squares - first.squares + sum(one.seconds**2 for one in kept)
    querying = now.querying - first.querying + sum(one.phases["query"] for one in kept)
    in_transaction = now.in_transaction - first.in_transaction + sum(one.phases["idle_in_transaction"] for one in kept)
    bound = picture.pool.long_hold
    long = now.long_holds - first.long_holds + sum(one.seconds >= bound for one in kept)
    short = now.short - first.short + sum(one.seconds for one in kept if one.seconds < bound)
    share = 1 / held if held > 0 else 0.0
    span = now.moment - first.moment
    return Figures(
        limit=picture.capacity,
        used_before=first.used,
        leaked=sum(one.lost for one in picture.held) + picture.lost,
        deadlocked=sum(one.nested for one in picture.held),
        rate=_rate(first, now),
        rate_now=_rate(recent, now),
        rate_before=_rate(first, recent),
        known_before=recent.moment - first.moment,
        mean_hold=held / holds if holds else 0.0,
        typical_hold=squares * share,
        saturated=_saturated(recent, now),
        needed_short=short / span if span > 0 else 0.0,
        young_long=long / span * bound if span > 0 else 0.0,
        query_share=querying * share,
        in_transaction_share=in_transaction * share,
        idle_share=max(0.0, held - querying - in_transaction) * share,
    )


def _rate(earlier: Sample, later: Sample) -> float:
    span = later.moment - earlier.moment
    return (later.checkouts - earlier.checkouts) / span if span > 0 else 0.0


def _saturated(earlier: Sample, later: Sample) -> float:
    span = later.moment - earlier.moment
    return (later.saturated - earlier.saturated) / span if span > 0 else 0.0
