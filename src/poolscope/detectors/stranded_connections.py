"""
Stranded connections: each thread keeps a connection for its next request, and has none, for it has finished.

They stay open until the garbage collector finds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.pools import STRANDED_CONNECTIONS
from poolscope.core.finding import Finding
from poolscope.detectors.detector import Detector, Occurrence, Released

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Stranded

# A few are left over wherever threads come and go, as at a reload.
_FEW: Final = 5
# From this share of the connections that were made on, it is their way to end.
_SHARE: Final = 0.5
# What the garbage collector closed before (`Pool.closures`).
_COLLECTED: Final = "abandoned"
_MOST_LISTED: Final = 20


class StrandedConnectionsDetector(Detector[Released, None]):
    """Looks for connections of threads that have finished."""

    kinds = (STRANDED_CONNECTIONS,)

    def look(self, pool: Pool) -> Iterator[Occurrence]:
        """Those that are open now, with those that were and have been collected."""
        stranded = pool.stranded()
        if not stranded:
            return
        closures = pool.closures.get(_COLLECTED)
        collected = int(closures.read()) if closures is not None else 0
        made = pool.creates.read().count
        count = len(stranded) + collected
        if count >= _FEW and count >= _SHARE * made:
            place = (STRANDED_CONNECTIONS, pool.identity.name)
            yield Occurrence(place, lambda repeated: found(pool, stranded, collected, repeated))


def found(pool: Pool, stranded: Sequence[Stranded], collected: int, repeated: int) -> Finding:
    """
    Put it in words.

    Args:
        pool: The pool.
        stranded: Its connections of threads that have finished; at least one.
        collected: How many more the garbage collector has closed.
        repeated: How often more it was seen since the last report.
    """
    kind, kept_by = KINDS[STRANDED_CONNECTIONS], stranded[0].kept_by
    made, checkouts = pool.creates.read().count, pool.waits.read().count
    again = max(0, checkouts - made)
    uses = "none was used a second time" if not again else f"they were used again {again} times"
    more = f", and {collected} more stayed until they were garbage-collected" if collected else ""
    open_ones = max(len(stranded), pool.used() + pool.idle())
    processes = [str(one.backend_process_id) for one in stranded if one.backend_process_id is not None]
    return Finding(
        kind,
        kind.severity,
        f"pool {pool.identity.name} keeps connections for threads that have finished ({kept_by}): "
        f"{len(stranded)} of {open_ones} open ones{more}; {made} connections were made for {checkouts} checkouts, and "
        f"{uses}",
        kind.fix,
        pool=pool.identity,
        evidence={
            "stranded": len(stranded),
            "collected": collected,
            "connections_made": made,
            "used_again": again,
            "kept_by": kept_by,
            "backend_process_ids": processes[:_MOST_LISTED],
            "repeated": repeated,
        },
    )
