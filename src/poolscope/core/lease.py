"""The lease: one checkout of a connection, from the request for it to its return."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from poolscope.core.calls import Calls
from poolscope.core.execution import NO_THREAD
from poolscope.core.origin import stack_of
from poolscope.core.phases import HOLD_PHASES, WAIT_PHASES
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Collection

    from poolscope.core.execution import TaskReference, ThreadReference
    from poolscope.core.lock_wait import LockWait
    from poolscope.core.origin import PackedStack, RawStack
    from poolscope.core.pool import Pool
    from poolscope.core.refusal import Refusal
    from poolscope.core.work import UnitOfWork, Usage


class Outcome(Enum):
    """
    How a checkout ended that did not become a lease.

    The pool's own timeout; refused by the pool without a wait; another error; its caller did not wait any longer; the
    server accepts no further connection; a connect failed otherwise; the pool is closed.
    """

    TIMEOUT = "timeout"
    REJECTED = "rejected"
    ERROR = "error"
    CANCELLED = "cancelled"
    SERVER_REFUSED = "server_refused"
    CONNECT_FAILED = "connect_failed"
    POOL_CLOSED = "pool_closed"


class Lease(Calls):
    """
    One checkout: pending while it waits for a connection, a lease once the caller has it.

    Class attributes are the values a checkout starts with. Most checkouts never change most of them, which keeps making
    one cheap. `Pool.checkout` makes it and sets what the usual path reads: until Python 3.12, reading a class
    attribute through an instance costs more than setting and reading one of its own. All moments and durations are
    seconds of the pool's clock.
    """

    pool: Pool
    usage: Usage | None
    requested_at: float
    #: Dead when the thread has finished; another thread may have its identifier by then.
    thread_reference: ThreadReference
    task: TaskReference | None = None

    outcome: Outcome | None = None
    error_type: str | None = None
    handed_over_at: float | None = None
    acquired_at: float | None = None
    ended_at: float | None = None
    abandoned = False
    adopted = False
    held_as: int | None = None
    connect_failed = False
    #: Seconds of the queue in which the event loop was blocked; known when the wait has ended.
    resume_time = 0.0
    #: The refusal that its last connect met.
    refusal: Refusal | None = None
    _validate_time = 0.0
    _connect_time_before_handover = 0.0
    pending_at_checkout = 0
    used_at_checkout = 0
    starved_by: Collection[Lease] = ()
    packed_stack: PackedStack = ()
    trace: Any = None
    silent = False
    unrecorded = False
    unit: UnitOfWork | None = None
    backend_process_id: int | None = None
    span_context: Any = None
    carrier: Any = None
    excuse: str | None = None
    leak: str | None = None
    #: Why its connection was closed while it was held, as `Pool.closed` has it; None where the caller returned it.
    closed: str | None = None
    lock_wait: LockWait | None = None
    #: Seconds of its waits for locks before that one.
    locked_before = 0.0
    span_reported = False
    over_since = 0.0

    # The life of a lease

    def handed_over(self) -> float:
        """
        The pool handed a connection over; it may still have to be validated. From here the connection is in use.

        Returns:
            The moment, in seconds of the clock.
        """
        pool = self.pool
        self.handed_over_at = now = pool.now()
        if self._split:
            self._connect_time_before_handover = self.connect_time
        pool.pending.discard(self)
        leases = pool.leases
        leases.add(self)
        used = len(leases)
        pool.used_peak.seen.add(used)
        limit = pool.limit
        if limit is not None and used >= limit:
            pool.filled(now)
        usage = self.usage
        if usage is not None:
            usage.leases.add(self)
            usage.seen.add(len(usage.leases))
        return now

    def acquired(self) -> None:
        """The caller has the connection: the wait is over and the lease starts."""
        pool = self.pool
        handed_over = self.handed_over_at
        if handed_over is None:
            handed_over = self.handed_over()
        self.acquired_at = now = pool.now()
        wait = now - self.requested_at
        usage = self.usage
        if usage is not None:
            usage.wait_time.add(wait)
        if self.silent:
            return
        trace = self.trace
        traced = (trace, now) if trace is not None else None
        if self._split:
            pool.waits.record(wait, traced, *self._wait_parts(now))
        else:
            pool.waits.record(wait, traced, handed_over - self.requested_at, 0.0, now - handed_over)
        if wait >= pool.slow_wait:
            pool.waited(self)
        elif self.starved_by:
            self.starved_by = ()

    def failed(self, outcome: Outcome, error_type: str) -> None:
        """
        The checkout ended without a lease.

        Args:
            outcome: How.
            error_type: The exception's qualified name, for ``error.type``.
        """
        pool = self.pool
        pool.pending.discard(self)
        pool.leases.discard(self)
        pool.emptied()
        self.outcome = outcome
        self.error_type = error_type
        self.ended_at = now = pool.now()
        if self.usage is not None and self.unit is not None:
            self.usage.leases.discard(self)
            self.usage.wait_time.add(now - self.requested_at)
            self.unit.timeouts += outcome is Outcome.TIMEOUT
        if not self.silent:
            pool.failed(self, now - self.requested_at, self._wait_parts(now))

    def released(self, *, abandoned: bool = False) -> None:  # noqa: C901 - the hot path: calls would cost more than branches
        """
        The connection is returned, detached or garbage-collected. Only the first call counts.

        Args:
            abandoned: Whether the caller dropped it without returning it.
        """
        pool = self.pool
        try:
            pool.leases.remove(self)  # atomic: of several ends one wins
        except KeyError:
            pool.inherited.discard(self)
            return
        if pool.full_since:
            pool.emptied()
        usage = self.usage
        if usage is not None:
            usage.leases.discard(self)
        # An exemplar may keep the lease for a while; through it, the library's pool must not live on.
        self.carrier = self.above = None
        started = self.acquired_at
        if started is None:
            return  # it was still being validated: the checkout will fail
        self.ended_at = now = pool.now()
        if usage is not None:
            usage.hold_time.add(now - started)
        if abandoned:
            self.abandoned = True
        if self.silent:
            return
        hold = now - started
        trace = self.trace
        traced = (trace, now) if trace is not None else None
        if self._mark >= 0.0:
            if self.running or self.in_transaction:
                self._close_phase(now)
            query, in_transaction = self.query_time, self.idle_in_transaction_time
            idle = hold - query - in_transaction
            pool.holds.record(hold, traced, query, in_transaction, idle if idle > 0.0 else 0.0)
        else:  # nothing was sent
            pool.holds.record(hold, traced, 0.0, 0.0, hold)
        if abandoned or hold >= pool.long_hold or self.noted:
            pool.listener.returned(self)
        if traced is not None:
            pool.listener.traced(self)

    def invalid(self) -> None:
        """
        The connection that was handed over failed its validation: it is not in use any more, and the checkout
        still waits.
        """
        if self.handed_over_at is None:
            return
        pool = self.pool
        self._validate_time += pool.now() - self.handed_over_at
        self._split = True
        self.handed_over_at = None
        pool.leases.discard(self)
        pool.pending.add(self)
        if pool.full_since:
            pool.emptied()
        if self.usage is not None:
            self.usage.leases.discard(self)

    def interrupt(self, error: BaseException) -> None:
        """
        The application was interrupted while the library was amid this checkout, in a hook. The library is left to come
        to its end, so that it loses nothing; then the checkout ends in what interrupted it.

        Args:
            error: What a signal handler raised.
        """
        self.__dict__["acquired"] = self.__dict__["failed"] = partial(_raise, self, error)

    # What is known of it

    @property
    def thread(self) -> int:
        """The identifier of the thread that checks out."""
        return self.thread_reference.ident

    @property
    def origin(self) -> RawStack:
        """Where the application checked out, from the line nearest to the pool outwards."""
        return stack_of(self.packed_stack)

    @property
    def phase(self) -> str:
        """What the connection is doing now: one of `HOLD_PHASES`."""
        if self.running:
            return HOLD_PHASES[0]
        return HOLD_PHASES[1] if self.in_transaction else HOLD_PHASES[2]

    @property
    def last_used(self) -> float:
        """When the last call to the server began or ended; the start of the lease when there was none."""
        return self._mark if self._mark >= 0.0 else self.acquired_at or self.requested_at

    def wait_phases(self) -> dict[str, float]:
        """Seconds waited, by phase; up to now for a pending checkout."""
        end = self.acquired_at or self.ended_at or self.pool.now()
        queue, connect, validate = self._wait_parts(end)
        resume = self.resume_time
        return dict(zip(WAIT_PHASES, (queue - resume, connect, validate, resume), strict=True))

    def hold_phases(self) -> dict[str, float]:
        """Seconds held, by phase; up to now for a lease that has not ended."""
        if self.acquired_at is None:
            return dict.fromkeys(HOLD_PHASES, 0.0)
        now = self.ended_at or self.pool.now()
        query, in_transaction = self.query_time, self.idle_in_transaction_time
        if self.ended_at is None and self.running:
            query += now - self._mark
        elif self.ended_at is None and self.in_transaction:
            in_transaction += now - self._mark
        idle = max(0.0, now - self.acquired_at - query - in_transaction)
        return dict(zip(HOLD_PHASES, (query, in_transaction, idle), strict=True))

    def age(self) -> float:
        """Seconds since the lease started; for a pending checkout, since it began to wait."""
        return self.pool.now() - (self.acquired_at or self.requested_at)

    def held(self) -> float:
        """Seconds that the lease lasted, or lasts; 0 for a checkout that never got a connection."""
        return 0.0 if self.acquired_at is None else (self.ended_at or self.pool.now()) - self.acquired_at

    def listened(self) -> float:
        """Seconds that it was subscribed to notifications; up to now for a lease that has not ended."""
        return self.kept.listening(self.ended_at or self.pool.now()) if self.kept is not None else 0.0

    def _wait_parts(self, end: float) -> tuple[float, float, float]:
        handed_over = self.handed_over_at
        connect, validated = self.connect_time, self._validate_time
        if handed_over is None:
            return (max(0.0, end - self.requested_at - connect - validated), connect, validated)
        before = self._connect_time_before_handover
        validating = max(0.0, end - handed_over - (connect - before))
        return (max(0.0, handed_over - self.requested_at - before - validated), connect, validated + validating)


def _raise(lease: Lease, error: BaseException, *_: object) -> NoReturn:
    lease.__dict__.pop("acquired", None)  # its traceback refers to the lease
    lease.__dict__.pop("failed", None)
    raise error


class Adopted(Lease):
    """
    A connection that was checked out before poolscope started. It counts as in use; who holds it, and since when, is
    not known.

    Args:
        pool: The pool.
        now: Seconds of the pool's clock.
        held: The id of what the library lists as held; None where it keeps no list.
    """

    adopted = True

    def __init__(self, pool: Pool, now: float, held: int | None = None) -> None:
        self.pool = pool
        self.held_as = held
        self.requested_at = now
        self.thread_reference = NO_THREAD  # not the one that comes across it

    def begins(self, now: float) -> None:
        """It counts from now on; unless it was returned meanwhile."""
        self.handed_over()
        self.acquired_at = now
        if self.held_as is not None:
            self.pool.has_adopted = True  # after it counts: `settle` may just have found none
        if self.silent:
            super().released()

    @override
    def released(self, *, abandoned: bool = False) -> None:
        self.silent = True
        super().released(abandoned=abandoned)
