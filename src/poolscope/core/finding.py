"""
Findings: what is wrong, who causes it, how it is known, and how to fix it.

`KINDS` is the one catalogue. The events, the attributes of their evidence, the documentation's tables, the report, the
terminal's units, the dashboards and the alerts' pages are derived from it: an id's event, severity, fix and units stand
here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Union

from poolscope import semconv
from poolscope.core.finding_kind import Field, FindingKind, Severity, Source, Unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import CodeType

    from poolscope.core.pool_identity import Identity


#: What evidence may be: exactly what OpenTelemetry's attributes may be.
Evidence = Union[str, int, float, "Sequence[str]"]


LEAK: Final = "connection_leak"
POOL_EXHAUSTED: Final = "pool_exhausted"
POOL_TOO_SMALL: Final = "pool_too_small"
LONG_HOLD: Final = "long_hold"
BURST: Final = "burst"
SLOW_CONNECT: Final = "slow_connect"
IDLE_IN_TRANSACTION: Final = "idle_in_transaction"
N_PLUS_ONE: Final = "n_plus_one"
NESTED_CHECKOUT: Final = "nested_checkout"
TURNED_AWAY: Final = "turned_away"
FLEET_BUDGET: Final = "fleet_budget"


def _fields(unit: Unit, *short: str, **attributes: str) -> dict[str, Field]:
    # Evidence without an attribute of its own goes under the prefix.
    own = {name: Field(unit, attribute) for name, attribute in attributes.items()}
    return {name: Field(unit, semconv.EVIDENCE_PREFIX + name) for name in short} | own


_REPEATED: Final = _fields(Unit.COUNT, "repeated")
_LEAK: Final = {
    **_fields(Unit.NONE, leak_kind=semconv.LEAK_KIND),
    **_fields(Unit.SECONDS, age=semconv.LEASE_AGE),
    **_fields(Unit.NONE, "owner", "phase", "trace_id", checkout_stack=semconv.CODE_STACKTRACE),
    **_fields(Unit.NONE, current_location=semconv.CURRENT_LOCATION, statement=semconv.DB_QUERY_TEXT),
    **_fields(Unit.NONE, backend_process_id=semconv.BACKEND_PROCESS_ID),
    **_REPEATED,
}
_HOLD: Final = {
    **_fields(Unit.SECONDS, "held", "query", "idle_in_transaction", "idle"),
    **_fields(Unit.COUNT, queries=semconv.LEASE_QUERIES),
    **_fields(Unit.NONE, statement=semconv.DB_QUERY_TEXT, checkout_stack=semconv.CODE_STACKTRACE),
    **_REPEATED,
}
_EXHAUSTION: Final = {
    **_fields(Unit.NONE, cause=semconv.CAUSE, holders=semconv.HOLDERS),
    **_fields(Unit.COUNT, holders_omitted=semconv.HOLDERS_OMITTED),
    **_fields(Unit.COUNT, used=semconv.POOL_USED, limit=semconv.POOL_LIMIT, pending=semconv.POOL_PENDING),
    **_fields(Unit.SECONDS, "waited"),
    **_fields(Unit.PER_SECOND, "arrival_rate", "arrival_rate_now", "arrival_rate_before"),
    **_fields(Unit.SECONDS, "mean_hold", "typical_hold"),
    **_fields(Unit.COUNT, "connections_needed", "used_before", "leaked", "deadlocked"),
    **_fields(Unit.SHARE, "query_share", "idle_in_transaction_share", "idle_share"),
    **_REPEATED,
}

_CATALOGUE: Final = (
    FindingKind(
        LEAK,
        Source.DETECTOR,
        semconv.LEAK_EVENT,
        Severity.CRITICAL,
        "a connection is checked out and will not be returned",
        "return the connection on every path: a with block around its use, or close() in a finally block",
        _LEAK,
        # For one that is still held by code that runs; the other kinds of leak are certain.
        {
            "overdue": "if the long hold is intended, declare it with poolscope.expected_long_hold(why); if not, "
            "return the connection on every path"
        },
        resolved_event=semconv.LEAK_RESOLVED_EVENT,
    ),
    FindingKind(
        POOL_EXHAUSTED,
        Source.DETECTOR,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "requests got no connection in time",
        "apply the fix of the cause that the report names",
        _EXHAUSTION,
        of_pool=True,
    ),
    FindingKind(
        POOL_TOO_SMALL,
        Source.CAUSE,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "connections are held for a short time and are busy, but there are too few of them for the load",
        "raise the pool's size within the server's max_connections, or hold each connection for a shorter time",
        _EXHAUSTION,
        of_pool=True,
    ),
    FindingKind(
        LONG_HOLD,
        Source.DETECTOR,
        semconv.LONG_HOLD_EVENT,
        Severity.WARNING,
        "a connection is held for a long time, by slow queries or by other work outside of a transaction",
        "make the query faster (an index, fewer rows), or move it to a background task or a replica",
        _HOLD,
        {"idle": "check out as late and return as early as the queries allow; do other work without a connection"},
    ),
    FindingKind(
        BURST,
        Source.CAUSE,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "the pool is large enough on average, but not for many requests at once",
        "limit how many requests run at once, or allow for the burst with max_overflow",
        _EXHAUSTION,
        of_pool=True,
    ),
    FindingKind(
        SLOW_CONNECT,
        Source.CAUSE,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "the pool is not full, but opening or validating a connection takes a long time",
        "check the database and the network (is it up, at its max_connections, slow to resolve or to log in?); a "
        "larger pool does not help",
        _EXHAUSTION,
        of_pool=True,
    ),
    FindingKind(
        IDLE_IN_TRANSACTION,
        Source.DETECTOR,
        semconv.LONG_HOLD_EVENT,
        Severity.WARNING,
        "a transaction stays open for a long time without running a query",
        "do other work (a call to another service, rendering) before the first query or after the commit",
        _HOLD,
    ),
    FindingKind(
        N_PLUS_ONE,
        Source.DETECTOR,
        semconv.N_PLUS_ONE_EVENT,
        Severity.WARNING,
        "one request runs the same query once per row",
        "run it once for all rows: eager loading, a join, or one WHERE ... IN",
        {
            **_fields(Unit.NONE, "loader", statement=semconv.DB_QUERY_TEXT),
            **_fields(Unit.COUNT, repetitions=semconv.STATEMENT_REPETITIONS),
            **_fields(Unit.SECONDS, seconds=semconv.STATEMENT_TIME),
            **_REPEATED,
        },
        title="N+1",
    ),
    FindingKind(
        NESTED_CHECKOUT,
        Source.DETECTOR,
        semconv.NESTED_CHECKOUT_EVENT,
        Severity.WARNING,
        "a second connection is checked out while one of the same pool is held",
        "use the connection or session that is already open, or return it before the next checkout",
        {
            **_fields(Unit.NONE, "first_checkout", "second_checkout"),
            **_fields(Unit.COUNT, "connections", "workers", "safe_size"),
            **_REPEATED,
        },
    ),
    FindingKind(
        TURNED_AWAY,
        Source.DETECTOR,
        semconv.TURNED_AWAY_EVENT,
        Severity.CRITICAL,
        "a full pool refuses a checkout at once instead of letting it wait",
        "run no more requests at once than the pool has connections (a semaphore, fewer threads), or use a pool that "
        "waits",
        {
            **_fields(Unit.COUNT, used=semconv.POOL_USED, limit=semconv.POOL_LIMIT, pending=semconv.POOL_PENDING),
            **_fields(Unit.NONE, checkout_stack=semconv.CODE_STACKTRACE, holders=semconv.HOLDERS),
            **_fields(Unit.COUNT, holders_omitted=semconv.HOLDERS_OMITTED),
            **_REPEATED,
        },
        of_pool=True,
    ),
    FindingKind(
        FLEET_BUDGET,
        # A process knows its own pools only; an alert adds up those of all and compares with the server.
        Source.ALERT,
        None,
        Severity.WARNING,
        "all pools together may open more connections than the server accepts",
        "lower pool sizes or worker counts, or put a pooler in front of the server",
        of_pool=True,
    ),
)

#: Every kind of finding, by its id.
KINDS: Final[Mapping[str, FindingKind]] = MappingProxyType({kind.id: kind for kind in _CATALOGUE})

FINDING_IDS: Final = tuple(KINDS)

#: What each attribute of evidence is measured in.
UNITS: Final[Mapping[str, Unit]] = MappingProxyType(
    {part.attribute: part.unit for kind in _CATALOGUE for part in kind.evidence.values()}
)


class UnitLabel(NamedTuple):
    """
    Which unit of work a finding is about: one request, task or job.

    Args:
        kind: `http`, `task`, `rpc` or `job`.
        name: A route template or task name.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        """Kind and name."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Finding:
    """
    One cause, found. It keeps neither a pool nor a unit of work alive.

    Args:
        kind: What is true of all findings of its id.
        severity: How soon to look.
        summary: One sentence that names the place.
        fix: What to change, for this case.
        pool: The identity of the pool it is about; None when it is about several.
        evidence: Figures and places that prove it, by their names in `kind.evidence`.
        unit: The unit of work it is about, if it is about one.
        origin: The raw frame of the application that it is about, if there is one.
        trace: The span it happened in, where that is recorded.
        resolved: Whether it reports that an earlier finding is over.
        report: The whole of it, in lines for people; the summary when not given.
    """

    kind: FindingKind
    severity: Severity
    summary: str
    fix: str
    pool: Identity | None = None
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    unit: UnitLabel | None = None
    origin: tuple[CodeType, int] | None = None
    trace: Any = None
    resolved: bool = False
    report: str = ""

    @property
    def id(self) -> str:
        """The id of its kind."""
        return self.kind.id

    @property
    def event(self) -> semconv.Event | None:
        """The event that carries it."""
        return self.kind.resolved_event if self.resolved else self.kind.event


class FindingSink(Protocol):
    """Takes findings away, to telemetry, logs or a list; called from background threads and never on the hot path."""

    def report(self, finding: Finding) -> None:
        """Take one finding; must not raise."""
