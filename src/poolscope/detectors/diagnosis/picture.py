"""
One consistent picture of a pool at a moment: who waits, who holds, and what each of them executes and waits for.

Whoever takes it looks at everything at once and puts nothing in words: whoever failed to get a connection takes it
itself, as only that moment shows who was in the way. Rules read it later, in the background (`rules`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolscope.core.execution import ThreadsNow
from poolscope.core.nesting import held_meanwhile
from poolscope.detectors.diagnosis.describe import actor_of, of_application
from poolscope.detectors.diagnosis.load import Sample
from poolscope.detectors.diagnosis.lost import is_lost
from poolscope.detectors.diagnosis.workers import crews_awaited, crews_of, queued_jobs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from poolscope.core.execution import Frames
    from poolscope.core.lease import Lease
    from poolscope.core.origin import RawStack
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Foreign
    from poolscope.core.work import UnitOfWork
    from poolscope.detectors.diagnosis.workers import Crew

# Checkouts, the longest pending first, that are looked at for who waits for them.
_MOST_WALKS: Final = 100

#: Frames of a stack that are kept to be shown.
DEPTH: Final = 3


@dataclass(frozen=True)
class Held:
    """
    A lease, at one moment.

    Args:
        lease: The lease.
        age: Seconds since it started; since its checkout began, where its connection is still validated.
        phase: What its connection does: one of `HOLD_PHASES`.
        phases: Seconds of the hold so far, by phase.
        running_for: Seconds that the call to the server takes by now, where one runs; else 0.
        stack: What its holder executes: the application's frames, innermost first; empty where no code goes on with it.
        whole: The same with the frames of libraries.
        acquired: Whether the caller has it; else it is still validated.
        lost: Whether no code will return it.
        nested: Whether its holder waits for another connection of the pool.
        queues: The crews for one of whose threads its holder waits.
        listens: Whether it is subscribed to notifications.
    """

    lease: Lease
    age: float
    phase: str
    phases: Mapping[str, float]
    running_for: float
    stack: RawStack
    whole: RawStack
    acquired: bool
    lost: bool
    nested: bool
    queues: tuple[Crew, ...]
    listens: bool

    @property
    def seconds(self) -> float:
        """Seconds held so far."""
        return sum(self.phases.values())


@dataclass(frozen=True)
class Picture:
    """
    A pool at one moment.

    Args:
        pool: The pool.
        waiter: The checkout that failed, or waits for too long; None where no checkout waits.
        waited: For how long it waited, in seconds.
        waiting: Every pending checkout, and the waiter.
        held: Every lease, the oldest first.
        before: The leases that were held when the waiter began, if the pool was full then; else none.
        limit: The most connections that may be checked out; None for no limit.
        lost: Slots that no caller holds and that the library gives to none; `limit` is without them.
        full: Whether the waiter waits for the pool: every allowed connection is checked out, or was when the wait
            began, or one was returned and other waiters are first. Else it waits for a connection to be made or
            validated.
        totals: The pool's totals.
        foreign: How the pool belongs to another process or event loop than those that use it; None where it does not.
    """

    pool: Pool
    waiter: Lease | None
    waited: float
    waiting: tuple[Lease, ...]
    held: tuple[Held, ...]
    before: tuple[Lease, ...]
    limit: int | None
    lost: int
    full: bool
    totals: Sample
    foreign: Foreign | None = None

    @classmethod
    def take(cls, pool: Pool, waiter: Lease | None = None, before: Collection[Lease] = ()) -> Picture:
        """
        Look at a pool now. It takes some 50 microseconds a lease; the caller has waited for far longer.

        Args:
            pool: The pool.
            waiter: The checkout that has just failed, or waits for too long.
            before: The leases that were held when it began.
        """
        now = pool.now()
        pending = pool.pending.copy() | ({waiter} if waiter is not None else set())
        out = sorted(pool.leases.copy(), key=lambda lease: lease.acquired_at or lease.requested_at)
        unheld = pool.unheld()
        with ThreadsNow() as frames:
            crews = crews_of(pending)
            queued = queued_jobs() if crews else {}
            nested = _nested(pending, out, frames)
            held = tuple(
                _held(lease, now, nested, frames, waiter, unheld=unheld, crews=crews, queued=queued) for lease in out
            )
        return cls(
            pool,
            waiter,
            (waiter.ended_at or now) - waiter.requested_at if waiter is not None else 0.0,
            tuple(pending),
            held,
            tuple(before),
            pool.limit,
            pool.lost(),
            _waits_for_pool(pool, waiter),
            Sample.of(pool),
            pool.foreign(waiter),
        )

    @property
    def used(self) -> int:
        """How many connections are checked out."""
        return len(self.held)

    @property
    def capacity(self) -> int:
        """How many connections there would be to share; as many as are checked out, where the pool has no limit."""
        return self.lost + (max(self.limit, self.used) if self.limit is not None else self.used)


def _held(
    lease: Lease,
    now: float,
    nested: set[Lease],
    frames: Frames,
    waiter: Lease | None,
    *,
    unheld: set[Lease],
    crews: tuple[Crew, ...],
    queued: Mapping[int, frozenset[int]],
) -> Held:
    actor = actor_of(lease, frames, waiter)
    return Held(
        lease,
        lease.age(),
        lease.phase,
        lease.hold_phases(),
        max(0.0, now - lease.last_used) if lease.running else 0.0,
        of_application(lease, actor.stack)[:DEPTH],
        actor.stack,
        lease.acquired_at is not None,
        is_lost(lease, frames) or (lease in unheld and not lease.listens),
        lease in nested,
        crews_awaited(actor, frames, crews, queued) if crews and not lease.running else (),
        lease.listens,
    )


def _nested(pending: Iterable[Lease], out: Iterable[Lease], frames: Frames) -> set[Lease]:
    # The leases whose holders wait for another connection. One on which a statement runs comes back without that.
    leases: dict[UnitOfWork | None, list[Lease]] = {}
    for lease in out:
        if not lease.running:
            leases.setdefault(lease.unit, []).append(lease)
    nested: set[Lease] = set()
    for one in sorted(pending, key=lambda one: one.requested_at)[:_MOST_WALKS]:
        earlier = [held for held in leases.get(one.unit, ()) if held.requested_at <= one.requested_at]
        nested.update(held_meanwhile(one, earlier, frames, every=True))
    return nested


def _waits_for_pool(pool: Pool, waiter: Lease | None) -> bool:
    if pool.limit is None:
        return False
    if len(pool.leases) >= pool.limit:
        return True
    if waiter is None:
        return False
    if waiter.used_at_checkout > 0:
        return True
    # A checkout that opens or validates a connection has no use for another one that was returned meanwhile.
    opens = waiter.connecting or waiter.connect_time > 0 or waiter.handed_over_at is not None
    return not opens and pool.idle() > 0
