"""Connects that the server refuses, or that fail: the pool has room, and no connection to fill it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.catalogue.exhaustion import SLOW_CONNECT
from poolscope.core.refusal import LIMITS
from poolscope.detectors.diagnosis.rules.rule import Explained

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.detectors.diagnosis.picture import Held, Picture

# A pool that connects in the background pauses between its tries: so long ago the last one may be, in seconds.
_PAUSE: Final = 60.0


def refusals(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:  # noqa: ARG001 - of the pool as a whole
    """A pool that is not full, of which the last connect was refused or failed."""
    if picture.full:
        return
    pool, now = picture.pool, picture.totals.moment
    since = max(pool.connected_at, min(now - picture.waited, now - _PAUSE))
    refusal = next((one for one in reversed(tuple(pool.refusals)) if one.moment >= since), None)
    if refusal is not None:
        limit = LIMITS.get(refusal.limit, refusal.limit)
        yield Explained(
            TOO_MANY_CONNECTIONS,
            (),
            f"too many connections: the pool has room, but the server refuses further ones, by {limit}",
            ("which needs a further connection, which the server refuses",),
            case=refusal.limit,
            whole=True,
        )
    elif pool.failed_connect is not None and pool.failed_connect[0] >= since:
        yield Explained(
            SLOW_CONNECT,
            (),
            f"cannot connect: the pool has room, but its last connect failed ({pool.failed_connect[1]})",
            ("which needs a further connection, and connects fail",),
            whole=True,
        )
