"""
What a report says, as plain data.

Durations are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poolscope.report.distribution import Distribution, Quantiles


@dataclass(frozen=True)
class Phase:
    """
    The part of the waits, or of the holds, that went into one thing.

    Args:
        name: ``queue``, ``connect``, ``validate``; ``query``, ``idle_in_transaction``, ``idle``.
        seconds: All of it together.
        share: Of all phases' time, 0 to 1.
        quantiles: Over single waits or holds, from spans; ``None`` values where there are no spans.
    """

    name: str
    seconds: float
    share: float
    quantiles: Quantiles


@dataclass(frozen=True)
class Timing:
    """
    All waits, or all holds, of a pool.

    Args:
        count: How many.
        failed: How many of them ended in an error.
        seconds: All together.
        quantiles: Over single ones, from the histogram.
        distribution: The histogram, where there is one.
        phases: What the time went into.
    """

    count: int
    failed: int
    seconds: float
    quantiles: Quantiles
    distribution: Distribution | None
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class Place:
    """
    A unit of work and the line of the application that asked for the connection.

    Args:
        route: The unit of work's name, such as ``GET /users/{id}``.
        function: The function's name.
        file: The path of its file.
        line: The line in it; 0 where it is not known.
    """

    route: str
    function: str = ""
    file: str = ""
    line: int = 0


NO_PLACE = Place("")


@dataclass(frozen=True)
class Holder:
    """
    Who holds connections.

    Args:
        place: Where they are checked out.
        count: How many leases.
        still_out: How many of them were found leaked and did not come back; they count up to the end of what was seen.
        seconds: How long they held, all together.
        share: Of all the time that connections of this pool were held, 0 to 1.
        quantiles: Over single leases.
        longest: The longest lease.
        queries: Statements per lease, on average.
        phases: Seconds by phase; empty where only the metrics of the unit of work are known.
    """

    place: Place
    count: int
    still_out: int
    seconds: float
    share: float
    quantiles: Quantiles
    longest: float
    queries: float
    phases: Mapping[str, float]


@dataclass(frozen=True)
class Starvation:
    """
    Who waits for whom.

    Args:
        waiter: The unit of work that waited.
        holder: The unit of work that had a connection meanwhile.
        waits: How many waits.
        seconds: How long they took, all together.
    """

    waiter: str
    holder: str
    waits: int
    seconds: float


@dataclass(frozen=True)
class PoolReport:
    """
    One pool of one process.

    Args:
        service: The service's name.
        instance: The process's ``service.instance.id``.
        name: The pool's name.
        system: The database system.
        namespace: The database.
        server: Address and port, where known.
        limit: Connections that may be open; ``None`` without a limit.
        used: Connections in use at the last collection.
        idle: Connections idle at the last collection.
        peak: The most in use at once.
        pending_peak: The most requests waiting at once.
        observed_seconds: The time that the metrics cover.
        saturated_seconds: The part of it with every allowed connection in use; ``None`` where it was not measured.
        oldest_lease_seconds: The age of the oldest lease at the last collection.
        waits: From asking to having.
        holds: From having to giving back.
        timeouts: Requests that the pool turned away.
        created: Physical connections opened.
        closures: Physical connections closed, by reason.
        leaks: Connections found leaked, by kind.
        nested_checkouts: Second connections asked for while holding one.
        drift: Our ledger minus the pool's own account, at the last collection.
        holders: Who held connections, those who held most first.
        starvations: Who waited for whom, the longest waits first.
    """

    service: str
    instance: str
    name: str
    system: str
    namespace: str
    server: str
    limit: int | None
    used: int
    idle: int
    peak: int
    pending_peak: int
    observed_seconds: float
    saturated_seconds: float | None
    oldest_lease_seconds: float
    waits: Timing
    holds: Timing
    timeouts: int
    created: int
    closures: Mapping[str, int]
    leaks: Mapping[str, int]
    nested_checkouts: int
    drift: int
    holders: tuple[Holder, ...] = ()
    starvations: tuple[Starvation, ...] = ()

    @property
    def saturation(self) -> float:
        """
        The share of the time with every allowed connection in use, 0 to 1; 0 where it was not measured.
        """
        if not self.saturated_seconds or not self.observed_seconds:
            return 0.0
        return min(self.saturated_seconds / self.observed_seconds, 1.0)


@dataclass(frozen=True)
class FindingReport:
    """
    One cause, however often it was reported.

    Args:
        id: The finding's id.
        severity: ``info``, ``warning`` or ``critical``.
        service: The service's name.
        pool: The pool's name, where it concerns one.
        place: The unit of work and the line; `NO_PLACE` where it concerns a pool as a whole.
        count: How often it was found; also what was held back by the limit on reports.
        resolved: How many of the reported connections came back after all.
        summary: One sentence, from the latest report.
        cure: What to change.
        page: The documentation's page.
        evidence: Everything else that the latest report carried.
    """

    id: str
    severity: str
    service: str
    pool: str
    place: Place
    count: int
    resolved: int
    summary: str
    cure: str
    page: str
    evidence: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """
    Everything there is to say.
    """

    pools: tuple[PoolReport, ...]
    findings: tuple[FindingReport, ...]
    warnings: tuple[str, ...] = ()
