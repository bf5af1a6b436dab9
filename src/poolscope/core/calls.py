"""What a leased connection does: its calls to the server, and the statements among them."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from poolscope.core.sql.lasting import KIND_OF_STATEMENT, Kept, kind_of
from poolscope.core.sql.repetition import EXPECTED_REPETITION, PAUSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.counters import Sum
    from poolscope.core.sql.lasting import Lasting
    from poolscope.core.sql.repetition import Repetition, Repetitions
    from poolscope.types import LibraryObject

#: Under this key a library's object holds our mark: a `Pool`, a `Lease`, or what ties one to it.
KEY: Final = "_poolscope"

#: Before any moment of a clock.
NEVER: Final = -1.0

#: Calls that take no longer are none that a long hold is due to, in seconds.
SLOW: Final = 0.01


class Timed(Protocol):
    """What calls need of a pool."""

    def now(self) -> float:
        """Seconds of the pool's clock."""


class Counted(Protocol):
    """What calls need of the usage that they are counted for."""

    queries: Sum
    repetitions: Repetitions


class Calls:
    """
    The calls of one lease to the server. All durations are seconds of the pool's clock.

    Class attributes are the values that a lease starts with; most never change most of them.
    """

    pool: Timed
    connecting = False
    connect_time = 0.0
    _split = False
    query_time = 0.0
    idle_in_transaction_time = 0.0
    running = False
    in_transaction = False
    queries = 0
    _mark = NEVER
    usage: Counted | None = None
    repetition: Repetition | None = None
    #: The last one.
    statement: str | None = None
    #: The one that one call took longest for, and how long that was; None where no call took long.
    slowest: str | None = None
    slowest_time = 0.0
    above: Callable[[], Calls | None] | None = None
    kept: Kept | None = None
    #: Whether the lease's end is to be reported to the listener, however short it was.
    noted = False

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
        try:
            kind = KIND_OF_STATEMENT[statement]
        except KeyError:
            kind = kind_of(statement)
        if kind is True or (kind and self._keeps(statement, kind)):
            self.queries += 1
            self.statement = statement
            usage = self.usage
            if usage is not None:
                usage.queries.add(1)
                if not many and EXPECTED_REPETITION.get() is None:
                    self.repetition = usage.repetitions.saw(statement, sys._getframe(2), parameters)  # noqa: SLF001
        self.call_begins()

    def statement_begins_below(self, statement: str) -> None:
        """A statement passes through here on its way from a pool on top of this one, which has counted it."""
        try:
            kind = KIND_OF_STATEMENT[statement]
        except KeyError:
            kind = kind_of(statement)
        if kind is True or (kind and self._keeps(statement, kind)):
            self.queries += 1
            self.statement = statement
        self.call_begins()

    def counted_above(self) -> bool:
        """
        Whether a statement that begins is part of a call that the pool on top of this one has counted.

        A connection may pass through two pools, as when SQLAlchemy's creator takes it from psycopg_pool. `above` finds
        the upper pool's lease of it, so that only those connections pay for the question.
        """
        above = self.above
        lease = above() if above is not None else None
        return lease is not None and lease.running

    def call_begins(self) -> None:
        """A call to the server begins: a statement, a commit, a rollback."""
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
        queried = self.query_time
        self.query_time = queried + seconds
        self._mark = now
        self.running = False
        if seconds > SLOW:
            self._was_slow(seconds, ends=self.in_transaction and not in_transaction)
        repetition = self.repetition
        if repetition is not None:
            repetition.seconds += seconds
            busy = queried - repetition.queried
            if now - seconds - repetition.ended_at - (busy if busy >= 0.0 else queried) >= PAUSE:
                repetition.pauses += 1
            repetition.ended_at = now
            repetition.queried = self.query_time
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

    @property
    def listens(self) -> bool:
        """Whether it is subscribed to notifications now: its connection is held by design."""
        return self.kept is not None and self.kept.channels > 0

    def _keeps(self, statement: str, change: Lasting) -> bool:
        """
        A statement begins that leaves something on its connection, should it end well. Rare: the end of this one call
        is taken over, so that the others do not pay for the question.
        """
        self.__dict__["call_ends"] = partial(self._kept_ends, statement, change, sys.exc_info()[1])
        return change.query

    def _kept_ends(self, statement: str, change: Lasting, error: BaseException | None, *, in_transaction: bool) -> None:
        is_first = self.__dict__.pop("call_ends", None) is not None  # two threads may share the connection
        self.call_ends(in_transaction=in_transaction)
        if not is_first or sys.exc_info()[1] is not error:  # hooks end a call on its way out
            return
        kept = self.kept
        if kept is None:
            kept = self.kept = Kept()
        kept.ran(statement, change, self.pool.now())
        self.noted = self.noted or bool(kept.locks or kept.tries or kept.strange_unlocks)

    def _was_slow(self, seconds: float, *, ends: bool) -> None:
        # What ends a transaction is no work of the statement before it.
        if seconds > self.slowest_time and not ends:
            self.slowest, self.slowest_time = self.statement, seconds

    def _close_phase(self, now: float) -> None:
        if self.running:
            self.query_time += now - self._mark
            self.running = False
        elif self.in_transaction:
            self.idle_in_transaction_time += now - self._mark
