"""Which locks a lease may hold, by what it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolscope.core.sql.fingerprint import shape_of
from poolscope.core.sql.locking import locks_of
from poolscope.core.sql.locks import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from poolscope.core.lease import Lease
    from poolscope.core.sql.locks import Lock

#: A statement that runs for less is not looked at, in seconds.
SHORTEST: Final = 0.1
# Statements of one unit of work that are looked at, the newest.
_MOST: Final = 50
# Where a definition of a table commits the transaction that it is in.
_DEFINITIONS_COMMIT: Final = frozenset({"mysql", "mariadb", "oracle.db"})


@dataclass(frozen=True)
class Holding:
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


def holding_of(lease: Lease, now: float) -> Holding | None:
    """What a lease may hold; None where that is nothing, or where it waits for one of these itself."""
    # Of a lease whose call to the server goes on, only what it ran before counts.
    running, in_transaction = lease.running, lease.in_transaction
    system, last, mark = lease.pool.identity.system, lease.statement, lease.last_used
    texts = [text for text in _texts(lease) if text != last]
    if last is not None and not running:
        texts.append(last)
    # Locks of the whole connection are counted until they are released (`core.sql.lasting`).
    kept = lease.kept
    keeps = kept is not None and kept.may_lock
    if kept is not None and kept.statement is not None:
        texts.append(kept.statement)
    locks: dict[Lock, None] = {}
    shapes = set()
    took_last = False
    for text in texts[-_MOST:]:
        taken = [lock for lock in _taken(text, system) if (keeps if lock.mode is Mode.SESSION else in_transaction)]
        if taken:
            locks.update(dict.fromkeys(taken))
            shapes.add(shape_of(text, system))
            took_last = took_last or text is last
    if not locks or (running and now - mark >= SHORTEST and _wants_one_of(lease, locks)):
        return None
    since = mark if took_last and not running else lease.acquired_at or mark
    return Holding(lease, tuple(locks), frozenset(shapes), since, lease.query_time / max(1, lease.queries))


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
