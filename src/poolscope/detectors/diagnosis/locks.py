"""
Statements that wait for a lock of another lease of this process, as far as both can be seen from here.

The database alone knows who waits for whom. What is seen here: a statement that wants a lock of a table runs for long,
and the lease of another pool or of this one has run a statement that takes such a lock and keeps its transaction open
meanwhile. Which rows either is about is not known, so that alone says nothing: the statement may be slow by itself. It
is likely to wait

- if such a transaction was open during all of its time (or several, one after the other), and
- if it is known to be fast when nothing is in its way: the same statement took next to no time for the holder, it
  concerns one row by its key, it adds a row, or it does nothing but lock; or if the two locks exclude each other
  whatever the rows.
"""

from __future__ import annotations

import re
import weakref
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolscope.core.lock_wait import LockWait, seconds_locked
from poolscope.core.sql.locking import locks_of
from poolscope.core.sql.locks import Mode
from poolscope.detectors.diagnosis.describe import current_stack, stack_now, statement_of
from poolscope.detectors.diagnosis.lock_holders import SHORTEST, holding_of
from poolscope.detectors.diagnosis.lock_words import elsewhere, in_words
from poolscope.detectors.server_probe import lists

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from poolscope.core.lease import Lease
    from poolscope.core.origin import RawStack
    from poolscope.core.pool import Pool
    from poolscope.core.sql.locks import Lock
    from poolscope.detectors.diagnosis.lock_holders import Holding
    from poolscope.detectors.server_probe import Blocker, ServerProbe

# A shorter wait is not likely enough to be one.
_LEAST: Final = 0.25
# From this share of its time on, a lock was held meanwhile.
_COVERED: Final = 0.8
# A statement that took no longer is fast: so many seconds, or this share of the wait.
_FAST: Final = 0.1
_FAST_SHARE: Final = 0.25
# Frames of a holder that are kept.
_DEPTH: Final = 5
# A statement that was slow with no lock in its way is not known to be fast for so long, in seconds.
_REMEMBERED: Final = 60.0
_MOST_SLOW: Final = 500
# Who waits for one that waits itself, and so on.
_LONGEST_CHAIN: Final = 10
_NEVER: Final = float("-inf")

#: What was said of holders at one look, and what they executed.
Words = dict["Lease", "tuple[str, RawStack]"]

_WHERE: Final = re.compile(r"\bwhere\b")
_BY_KEY: Final = re.compile(r"(?<!\w)[\"`\[]?(?:id|uuid|guid|pk)[\"`\]]? ?(?:=|in) ?\(?\?")
_ADDS_VALUES: Final = re.compile(r"^(?:insert|replace)\b(?!.*\bselect\b)", re.DOTALL)
_ENDS: Final = frozenset({"commit", "do_commit", "rollback", "do_rollback", "do_end"})
_RUNS: Final = ("execute", "fetch", "query", "copy", "stream", "call", "bind")


@dataclass
class _Candidate:
    """
    What was seen of one statement that may wait.

    Args:
        began: When it began.
        seen: When it was last looked at.
        covered: Seconds of its time in which one was.
    """

    began: float
    seen: float
    covered: float = 0.0


