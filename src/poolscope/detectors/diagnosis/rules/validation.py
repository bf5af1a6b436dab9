"""Connections that are handed over and not acquired: they are opened or validated, and that takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.exhaustion import SLOW_CONNECT
from poolscope.detectors.diagnosis.describe import seconds
from poolscope.detectors.diagnosis.rules.rule import Explained

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.detectors.diagnosis.picture import Held, Picture

# A connect or a validation of so many seconds is slow: a ping is a round trip.
_SLOW: Final = 0.1


def validation(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """Leases that no caller has yet: asyncpg opens a connection within its slot, and many pools validate one."""
    slow = tuple(held for held in leases if not held.acquired and held.age >= _SLOW)
    if slow:
        longest = seconds(max(held.age for held in slow))
        yield Explained(
            SLOW_CONNECT,
            slow,
            f"slow to connect: {len(slow)} of {picture.capacity} connections are being opened or validated, for up to "
            f"{longest}",
            ("which are opened or validated, and wait for the server's answer",),
        )
