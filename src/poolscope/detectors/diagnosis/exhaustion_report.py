"""
The exhaustion report: when a checkout times out or waits for too long, all holders, each with the line that checked out
and the line that it executes at this moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.detectors.diagnosis.describe import finding_about, lines_of, owner_of, thread_names
from poolscope.detectors.diagnosis.holders import LONGEST_REPORT, described
from poolscope.detectors.diagnosis.outcomes import ending_of, outcome_of

if TYPE_CHECKING:
    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease
    from poolscope.detectors.diagnosis.cause import Cause
    from poolscope.detectors.diagnosis.picture import Picture

_LONGEST_CHAIN: Final = 1_000


def report(picture: Picture, waiter: Lease, cause: Cause, repeated: int = 0) -> Finding:
    """
    Put a picture in words.

    Args:
        picture: The pool at the moment a checkout failed, or waited for too long.
        waiter: That checkout.
        cause: Why it is exhausted.
        repeated: How many more timeouts were counted since the last report.
    """
    pool, pending = picture.pool, len(picture.waiting)
    threads = thread_names()
    limit = f"{picture.used} of {pool.limit} in use" if pool.limit is not None else f"{picture.used} in use, no limit"
    is_full = pool.limit is not None and picture.used >= pool.limit
    state = "is exhausted" if is_full else "provides no connection"
    summary = (
        f"pool {pool.identity.name} {state} ({limit}, {pending} waiting): "
        f"{owner_of(waiter, threads)} {ending_of(waiter, picture.waited)}; {cause.summary}"
    )
    room = LONGEST_REPORT - len(summary) - len(cause.fix)
    chain = chain_of(picture, waiter, cause, threads)
    holders = described(picture.held, picture.used, threads, room - len(chain))
    figures = {name: value for name, value in cause.evidence.items() if name != "limit" or pool.limit is not None}
    return finding_about(
        waiter,
        POOL_EXHAUSTED,
        summary,
        {
            **figures,
            "cause": cause.id,
            "outcome": outcome_of(waiter),
            "share": round(cause.share, 3),
            "shares": list(cause.shares),
            "chain": chain,
            "current_location": lines_of(cause.stands_at),
            "used": picture.used,
            "pending": pending,
            "waited": picture.waited,
            "holders": holders.each,
            "holders_omitted": holders.omitted,
            "repeated": repeated,
        },
        fix=cause.fix,
        report="\n".join((summary, *([f"  {chain}"] if chain else []), *holders.report, f"fix: {cause.fix}")),
    )


def chain_of(picture: Picture, waiter: Lease, cause: Cause, threads: dict[int, str]) -> str:
    """
    How the waiter waits for the root, step by step, in one line.

    Args:
        picture: The pool at that moment.
        waiter: The checkout.
        cause: Why the pool is exhausted.
        threads: Names of threads by their identifiers.
    """
    if not cause.chain:
        return ""
    steps = (f"{owner_of(waiter, threads)} waits for {picture.pool.identity.name}", *cause.chain)
    return " -> ".join(steps)[:_LONGEST_CHAIN]
