"""
The pool as poolscope knows it: its identity, its limits, who waits and who holds, and what was measured.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from poolscope.core import clock
from poolscope.core.counters import Peak, Sum, Tally
from poolscope.core.execution import LIVES, running_task, running_thread, stack_of_thread, task_in
from poolscope.core.histogram import Distribution
from poolscope.core.lease import USE_PHASES, WAIT_PHASES, Adopted, Lease, Outcome
from poolscope.core.listener import NullObserver
from poolscope.core.work import CURRENT_UNIT, EXPECTED_LONG_HOLD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import CodeType, FrameType

    from poolscope.core.execution import Life
    from poolscope.core.histogram import Trace
    from poolscope.core.listener import PoolObserver
    from poolscope.core.origin import Origins, RawStack
    from poolscope.core.work import Share

#: What `ambient` returns where the application asked not to be instrumented.
SUPPRESSED: Final = object()

#: The name that the application gives the pools that it makes now; None to leave it to the library or the server.
POOL_NAME: Final[ContextVar[str | None]] = ContextVar("poolscope_pool_name", default=None)

#: What it returns inside a span that is sampled out.
UNRECORDED: Final = object()


#: How a leak was known: garbage-collected without a return; its request, task or thread has finished; held too long.
LEAK_KINDS: Final = ("abandoned", "owner_finished", "overdue")

_modules: Final = sys.modules
_frame: Final = sys._getframe  # noqa: SLF001 - the documented way to a caller's frame

# Frames of a thread looked at for the code that checked out.
_SEARCH: Final = 80

#: An error of a kind that is not known, or beyond the most kinds of one pool (semantic conventions, `error.type`).
OTHER_ERROR: Final = "_OTHER"
_MOST_ERROR_TYPES: Final = 32


@dataclass(frozen=True)
class Identity:
    """
    What distinguishes one pool from another.

    Args:
        name: The pool's name; unique in the process.
        system: The database, as the conventions name it, such as ``postgresql``.
        namespace: The database's name, where known.
        address: The server's host name or address, where known; or the path of its socket.
        port: The server's port, where known.
    """

    name: str
    system: str
    namespace: str | None = None
    address: str | None = None
    port: int | None = None


class PoolSource(Protocol):
    """
    A library's pool behind a `Pool`; holds it weakly. Called at collection, from any thread: no lock of the library
    that a checkout holds while it waits, no I/O.
    """

    retired: bool

    def alive(self) -> bool:
        """
        Whether the library's pool still exists.
        """

    def limit(self) -> int | None:
        """
        The most connections it may have open; None when there is no limit.
        """

    def idle_limits(self) -> tuple[int | None, int | None]:
        """
        The fewest and the most idle connections it keeps; None where it has no such limit.
        """

    def idle(self) -> int:
        """
        How many open connections it has that are not checked out.
        """

    def in_use(self) -> int | None:
        """
        How many connections are checked out by the library's own count; None when it keeps none.
        """


class Pool:
    """
    A pool, with its leases, its pending checkouts and its figures.

    The hot path runs through `ask()` and the methods of the `Lease` that it returns. It takes no lock: sets and
    deques are changed by single atomic operations, and `end()` may run inside the garbage collector.

    Args:
        identity: What distinguishes it from others.
        bounds: Upper bounds of its duration histograms, in seconds.
        origins: Captures where the application checks out.
        ambient: Returns the recorded span around the running code, `UNRECORDED`, `SUPPRESSED` or None.
        slow_wait: The wait from which it is reported to the observer, in seconds.
        now: The clock.
        distribution: The kind of histogram to keep.
    """

    def __init__(
        self,
        identity: Identity,
        bounds: Sequence[float],
        *,
        origins: Origins | None = None,
        ambient: Callable[[], Any] | None = None,
        slow_wait: float = 0.001,
        now: clock.Clock = clock.monotonic,
        distribution: type[Distribution[Trace]] = Distribution,
    ) -> None:
        self.identity = identity
        self.now = now
        self.slow_wait = slow_wait
        #: The hold from which it is reported to the observer, in seconds.
        self.long_hold = float("inf")
        self.origins = origins
        self.observer: PoolObserver = NullObserver()
        self.limit: int | None = None
        self.sources: list[PoolSource] = []
        #: Whether several callers may hold one connection at once (SQLAlchemy's StaticPool).
        self.shared = False
        self._capture = origins.capture if origins else None
        self._ambient = ambient
        self._bounds = tuple(bounds)
        self._distribution = distribution
        self._start()

    def _start(self) -> None:
        self.began_at = self.now()
        self.leases: set[Lease] = set()
        self.asking: set[Lease] = set()
        #: What was checked out when this process forked off: not ours, though the library still counts it.
        self.inherited: set[Lease] = set()
        self.waits: Distribution[Trace] = self._distribution(self._bounds, WAIT_PHASES)
        self.uses: Distribution[Trace] = self._distribution(self._bounds, USE_PHASES)
        self.creates: Distribution[Trace] = self._distribution(self._bounds)
        self.failed_waits: dict[str, Distribution[Trace]] = {}
        self.timeouts = Sum()
        self.nested_checkouts = Sum()
        self.unattributed = Tally()
        self.leaks = {kind: Sum() for kind in LEAK_KINDS}
        self.closures: dict[str, Sum] = {}
        self.used_peak = Peak()
        self.pending_peak = Peak()
        self.full_since: dict[str, float] = {}
        self._saturated = Sum()
        self._saturation_told = 0.0

    # The hot path

    def ask(self, life: Life | None = None, outwards: int = 2) -> Lease:  # noqa: C901, PLR0912, PLR0915 - hot
        """
        A checkout begins: the caller waits for a connection.

        Args:
            life: The token of this thread, if the caller has it at hand.
            outwards: How many frames out from this one the first frame is that may be the application's.

        Returns:
            The pending checkout, on which `got`, `grant`, `fail` and `end` are to be called.
        """
        if life is None:
            try:
                life = LIVES.life
            except AttributeError:  # this thread's first checkout
                life = running_thread()
        lease = Lease()
        lease.pool = self
        lease.thread_life = life.reference
        lease.share = lease.trace = lease.leak = None
        lease.silent = lease._split = False  # noqa: SLF001 - made here
        lease.starved_by = ()
        lease.asked_at = self.now()
        events = _modules.get("asyncio.events")
        if events is not None:  # `running_task` spelt out: most checkouts are outside of a loop
            loop = events._get_running_loop()  # noqa: SLF001
            if loop is not None:
                lease.task = task_in(loop)
        ambient = self._ambient
        if ambient is not None:
            span = ambient()
            if span is not None:
                if span is UNRECORDED:
                    lease.unrecorded = True
                elif span is SUPPRESSED:
                    lease.silent = True
                else:
                    lease.trace = span
        if self._capture is not None and not lease.silent:
            try:
                frame = _frame(outwards)
            except ValueError:  # the interpreter itself called the library
                frame = None
            lease.trail = self._capture(frame)
        unit = CURRENT_UNIT.get()
        if unit is not None and not unit.ended:
            lease.unit = unit
            lease.share = share = unit.share_of(self)
            if share.leases:
                self.nested(lease, share)
        else:
            self.unattributed.add()
        excuse = EXPECTED_LONG_HOLD.get()
        if excuse is not None:
            lease.excuse = excuse
        limit = self.limit
        if limit is not None and len(self.leases) >= limit:
            lease.starved_by = self.leases.copy()
            lease.used_at_ask = len(lease.starved_by)
        asking = self.asking
        asking.add(lease)  # last: whatever fails above leaves no checkout pending forever
        lease.pending_at_ask = len(asking)
        return lease

    def asker(self) -> Lease | None:
        """
        The pending checkout of this pool that the running thread and task waits in; the innermost of several. Cold.
        """
        life, task = running_thread().reference, running_task()
        mine = [lease for lease in self.asking.copy() if lease.thread_life is life and lease.task is task]
        return max(mine, key=lambda lease: lease.asked_at, default=None)

    def filled(self, now: float) -> None:
        """
        Every allowed connection is in use.

        Two threads may find this at once, and a third may return a connection at the same time: the moment is set only
        once, and removed by the thread that sees that the pool is not full any more.

        Args:
            now: Seconds of the clock.
        """
        self.full_since.setdefault("moment", now)
        if self.limit is None or len(self.leases) < self.limit:
            self.emptied()

    def emptied(self) -> None:
        """
        A connection was returned; if the pool was full until now, that time is added up.
        """
        since = self.full_since.pop("moment", None)
        if since is None:
            return
        now = self.now()
        self._saturated.add(max(0.0, now - since))
        if self.limit is not None and len(self.leases) >= self.limit:
            self.full_since.setdefault("moment", now)

    # Cold: slow and failed checkouts, physical connections

    def waited(self, lease: Lease) -> None:
        """
        A checkout waited for longer than the threshold.
        """
        self.pending_peak.seen.add(lease.pending_at_ask)
        holders, lease.starved_by = lease.starved_by, ()
        self.observer.waited(lease, holders)

    def failed(self, lease: Lease, wait: float, parts: Sequence[float]) -> None:
        """
        A checkout failed.

        Args:
            lease: The checkout.
            wait: How long it took, in seconds.
            parts: The same by phase.
        """
        error_type = lease.error_type or OTHER_ERROR
        waits = self.failed_waits.get(error_type)
        if waits is None:
            if len(self.failed_waits) >= _MOST_ERROR_TYPES:
                error_type = OTHER_ERROR
            waits = self.failed_waits.setdefault(error_type, self._distribution(self._bounds, WAIT_PHASES))
        waits.record(wait, (lease.trace, lease.ended_at or self.now()) if lease.trace is not None else None, parts)
        if lease.outcome is Outcome.TIMEOUT:
            self.timeouts.add(1)
        self.waited(lease)

    def nested(self, lease: Lease, share: Share) -> None:
        """
        A unit of work checks out a connection while it holds one of this pool.

        A connection that another thread or task of the unit holds does not count: that one returns it without waiting
        for this checkout. It does count if that thread has only fetched it for the unit's task and has gone on since.

        Args:
            lease: The checkout.
            share: The unit's part in the pool, with what it holds.
        """
        mine = [
            held
            for held in share.leases.copy()
            if (held.thread == lease.thread and held.task is lease.task) or _was_fetched(held)
        ]
        if not mine:
            return
        share.nested += 1
        self.nested_checkouts.add(1)
        if share.nested == 1:
            self.observer.nested(lease, min(mine, key=lambda held: held.asked_at))

    def locate(self, frame: FrameType | None) -> tuple[CodeType, int] | None:
        """
        The place in the application that is nearest to a frame (`Origins.nearest`); raw.
        """
        if self.origins is not None:
            return self.origins.nearest(frame)
        return (frame.f_code, frame.f_lasti) if frame is not None else None

    def adopt(self, now: float) -> Lease:
        """
        Register a connection that was checked out before poolscope started. It counts as in use; how long it was held
        is not known.
        """
        return Adopted(self, now)

    def created(self, seconds: float, lease: Lease | None = None) -> None:
        """
        A physical connection was made.

        Args:
            seconds: How long it took.
            lease: The checkout that it was made for, if any.
        """
        self.creates.record(
            seconds, (lease.trace, self.now()) if lease is not None and lease.trace is not None else None
        )

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

    # Read at collection

    def saturation_time(self) -> float:
        """
        Seconds during which every allowed connection was in use, up to now.
        """
        since = self.full_since.get("moment")
        total = self._saturated.read()
        if since is not None:
            total += max(0.0, self.now() - since)
        # After a pool stops being full and before that time is added up, the figure would fall for a moment.
        self._saturation_told = max(self._saturation_told, total)
        return self._saturation_told

    def wait_phase_times(self) -> dict[str, float]:
        """
        Seconds waited by phase, failed checkouts included.
        """
        all_waits = [waits.read().phases for waits in (self.waits, *self.failed_waits.copy().values())]
        return {phase: sum(phases[phase] for phases in all_waits) for phase in WAIT_PHASES}

    def use_phase_times(self) -> dict[str, float]:
        """
        Seconds held by phase, of leases that ended.
        """
        return self.uses.read().phases

    def used(self) -> int:
        """
        How many connections callers hold.
        """
        count = len(self.leases)
        return min(count, self.limit) if self.shared and self.limit is not None else count

    def oldest_lease_age(self) -> float:
        """
        The age of the oldest lease that is still held, in seconds; 0 when there is none.
        """
        now = self.now()
        return max(
            (now - lease.started_at for lease in self.leases.copy() if lease.started_at is not None), default=0.0
        )

    def live_sources(self) -> list[PoolSource]:
        """
        The library's pools that still exist. The next registration forgets the others: only it changes the list, else
        one that another thread adds meanwhile would be lost.
        """
        return [source for source in self.sources if source.alive()]

    def idle(self) -> int:
        """
        How many open connections there are that are not checked out.
        """
        return sum(source.idle() for source in self.live_sources())

    def unheld(self) -> set[Lease]:
        """
        Leases whose connection no code holds any more though its library keeps it alive, where a source knows that.
        """
        found: set[Lease] = set()
        for source in self.live_sources():
            tell = getattr(source, "unheld", None)
            if tell is not None:
                found.update(tell())
        return found

    def refresh_limit(self) -> None:
        """
        Ask the sources for the limit anew, after one was added, retired or resized.
        """
        sources = None
        while sources is not self.sources:  # of several threads the last one to store has seen the last list
            sources = self.sources
            self.limit = limit_of(sources)

    def turn(self, now: float) -> None:
        """
        About once a second: store the numbers that were seen, for the peaks.
        """
        self.used_peak.turn(now, len(self.leases))
        self.pending_peak.turn(now, 0)

    def forget_leases(self) -> None:
        """
        In a child process after a fork: what was checked out belongs to the parent; start anew.
        """
        inherited = self.inherited | self.leases
        self._start()
        self.inherited = inherited


def limit_of(sources: Iterable[PoolSource]) -> int | None:
    """
    The most connections that the library's pools behind one `Pool` may have open together, without those that are gone
    or whose place another one took; None when one of them has no limit, and when there is none.
    """
    limits = [source.limit() for source in sources if source.alive() and not source.retired]
    return None if not limits or None in limits else sum(limit for limit in limits if limit is not None)


def is_on(lease: Lease, stack: RawStack) -> bool:
    """
    Whether the code that checked out is on a stack; also where that code is not known.

    Args:
        lease: A lease.
        stack: What a thread or task executes now. Of a stack of libraries alone, only the innermost frame of the
            checkout counts: frames further out are the thread's own.
    """
    origins = lease.pool.origins
    codes = (origins.applications(lease.origin) if origins is not None else ()) or {
        code for code, _ in lease.origin[:1]
    }
    return not codes or any(code in codes for code, _ in stack)


def _was_fetched(held: Lease) -> bool:
    # An asynchronous framework has synchronous dependencies run in a thread. Once the code that checked out is not on
    # that thread's stack any more, the connection waits for the end of the request.
    unit = held.unit
    if held.task is not None or unit is None or unit.task is None:
        return False
    return not is_on(held, stack_of_thread(held.thread, _SEARCH) if held.thread_life() is not None else ())