class LockWatch:
    """
    Looks at all leases several times a second, and enters into those that wait for a lock what is known of it.

    Args:
        server: Asks the server; None where that is not wanted.
    """

    def __init__(self, server: ServerProbe | None = None) -> None:
        self._server = server
        # When a statement of a shape was last seen to run for long though no lock was in its way.
        self._slow: dict[str, float] = {}
        self._candidates: weakref.WeakKeyDictionary[Lease, _Candidate] = weakref.WeakKeyDictionary()

    def glance(self, pools: Iterable[Pool]) -> Iterator[Lease]:
        """
        Look once. Where no statement has run for long that is all but free.

        Args:
            pools: Every pool of the process.

        Returns:
            The leases whose statement waits for a lock now.
        """
        long_running: list[Lease] = []
        leases: dict[Hashable, list[Lease]] = defaultdict(list)
        for pool in pools:
            now = pool.now()
            out = [lease for lease in pool.leases.copy() if lease.acquired_at is not None]
            leases[_database_of(pool)] += out
            long_running += [lease for lease in out if lease.running and now - lease.last_used >= SHORTEST]
        long_running = [lease for lease in long_running if not lease.silent]
        holdings: dict[Hashable, list[Holding]] = {}
        words: Words = {}
        if self._server is not None:
            self._hear(self._server, leases, words)
            _question(self._server, long_running)
        for lease in long_running:
            database = _database_of(lease.pool)
            if _goes_on(lease):
                yield lease
            elif wanted := _still_wants(lease):
                if database not in holdings:
                    holdings[database] = _holdings(leases[database])
                if self._waits(lease, wanted, holdings[database], words):
                    yield lease

    def _hear(self, server: ServerProbe, leases: Mapping[Hashable, list[Lease]], words: Words) -> None:
        for answer in server.answers():
            known = leases.get(answer.database, [])
            by_process = {lease.backend_process_id: lease for lease in known}
            for lease in known:
                began = lease.last_used
                if lease.backend_process_id not in answer.processes or not lease.running or began > answer.sent_at:
                    continue
                blocker = answer.blockers.get(lease.backend_process_id or 0)
                holder = by_process.get(blocker.process) if blocker is not None else None
                if holder is not None:
                    _enter(lease, began, _wanted_by(lease), holder, words, is_proven=True)
                elif blocker is not None:
                    _enter_elsewhere(lease, began, blocker)
                else:
                    # It is slow by itself, whatever it looks like from here.
                    if lease.lock_wait is not None and lease.lock_wait.began == began:
                        lease.lock_wait = None
                    self._candidates[lease] = _Candidate(began, lease.pool.now(), covered=_NEVER)

    def _waits(self, lease: Lease, wanted: list[Lock], holdings: list[Holding], words: Words) -> bool:
        now, began, shape = lease.pool.now(), lease.last_used, statement_of(lease)
        candidate = self._candidates.get(lease)
        if candidate is not None and candidate.began != began:
            candidate = None
        # Of several, the one that has held a lock for longest.
        found = (
            (holding, lock)
            for holding in holdings
            if holding.lease is not lease
            for lock in self._in_the_way(shape, now, began, wanted, holding)
        )
        holding, lock = next(found, (None, None))
        if holding is None or lock is None:
            if candidate is not None:
                candidate.seen = now
            elif now - began >= _LEAST:
                self._remember_slow(shape, now)
            return False
        if candidate is None:
            candidate = self._candidates[lease] = _Candidate(began, max(began, holding.since))
            if _is_ending(lease):
                candidate.covered = _NEVER
        # One transaction ends and the next one begins: between two looks, both of which show one, there was one.
        candidate.covered += max(0.0, now - candidate.seen)
        candidate.seen = now
        if now - began < _LEAST or candidate.covered < _COVERED * (now - began):
            return False
        _enter(lease, began, lock, holding.lease, words)
        return True

    def _remember_slow(self, shape: str, now: float) -> None:
        if len(self._slow) >= _MOST_SLOW:
            self._slow.clear()
        self._slow[shape] = now

    def _in_the_way(self, shape: str, now: float, began: float, wanted: list[Lock], holding: Holding) -> Iterator[Lock]:
        for want in wanted:
            if any(
                want.waits_for(have)
                and (want.excludes(have) or want.is_of_application or self._is_fast(shape, now, began, holding))
                for have in holding.locks
            ):
                yield want

    def _is_fast(self, shape: str, now: float, began: float, holding: Holding) -> bool:
        if shape in holding.shapes:
            waited_itself = seconds_locked(holding.lease) > 0
            return waited_itself or holding.mean <= max(_FAST, _FAST_SHARE * (now - began))
        is_slow = now - self._slow.get(shape, _NEVER) < _REMEMBERED
        return not is_slow and (_is_of_one_row(shape) or _ADDS_VALUES.match(shape) is not None)


def _is_of_one_row(shape: str) -> bool:
    where = _WHERE.search(shape)
    return where is not None and _BY_KEY.search(shape, where.end()) is not None


