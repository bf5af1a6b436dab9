"""Pools and connections that belong to another process or event loop than the one that uses them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.pools import FOREIGN_EVENT_LOOP, FORKED_POOL
from poolscope.core.guard import guard
from poolscope.detectors.detector import Detector, Occurrence, Suspected, mark
from poolscope.detectors.diagnosis.describe import finding_about, lines_of, owner_of, place_of
from poolscope.detectors.diagnosis.rules.foreign import fix_of, kind_of, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Foreign

_MOST_LISTED: Final = 20


class Use(NamedTuple):
    """
    A foreign pool or connection in use.

    Args:
        lease: Whoever uses it.
        foreign: How it belongs elsewhere.
    """

    lease: Lease
    foreign: Foreign


class ForeignPoolDetector(Detector[Suspected, Use]):
    """Observes checkouts of pools that may be foreign, and looks at what is in use."""

    kinds = (FORKED_POOL, FOREIGN_EVENT_LOOP)
    observes = Suspected

    def observe(self, event: Suspected) -> None:
        """A checkout got a connection, or failed: only now it shows what it uses. The first one is enough."""
        lease = event.lease
        foreign = (
            guard.run("foreign_pool.observe", lambda: lease.pool.foreign(lease), None) if not lease.silent else None
        )
        if foreign is not None:
            mark(lease, kind_of(foreign))
            lease.pool.is_foreign = True
            lease.pool.trust()
            self.keep(Use(lease if lease in foreign.leases else foreign.leases[0], foreign))

    def diagnose(self, seen: Use) -> Iterator[Occurrence]:
        """One use."""
        place = (kind_of(seen.foreign), seen.lease.pool.identity.name)
        yield Occurrence(place, lambda repeated: found(seen, repeated))

    def look(self, pool: Pool) -> Iterator[Occurrence]:
        """What is in use now; and whether its checkouts are suspected from now on."""
        foreign = pool.foreign()
        if foreign is not None:
            pool.is_foreign = True
            oldest = min(foreign.leases, key=lambda lease: lease.requested_at)
            yield from self.diagnose(Use(oldest, foreign))
        has_foreign = pool.has_foreign()
        pool.is_foreign = pool.is_foreign and has_foreign
        if has_foreign and not pool.is_foreign:
            pool.suspect()
        else:
            pool.trust()


def found(seen: Use, repeated: int) -> Finding:
    """
    Put it in words.

    Args:
        seen: The use.
        repeated: How often more it was seen since the last report.
    """
    lease, foreign = seen
    kind = kind_of(foreign)
    processes = {one.backend_process_id for one in foreign.leases if one.backend_process_id is not None}
    listed = [str(process) for process in sorted(processes)][:_MOST_LISTED]
    server = f" (the server's process {', '.join(listed)})" if listed and not foreign.is_pool else ""
    return finding_about(
        lease,
        kind,
        f"{owner_of(lease)} uses pool {lease.pool.identity.name} at {place_of(lease.origin)} in process {os.getpid()}: "
        f"{words_of(foreign)}{server}",
        {
            "connections_used": len(foreign.leases),
            "process": str(os.getpid()),
            "backend_process_ids": listed,
            "checkout_stack": lines_of(lease.origin),
            "repeated": repeated,
        },
        fix=KINDS[kind].fix_for(fix_of(foreign)),
    )
