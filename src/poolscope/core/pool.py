"""The pool as poolscope knows it: its identity, its limits, who waits and who holds, and what was measured."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from poolscope.core import clock
from poolscope.core.counters import Sum
from poolscope.core.execution import THREAD_TOKENS, running_task, running_thread, task_in
from poolscope.core.histogram import Distribution
from poolscope.core.lease import Adopted, Lease, Outcome
from poolscope.core.listener import NullListener
from poolscope.core.nesting import held_meanwhile
from poolscope.core.phases import RECORDED_WAIT_PHASES
from poolscope.core.pool_figures import PoolFigures
from poolscope.core.suspicion import Suspicion
from poolscope.core.work import CURRENT_UNIT, EXPECTED_LONG_HOLD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType, FrameType

    from poolscope.core.execution import ThreadToken
    from poolscope.core.histogram import Trace
    from poolscope.core.listener import PoolListener
    from poolscope.core.origin import Origins
    from poolscope.core.pool_identity import Identity
    from poolscope.core.work import Usage

#: What `ambient` returns where the application asked not to be instrumented.
SUPPRESSED: Final = object()

#: What it returns inside a span that is sampled out.
UNRECORDED: Final = object()

_modules: Final = sys.modules
_frame: Final = sys._getframe  # noqa: SLF001 - the documented way to a caller's frame

#: An error of a kind that is not known, or beyond the most kinds of one pool (semantic conventions, `error.type`).
OTHER_ERROR: Final = "_OTHER"
_MOST_ERROR_TYPES: Final = 32


class Pool(Suspicion, PoolFigures):
    """
    A pool, with its leases, its pending checkouts and its figures.

    The hot path runs through `checkout()` and the methods of the `Lease` that it returns. It takes no lock: sets and
    deques are changed by single atomic operations, and `released()` may run inside the garbage collector.

    Args:
        identity: What distinguishes it from others.
        bounds: Upper bounds of its duration histograms, in seconds.
        origins: Captures where the application checks out.
        ambient: Returns the recorded span around the running code, `UNRECORDED`, `SUPPRESSED` or None.
        slow_wait: The wait from which it is reported to the listener, in seconds.
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
        super().__init__(identity, bounds, now, distribution)
        self.slow_wait = self._usual_slow_wait = slow_wait
        #: The hold from which it is reported to the listener, in seconds.
        self.long_hold = float("inf")
        self.origins = origins
        self.listener: PoolListener = NullListener()
        self._capture = origins.capture if origins else None
        self._ambient = ambient

    # The hot path

    def checkout(self, thread_token: ThreadToken | None = None, outwards: int = 2) -> Lease:  # noqa: C901, PLR0912, PLR0915 - hot
        """
        A checkout begins: the caller waits for a connection.

        Args:
            thread_token: The token of this thread, if the caller has it at hand.
            outwards: How many frames out from this one the first frame is that may be the application's.

        Returns:
            The pending checkout, on which `handed_over`, `acquired`, `failed` and `released` are to be called.
        """
        if thread_token is None:
            try:
                thread_token = THREAD_TOKENS.thread_token
            except AttributeError:  # this thread's first checkout
                thread_token = running_thread()
        lease = Lease()
        lease.pool = self
        lease.thread_reference = thread_token.reference
        lease.usage = lease.trace = None
        lease.silent = lease._split = lease.noted = False  # noqa: SLF001 - made here
        lease.starved_by = ()
        lease.requested_at = self.now()
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
            lease.packed_stack = self._capture(frame)
        unit = CURRENT_UNIT.get()
        if unit is not None and not unit.ended:
            lease.unit = unit
            lease.usage = usage = unit.usage_of(self)
            if usage.leases:
                self.nested(lease, usage)
        elif thread_token.job is None:
            self.unattributed.add()
        else:
            thread_token.job.take(lease)
        excuse = EXPECTED_LONG_HOLD.get()
        if excuse is not None:
            lease.excuse = excuse
        limit = self.limit
        if limit is not None and len(self.leases) >= limit:
            lease.starved_by = self.leases.copy()
            lease.used_at_checkout = len(lease.starved_by)
        pending = self.pending
        try:
            pending.add(lease)  # last: whatever fails above leaves no checkout pending forever
            lease.pending_at_checkout = len(pending)
            return lease
        except BaseException:  # a signal handler's
            pending.discard(lease)
            raise

    def waiter(self) -> Lease | None:
        """
        The pending checkout of this pool that the running thread and task waits in; the innermost
        of several. Cold.
        """
        thread_token, task = running_thread().reference, running_task()
        mine = [lease for lease in self.pending.copy() if lease.thread_reference is thread_token and lease.task is task]
        return max(mine, key=lambda lease: lease.requested_at, default=None)

    def filled(self, now: float) -> None:
        """
        Every allowed connection is in use.

        Two threads may find this at once, and a third may return a connection at the same time: the moment is set only
        once, and removed by the thread that sees that the pool is not full any more.

        Args:
            now: Seconds of the clock.
        """
        self.full_since.setdefault("moment", now)
        if self.has_adopted:
            self.settle()
        if self.limit is None or len(self.leases) < self.limit:
            self.emptied()

    def emptied(self) -> None:
        """A connection was returned; if the pool was full until now, that time is added up."""
        since = self.full_since.pop("moment", None)
        if since is None:
            return
        now = self.now()
        self._saturated.add(max(0.0, now - since))
        if self.limit is not None and len(self.leases) >= self.limit:
            self.full_since.setdefault("moment", now)

    # Cold: slow and failed checkouts, physical connections

    def waited(self, lease: Lease) -> None:
        """A checkout waited for longer than the threshold, or is suspected."""
        if self.is_only_suspected(lease):
            lease.starved_by = ()
            return
        self.pending_peak.seen.add(lease.pending_at_checkout)
        holders, lease.starved_by = lease.starved_by, ()
        if lease.task is not None and self.event_loops is not None:
            self.event_loops.waited(lease)
        self.listener.waited(lease, holders)

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
            waits = self.failed_waits.setdefault(error_type, self._distribution(self._bounds, RECORDED_WAIT_PHASES))
        waits.record(wait, (lease.trace, lease.ended_at or self.now()) if lease.trace is not None else None, *parts)
        outcome = lease.outcome or Outcome.ERROR
        total = self.failed_checkouts.get((outcome.value, error_type))
        if total is None:
            total = self.failed_checkouts.setdefault((outcome.value, error_type), Sum())
        total.add(1)
        if outcome is Outcome.TIMEOUT:
            self.timeouts.add(1)
        self.waited(lease)

    def nested(self, lease: Lease, usage: Usage) -> None:
        """
        A unit of work checks out a connection while it holds one of this pool: nested, if `held_meanwhile` says so.

        Args:
            lease: The checkout.
            usage: The unit's part in the pool, with what it holds.
        """
        mine = held_meanwhile(lease, usage.leases.copy())
        if not mine:
            return
        usage.nested += 1
        self.nested_checkouts.add(1)
        if usage.nested == 1:
            self.listener.nested(lease, min(mine, key=lambda held: held.requested_at))

    def locate(self, frame: FrameType | None) -> tuple[CodeType, int] | None:
        """The place in the application that is nearest to a frame (`Origins.nearest`); raw."""
        if self.origins is not None:
            return self.origins.nearest(frame)
        return (frame.f_code, frame.f_lasti) if frame is not None else None

    def adopt(self, now: float, held: int | None = None) -> Lease:
        """
        Register a connection that was checked out before poolscope started. It counts as in use; who holds it, and
        since when, is not known.

        Args:
            now: Seconds of the clock.
            held: The id of what the library lists as held: the lease ends once it does so no more. Without one, it ends
                by its return alone.
        """
        lease = Adopted(self, now, held)
        lease.begins(now)
        return lease

    def adopt_held(self, now: float, held: int, claim: Callable[[Lease], bool]) -> None:
        """
        The same, unless a checkout is faster; and until the library does not list the connection as held any more.

        Args:
            now: Seconds of the clock.
            held: The id of what the library lists as held.
            claim: Ties that to the lease, which counts afterwards only; returns whether no checkout was faster.
        """
        lease = Adopted(self, now, held)
        if claim(lease):
            lease.begins(now)

    def created(self, seconds: float, lease: Lease | None = None) -> None:
        """
        A physical connection was made.

        Args:
            seconds: How long it took.
            lease: The checkout that it was made for, if any.
        """
        if self.event_loops is not None:
            self.event_loops.connected()
        self.connected_at = self.now()
        self.creates.record(
            seconds, (lease.trace, self.now()) if lease is not None and lease.trace is not None else None
        )