def root_of(lease: Lease) -> Lease | None:
    """
    The lease that holds the lock that a lease waits for, or did: not one that waits for another lock itself.
    None where it is gone, or another process holds the lock.
    """
    wait, holder, seen = lease.lock_wait, None, {lease}
    for _ in range(_LONGEST_CHAIN):
        further = wait.holder() if wait is not None and wait.holder is not None else None
        if further is None or further in seen:
            break
        seen.add(further)
        holder, wait = further, further.lock_wait
        if wait is None or not wait.concerns(holder):
            break
    return holder


def _database_of(pool: Pool) -> Hashable:
    # Two pools whose server is not known may be of two databases that are called the same.
    what = pool.identity
    return (what.system, what.address, what.port, what.namespace) if what.address is not None else id(pool)


def _question(server: ServerProbe, long_running: Iterable[Lease]) -> None:
    suspects: dict[Hashable, list[Lease]] = defaultdict(list)
    for lease in long_running:
        wanted = _wanted_by(lease) if lease.pool.now() - lease.last_used >= _LEAST else None
        if wanted is not None and lists(lease.pool.identity.system, wanted):
            suspects[_database_of(lease.pool)].append(lease)
    for database, leases in suspects.items():
        processes = {lease.backend_process_id for lease in leases if lease.backend_process_id is not None}
        server.send(leases[0].pool, database, processes)


def _wanted_by(lease: Lease) -> Lock | None:
    wanted = locks_of(lease.statement or "", lease.pool.identity.system)
    return next((lock for lock in wanted if lock.waits and lock.mode is not Mode.READ), None)


def _goes_on(lease: Lease) -> bool:
    # Whether what the server said of it is still so, as far as can be seen.
    wait = lease.lock_wait
    if wait is None or not wait.is_proven or not wait.concerns(lease):
        return False
    holder = wait.holder() if wait.holder is not None else None
    if wait.holder is not None and (holder is None or not _may_hold(holder)):
        wait.is_proven = False
        return False
    wait.seen = lease.pool.now()
    return True


def _may_hold(lease: Lease) -> bool:
    keeps = lease.kept is not None and lease.kept.may_lock
    return lease.ended_at is None and (lease.in_transaction or keeps)


def _enter(
    lease: Lease, began: float, lock: Lock | None, holder: Lease, words: Words, *, is_proven: bool = False
) -> None:
    if holder not in words:
        words[holder] = in_words(holder), current_stack(holder, _DEPTH)
    wait = _wait_of(lease, began)
    wait.wanted, wait.is_proven, wait.holder = lock, is_proven, weakref.ref(holder)
    wait.blocker, wait.executing = words[holder]


def _enter_elsewhere(lease: Lease, began: float, said: Blocker) -> None:
    wait = _wait_of(lease, began)
    wait.wanted, wait.is_proven, wait.holder = _wanted_by(lease), True, None
    wait.blocker, wait.executing = elsewhere(said), ()


def _wait_of(lease: Lease, began: float) -> LockWait:
    now, wait = lease.pool.now(), lease.lock_wait
    if wait is None or wait.began != began:
        before = seconds_locked(lease)
        # In this order: whoever releases the lease just then counts too little, not a wait twice.
        wait = lease.lock_wait = LockWait(began, lease.query_time, now, None, None, "")
        lease.locked_before = before
    wait.seen = now
    return wait


def _holdings(leases: Iterable[Lease]) -> list[Holding]:
    found = (holding_of(lease, lease.pool.now()) for lease in leases)
    return sorted((one for one in found if one is not None), key=lambda one: one.since)


def _still_wants(lease: Lease) -> list[Lock]:
    # The lease's thread goes on meanwhile: what is read of it belongs together only if nothing of it has changed.
    began, statement = lease.last_used, lease.statement
    wanted = [lock for lock in locks_of(statement, lease.pool.identity.system) if lock.waits] if statement else []
    return wanted if lease.running and lease.last_used == began and lease.statement is statement else []


def _is_ending(lease: Lease) -> bool:
    # A commit takes long where the server's disk or a replica does. The statement before it is still the last one.
    for code, _ in stack_now(lease):
        name = code.co_name.strip("_")
        if name in _ENDS:
            return True
        if any(word in name for word in _RUNS):
            return False
    return False
