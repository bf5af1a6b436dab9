"""One unit of work that asks for many connections at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.holds import FAN_OUT
from poolscope.core.location import locate
from poolscope.detectors.diagnosis.rules.rule import Explained

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.core.lease import Lease
    from poolscope.core.work import UnitOfWork
    from poolscope.detectors.diagnosis.picture import Held, Picture

# So many connections at once, and this share of the pool, are more than one unit of work should want.
_MANY: Final = 3
_SHARE: Final = 0.5
# Of several units of work that each queue behind themselves, each wants a smaller share.
_PART: Final = 0.25
_QUEUED: Final = 2


def fan_out(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """
    Leases of units of work each of which holds and waits for a large share of the pool, all at once; or held it when
    the waiter began to wait, behind the rest of what it asked for.
    """
    least = max(_MANY, _SHARE * picture.capacity)
    now, queued = _by_unit((*(held.lease for held in leases), *picture.waiting)), _by_unit(picture.waiting)
    explained = set()
    for unit, wanted in now.most_common():
        theirs = tuple(held for held in leases if held.lease.unit is unit)
        is_many = wanted >= max(_MANY, _PART * picture.capacity) and queued[unit] >= _QUEUED
        if theirs and (wanted >= least or is_many):
            explained.add(unit)
            yield _explained(picture, unit, wanted, theirs, theirs[0].lease)
    # What is still held for another reason has that one alone.
    known = {held.lease for held in picture.held} - {held.lease for held in leases}
    before = [lease for lease in picture.before if lease not in known]
    for unit, had in _by_unit(before).most_common(1):
        mine = [held for held in leases if held.lease.unit is unit]
        if had >= least and now[unit] < least and unit not in explained:
            lease = next(lease for lease in before if lease.unit is unit)
            yield replace(_explained(picture, unit, had, tuple(mine), lease), count=had - len(mine))


def _by_unit(leases: Iterable[Lease]) -> Counter[UnitOfWork]:
    return Counter(lease.unit for lease in leases if lease.unit is not None)


def _explained(picture: Picture, unit: UnitOfWork, wanted: int, held: tuple[Held, ...], lease: Lease) -> Explained:
    origin = lease.origin
    place = f" at {locate(*origin[0]).function}" if origin else ""
    return Explained(
        FAN_OUT,
        held,
        f"a fan-out: one unit of work, {unit}, asks for {wanted} connections at once{place}, and the pool has "
        f"{picture.capacity}",
        (f"which {unit} holds, one unit of work that asks for {wanted} at once{place}",),
        root=held[0].stack if held else origin,
    )
