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

from poolscope.core.execution import stack_of_task, stack_of_thread
from poolscope.core.lock_wait import LockWait
from poolscope.core.sql.fingerprint import shape_of
from poolscope.core.sql.locking import locks_of
from poolscope.core.sql.locks import Mode
from poolscope.detectors.diagnosis.describe import current_stack, owner_of, place_of, seconds

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.sql.locks import Lock
    from poolscope.detectors.server_probe import Blocker, ServerProbe

# A statement that runs for less is not looked at, in seconds.
_SHORTEST: Final = 0.1
# A shorter wait is not likely enough to be one.
_LEAST: Final = 0.25
# From this share of its time on, a lock was held meanwhile.
_COVERED: Final = 0.8
# A statement that took no longer is fast: so many seconds, or this share of the wait.
_FAST: Final = 0.1
_FAST_SHARE: Final = 0.25
# Frames of a holder that are kept, and frames looked at to see what a call is.
_DEPTH: Final = 5
_SEARCH: Final = 80
# Statements of one unit of work that are looked at.
_MOST: Final = 50
# Who waits for one that waits itself, and so on.
_LONGEST_CHAIN: Final = 10

_ONE_ROW: Final = re.compile(r"\bwhere\b.*?(?<![\w])[\"`\[]?(?:id|uuid|guid|pk)[\"`\]]? ?(?:=|in) ?\(?\?", re.DOTALL)
_ADDS_VALUES: Final = re.compile(r"^(?:insert|replace)\b(?!.*\bselect\b)", re.DOTALL)
# Where a definition of a table commits the transaction that it is in.
_DEFINITIONS_COMMIT: Final = frozenset({"mysql", "mariadb", "oracle.db"})
_ENDS: Final = frozenset({"commit", "do_commit", "rollback", "do_rollback", "do_end"})
_RUNS: Final = ("execute", "fetch", "query", "copy", "stream", "call", "bind")


@dataclass
class _Candidate:
    """
    What was seen of one statement that may wait.

    Args:
        began: When it began.
        seen: When a lock that it may wait for was last seen held.
        covered: Seconds of its time in which one was.
    """

    began: float
    seen: float
    covered: float = 0.0


@dataclass(frozen=True)
class _Holding:
    """
    A lease whose transaction is open.

    Args:
        lease: The lease.
        locks: What it may hold.
        shapes: Of the statements that took these.
        since: From when on it holds them, at the latest; at the earliest where that is not known.
        mean: How long its statements took on average, in seconds.
    """

    lease: Lease
    locks: tuple[Lock, ...]
    shapes: frozenset[str]
    since: float
    mean: float


class LockWatch:
    """
    Looks at all leases several times a second, and enters into those that wait for a lock what is known of it.

    Args:
        server: Asks the server; None where that is not wanted.
    """

    def __init__(self, server: ServerProbe | None = None) -> None:
        self._server = server
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
            long_running += [lease for lease in out if lease.running and now - lease.last_used >= _SHORTEST]
        long_running = [lease for lease in long_running if not lease.silent]
        if self._server is not None:
            self._hear(self._server, leases)
            _question(self._server, long_running)
        for lease in long_running:
            if _goes_on(lease) or self._waits(lease, leases[_database_of(lease.pool)]):
                yield lease

    def _hear(self, server: ServerProbe, leases: Mapping[Hashable, list[Lease]]) -> None:
        for answer in server.answers():
            known = leases.get(answer.database, [])
            by_process = {lease.backend_process_id: lease for lease in known}
            for lease in known:
                began = lease.last_used
                if lease.backend_process_id not in answer.processes or not lease.running or began > answer.sent_at:
                    continue
                blocker = answer.blockers.get(lease.backend_process_id or 0)
                if blocker is not None:
                    _enter(lease, began, _wanted_by(lease), by_process.get(blocker.process), blocker)
                elif lease.lock_wait is None or lease.lock_wait.began == began:
                    # It is slow by itself, whatever it looks like from here.
                    lease.lock_wait = None
                    self._candidates[lease] = _Candidate(began, lease.pool.now(), covered=float("-inf"))

    def _waits(self, lease: Lease, others: list[Lease]) -> bool:
        began, statement, system = lease.last_used, lease.statement, lease.pool.identity.system
        wanted = [lock for lock in locks_of(statement, system) if lock.waits] if statement is not None else []
        if not wanted or not _still_runs(lease, began, statement):
            return False
        now = lease.pool.now()
        found = [
            (holding, lock)
            for holding in (_holding(other, now) for other in others if other is not lease)
            if holding is not None
            for lock in _in_the_way(lease, now - began, wanted, holding)
        ]
        if not found or _is_ending(lease):
            return False
        holding, lock = min(found, key=lambda one: one[0].since)
        candidate = self._candidates.get(lease)
        if candidate is None or candidate.began != began:
            candidate = self._candidates[lease] = _Candidate(began, max(began, holding.since))
        # One transaction ends and the next one begins: between two looks, both of which show one, there was one.
        candidate.covered += max(0.0, now - candidate.seen)
        candidate.seen = now
        if now - began < _LEAST or candidate.covered < _COVERED * (now - began):
            return False
        _enter(lease, began, lock, holding.lease)
        return True


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
        if lease.pool.now() - lease.last_used >= _LEAST and _wanted_by(lease) is not None:
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
    if wait.holder is not None and (holder is None or holder.ended_at is not None or not holder.in_transaction):
        wait.is_proven = False
        return False
    wait.seen = lease.pool.now()
    return True


