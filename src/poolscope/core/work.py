"""The unit of work: one request, task or job, to which leases and queries belong."""

from __future__ import annotations

import logging
from collections import deque
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Protocol

from poolscope.core import clock
from poolscope.core.counters import Sum
from poolscope.core.execution import running_task
from poolscope.core.histogram import Distribution
from poolscope.core.log_lines import log_lines
from poolscope.core.sql.repetition import Repetitions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poolscope.core.lazy_jobs import LazyJob
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool

    class Ends(Protocol):
        """What ends a unit of work."""

        unit: UnitOfWork

        def end(self) -> None:
            """End it; only the first call counts, and none raises."""


_logger: Final = logging.getLogger("poolscope")

#: How long after its last byte a response may still be closed, in seconds; what runs then is part of the request.
UNCLOSED_GRACE: Final = 5.0

#: The name that units of work beyond the allowed number of names share.
OVERFLOW: Final = "overflow"


class Usage:
    """One unit of work's usage of one pool. Threads and tasks of the unit may use it at the same time."""

    __slots__ = ("hold_time", "leases", "nested", "queries", "repetitions", "seen", "wait_time")

    def __init__(self, pool: Pool) -> None:
        self.leases: set[Lease] = set()
        self.seen: set[int] = set()
        self.wait_time = Sum()
        self.hold_time = Sum()
        self.queries = Sum()
        self.nested = 0
        self.repetitions = Repetitions(pool.identity.system, pool.locate)

    def most_held(self) -> int:
        """The most connections that the unit of work held at once."""
        return max(self.seen, default=0)


class UnitOfWork:
    """
    One request, task or job.

    Args:
        kind: `http`, `task`, `rpc` or `job`.
        name: A route template or task name, never a raw path. It may become known later: it is read at the end.
        started_at: Seconds of the clock.
    """

    __slots__ = (
        "__weakref__",
        "_ends",
        "by_default",
        "ended",
        "findings",
        "hands_on",
        "kind",
        "name",
        "span",
        "started_at",
        "task",
        "thread",
        "timeouts",
        "usages",
    )  # fmt: skip

    def __init__(self, kind: str, name: str, started_at: float = 0.0) -> None:
        self.kind = kind
        self.name = name
        self.started_at = started_at
        #: Where it began; threads and tasks that it starts may outlive it.
        self.thread = get_ident()
        self.task = running_task()
        self.ended = False
        self._ends = [True]
        #: Whether it is a job that no framework knows (`poolscope.core.lazy_jobs`): it may run for as long as the
        #: process does, and what is left when it ends may be so on purpose.
        self.by_default = False
        #: Whether such a job returned something that a connection may be in: others may have it, and return it.
        self.hands_on = False
        self.usages: dict[Pool, Usage] = {}
        #: The span around it (SERVER, CONSUMER), if it is recorded.
        self.span: Any = None
        #: Checkouts of it that timed out.
        self.timeouts = 0
        #: Ids of what was found about it.
        self.findings: set[str] = set()

    def usage_of(self, pool: Pool) -> Usage:
        """Its usage of a pool; begun with the first checkout."""
        usage = self.usages.get(pool)
        return usage if usage is not None else self.usages.setdefault(pool, Usage(pool))

    def claim_end(self) -> bool:
        """Whether the caller ends it: of several, in whatever threads, one does."""
        try:
            return self._ends.pop()
        except IndexError:
            return False

    def __str__(self) -> str:
        """Kind and name."""
        return f"{self.kind} {self.name}"


#: The unit of work that the running code belongs to.
CURRENT_UNIT: Final[ContextVar[UnitOfWork | None]] = ContextVar("poolscope_unit_of_work", default=None)

#: Why a long hold is all right here (`poolscope.expected_long_hold`); None where it is not.
EXPECTED_LONG_HOLD: Final[ContextVar[str | None]] = ContextVar("poolscope_expected_long_hold", default=None)


class UnitSeries:
    """
    What was measured of units of work of one kind and name, in one pool.

    Args:
        duration_bounds: Upper bounds of durations, in seconds.
        count_bounds: Upper bounds of counts.
        distribution: The kind of histogram to keep.
    """

    def __init__(
        self, duration_bounds: Sequence[float], count_bounds: Sequence[float], distribution: type[Distribution[Any]]
    ) -> None:
        self.queries: Distribution[Any] = distribution(count_bounds)
        self.connections: Distribution[Any] = distribution(count_bounds)
        self.wait_time: Distribution[Any] = distribution(duration_bounds)
        self.hold_time: Distribution[Any] = distribution(duration_bounds)
        self.repeated_queries = Sum()


