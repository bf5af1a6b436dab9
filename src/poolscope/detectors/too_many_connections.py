"""
Too many connections: the server, or a pooler in front of it, accepts no further one; with who in this process has how
many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.lease import Outcome
from poolscope.core.refusal import Refusal
from poolscope.detectors.detector import Detector, Occurrence, Waited, mark
from poolscope.detectors.diagnosis.census import census_of, found, opened
from poolscope.detectors.diagnosis.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.detectors.detector import Context
    from poolscope.detectors.diagnosis.census import Share


# After so long, in seconds, what the process still has open tells more than what it had at the moment.
_LATER: Final = 1.0


@dataclass(frozen=True)
class Refused:
    """
    A refusal, at its moment: raw, to be put in words by the background thread.

    Args:
        pool: The pool that was refused a connection.
        refusal: The refusal.
        waiter: The checkout that the connect was for; None where none waits.
        census: Who in this process has how many connections to that server.
    """

    pool: Pool
    refusal: Refusal
    waiter: Lease | None
    census: tuple[Share, ...]


class TooManyConnectionsDetector(Detector[Waited, "Refused | Pool"]):
    """
    Observes checkouts that the server refused, and looks for refusals that a pool's own workers met. Where one of
    the same database was described within the interval, only the pool is kept.
    """

    kinds = (TOO_MANY_CONNECTIONS,)
    observes = Waited

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._pools = context.pools
        self._now = context.now
        self._interval = context.settings.finding_interval
        self._start()

    def _start(self) -> None:
        self._pace = Pace(self._interval, self._now)
        # The last refusal that was seen, by the pool's name.
        self._seen: dict[str, float] = {}
        # Those whose second census is due, each with when it is.
        self._due: list[tuple[float, Refused]] = []

    def observe(self, event: Waited) -> None:
        """The thread that was refused takes the census: at this moment it shows who has the connections."""
        lease = event.lease
        if lease.outcome is not Outcome.SERVER_REFUSED or lease.silent:
            return
        mark(lease, TOO_MANY_CONNECTIONS)
        pool = lease.pool
        if self._pace.allows(pool, _place_of(pool)):
            refusal = lease.refusal or Refusal("", "server", self._now(), in_checkout=True)
            self.keep(Refused(pool, refusal, lease, census_of(pool, self._pools())))
        else:
            self.keep(pool)

    def diagnose(self, seen: Refused | Pool) -> Iterator[Occurrence]:
        """One refusal; of many at the pools of one database within the interval the first is reported."""
        if isinstance(seen, Refused):
            self._due.append((self._now() + _LATER, seen))
        else:
            yield Occurrence(_place_of(seen), None)

    def again(self, last: bool) -> Iterator[Occurrence]:
        """The refusals that were long enough ago: what was open then, and still is, is what stays."""
        due, self._due = self._due, []
        now = self._now()
        for when, seen in due:
            if last or now >= when:
                yield self._occurrence(seen)
            else:
                self._due.append((when, seen))

    def look(self, pool: Pool) -> Iterator[Occurrence]:
        """Refusals outside of any checkout: the library connects in threads or tasks of its own."""
        name = pool.identity.name
        seen = self._seen.get(name, -1.0)
        fresh = [one for one in tuple(pool.refusals) if not one.in_checkout and one.moment > seen]
        if not fresh:
            return
        self._seen[name] = fresh[-1].moment
        counted = len(fresh)
        if self._pace.allows(pool, _place_of(pool)):
            counted -= 1
            waiter = max(pool.pending.copy(), key=lambda lease: lease.age(), default=None)
            yield self._occurrence(Refused(pool, fresh[-1], waiter, census_of(pool, self._pools())))
        for _ in range(counted):
            yield Occurrence(_place_of(pool), None)

    def forget(self) -> None:
        """
        In a child process after a fork: start anew, with a new lock: a thread of the parent may
        have held the old one.
        """
        super().forget()
        self._start()

    def _occurrence(self, seen: Refused) -> Occurrence:
        later = census_of(seen.pool, self._pools())
        census = later if opened(later) >= opened(seen.census) else seen.census
        return Occurrence(
            _place_of(seen.pool),
            lambda repeated: found(seen.pool, seen.refusal, seen.waiter, census, repeated),
            at_once=True,
        )


def _place_of(pool: Pool) -> Hashable:
    # One database, however many pools of it there are.
    what = pool.identity
    return (TOO_MANY_CONNECTIONS, what.system, what.address, what.port, what.namespace)