def _enter(lease: Lease, began: float, lock: Lock | None, holder: Lease | None, said: Blocker | None = None) -> None:
    now, wait = lease.pool.now(), lease.lock_wait
    if wait is None or wait.began != began:
        before = max(0.0, wait.seconds(lease)) if wait is not None else 0.0
        wait = LockWait(began, lease.query_time, now, None, None, "", before=before)
    wait.seen, wait.wanted, wait.is_proven = now, lock, said is not None
    if holder is not None:
        wait.holder, wait.executing, wait.blocker = weakref.ref(holder), current_stack(holder, _DEPTH), in_words(holder)
    elif said is not None:
        wait.holder, wait.executing, wait.blocker = None, (), _elsewhere(said)
    lease.lock_wait = wait


def _elsewhere(said: Blocker) -> str:
    name = f"application {said.application}, " if said.application else ""
    state = f", {said.state} for {seconds(said.seconds)}" if said.state else ""
    return f"another process ({name}backend {said.process}){state}"


def lock_in_words(wait: LockWait, system: str) -> str:
    """The lock that is waited for: ``a row lock of table items``."""
    if wait.wanted is None:
        return "a lock"
    if system == "sqlite":
        return "the lock of the database"
    name = wait.wanted.name
    of = f" of table {name}" if name else ""
    article = "an" if wait.wanted.mode.value[0] in "aeiou" else "a"
    return "table " + name if wait.wanted.mode.value == "reads" else f"{article} {wait.wanted.mode.value}{of}"


def shape_at(lease: Lease) -> str:
    """The shape of the statement that a lease ran last; empty where it ran none."""
    return shape_of(lease.statement, lease.pool.identity.system) if lease.statement is not None else ""


def in_words(holder: Lease) -> str:
    """Who holds a lock, since when and doing what."""
    if holder.running:
        does = "which is running another statement"
    else:
        state = "idle in its transaction" if holder.in_transaction else "idle"
        does = f"which has been {state} for {seconds(max(0.0, holder.pool.now() - holder.last_used))}"
    executing = current_stack(holder, 1)
    now_at = f", currently executing {place_of(executing)}" if executing else ""
    return f"{owner_of(holder)}, {does}{now_at}"


def _still_runs(lease: Lease, began: float, statement: str | None) -> bool:
    # The lease's thread goes on meanwhile: what was read of it belongs together only if nothing of it has changed.
    return lease.running and lease.last_used == began and lease.statement is statement


def _in_the_way(lease: Lease, age: float, wanted: list[Lock], holding: _Holding) -> Iterator[Lock]:
    statement = lease.statement or ""
    shape = shape_of(statement, lease.pool.identity.system)
    waited_itself = holding.lease.lock_wait is not None
    if shape in holding.shapes:
        is_fast = waited_itself or holding.mean <= max(_FAST, _FAST_SHARE * age)
    else:
        is_fast = _ONE_ROW.search(shape) is not None or _ADDS_VALUES.match(shape) is not None
    for want in wanted:
        for have in holding.locks:
            if want.waits_for(have) and (is_fast or want.excludes(have) or want.is_of_application):
                yield want
                break


def _holding(lease: Lease, now: float) -> _Holding | None:
    # Of a lease whose call to the server goes on, only what it ran before counts.
    running, in_transaction = lease.running, lease.in_transaction
    system, last, mark = lease.pool.identity.system, lease.statement, lease.last_used
    earlier = _texts(lease) if lease.usage is not None else ()
    texts = [text for text in earlier if text != last]
    if last is not None and not running:
        texts.insert(0, last)
    # Locks of the whole connection are counted until they are released (`core.sql.lasting`).
    kept = lease.kept
    keeps = kept is not None and kept.locks + kept.tries > 0
    if kept is not None and kept.statement is not None:
        texts.append(kept.statement)
    locks: dict[Lock, None] = {}
    shapes = set()
    took_last = False
    for text in texts[:_MOST]:
        taken = [lock for lock in _taken(text, system) if (keeps if lock.mode is Mode.SESSION else in_transaction)]
        if taken:
            locks.update(dict.fromkeys(taken))
            shapes.add(shape_of(text, system))
            took_last = took_last or text is last
    if not locks or (running and now - mark >= _SHORTEST and _wants_one_of(lease, locks)):
        return None
    since = mark if took_last and not running else lease.acquired_at or mark
    return _Holding(lease, tuple(locks), frozenset(shapes), since, lease.query_time / max(1, lease.queries))


def _texts(lease: Lease) -> Iterable[str]:
    # What the whole unit of work ran, where it is known: the last statement is seldom the one that locked.
    usage = lease.usage
    return tuple(usage.repetitions.texts()) if usage is not None and len(usage.leases) == 1 else ()


def _taken(text: str, system: str) -> Iterator[Lock]:
    commits = system in _DEFINITIONS_COMMIT and text.lstrip()[:4].lower() != "lock"
    for lock in locks_of(text, system):
        if not (commits and lock.mode in (Mode.TABLE, Mode.SHARED_TABLE)):
            yield lock


def _wants_one_of(lease: Lease, locks: Iterable[Lock]) -> bool:
    wanted = locks_of(lease.statement or "", lease.pool.identity.system)
    return any(one.waits_for(other) for one in wanted for other in locks)


def _is_ending(lease: Lease) -> bool:
    # A commit takes long where the server's disk or a replica does. The statement before it is still the last one.
    task = lease.task
    stack = stack_of_task(task, _SEARCH) if task is not None else None
    for code, _ in stack if stack is not None else stack_of_thread(lease.thread, _SEARCH):
        name = code.co_name.strip("_")
        if name in _ENDS:
            return True
        if any(word in name for word in _RUNS):
            return False
    return False