class Units:
    """
    Begins and ends units of work, and keeps what was measured of them.

    Args:
        duration_bounds: Upper bounds of duration histograms, in seconds.
        count_bounds: Upper bounds of histograms of counts.
        most_names: How many kinds and names there may be; further ones share `OVERFLOW`.
        threshold: From how many runs of one shape by one line on, exclusive, it is a repetition.
        now: The clock.
        on_diagnose: Adds the ids of what is known about a unit of work to its findings; in the application's thread.
    """

    def __init__(
        self,
        duration_bounds: Sequence[float],
        count_bounds: Sequence[float],
        *,
        most_names: int = 500,
        threshold: int = 5,
        now: clock.Clock = clock.monotonic,
        on_diagnose: Callable[[UnitOfWork], None] | None = None,
    ) -> None:
        self.threshold = threshold
        #: Called with each unit of work that begins; in the application's thread.
        self.on_begin: Callable[[UnitOfWork], None] = _nothing
        #: Called with each unit of work that ends, before its figures are recorded; in the application's thread.
        self.on_end: Callable[[UnitOfWork], None] = _nothing
        self._on_diagnose = on_diagnose or _nothing
        self.distribution: type[Distribution[Any]] = Distribution
        self.now = now
        #: Whether threads and executors' jobs belong to the unit of work that starts them.
        self.reach_threads = False
        #: Whether none begins any more, since poolscope has ended.
        self.closed = False
        #: Of a script: what ends with the process.
        self.main: LazyJob | None = None
        self._duration_bounds = tuple(duration_bounds)
        self._count_bounds = tuple(count_bounds)
        self._most_names = most_names
        self._start()

    def _start(self) -> None:
        #: Another object in each process.
        self.process = object()
        self.series: dict[tuple[str, str, str], UnitSeries] = {}
        self._names: dict[tuple[str, str], int] = {}
        # A name takes the next free place. Both containers change by single atomic operations and there is no lock:
        # what ends a unit of work may be the garbage collector, inside a logging handler that another thread waits for.
        self._places = deque(range(self._most_names))
        #: Of responses that were read to their end and not closed yet: when that was, in which thread, and whether the
        #: server knows that it was all; by what ends their unit of work.
        self.unclosed: dict[Ends, tuple[float, int, bool]] = {}
        self._overflowing: dict[str, object] = {}

    def begin(self, kind: str, name: str) -> UnitOfWork:
        """A unit of work begins; the caller puts it into `CURRENT_UNIT` and calls `end` in any case."""
        unit = UnitOfWork(kind, name, self.now())
        self.on_begin(unit)
        return unit

    def begin_job(self, name: str) -> UnitOfWork:
        """A job that no framework knows begins to use a pool; it is not tied to the span around that moment."""
        unit = UnitOfWork("job", name, self.now())
        unit.by_default = True
        return unit

    def end(self, unit: UnitOfWork) -> None:
        """
        A unit of work ends: each pool that it used gets one point in each of its histograms. Only the first call
        counts.
        """
        if unit.ended or not unit.claim_end():
            return
        self.on_end(unit)
        unit.ended = True
        now = self.now()
        for pool in list(unit.usages):
            usage = unit.usages[pool]
            series = self.series_of(unit.kind, unit.name, pool.identity.name)
            still_held = sum(now - lease.acquired_at for lease in usage.leases.copy() if lease.acquired_at is not None)
            series.queries.record(usage.queries.read())
            series.connections.record(usage.most_held())
            series.wait_time.record(usage.wait_time.read())
            series.hold_time.record(usage.hold_time.read() + still_held)
            for repetition in usage.repetitions.beyond_threshold(self.threshold):
                series.repeated_queries.add(repetition.count)

    def end_unclosed(self, grace: float = UNCLOSED_GRACE) -> None:
        """
        End the units of work whose response was read to its end and that is left open.

        Args:
            grace: How long ago that must be, in seconds; 0 for all.
        """
        limit = self.now() - grace
        for ends, since, _, sent in self._open_responses():
            held = any(usage.leases for usage in list(ends.unit.usages.values()))
            if since <= limit and (sent or not held or not grace):
                ends.end()

    def end_unclosed_here(self) -> None:
        """The same for those that began and were read in this thread and task: the next one begins."""
        thread, task = get_ident(), running_task()
        for ends, _, reader, _ in self._open_responses():
            if reader == thread == ends.unit.thread and ends.unit.task is task:
                ends.end()

    def _open_responses(self) -> list[tuple[Ends, float, int, bool]]:
        # Of a dict, `list` is one operation. Its items are objects of their own: what makes them may start the garbage
        # collector, which may end one of the responses.
        found = [(ends, self.unclosed.get(ends)) for ends in list(self.unclosed)]
        return [(ends, *read) for ends, read in found if read is not None]

    def end_all(self) -> None:
        """The process or poolscope ends, and with it what is left open: responses, and a script's main program."""
        self.end_unclosed(0.0)
        if self.main is not None:
            self.main.end()

    def series_of(self, kind: str, name: str, pool: str) -> UnitSeries:
        """The series of a kind and name in a pool; that of `OVERFLOW` when there are too many names."""
        series = self.series.get((kind, name, pool))
        if series is not None:
            return series
        if not self._has_place(kind, name):
            self._overflow(kind)
            name = OVERFLOW
            series = self.series.get((kind, name, pool))
        if series is None:
            fresh = UnitSeries(self._duration_bounds, self._count_bounds, self.distribution)
            series = self.series.setdefault((kind, name, pool), fresh)  # atomic: of two threads one wins
        return series

    def _has_place(self, kind: str, name: str) -> bool:
        key = (kind, name)
        if key in self._names:
            return True
        try:
            place = self._places.popleft()
        except IndexError:
            return key in self._names  # another thread may have given it the last place meanwhile
        if self._names.setdefault(key, place) != place:
            self._places.append(place)  # another thread was first with this name: the place is free again
        return True

    def _overflow(self, kind: str) -> None:
        mine = object()
        if self._overflowing.setdefault(kind, mine) is mine:
            log_lines.write(
                _logger,
                logging.WARNING,
                "more than %d names of units of work: further ones share the series %r; see POOLSCOPE_MAX_UNITS",
                self._most_names,
                OVERFLOW,
            )

    def findings_of(self, unit: UnitOfWork) -> list[str]:
        """The ids of what was found about a unit of work so far, in alphabetical order."""
        self._on_diagnose(unit)
        return sorted(unit.findings)

    def forget(self) -> None:
        """In a child process after a fork: start anew at nothing."""
        self._start()


def _nothing(_: UnitOfWork) -> None:
    pass
