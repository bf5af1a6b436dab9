"""
Accounts that are wrong for good, and are set right.

An interrupt (Ctrl-C, a time limit's signal) may come between any two steps of a hook. The hooks undo what they had
begun; where one is cut off before it can, a checkout stays pending that no caller waits in, or a lease stays whose
connection is back, or a caller holds a connection without a lease. Each is found by what it is: by the references to a
checkout, and, once nothing has changed for two seconds, by the library's own list of what callers hold. Where a process
gets no processor for so long, a hook may merely be late: those seconds do not count.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool

# The references to a checkout that no caller waits in: the pool's, the list's, and the counting itself. No variable may
# hold it meanwhile: from Python 3.14 on, what that adds to the count depends on the code around it.
_OWN_REFERENCES: Final = 3
#: Looks at which an account is wrong in the same way until it is set right.
_LOOKS: Final = 3
#: Seconds from one look to the next beyond which this process had no processor meanwhile.
_LATE: Final = 1.5


class _Seen(NamedTuple):
    """
    An account of ours that does not agree with the library's.

    Args:
        in_use: How many connections callers hold by the library's account.
        leases: Our leases then: the id of each and when it was requested, as another one may have the id by the next
            look.
    """

    in_use: int
    leases: frozenset[tuple[int, float]]


class _Doubt(NamedTuple):
    """
    An account that is wrong in the same way at each look.

    Args:
        seen: What is wrong.
        at: When it was last looked at, in seconds of the clock.
        looks: How often.
    """

    seen: _Seen
    at: float
    looks: int = 1


class Accounts:
    """The accounts of pools, looked at about once a second; one that stays wrong in the same way is set right."""

    def __init__(self) -> None:
        self._doubts: weakref.WeakKeyDictionary[Pool, _Doubt] = weakref.WeakKeyDictionary()

    def look(self, pool: Pool, now: float) -> None:
        """
        Look at one pool's. From the background thread.

        Args:
            pool: The pool.
            now: Seconds of the clock.
        """
        _forget_left(pool)
        before, seen = self._doubts.pop(pool, None), _difference(pool)
        if seen is None:
            return
        if before is None or before.seen != seen:
            self._doubts[pool] = _Doubt(seen, now)
        elif now - before.at > _LATE:
            self._doubts[pool] = before._replace(at=now)
        elif before.looks + 1 < _LOOKS:
            self._doubts[pool] = _Doubt(seen, now, before.looks + 1)
        else:
            _correct(pool)


def forget(lease: Lease) -> None:
    """
    Forget a lease or a checkout, whatever it was by now: it neither waits nor is held. Nothing here logs or raises.

    Args:
        lease: The lease.
    """
    pool = lease.pool
    pool.pending.discard(lease)
    pool.leases.discard(lease)
    pool.inherited.discard(lease)
    lease.connecting = lease.running = False
    lease.above = lease.carrier = None
    lease.starved_by = ()
    usage = lease.usage
    if usage is not None:
        usage.leases.discard(lease)


def _forget_left(pool: Pool) -> None:
    # Checkouts that no caller waits in: a hook that waits refers to its own.
    waiting = list(pool.pending.copy())
    left = [place for place in range(len(waiting)) if sys.getrefcount(waiting[place]) <= _OWN_REFERENCES]
    for place in left:
        forget(waiting[place])


def _difference(pool: Pool) -> _Seen | None:
    if pool.shared:  # several callers hold one connection: libraries do not count them
        return None
    counts = [source.in_use() for source in pool.live_sources()]
    known = [count for count in counts if count is not None]
    leases = pool.leases | pool.inherited
    if len(known) < len(counts) or not counts or sum(known) == len(leases):
        return None
    return _Seen(sum(known), frozenset((id(lease), lease.requested_at) for lease in leases))


def _correct(pool: Pool) -> None:
    # By the library's list of what callers hold: leases that none of them has are over, and who has none gets one.
    sources = pool.live_sources()
    # Read before their lists, which have each of these by then; one that a caller gets meanwhile is on none of them.
    ours = [lease for lease in pool.leases.copy() if lease.acquired_at is not None]
    lists = [source.held() for source in sources]
    if None in lists:
        return
    theirs = {lease for held in lists for lease in held or ()}
    for lease in ours:
        if lease not in theirs:
            forget(lease)
            if pool.full_since:
                pool.emptied()
    for source in sources:
        source.adopt(pool)
