"""A cycle through a pool of worker threads: holders wait for a thread, and the threads wait for the pool."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from poolscope.core.catalogue.holds import THREAD_STARVATION
from poolscope.core.location import locate
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.detectors.diagnosis.picture import Held, Picture


def starvation(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """Leases whose holder waits for a worker thread, while most worker threads wait for the pool."""
    queueing = tuple(held for held in leases if held.queues)
    if queueing:
        crews = Counter(crew for held in queueing for crew in held.queues)
        crew = max(crews, key=lambda one: (crews[one], len(one.waiting)))
        name = picture.pool.identity.name
        origin = next((lease.origin for lease in crew.waiting if lease.origin), ())
        runs = f" run {locate(*origin[0]).function}, which waits" if origin else " wait"
        share = f"{len(queueing)} of {picture.capacity} connections"
        workers = f"{len(crew.waiting)} of {len(crew.threads)} worker threads"
        # While other holders or workers go on, those who wait get a thread in the end.
        is_deadlock = len(queueing) >= picture.capacity and len(crew.waiting) >= len(crew.threads)
        what = "a deadlock with the worker threads" if is_deadlock else "starved of worker threads"
        yield Explained(
            THREAD_STARVATION,
            queueing,
            f"{what}: {share} are held by requests that wait for a worker thread, and {workers}{runs} for this pool",
            (f"which {names_of(queueing)} holds, waiting for a worker thread", f"{workers}{runs} for {name}"),
            root=origin,
        )
