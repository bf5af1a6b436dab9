"""Leases that are held by design: they listen for notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.catalogue.kept import LISTENER_HOLD
from poolscope.detectors.diagnosis.describe import place_of, seconds
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.detectors.diagnosis.picture import Held, Picture


def listeners(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """Leases that are subscribed to notifications: they come back when the subscriber goes, however long that takes."""
    listening = tuple(held for held in leases if held.listens)
    if listening:
        oldest = listening[0]
        yield Explained(
            LISTENER_HOLD,
            listening,
            f"held in order to listen: {len(listening)} of {picture.capacity} connections are subscribed to "
            f"notifications, for {seconds(oldest.seconds)} and less",
            (f"which {names_of(listening)} listens on", f"checked out at {place_of(oldest.lease.origin)}"),
        )
