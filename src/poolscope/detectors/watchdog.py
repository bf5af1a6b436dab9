"""
The watchdog: takes evidence from the hot path, and turns it into findings in the background thread.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.finding import LEAK, NESTED_CHECKOUT, POOL_EXHAUSTED
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.core.pool import OTHER_ERROR
from poolscope.detectors import leak, long_hold, nested, repetition
from poolscope.detectors.diagnosis import exhaustion_report
from poolscope.detectors.diagnosis.cause import judge
from poolscope.detectors.diagnosis.describe import is_over
from poolscope.detectors.diagnosis.load import Record, Sample
from poolscope.detectors.telling import Telling

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

    from poolscope.config import Settings
    from poolscope.core.finding import Finding, FindingSink
    from poolscope.core.lease import Lease
    from poolscope.core.ledger import Ledger
    from poolscope.core.pool import Pool
    from poolscope.core.unit_of_work import UnitOfWork

_logger: Final = logging.getLogger("poolscope.findings")

# Evidence kept for the background thread.
_MOST_KEPT: Final = 10_000


class Watchdog:
    """
    A `PoolObserver` in the application's threads, and a task of the background thread.

    Args:
        ledger: Whose pools to watch.
        settings: Thresholds and intervals.
        sink: Takes the findings.
        leaked: Told of each lease that is found leaked while it is out, before the sink: its span must not be lost.
    """

    def __init__(self, ledger: Ledger, settings: Settings, sink: FindingSink, leaked: Callable[[Lease], None]) -> None:
        self._ledger = ledger
        self._sink = sink
        self._leaked = leaked
        self._wait = settings.exhausted_wait or float("inf")
        self._leaks = leak.LeakDetector(settings.leak_threshold)
        self._interval = settings.finding_interval
        self._telling = Telling(sink, settings.finding_interval, ledger.now)
        self._kept: deque[Callable[[], None]] = deque()
        self._dump_wanted = False
        self._is_last_turn = False
        self.forget()

    def forget(self) -> None:
        """
        At the start, and in a child process after a fork: what was kept and told is the parent's.
        """
        self._kept.clear()
        self._telling.forget()
        self._told_leaks: weakref.WeakSet[Lease] = weakref.WeakSet()
        self._records: dict[str, Record] = {}
        self._workers: dict[str, int] = {}
        self._looked_at = self._ledger.now()
        self._snapped: dict[str, float] = {}
        self._snapping = Lock()

    # In the application's threads

    def pool_added(self, pool: Pool) -> None:
        """
        See `PoolObserver.pool_added`.
        """

    def waited(self, lease: Lease, _: Collection[Lease]) -> None:
        """
        See `PoolObserver.waited`. On a timeout who waited looks around himself: now is when it shows who held.
        """
        if lease.outcome is not Outcome.TIMEOUT or lease.silent:
            return
        _mark(lease, POOL_EXHAUSTED)
        if self._may_snap(lease.pool):
            snapshot = exhaustion_report.Snapshot.take(lease)
            self._keep(lambda: self._exhausted(snapshot))
        else:
            self._keep(lambda: self._telling.count((POOL_EXHAUSTED, lease.pool.identity.name)))

    def nested(self, lease: Lease, held: Lease) -> None:
        """
        See `PoolObserver.nested`.
        """
        _mark(lease, NESTED_CHECKOUT)
        concerned = lease.pool.leases.copy() | lease.pool.asking.copy()
        workers = len({id(one.unit) if one.unit else id(one.task) if one.task else one.thread for one in concerned})
        name = lease.pool.identity.name
        self._workers[name] = workers = max(workers, self._workers.get(name, 0))
        self._keep(lambda: self._nested(lease, held, workers))

    def returned(self, lease: Lease) -> None:
        """
        See `PoolObserver.returned`.
        """
        if lease.leak is not None:
            self._keep(lambda: self._resolved(lease))
        elif lease.abandoned:
            leak.enter(lease, leak.ABANDONED)
            self._keep(lambda: self._leaked_now(lease))
        elif self._is_long(lease):
            _mark(lease, long_hold.kind_of(lease))
            self._keep(lambda: self._held_long(lease))

    def traced(self, lease: Lease) -> None:
        """
        See `PoolObserver.traced`; nothing to look at.
        """

    def judge_unit(self, unit: UnitOfWork) -> None:
        """
        See `Units.on_judge`. Django returns a request's connection after the span around it has ended.
        """
        for share in tuple(unit.shares.values()):
            for lease in share.leases.copy():
                if lease.leak is None and self._is_long(lease):
                    unit.findings.add(long_hold.kind_of(lease))

    def unit_ended(self, unit: UnitOfWork) -> None:
        """
        See `Units.on_end`.
        """
        repetitions = self._ledger.units.repetitions(unit)
        if repetitions:
            self._ledger.units.findings_of(unit)
            self._keep(lambda: self._repeated(unit, repetitions))

    # In the background thread

    def turn(self) -> None:
        """
        Work off what was kept; about once a second look at every pool.
        """
        if self._dump_wanted:
            self._dump_wanted = False
            guard.run("watchdog.dump", self._write_dump, None)
        while self._kept:
            guard.run("watchdog.evidence", self._kept.popleft(), None)
        if self._is_last_turn:
            self._is_last_turn = False
            guard.run("watchdog.tell", lambda: self._telling.tell_what_is_due(everything=True), None)
        now = self._ledger.now()
        if now - self._looked_at < 1.0:
            return
        self._looked_at = now
        for pool in tuple(self._ledger.pools.values()):
            guard.run("watchdog.look", lambda pool=pool: self._look(pool), None)  # type: ignore[misc]
        guard.run("watchdog.tell", self._telling.tell_what_is_due, None)

    def end(self) -> None:
        """
        Poolscope or the process ends: the next turn tells of everything that it has held back.
        """
        self._is_last_turn = True

    def dump(self) -> None:
        """
        Have the holders of every pool written to the log, soon. Safe in a signal handler.
        """
        self._dump_wanted = True

    def _write_dump(self) -> None:
        for pool in tuple(self._ledger.pools.values()):
            _logger.warning("%s", exhaustion_report.dump(pool))

    def _look(self, pool: Pool) -> None:
        self._record_of(pool).add(Sample.of(pool))
        for lease in self._leaks.look(pool):
            self._leaked_now(lease)
            self._leaked(lease)
        for ask in pool.asking.copy():
            if is_over(ask):
                ask.fail(Outcome.CANCELLED, OTHER_ERROR)
        waiting = [lease for lease in pool.asking.copy() if lease.age() >= self._wait and not lease.silent]
        for lease in waiting:
            _mark(lease, POOL_EXHAUSTED)
        if waiting and self._may_snap(pool):
            self._exhausted(exhaustion_report.Snapshot.take(max(waiting, key=lambda lease: lease.age())))

    def _record_of(self, pool: Pool) -> Record:
        record = self._records.get(pool.identity.name)
        if record is None:
            record = self._records[pool.identity.name] = Record(pool)
        return record

    def _may_snap(self, pool: Pool) -> bool:
        # Of several that time out at once one looks around. Nobody waits for the lock.
        if not self._snapping.acquire(blocking=False):
            return False
        try:
            now = self._ledger.now()
            last = self._snapped.get(pool.identity.name)
            if last is not None and now - last < self._interval:
                return False
            self._snapped[pool.identity.name] = now
            return True
        finally:
            self._snapping.release()

    def _leaked_now(self, lease: Lease) -> None:
        def make(repeated: int) -> Finding:
            finding = leak.found(lease)
            return replace(finding, evidence={**finding.evidence, "repeated": repeated})

        if self._telling.tell(_place(LEAK, lease), make):
            self._told_leaks.add(lease)

    def _resolved(self, lease: Lease) -> None:
        if lease in self._told_leaks:
            self._sink.report(leak.resolved(lease))

    def _exhausted(self, snapshot: exhaustion_report.Snapshot) -> None:
        pool = snapshot.pool
        verdict = judge(pool, self._record_of(pool), snapshot.out)
        self._telling.tell_now(
            (POOL_EXHAUSTED, pool.identity.name), lambda repeated: exhaustion_report.report(snapshot, verdict, repeated)
        )

    def _nested(self, lease: Lease, held: Lease, workers: int) -> None:
        self._telling.tell(
            _place(NESTED_CHECKOUT, lease),
            lambda repeated: nested.found(lease, held, workers, repeated),
            critical=nested.may_deadlock(lease, workers),
        )

    def _held_long(self, lease: Lease) -> None:
        self._telling.tell(_place(long_hold.kind_of(lease), lease), lambda repeated: long_hold.found(lease, repeated))

    def _repeated(self, unit: UnitOfWork, repetitions: list[tuple[Pool, Any]]) -> None:
        for pool, group in repetitions:
            key = (pool.identity.name, str(unit), group.shape, group.site)
            self._telling.tell(key, partial(repetition.found, unit, pool, group))

    def _is_long(self, lease: Lease) -> bool:
        return (
            lease.excuse is None
            and lease.held() >= lease.pool.long_hold
            and not nested.explains(lease)
            and not repetition.explains(lease, self._ledger.units.threshold)
        )

    def _keep(self, work: Callable[[], None]) -> None:
        if len(self._kept) < _MOST_KEPT:
            self._kept.append(work)
        else:
            guard.count("watchdog.dropped")


def _place(identity: str, lease: Lease) -> Hashable:
    return (identity, lease.pool.identity.name, str(lease.unit), lease.origin[:1])


def _mark(lease: Lease, identity: str) -> None:
    if lease.unit is not None:
        lease.unit.findings.add(identity)
