"""Leases that no code will return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.leaks import LEAK
from poolscope.detectors.diagnosis.describe import is_handed_on
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.detectors.diagnosis.picture import Held, Picture

# A framework returns what it keeps within moments after the end of a request, in seconds.
_UNUSED: Final = 0.5


def leaks(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """Leases whose holder has finished, or that no code refers to; and slots that the pool has lost by such leases."""
    lost = tuple(held for held in leases if held.lost)
    if lost or picture.lost:
        yield _leaked(picture, lost, picture.lost)


def left_over(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """
    Leases of a unit of work that has ended, which no code goes on with and none has used for half a second: a leak
    that is not reported yet.
    """
    left = tuple(held for held in leases if _is_left_over(held, picture.totals.moment))
    if left:
        yield _leaked(picture, left, 0)


def _is_left_over(held: Held, now: float) -> bool:
    lease = held.lease
    return (
        held.phase != "query"
        and not held.whole
        and lease.unit is not None
        and lease.unit.ended
        and not is_handed_on(lease)
        and lease.excuse is None
        and now - lease.last_used >= _UNUSED
    )


def _leaked(picture: Picture, lost: tuple[Held, ...], slots: int) -> Explained:
    share = f"{len(lost) + slots} of {picture.capacity} connections"
    return Explained(
        LEAK,
        lost,
        f"a leak: {share} were not returned, although the code that checked them out has finished",
        (f"which {names_of(lost)} did not return",) if lost else (f"{share} of which are lost",),
        root=lost[0].lease.origin if lost else (),
        count=slots,
    )
