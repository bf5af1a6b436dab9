"""Leases whose statement waits for a lock, and the lease that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.holds import NESTED_CHECKOUT, THREAD_STARVATION
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.detectors.diagnosis.describe import place_of, statement_of
from poolscope.detectors.diagnosis.lock_words import lock_in_words
from poolscope.detectors.diagnosis.locks import root_of
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from poolscope.core.lease import Lease
    from poolscope.detectors.diagnosis.picture import Held, Picture

# Two moments of one call differ by no more, in seconds: the picture is not taken in one instant.
_SAME: Final = 0.25


def lock_waits(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """
    Leases whose statement waits for a lock, by who holds it; those that run the same statement; and of the holders,
    those that hold a connection of this pool.
    """
    groups: dict[Hashable, list[Held]] = {}
    for held in leases:
        if _waited(held, picture.totals.moment):
            groups.setdefault(root_of(held.lease) or _lock_of(held.lease), []).append(held)
    rest = [held for held in leases if not any(held in group for group in groups.values())]
    for root, waiting in sorted(groups.items(), key=lambda group: -len(group[1])):
        shapes = {statement_of(held.lease) for held in waiting}
        holders = [held for held in rest if _holds(held, root, waiting)]
        # Some have not waited for long enough yet to be known.
        same = [held for held in rest if held.phase == "query" and statement_of(held.lease) in shapes]
        yield _explained(picture, waiting, [*waiting, *same], holders)
        rest = [held for held in rest if held not in holders and held not in same]


def _waited(held: Held, now: float) -> bool:
    wait = held.lease.lock_wait
    return wait is not None and held.phase == "query" and abs(now - held.running_for - wait.began) <= _SAME


def _lock_of(lease: Lease) -> Hashable:
    wait = lease.lock_wait
    return (wait.wanted or wait.blocker) if wait is not None else ""


def _holds(held: Held, root: Hashable, waiting: Sequence[Held]) -> bool:
    if held.lease is root:
        return True
    # One that has waited for the same lock is idle in its transaction now: it has got it, and will be the next root.
    wait, other = held.lease.lock_wait, waiting[0].lease.lock_wait
    return (
        held.phase == "idle_in_transaction" and wait is not None and other is not None and wait.wanted == other.wanted
    )


def _explained(picture: Picture, waiting: Sequence[Held], held: Sequence[Held], holders: Sequence[Held]) -> Explained:
    lease = waiting[0].lease
    wait = lease.lock_wait
    assert wait is not None  # noqa: S101 - they are chosen by that
    lock = lock_in_words(wait, picture.pool.identity.system)
    likely = "wait" if wait.is_proven else "likely wait"
    stack = next((one.stack for one in holders if one.stack), wait.executing)
    executes = f", and executes {place_of(stack)}" if stack else ""
    return Explained(
        _cause_of(holders),
        (*held, *holders),
        f"{len(held)} of {picture.capacity} connections {likely} for {lock}, which is held by {wait.blocker}",
        (
            f"which {names_of(waiting)} holds, whose statements {likely} for {lock}",
            f"which {wait.blocker.split(', ')[0]} holds{executes}",
        ),
        root=stack,
        case="elsewhere" if wait.is_elsewhere else "",
    )


def _cause_of(holders: Sequence[Held]) -> str:
    # Where the holder of the lock waits for this pool, whoever waits for the lock is part of that cycle.
    if any(one.nested for one in holders):
        return NESTED_CHECKOUT
    return THREAD_STARVATION if any(one.queues for one in holders) else LOCK_WAIT
