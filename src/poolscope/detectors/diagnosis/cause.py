"""
The cause of exhaustion: is it a leak, is the pool too small, are connections held for too long, or was it a burst?

Little's law (L = arrival rate x mean hold) gives the connections that the load needs. A leak grows at constant load,
and no pool is large enough for it. Where each holder waits for a second connection, nothing moves. Long holds fill a
pool with few requests; a pool that is too small is full of short, busy holds; in a burst the load of the last seconds
is a multiple of what came before, and before that the pool was large enough. A pool that has connections left is none
of these: a waiter waits there for a connection to be made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import BURST, POOL_TOO_SMALL, SLOW_CONNECT
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.detectors.diagnosis.describe import seconds
from poolscope.detectors.diagnosis.load import Sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poolscope.core.finding import Evidence
    from poolscope.core.pool import Pool
    from poolscope.detectors.diagnosis.load import CheckedOut, Record

# A burst is so many times the usual rate of checkouts.
_BURST_FACTOR: Final = 3.0
# From this share of the time or of the connections on, it is the cause.
_MAJORITY: Final = 0.5
# A leak that holds this share of the limit is the cause, whatever else is slow.
_LEAKED_SHARE: Final = 0.3
# Idleness of so many seconds within a typical hold is other work (a call to a service, a sleep), not the application's
# own way from one statement to the next.
_OTHER_WORK: Final = 0.1
# A pool that was full for less than this share of the last seconds was not what the waiter waited for.
_HARDLY: Final = 0.1
# Below this share of the limit the mean load fits, and what did not fit was a moment.
_FITS: Final = 0.7


@dataclass(frozen=True)
class Cause:
    """
    Why a pool is exhausted.

    Args:
        id: A finding's id.
        summary: It in words, with its figures.
        fix: What to change.
        evidence: The figures it was decided from.
    """

    id: str
    summary: str
    fix: str
    evidence: Mapping[str, Evidence] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """
    What the cause is decided from. Shares are of the time that connections were held.

    Args:
        limit: The most connections that may be checked out; as many as are, where the pool has no limit.
        used: How many are checked out.
        used_before: How many were, at the beginning of the minute.
        leaked: How many of them will not be returned.
        deadlocked: How many of them are held by a unit of work that waits for another one.
        rate: Checkouts per second over the last minute.
        rate_now: The same over the last seconds.
        rate_before: The same before these.
        mean_hold: The mean of the holds, in seconds.
        typical_hold: The time-weighted mean of the holds: the length of the hold at a random moment.
        query_share: Queries ran.
        in_transaction_share: Nothing ran, within a transaction.
        idle_share: Nothing ran, outside of one.
        full: Whether the waiter waited for the pool, and not for a connection to be made.
    """

    limit: int
    used: int
    used_before: int
    leaked: int
    deadlocked: int
    rate: float
    rate_now: float
    rate_before: float
    mean_hold: float
    typical_hold: float
    query_share: float
    in_transaction_share: float
    idle_share: float
    full: bool

    @property
    def needed(self) -> float:
        """The connections that the load needs."""
        return self.rate * self.mean_hold

    @property
    def capacity(self) -> int:
        """The connections that leaks have left over."""
        return max(0, self.limit - self.leaked)

    @property
    def tipped_by_leaks(self) -> bool:
        """Whether the whole pool would carry the load, and what leaks have left over does not."""
        return _FITS * self.capacity <= self.needed < _FITS * self.limit

    @property
    def bursting(self) -> bool:
        """Whether the load of the last seconds is a multiple of what came before, which the pool could carry."""
        return (
            self.rate_now >= _BURST_FACTOR * self.rate_before > 0
            and self.rate_before * self.mean_hold < _FITS * self.capacity
        )

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


def cause_of(pool: Pool, record: Record, out: CheckedOut, long_hold: float) -> Cause:
    """
    Decide why a pool is exhausted, from what the process saw.

    Args:
        pool: The pool.
        record: Its last minute.
        out: What was checked out when a checkout timed out, or waited for too long.
        long_hold: The threshold of long holds, in seconds.
    """
    figures = figures_of(pool, record, out)
    kind, summary, case = _decide(figures, long_hold) if figures.full else _slow_connect()
    return Cause(kind, summary, KINDS[kind].fix_for(case), figures.evidence())


def figures_of(pool: Pool, record: Record, out: CheckedOut) -> Figures:
    """
    Combine the last minute and this moment. Leases that are still held count with what they have done so far; leaks do
    not count as holds.
    """
    now = Sample.of(pool)
    first, recent = record.span(now)
    held = now.held - first.held + out.held
    holds = now.holds - first.holds + out.holds
    querying = now.querying - first.querying + out.querying
    in_transaction = now.in_transaction - first.in_transaction + out.in_transaction
    share = 1 / held if held > 0 else 0.0
    used = out.holds + out.leaked
    return Figures(
        limit=pool.limit if pool.limit is not None else used,
        used=used,
        used_before=first.used,
        leaked=out.leaked,
        deadlocked=out.deadlocked,
        rate=_rate(first, now),
        rate_now=_rate(recent, now),
        rate_before=_rate(first, recent),
        mean_hold=held / holds if holds else 0.0,
        typical_hold=(now.squares - first.squares + out.squares) * share,
        query_share=querying * share,
        in_transaction_share=in_transaction * share,
        idle_share=max(0.0, held - querying - in_transaction) * share,
        full=out.full or (pool.limit is not None and _saturated(recent, now) >= _HARDLY),
    )


def _rate(earlier: Sample, later: Sample) -> float:
    span = later.moment - earlier.moment
    return (later.checkouts - earlier.checkouts) / span if span > 0 else 0.0


def _saturated(earlier: Sample, later: Sample) -> float:
    span = later.moment - earlier.moment
    return (later.saturated - earlier.saturated) / span if span > 0 else 0.0


def _decide(figures: Figures, long_hold: float) -> tuple[str, str, str]:
    # A finding's id, the cause in words, and the case of which it is where one id has several fixes.
    if figures.used and figures.deadlocked >= _MAJORITY * figures.used:
        return _deadlock(figures)
    if figures.leaked and (figures.leaked >= _LEAKED_SHARE * figures.limit or figures.tipped_by_leaks):
        return _leak(figures)
    other = figures.in_transaction_share + figures.idle_share
    if other >= _MAJORITY and other * figures.typical_hold >= _OTHER_WORK:
        return _held_idle(figures)
    if figures.query_share >= _MAJORITY and figures.typical_hold >= long_hold:
        share = f"{figures.query_share:.0%} of the time running queries"
        return LONG_HOLD, f"held too long: {_hold(figures)}, {share}", ""
    if figures.bursting or figures.needed < _FITS * figures.capacity:
        return _burst(figures)
    return _too_small(figures)


def _slow_connect() -> tuple[str, str, str]:
    summary = "slow to connect: the pool may open more connections, and the wait is for one to be opened or validated"
    return SLOW_CONNECT, summary, ""


def _deadlock(figures: Figures) -> tuple[str, str, str]:
    share = f"{figures.deadlocked} of {figures.used} connections"
    return NESTED_CHECKOUT, f"a deadlock: {share} are held by requests that wait for another one", ""


def _leak(figures: Figures) -> tuple[str, str, str]:
    share = f"{figures.leaked} of {figures.limit} connections"
    return LEAK, f"a leak: {share} were not returned, although the code that checked them out has finished", ""


def _held_idle(figures: Figures) -> tuple[str, str, str]:
    if figures.in_transaction_share >= figures.idle_share:
        share = f"{figures.in_transaction_share:.0%} of the time idle in a transaction"
        return IDLE_IN_TRANSACTION, f"held too long: {_hold(figures)}, {share}", ""
    share = f"{figures.idle_share:.0%} of the time without a query or a transaction"
    return LONG_HOLD, f"held too long: {_hold(figures)}, {share}", "idle"


def _burst(figures: Figures) -> tuple[str, str, str]:
    summary = (
        f"a burst: {figures.rate_now:.1f} checkouts per second, after {figures.rate_before:.1f} before; "
        f"on average the load keeps {figures.needed:.1f} of {figures.capacity} connections busy"
    )
    return BURST, summary, ""


def _too_small(figures: Figures) -> tuple[str, str, str]:
    summary = (
        f"too small: {figures.rate:.1f} checkouts per second, each held for {seconds(figures.mean_hold)}, "
        f"need {figures.needed:.1f} connections on average; "
        f"the pool has {figures.capacity} (needing {_FITS:.0%} or more counts as too small)"
    )
    return POOL_TOO_SMALL, summary, ""


def _hold(figures: Figures) -> str:
    return f"mean {seconds(figures.mean_hold)}, time-weighted mean {seconds(figures.typical_hold)}"
