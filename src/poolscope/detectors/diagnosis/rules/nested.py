"""A cycle through the pool itself: whoever holds a connection waits for another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.catalogue.holds import NESTED_CHECKOUT
from poolscope.detectors.diagnosis.describe import place_of
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.detectors.diagnosis.picture import Held, Picture


def nested(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """Leases whose holder waits for a connection of the same pool, itself or through what it awaits."""
    waiting = tuple(held for held in leases if held.nested)
    if waiting:
        share = f"{len(waiting)} of {picture.capacity} connections"
        # While others hold connections that come back, those who wait get them in the end.
        what = "a deadlock" if len(waiting) >= picture.capacity else "nested checkouts"
        yield Explained(
            NESTED_CHECKOUT,
            waiting,
            f"{what}: {share} are held by requests that wait for another one",
            (
                f"which {names_of(waiting)} checked out at {place_of(waiting[0].lease.origin)}",
                f"and each of which waits for another connection of {picture.pool.identity.name}",
            ),
        )
