"""
The cause of exhaustion: what holds the largest share of a pool's connections, followed to its root.

Rules explain leases by what they wait for (`poolscope.detectors.diagnosis.rules`). What they leave over is the usual
load, which Little's law describes (L = arrival rate x mean hold): it is the cause only where the whole pool would not
carry it. The cause is what at least half of the explained connections have in common. Below that it is mixed; where
nothing is known it is unknown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import BURST, MIXED, POOL_TOO_SMALL, SLOW_CONNECT, UNKNOWN
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD
from poolscope.core.lease import Outcome
from poolscope.detectors.diagnosis.describe import seconds
from poolscope.detectors.diagnosis.figures import FITS, Figures, figures_of
from poolscope.detectors.diagnosis.load import MOMENT
from poolscope.detectors.diagnosis.rules import explain
from poolscope.detectors.diagnosis.rules.long_holds import held_long
from poolscope.detectors.diagnosis.rules.rule import Explained

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from poolscope.core.finding import Evidence
    from poolscope.core.origin import RawStack
    from poolscope.detectors.diagnosis.load import Record
    from poolscope.detectors.diagnosis.picture import Held, Picture

# From this share of the time or of the explained connections on, it is the cause.
_MAJORITY: Final = 0.5
# What holds this share of the pool is the cause, though the usual load fits in the rest.
_BLAMED: Final = 0.3
# What the usual load amounts to.
_LOAD: Final = (BURST, POOL_TOO_SMALL)
# A pool that was full for less than this share of the last seconds was not what the waiter waited for.
_HARDLY: Final = 0.1
# Idleness of so many seconds within a typical hold is other work (a call to a service, a sleep), not the application's
# own way from one statement to the next.
_OTHER_WORK: Final = 0.1


@dataclass(frozen=True)
class Cause:
    """
    Why a pool is exhausted.

    Args:
        id: A finding's id.
        summary: It in words, with its figures.
        fix: What to change.
        share: The share of the pool's connections that it explains.
        shares: The same for each cause that was found, the largest first: "connection_leak 40%".
        chain: How the waiter waits for the root, step by step.
        stands_at: What the root executes, raw; empty where that is not known.
        evidence: The figures it was decided from.
    """

    id: str
    summary: str
    fix: str
    share: float = 0.0
    shares: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    stands_at: RawStack = ()
    evidence: Mapping[str, Evidence] = field(default_factory=dict)


def cause_of(picture: Picture, record: Record) -> Cause:
    """
    Decide why a pool is exhausted, from what the process saw.

    Args:
        picture: The pool when a checkout failed, or waited for too long.
        record: Its last minute.
    """
    explained, rest = explain(picture)
    figures = figures_of(picture, record)
    whole = [one for one in explained if one.whole]
    if whole:
        return _cause(whole[0], 1.0, (), figures)
    if not _is_full(picture, figures, explained):
        return _cause(_slow_connect(), 0.0, (), figures)
    explained, rest = _with_young(picture, explained, rest, figures)
    blamed = explained + _load(picture, figures, explained, rest)
    return _largest(picture, figures, blamed)


def _is_full(picture: Picture, figures: Figures, explained: Sequence[Explained]) -> bool:
    if picture.full or picture.limit is None:
        return picture.full
    return figures.saturated >= _HARDLY or sum(one.connections for one in explained) >= picture.limit


def _with_young(
    picture: Picture, explained: list[Explained], rest: list[Held], figures: Figures
) -> tuple[list[Explained], list[Held]]:
    # Of the leases that are too young to be long holds, some will be: as many as the last minute lets one expect.
    long = max((one for one in explained if one.phase), key=lambda one: one.connections, default=None)
    known = [held for held in rest if not held.lease.adopted]  # the age of the others is unknown
    young = known[: round(figures.likely_long * len(known))]
    if long is None or not young:
        return explained, rest
    grown = held_long(picture, long.phase, (*long.held, *young))
    taken = {held.lease for held in young}
    return [grown if one is long else one for one in explained], [held for held in rest if held.lease not in taken]


def _largest(picture: Picture, figures: Figures, blamed: Sequence[Explained]) -> Cause:
    votes: Counter[str] = Counter()
    for one in blamed:
        votes[one.cause] += max(one.connections, 1)
    total, capacity = sum(votes.values()), max(picture.capacity, 1)
    shares = tuple(f"{cause} {min(1.0, count / capacity):.0%}" for cause, count in votes.most_common())
    cause, count = votes.most_common(1)[0]
    theirs = sorted((one for one in blamed if one.cause == cause), key=lambda one: -one.connections)
    if count >= _MAJORITY * total and not _is_tie(votes):
        return _cause(theirs[0], min(1.0, count / capacity), shares, figures)
    return _mixed(blamed, min(1.0, count / capacity), shares, figures)


def _is_tie(votes: Counter[str]) -> bool:
    # What explains as much as the usual load does is the cause: it comes first.
    first = votes.most_common(2)
    return len(first) > 1 and first[0][1] == first[1][1] and first[1][0] not in _LOAD


def _mixed(blamed: Sequence[Explained], share: float, shares: tuple[str, ...], figures: Figures) -> Cause:
    parts = sorted(blamed, key=lambda one: -one.connections)
    fixes = list(dict.fromkeys(KINDS[one.cause].fix_for(one.case) for one in parts))
    return Cause(
        MIXED,
        "mixed causes: " + "; ".join(one.summary for one in parts[:3]),
        "; ".join(fixes[:2]),
        share,
        shares,
        tuple("; ".join(one.chain) for one in parts[:3] if one.chain),
        parts[0].stands_at,
        figures.evidence(),
    )


def _cause(one: Explained, share: float, shares: tuple[str, ...], figures: Figures) -> Cause:
    return Cause(
        one.cause,
        one.summary,
        KINDS[one.cause].fix_for(one.case),
        share,
        shares,
        one.chain,
        one.stands_at,
        figures.evidence(),
    )


def _slow_connect() -> Explained:
    summary = "slow to connect: the pool may open more connections, and the wait is for one to be opened or validated"
    return Explained(SLOW_CONNECT, (), summary, ("which opens a connection, or validates one",))


def _load(picture: Picture, figures: Figures, explained: Sequence[Explained], rest: Sequence[Held]) -> list[Explained]:
    # What the leases that no rule explains amount to; nothing where they are the usual load, and others are the cause.
    taken = sum(one.connections for one in explained)
    kept = tuple(held for held in rest if not held.lease.adopted)
    if rest and len(kept) < _MAJORITY * len(rest):
        summary = f"unknown: {len(rest) - len(kept)} of {picture.capacity} connections were checked out before "
        return [Explained(UNKNOWN, tuple(rest), summary + "poolscope started")]
    if explained and (not kept or (not figures.bursting and _is_usual(figures, picture.capacity, taken))):
        return []
    if not explained and (long := _held_long(picture, figures, kept)) is not None:
        return [long]
    if figures.bursting:
        return [_burst(figures, kept)]
    if (figures.needed_short if explained else figures.needed) >= FITS * max(0, picture.capacity - taken):
        quiet = _quiet_since(picture)
        is_bunch = figures.known_before < MOMENT and quiet >= _MAJORITY * picture.waited > 0
        return [_bunch(figures, kept, quiet) if is_bunch else _too_small(figures, kept)]
    # A pool without a queue refuses as soon as one more asks than it has.
    is_refused = picture.waiter is not None and picture.waiter.outcome is Outcome.REJECTED
    return [_burst(figures, kept)] if is_refused or figures.came_at_once else [_fits(figures, kept)]


def _is_usual(figures: Figures, capacity: int, taken: int) -> bool:
    # The whole pool would carry it; and what the others have left over does not, or they have much of the pool.
    tipped = figures.needed_short >= FITS * (capacity - taken)
    return figures.needed_short < FITS * capacity and (tipped or taken >= _BLAMED * capacity)


def _quiet_since(picture: Picture) -> float:
    # For how many seconds no checkout has begun: what began while the pool was full waits, or has a connection.
    leases = (*picture.waiting, *(held.lease for held in picture.held))
    return picture.totals.moment - max((lease.requested_at for lease in leases), default=picture.totals.moment)


def _held_long(picture: Picture, figures: Figures, kept: tuple[Held, ...]) -> Explained | None:
    other = figures.in_transaction_share + figures.idle_share
    if other >= _MAJORITY and other * figures.typical_hold >= _OTHER_WORK:
        return _held_idle(figures, kept)
    if figures.query_share >= _MAJORITY and figures.typical_hold >= picture.pool.long_hold:
        share = f"{figures.query_share:.0%} of the time running queries"
        return Explained(LONG_HOLD, kept, f"held too long: {_hold(figures)}, {share}")
    return None


def _held_idle(figures: Figures, kept: tuple[Held, ...]) -> Explained:
    if figures.in_transaction_share >= figures.idle_share:
        share = f"{figures.in_transaction_share:.0%} of the time idle in a transaction"
        return Explained(IDLE_IN_TRANSACTION, kept, f"held too long: {_hold(figures)}, {share}")
    share = f"{figures.idle_share:.0%} of the time without a query or a transaction"
    return Explained(LONG_HOLD, kept, f"held too long: {_hold(figures)}, {share}", case="idle")


def _burst(figures: Figures, kept: tuple[Held, ...]) -> Explained:
    summary = (
        f"a burst: {figures.rate_now:.1f} checkouts per second, after {figures.rate_before:.1f} before; the pool of "
        f"{figures.limit} is large enough for the average load, and not for so many at once"
    )
    return Explained(BURST, kept, summary)


def _bunch(figures: Figures, kept: tuple[Held, ...], quiet: float) -> Explained:
    summary = (
        f"a burst: {figures.rate:.1f} checkouts per second at first, and none in the last {seconds(quiet)}; they are "
        f"too many at once for the pool of {figures.limit}, and what it needs on average is not known yet"
    )
    return Explained(BURST, kept, summary)


def _too_small(figures: Figures, kept: tuple[Held, ...]) -> Explained:
    summary = (
        f"too small: {figures.rate:.1f} checkouts per second, each held for {seconds(figures.mean_hold)}, "
        f"need {figures.needed:.1f} connections on average; "
        f"the pool has {figures.limit} (needing {FITS:.0%} or more counts as too small)"
    )
    return Explained(POOL_TOO_SMALL, kept, summary)


def _fits(figures: Figures, kept: tuple[Held, ...]) -> Explained:
    summary = (
        f"unknown: the load needs {figures.needed:.1f} of {figures.limit} connections on average, and none is held for "
        "long"
    )
    return Explained(UNKNOWN, kept, summary)


def _hold(figures: Figures) -> str:
    return f"mean {seconds(figures.mean_hold)}, time-weighted mean {seconds(figures.typical_hold)}"
