"""One unit of work that asks for many connections at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.holds import FAN_OUT
from poolscope.core.origin import locate
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.core.work import UnitOfWork
    from poolscope.detectors.diagnosis.picture import Held, Picture

# So many connections at once, and this share of the pool, are more than one unit of work should want.
_MANY: Final = 3
_SHARE: Final = 0.5


def fan_out(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """Leases of units of work each of which holds and waits for a large share of the pool, all at once."""
    wanted: Counter[UnitOfWork] = Counter()
    for lease in (*(held.lease for held in leases), *(one.lease for one in picture.waiting)):
        if lease.unit is not None:
            wanted[lease.unit] += 1
    least = max(_MANY, _SHARE * picture.capacity)
    for unit, count in wanted.most_common():
        theirs = tuple(held for held in leases if held.lease.unit is unit)
        if count < least or not theirs:
            continue
        origin = theirs[0].lease.origin
        place = f" at {locate(*origin[0]).function}" if origin else ""
        yield Explained(
            FAN_OUT,
            theirs,
            f"a fan-out: one unit of work, {unit}, asks for {count} connections at once{place}, and the pool has "
            f"{picture.capacity}",
            (f"which {names_of(theirs)} holds, one unit of work that asks for {count} at once{place}",),
            root=theirs[0].stack,
        )
