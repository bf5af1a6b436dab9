"""
A report as plain data.

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
    One phase of all waits or of all holds of a pool.

    Args:
        name: ``queue``, ``connect``, ``validate``; ``query``, ``idle_in_transaction``, ``idle``.
        seconds: The total time.
        share: The share of the time of all phases, 0 to 1.
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
        count: How many there are.
        failed: How many of them ended in an error.
        seconds: The total time.
        quantiles: Over single waits or holds, from the histogram.
        distribution: The histogram, where there is one.
        phases: The time by phase.
    """

    count: int
    failed: int
    seconds: float
    quantiles: Quantiles
    distribution: Distribution | None
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class CallSite:
    """
    A unit of work (one request, task or job) and the line of the application that checks the connection out.

    Args:
        route: The unit of work's name, such as ``GET /users/{id}``.
        function: The function's name.
        file: The path of its file.
        line: The line in it; 0 where it is unknown.
    """

    route: str
    function: str = ""
    file: str = ""
    line: int = 0


NO_CALL_SITE = CallSite("")


@dataclass(frozen=True)
class Holder:
    """
    All holds of one call site.

    Args:
        call_site: Where the connections are checked out.
        count: The number of holds.
        not_returned: How many of them leaked and were not returned; such a hold lasts to the end of the telemetry.
        seconds: The total time of the holds.
        share: The share of the time that all connections of this pool were held, 0 to 1.
        quantiles: Over single holds.
        longest: The longest hold.
        queries: Statements per hold, on average.
        phases: Seconds by phase; empty where only the metrics of the unit of work are known.
    """

    call_site: CallSite
    count: int
    not_returned: int
    seconds: float
    share: float
    quantiles: Quantiles
    longest: float
    queries: float
    phases: Mapping[str, float]


@dataclass(frozen=True)
class Starvation:
    """
    The waits of one unit of work while another one held a connection.

    Args:
        waiter: The unit of work that waited.
        holder: The unit of work that held a connection meanwhile.
        waits: The number of waits.
        seconds: The total time of the waits.
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
        limit: The most connections that may be open; ``None`` without a limit.
        used: Connections in use at the last collection.
        idle: Connections idle at the last collection.
        peak: The most connections in use at once.
        pending_peak: The most checkouts that waited at once.
        observed_seconds: The time that the metrics cover.
        saturated_seconds: The part of it with every allowed connection in use; ``None`` where it was not measured.
        oldest_lease_seconds: The age of the oldest hold at the last collection.
        waits: The checkouts, each until the pool hands a connection over.
        holds: The holds, each from the handover to the return.
        timeouts: Checkouts that timed out.
        created: Physical connections opened.
        closures: Physical connections closed, by reason.
        leaks: Connections found leaked, by kind.
        nested_checkouts: Checkouts of a second connection while one was held.
        drift: Poolscope's count minus the pool's own, at the last collection.
        holders: The holds by call site, longest total first.
        starvations: The waits by waiter and holder, longest total first.
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
        """The share of the time with every allowed connection in use, 0 to 1; 0 where it was not measured."""
        if not self.saturated_seconds or not self.observed_seconds:
            return 0.0
        return min(self.saturated_seconds / self.observed_seconds, 1.0)


@dataclass(frozen=True)
class FindingReport:
    """
    One cause, with the number of its occurrences.

    Args:
        id: The finding's id.
        severity: ``info``, ``warning`` or ``critical``.
        service: The service's name.
        pool: The pool's name, where it concerns one.
        call_site: The unit of work and the line; `NO_CALL_SITE` where it concerns a pool as a whole.
        count: The number of occurrences, including those without a report of their own.
        resolved: How many of the reported connections were returned later.
        summary: One sentence, from the latest report.
        fix: What to change.
        page: The documentation's page.
        evidence: All other attributes of the latest report.
    """

    id: str
    severity: str
    service: str
    pool: str
    call_site: CallSite
    count: int
    resolved: int
    summary: str
    fix: str
    page: str
    evidence: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The pools and the findings of all processes."""

    pools: tuple[PoolReport, ...]
    findings: tuple[FindingReport, ...]
    warnings: tuple[str, ...] = ()
