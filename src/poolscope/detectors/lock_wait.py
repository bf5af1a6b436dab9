"""Lock waits: a statement that waits for a lock, and whose transaction holds it."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import TYPE_CHECKING

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.lock_wait import seconds_locked
from poolscope.detectors.detector import Detector, Occurrence, Released, mark
from poolscope.detectors.diagnosis.describe import finding_about, lines_of, owner_of, place_of, seconds, statement_of
from poolscope.detectors.diagnosis.lock_words import lock_in_words
from poolscope.detectors.diagnosis.locks import LockWatch, root_of
from poolscope.detectors.server_probe import ServerProbe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease
    from poolscope.core.lock_wait import LockWait
    from poolscope.core.pool import Pool
    from poolscope.detectors.detector import Context

#: How a wait is known.
SEEN_HERE = "what both connections ran"
SAID_BY_SERVER = "the server"


class LockWaitDetector(Detector[Released, "Lease"]):
    """
    Looks several times a second: who holds a lock, and at which line, can only be seen while it is waited for. A lease
    that ends is observed for waits that were over before they were seen to be long, or that only together were.
    """

    kinds = (LOCK_WAIT,)
    observes = Released

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._context = context
        self._threshold = context.settings.long_hold_threshold
        self.forget()

    def forget(self) -> None:
        """In a child process after a fork: what was seen is the parent's."""
        super().forget()
        settings = self._context.settings
        self._server = None
        if settings.server_probe:
            self._server = ServerProbe(settings.finding_interval, self._context.now, self._context.unobserved)
        self._watch = LockWatch(self._server)
        # The moment at which the wait began that was reported last, by lease.
        self._reported: weakref.WeakKeyDictionary[Lease, float] = weakref.WeakKeyDictionary()

    def observe(self, event: Released) -> None:
        """A lease ended that waited for long, and none of its waits was reported."""
        lease = event.lease
        is_to_report = lease.excuse is None and lease.leak is None and not lease.abandoned
        if (
            is_to_report
            and lease.lock_wait is not None
            and seconds_locked(lease) >= self._threshold
            and lease not in self._reported
        ):
            mark(lease, LOCK_WAIT)
            self.keep(lease)

    def diagnose(self, seen: Lease) -> Iterator[Occurrence]:
        """One that ended."""
        if seen.lock_wait is not None:
            yield _occurrence(seen, seen.lock_wait, 1)

    def glance(self, pools: Collection[Pool]) -> Iterator[Occurrence]:
        """Each wait once, when it has taken as long as a long hold."""
        waiting = list(self._watch.glance(pools))
        waiters = Counter((lease.pool, _blocker_of(lease)) for lease in waiting)
        for lease in waiting:
            wait = lease.lock_wait
            if wait is None or lease.excuse is not None or lease.leak is not None:
                continue
            if self._server is not None and self._server.is_pending and not wait.is_proven:
                continue  # it will be known soon
            if lease.pool.now() - wait.began >= self._threshold and self._reported.get(lease) != wait.began:
                self._reported[lease] = wait.began
                mark(lease, LOCK_WAIT)
                yield _occurrence(lease, wait, waiters[lease.pool, _blocker_of(lease)])


def _blocker_of(lease: Lease) -> Lease | str:
    # The lease that holds the lock; of another process, its name and number without what it does and for how long.
    wait = lease.lock_wait
    return root_of(lease) or (wait.blocker.partition(")")[0] if wait is not None else "")


def _occurrence(lease: Lease, wait: LockWait, waiters: int) -> Occurrence:
    blocker = _blocker_of(lease)
    at = blocker if isinstance(blocker, str) else blocker.origin[:1]
    place = (LOCK_WAIT, lease.pool.identity.name, wait.wanted, lease.origin[:1], at)
    return Occurrence(place, lambda repeated: found(lease, wait, waiters, repeated))


def found(lease: Lease, wait: LockWait, waiters: int, repeated: int) -> Finding:
    """
    Put a wait for a lock in words.

    Args:
        lease: The lease whose statement waits.
        wait: What is known of it.
        waiters: How many leases of its pool wait for the same transaction.
        repeated: How many more of its place were found since the last report.
    """
    lock, name = lock_in_words(wait, lease.pool.identity.system), lease.pool.identity.name
    is_over = lease.ended_at is not None
    waited = seconds_locked(lease) if is_over else lease.pool.now() - wait.began
    waits, is_held = ("waited", "was held") if is_over else ("waits", "is held")
    likely = "" if wait.is_proven else "likely "
    others = f" ({waiters} of pool {name} wait for it)" if waiters > 1 else ""
    return finding_about(
        lease,
        LOCK_WAIT,
        f"a statement of {owner_of(lease)} {likely}{waits} for {lock}, for {seconds(waited)}{others}; "
        f"it {is_held} by {wait.blocker}; the connection that {waits} was checked out at {place_of(lease.origin)}",
        {
            "waited": waited,
            "waiters": waiters,
            "lock": lock,
            "known_by": SAID_BY_SERVER if wait.is_proven else SEEN_HERE,
            "blocker": wait.blocker,
            "statement": "" if is_over else statement_of(lease),  # another one may be the last by then
            "current_location": lines_of(wait.executing),
            "checkout_stack": lines_of(lease.origin),
            "repeated": repeated,
        },
        fix=KINDS[LOCK_WAIT].fix_for("elsewhere" if wait.is_elsewhere else ""),
    )
