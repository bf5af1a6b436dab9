"""Leases that no code will return."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.catalogue.leaks import LEAK
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.detectors.diagnosis.picture import Held, Picture


def leaks(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """Leases whose holder has finished, or that no code refers to; and slots that the pool has lost by such leases."""
    lost = tuple(held for held in leases if held.lost)
    count = len(lost) + picture.lost
    if count:
        share = f"{count} of {picture.capacity} connections"
        yield Explained(
            LEAK,
            lost,
            f"a leak: {share} were not returned, although the code that checked them out has finished",
            (f"which {names_of(lost)} did not return",) if lost else (f"{share} of which are lost",),
            root=lost[0].lease.origin if lost else (),
            count=picture.lost,
        )
