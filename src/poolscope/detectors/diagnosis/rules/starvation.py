"""A cycle through a pool of worker threads: holders wait for a thread, and the threads wait for the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.holds import THREAD_STARVATION
from poolscope.core.location import locate
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.detectors.diagnosis.picture import Held, Picture

# From this share of a crew's threads on, whoever waits for one of them waits for the pool.
_MAJORITY: Final = 0.5


def starvation(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """Leases whose holder waits for a worker thread, while most worker threads wait for the pool."""
    crew = max(picture.crews, key=lambda one: len(one.waiting), default=None)
    if crew is None or len(crew.waiting) < _MAJORITY * crew.threads:
        return
    queueing = tuple(held for held in leases if held.queues)
    if queueing:
        name = picture.pool.identity.name
        origin = next((lease.origin for lease in crew.waiting if lease.origin), ())
        runs = f" run {locate(*origin[0]).function}, which waits" if origin else " wait"
        share = f"{len(queueing)} of {picture.capacity} connections"
        workers = f"{len(crew.waiting)} of {crew.threads} worker threads"
        yield Explained(
            THREAD_STARVATION,
            queueing,
            f"a deadlock with the worker threads: {share} are held by requests that wait for a worker thread, and "
            f"{workers}{runs} for this pool",
            (f"which {names_of(queueing)} holds, waiting for a worker thread", f"{workers}{runs} for {name}"),
            root=origin,
        )
