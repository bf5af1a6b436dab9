"""
The lease: one checkout of a connection, from the request for it to its return.
"""

from __future__ import annotations

import sys
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.execution import running_task, running_thread
from poolscope.core.origin import stack_of
from poolscope.core.sql.fingerprint import is_query
from poolscope.core.types import LibraryObject, override
from poolscope.core.work import EXPECTED_REPETITION

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from poolscope.core.execution import LifeReference, TaskReference
    from poolscope.core.origin import RawStack, Trail
    from poolscope.core.pool import Pool
    from poolscope.core.sql.repetition import Repetition
    from poolscope.core.work import Share, UnitOfWork


class Outcome(Enum):
    """
    How a checkout ended that did not become a lease.
    """

    TIMEOUT = "timeout"
    REJECTED = "rejected"
    ERROR = "error"
    CANCELLED = "cancelled"


WAIT_PHASES: Final = ("queue", "connect", "validate")

#: Under this key a library's object holds our mark: a `Pool`, a `Lease`, or what ties one to it.
KEY: Final = "_poolscope"

USE_PHASES: Final = ("query", "idle_in_transaction", "idle")

#: Before any moment of a clock.
NEVER: Final = -1.0


class Lease:
    """
    One checkout: pending while it waits for a connection, a lease once the caller has it.

    Class attributes are the values a checkout starts with. Most checkouts never change most of them, which keeps making
    one cheap. `Pool.ask` makes it and sets what the usual path reads: until Python 3.12, reading a class
    attribute through an instance costs more than setting and reading one of its own. All moments and durations are
    seconds of the pool's clock.
    """

    pool: Pool
    asked_at: float
    #: Dead when the thread has finished; another thread may have its identifier by then.
    thread_life: LifeReference
    task: TaskReference | None = None

    outcome: Outcome | None = None
    error_type: str | None = None
    got_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    abandoned = False
    adopted = False
    connecting = False
    connect_failed = False
    connect_time = 0.0
    _split = False
    _validate_time = 0.0
    _connect_time_before_got = 0.0
    pending_at_ask = 0
    used_at_ask = 0
    starved_by: Collection[Lease] = ()
    query_time = 0.0
    idle_in_transaction_time = 0.0
    running = False
    in_transaction = False
    queries = 0
    _mark = NEVER
    trail: Trail = ()
    trace: Any = None
    silent = False
    unrecorded = False
    unit: UnitOfWork | None = None
    share: Share | None = None
    repetition: Repetition | None = None
    statement: str | None = None
    backend_process_id: int | None = None
    span_context: Any = None
    carrier: Any = None
    above: Mapping[str, Any] | None = None
    excuse: str | None = None
    leak: str | None = None
    span_told = False
    over_since = 0.0

    # The life of a lease

    def got(self) -> float:
        """
        The pool handed a connection over; it may still have to be validated. From here the connection is in use.

        Returns:
            The moment, in seconds of the clock.
        """
        pool = self.pool
        self.got_at = now = pool.now()
        if self._split:
            self._connect_time_before_got = self.connect_time
        pool.asking.discard(self)
        leases = pool.leases
        leases.add(self)
        used = len(leases)
        pool.used_peak.seen.add(used)
        limit = pool.limit
        if limit is not None and used >= limit:
            pool.filled(now)
        share = self.share
        if share is not None:
            share.leases.add(self)
            share.seen.add(len(share.leases))
        return now

    def grant(self) -> None:
        """
        The caller has the connection: the wait is over and the lease starts.
        """
        pool = self.pool
        got = self.got_at
        if got is None:
            got = self.got()
        self.started_at = now = pool.now()
        wait = now - self.asked_at
        share = self.share
        if share is not None:
            share.wait_time.add(wait)
        if self.silent:
            return
        trace = self.trace
        traced = (trace, now) if trace is not None else None
        if self._split:
            pool.waits.record(wait, traced, self._wait_parts(now))
        else:
            pool.waits.record(wait, traced, (got - self.asked_at, 0.0, now - got))
        if wait >= pool.slow_wait:
            pool.waited(self)
        elif self.starved_by:
            self.starved_by = ()

    def fail(self, outcome: Outcome, error_type: str) -> None:
        """
        The checkout ended without a lease.

        Args:
            outcome: How.
            error_type: The exception's qualified name, for ``error.type``.
        """
        pool = self.pool
        pool.asking.discard(self)
        pool.leases.discard(self)
        pool.emptied()
        self.outcome = outcome
        self.error_type = error_type
        self.ended_at = now = pool.now()
        if self.share is not None and self.unit is not None:
            self.share.leases.discard(self)
            self.share.wait_time.add(now - self.asked_at)
            self.unit.timeouts += outcome is Outcome.TIMEOUT
        if not self.silent:
            pool.failed(self, now - self.asked_at, self._wait_parts(now))

    def end(self, *, abandoned: bool = False) -> None:  # noqa: C901 - the hot path: calls would cost more than branches
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
        share = self.share
        if share is not None:
            share.leases.discard(self)
        # An exemplar may keep the lease for a while; through it, the library's pool must not live on.
        self.carrier = self.above = None
        started = self.started_at
        if started is None:
            return  # it was still being validated: the checkout will fail
        self.ended_at = now = pool.now()
        if share is not None:
            share.hold_time.add(now - started)
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
            pool.uses.record(hold, traced, (query, in_transaction, idle if idle > 0.0 else 0.0))
        else:  # nothing was sent
            pool.uses.record(hold, traced, (0.0, 0.0, hold))
        if abandoned or hold >= pool.long_hold or self.leak is not None:
            pool.observer.returned(self)
        if traced is not None:
            pool.observer.traced(self)

    def invalid(self) -> None:
        """
        The connection that was handed over failed its validation: it is not in use any more, and the checkout
        still waits.
        """
        if self.got_at is None:
            return
        pool = self.pool
        self._validate_time += pool.now() - self.got_at
        self._split = True
        self.got_at = None
        pool.leases.discard(self)
        pool.asking.add(self)
        if pool.full_since:
            pool.emptied()
        if self.share is not None:
            self.share.leases.discard(self)

    # What the connection does

    def statement_begins(self, statement: str, *, many: bool = False, parameters: LibraryObject = None) -> None:
        """
        A statement begins. If it is a query, it is counted for the unit of work that checked the connection
        out.

        Args:
            statement: SQL, with its parameters kept apart; it stays in the process.
            many: Whether one call runs it for many rows (``executemany``, a batch): that is one query by the
                conventions, and no repetition.
            parameters: What the driver gets for its parameters, where it is at hand. They tell the next chunk of much
                data from a repetition; they stay in the process.
        """
        self.repetition = None
        if is_query(statement):
            self.queries += 1
            self.statement = statement
            share = self.share
            if share is not None:
                share.queries.add(1)
                if not many and EXPECTED_REPETITION.get() is None:
                    self.repetition = share.repetitions.saw(statement, sys._getframe(2), parameters)  # noqa: SLF001
        self.call_begins()

    def statement_begins_below(self, statement: str) -> None:
        """
        A statement passes through here on its way from a pool on top of this one, which has counted it.
        """
        if is_query(statement):
            self.queries += 1
            self.statement = statement
        self.call_begins()

    def counted_above(self) -> bool:
        """
        Whether a statement that begins is part of a call that the pool on top of this one has counted.

        A connection may pass through two pools, as when SQLAlchemy's creator takes it from psycopg_pool. `above` is
        where the upper pool keeps its lease of it (under `KEY`), so that only those connections pay for the question.
        """
        above = self.above
        lease: Lease | None = above.get(KEY) if above is not None else None
        return lease is not None and lease.running

    def call_begins(self) -> None:
        """
        A call to the server begins: a statement, a commit, a rollback.
        """
        now = self.pool.now()
        if self.running:  # two tasks share the connection
            self.query_time += now - self._mark
        elif self.in_transaction:
            self.idle_in_transaction_time += now - self._mark
        self._mark = now
        self.running = True

    def call_ends(self, *, in_transaction: bool) -> None:
        """
        The call to the server ended, well or not.

        Args:
            in_transaction: Whether a transaction is open now.
        """
        now = self.pool.now()
        seconds = now - self._mark
        self.query_time += seconds
        self._mark = now
        self.running = False
        repetition = self.repetition
        if repetition is not None:
            repetition.seconds += seconds
            self.repetition = None
        self.in_transaction = in_transaction

    def connected(self, seconds: float) -> None:
        """
        A physical connection was made, or tried, for this checkout.

        Args:
            seconds: How long it took.
        """
        self.connecting = False
        self.connect_time += seconds
        self._split = True

    # What is known of it

    @property
    def thread(self) -> int:
        """
        The identifier of the thread that checks out.
        """
        return self.thread_life.ident

    @property
    def origin(self) -> RawStack:
        """
        Where the application checked out, from the line nearest to the pool outwards.
        """
        return stack_of(self.trail)

    @property
    def phase(self) -> str:
        """
        What the connection is doing now: one of `USE_PHASES`.
        """
        if self.running:
            return USE_PHASES[0]
        return USE_PHASES[1] if self.in_transaction else USE_PHASES[2]

    @property
    def last_used(self) -> float:
        """
        When the last call to the server began or ended; the start of the lease when there was none.
        """
        return self._mark if self._mark >= 0.0 else self.started_at or self.asked_at

    def wait_phases(self) -> dict[str, float]:
        """
        Seconds waited, by phase; up to now for a pending checkout.
        """
        end = self.started_at or self.ended_at or self.pool.now()
        return dict(zip(WAIT_PHASES, self._wait_parts(end), strict=True))

    def use_phases(self) -> dict[str, float]:
        """
        Seconds held, by phase; up to now for a lease that has not ended.
        """
        if self.started_at is None:
            return dict.fromkeys(USE_PHASES, 0.0)
        now = self.ended_at or self.pool.now()
        query, in_transaction = self.query_time, self.idle_in_transaction_time
        if self.ended_at is None and self.running:
            query += now - self._mark
        elif self.ended_at is None and self.in_transaction:
            in_transaction += now - self._mark
        idle = max(0.0, now - self.started_at - query - in_transaction)
        return dict(zip(USE_PHASES, (query, in_transaction, idle), strict=True))

    def age(self) -> float:
        """
        Seconds since the lease started; for a pending checkout, since it began to wait.
        """
        return self.pool.now() - (self.started_at or self.asked_at)

    def held(self) -> float:
        """
        Seconds that the lease lasted, or lasts; 0 for a checkout that never got a connection.
        """
        return 0.0 if self.started_at is None else (self.ended_at or self.pool.now()) - self.started_at

    def _wait_parts(self, end: float) -> tuple[float, float, float]:
        got = self.got_at
        connect, validated = self.connect_time, self._validate_time
        if got is None:
            return (max(0.0, end - self.asked_at - connect - validated), connect, validated)
        before = self._connect_time_before_got
        validating = max(0.0, end - got - (connect - before))
        return (max(0.0, got - self.asked_at - before - validated), connect, validated + validating)

    def _close_phase(self, now: float) -> None:
        if self.running:
            self.query_time += now - self._mark
            self.running = False
        elif self.in_transaction:
            self.idle_in_transaction_time += now - self._mark


class Adopted(Lease):
    """
    A connection that was checked out before poolscope started. It counts as in use; how long it was held is not known.

    Args:
        pool: The pool.
        now: Seconds of the pool's clock.
    """

    adopted = True

    def __init__(self, pool: Pool, now: float) -> None:
        self.pool = pool
        self.asked_at = now
        self.thread_life = running_thread().reference
        self.task = running_task()
        self.got()
        self.started_at = now

    @override
    def end(self, *, abandoned: bool = False) -> None:
        self.silent = True
        super().end(abandoned=abandoned)
