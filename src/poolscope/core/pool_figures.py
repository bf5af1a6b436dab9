"""What a pool holds, and what was measured of it, as it is read at collections."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from poolscope.core.counters import Peak, Sum, Tally
from poolscope.core.guard import SessionEndedError
from poolscope.core.phases import HOLD_PHASES, RECORDED_WAIT_PHASES
from poolscope.core.pool_identity import limit_of
from poolscope.core.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolscope.core import clock
    from poolscope.core.event_loops import EventLoops
    from poolscope.core.histogram import Distribution, Trace
    from poolscope.core.lease import Lease
    from poolscope.core.pool_identity import Identity, PoolSource, Stranded

#: Why a connection was closed: its pool was.
DISPOSED: Final = "disposed"

#: How a leak was known: garbage-collected without a return; its request, task or thread has finished; held too long.
LEAK_KINDS: Final = ("abandoned", "owner_finished", "overdue")

_MOST_REFUSALS: Final = 100


class _Ended(set["Lease"]):
    """The leases of a pool whose session has ended: none is added any more, and none ends."""

    def add(self, _: Lease) -> None:
        raise SessionEndedError

    def remove(self, _: Lease) -> None:
        raise SessionEndedError


class PoolFigures:
    """
    The figures of one pool.

    Args:
        identity: What distinguishes it from others.
        bounds: Upper bounds of its duration histograms, in seconds.
        now: The clock.
        distribution: The kind of histogram to keep.
    """

    def __init__(
        self, identity: Identity, bounds: Sequence[float], now: clock.Clock, distribution: type[Distribution[Trace]]
    ) -> None:
        self.identity = identity
        self.now = now
        self.limit: int | None = None
        self.sources: list[PoolSource] = []
        #: Whether several callers may hold one connection at once (SQLAlchemy's StaticPool).
        self.shared = False
        #: The event loops that pools are used in; None where nothing is known of any.
        self.event_loops: EventLoops | None = None
        #: How the application closes the running thread's connection, where each thread has one of its own, which the
        #: library closes at the end of requests only; empty for all other pools.
        self.closed_by = ""
        #: Whether its session has ended.
        self.ended = False
        self._bounds = tuple(bounds)
        self._distribution = distribution
        self._start()

    def _start(self) -> None:
        self.began_at = self.now()
        self.leases: set[Lease] = set()
        self.pending: set[Lease] = set()
        #: Whether there may be adopted leases among them.
        self.has_adopted = False
        #: Whether it is known to belong to another process or event loop than the one that uses it.
        self.is_foreign = False
        #: What was checked out when this process forked off: not ours, though the library still counts it.
        self.inherited: set[Lease] = set()
        self.waits: Distribution[Trace] = self._distribution(self._bounds, RECORDED_WAIT_PHASES)
        self.holds: Distribution[Trace] = self._distribution(self._bounds, HOLD_PHASES)
        self.creates: Distribution[Trace] = self._distribution(self._bounds)
        self.failed_waits: dict[str, Distribution[Trace]] = {}
        #: Seconds of the waits' queues in which the waiter's event loop was blocked.
        self.resumed = Sum()
        self._queue_reported = 0.0
        #: By the value of the `Outcome` and the kind of error.
        self.failed_checkouts: dict[tuple[str, str], Sum] = {}
        #: The last refusals of the server, and the last connect that failed: when, and the kind of its error.
        self.refusals: deque[Refusal] = deque(maxlen=_MOST_REFUSALS)
        self.failed_connect: tuple[float, str] | None = None
        #: When the last connect succeeded.
        self.connected_at = float("-inf")
        self.timeouts = Sum()
        self.nested_checkouts = Sum()
        self.unattributed = Tally()
        self.leaks = {kind: Sum() for kind in LEAK_KINDS}
        self.closures: dict[str, Sum] = {}
        #: When the last connection left the pool.
        self.closed_at = float("-inf")
        self.used_peak = Peak()
        self.pending_peak = Peak()
        self.full_since: dict[str, float] = {}
        self._saturated = Sum()
        self._saturation_reported = 0.0

    def refused(self, code: str, limit: str, lease: Lease | None = None) -> None:
        """
        The server refused a connection since it has too many.

        Args:
            code: What the server calls it.
            limit: Whose limit was reached: one of `poolscope.core.refusal.LIMITS`.
            lease: The checkout that the connect was part of, if any.
        """
        refusal = Refusal(code, limit, self.now(), lease is not None)
        self.refusals.append(refusal)
        if lease is not None:
            lease.refusal = refusal

    def closed(self, reason: str) -> None:
        """
        A physical connection left the pool.

        Args:
            reason: Why; one of the adapter's fixed set.
        """
        total = self.closures.get(reason)
        if total is None:
            total = self.closures.setdefault(reason, Sum())
        total.add(1)
        self.closed_at = self.now()

    def saturation_time(self) -> float:
        """Seconds during which every allowed connection was in use, up to now."""
        since = self.full_since.get("moment")
        total = self._saturated.read()
        if since is not None:
            total += max(0.0, self.now() - since)
        # After a pool stops being full and before that time is added up, the figure would fall for a moment.
        self._saturation_reported = max(self._saturation_reported, total)
        return self._saturation_reported

    def wait_phase_times(self) -> dict[str, float]:
        """Seconds waited by phase, failed checkouts included."""
        all_waits = [waits.read().phases for waits in (self.waits, *self.failed_waits.copy().values())]
        times = {phase: sum(phases[phase] for phases in all_waits) for phase in RECORDED_WAIT_PHASES}
        resumed = self.resumed.read()
        # A wait is recorded as a queue at first: between that and its split the figure would fall for a moment.
        self._queue_reported = max(self._queue_reported, times["queue"] - resumed)
        return {**times, "queue": self._queue_reported, "resume": resumed}

    def hold_phase_times(self) -> dict[str, float]:
        """Seconds held by phase, of leases that ended."""
        return self.holds.read().phases

    def end(self) -> None:
        """
        The session ends: a hook that is about to begin or end a lease here raises `SessionEndedError` from now on. So
        hooks need not ask: one that marked a library's object before knows by that to take the mark off again.
        """
        self.ended = True
        self.leases = _Ended(self.leases.copy())

    def used(self) -> int:
        """How many connections callers hold."""
        if self.has_adopted:
            self.settle()
        count = len(self.leases)
        if not (self.shared or self.has_adopted) or self.limit is None:
            return count
        # One connection may have several callers; and one that was adopted may have come back just now. What is out of
        # a pool that another one has taken the place of is beyond the limit.
        beyond = sum(source.in_use() or 0 for source in self.live_sources() if source.retired)
        return min(count, self.limit + beyond)

    def oldest_lease_age(self) -> float:
        """The age of the oldest lease that is still held, in seconds; 0 when there is none."""
        now = self.now()
        return max(
            (now - lease.acquired_at for lease in self.leases.copy() if lease.acquired_at is not None), default=0.0
        )

    def live_sources(self) -> list[PoolSource]:
        """
        The library's pools that still exist. The next registration forgets the others: only it changes the list, else
        one that another thread adds meanwhile would be lost.
        """
        return [source for source in self.sources if source.alive()]

    def idle(self) -> int:
        """How many open connections there are that are not checked out."""
        return sum(source.idle() for source in self.live_sources())

    def unheld(self) -> set[Lease]:
        """Leases whose connection no code holds any more though its library keeps it alive."""
        return {lease for source in self.live_sources() for lease in source.unheld()}

    def lost(self) -> int:
        """
        Slots that are lost: the library counts their connections as open for ever, though no code holds one and no
        lease is left. `limit` is without them.
        """
        return sum(source.lost() for source in self.live_sources())

    def stranded(self) -> list[Stranded]:
        """Open connections that belong to threads that have finished."""
        return [one for source in self.live_sources() for one in source.stranded()]

    def clears_connections(self) -> bool:
        """
        Whether what statements left on a connection may end with its return: the library sees to that, or the
        application does where poolscope does not look.
        """
        return any(source.clears_connections() for source in self.live_sources())

    def refresh_limit(self) -> None:
        """Ask the sources for the limit anew, after one was added, retired or resized."""
        sources = None
        while sources is not self.sources:  # of several threads the last one to store has seen the last list
            sources = self.sources
            self.limit = limit_of(sources)

    def settle(self) -> None:
        """
        End the adopted leases whose connection its library does not list as held any more. A return that was under way
        when its connection was adopted is one that no hook has seen.
        """
        self.has_adopted = False  # first: another thread may adopt one meanwhile
        adopted = [lease for lease in self.leases.copy() if lease.held_as is not None]
        if adopted:
            self.has_adopted = True
            held = {one for source in self.live_sources() for one in source.held_ids()}
            for lease in adopted:
                if lease.held_as not in held:
                    lease.released()

    def tick(self, now: float) -> None:
        """About once a second: store the numbers that were seen, for the peaks; settle."""
        if self.has_adopted:
            self.settle()
        self.used_peak.tick(now, len(self.leases))
        self.pending_peak.tick(now, 0)

    def forget_leases(self) -> None:
        """In a child process after a fork: what was checked out belongs to the parent; start anew."""
        inherited = self.inherited | self.leases
        self._start()
        self.inherited = inherited
        if self.ended:
            self.end()
