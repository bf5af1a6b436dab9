"""
The dictionary: every metric, span, event and attribute that poolscope emits.

Instruments, dashboards, alerts, documentation and tests take their names from here; none of them types one again.
Names that start with ``db.``, ``server.``, ``code.`` or ``error.`` are those of the OpenTelemetry semantic conventions
(schema below); names outside the conventions carry the prefix ``poolscope.``. Units are UCUM.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

SCOPE: Final = "poolscope"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"


class Kind(Enum):
    """
    What an exported metric is, by the data model of OpenTelemetry.

    Poolscope reads counts from its pool registry at collection, so counters and up-down counters are the observable
    form; what is exported is the same.
    """

    COUNTER = "counter"
    UP_DOWN_COUNTER = "updowncounter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


# Attributes of the conventions
POOL_NAME: Final = "db.client.connection.pool.name"
CONNECTION_STATE: Final = "db.client.connection.state"
DB_SYSTEM: Final = "db.system.name"
DB_NAMESPACE: Final = "db.namespace"
DB_QUERY_SUMMARY: Final = "db.query.summary"
DB_QUERY_TEXT: Final = "db.query.text"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
CODE_FUNCTION: Final = "code.function.name"
CODE_FILE: Final = "code.file.path"
CODE_LINE: Final = "code.line.number"
CODE_STACKTRACE: Final = "code.stacktrace"
THREAD_NAME: Final = "thread.name"

# Attributes of our own
WAIT_PHASE: Final = "poolscope.wait.phase"
HOLD_PHASE: Final = "poolscope.hold.phase"
LEAK_KIND: Final = "poolscope.leak.kind"
CLOSE_REASON: Final = "poolscope.close.reason"
COMPONENT: Final = "poolscope.component"
FINDINGS: Final = "poolscope.findings"
FINDING_ID: Final = "poolscope.finding.id"
FINDING_SEVERITY: Final = "poolscope.finding.severity"
FINDING_SUMMARY: Final = "poolscope.finding.summary"
FINDING_FIX: Final = "poolscope.finding.fix"
FINDING_PAGE: Final = "poolscope.finding.page"
UNIT_OF_WORK_KIND: Final = "poolscope.unit_of_work.kind"
UNIT_OF_WORK_NAME: Final = "poolscope.unit_of_work.name"
UNIT_OF_WORK_QUERIES: Final = "poolscope.unit_of_work.queries"
UNIT_OF_WORK_CONNECTIONS: Final = "poolscope.unit_of_work.connections"
UNIT_OF_WORK_WAIT_TIME: Final = "poolscope.unit_of_work.wait_time"
UNIT_OF_WORK_HOLD_TIME: Final = "poolscope.unit_of_work.hold_time"
POOL_LIMIT: Final = "poolscope.pool.limit"
POOL_USED: Final = "poolscope.pool.used"
POOL_PENDING: Final = "poolscope.pool.pending"
LEASE_QUERIES: Final = "poolscope.lease.queries"
LEASE_AGE: Final = "poolscope.lease.age"
CHECKOUT_SPAN_THRESHOLD: Final = "poolscope.checkout.span_threshold"
BACKEND_PROCESS_ID: Final = "poolscope.backend.process_id"
HOLDERS: Final = "poolscope.holders"
HOLDERS_OMITTED: Final = "poolscope.holders.omitted"
CAUSE: Final = "poolscope.cause"
STATEMENT_REPETITIONS: Final = "poolscope.statement.repetitions"
STATEMENT_TIME: Final = "poolscope.statement.time"
CURRENT_LOCATION: Final = "poolscope.current_location"

POOL_ATTRIBUTES: Final = (POOL_NAME, DB_SYSTEM, DB_NAMESPACE, SERVER_ADDRESS, SERVER_PORT)
UNIT_ATTRIBUTES: Final = (UNIT_OF_WORK_KIND, UNIT_OF_WORK_NAME)

# Values of attributes
STATE_IDLE: Final = "idle"
STATE_USED: Final = "used"

# Upper bounds of buckets
# From 0.1 ms (an uncontended checkout takes less) to 60 s; every alert threshold on a duration is one of them.
DURATION_BOUNDARIES: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
COUNT_BOUNDARIES: Final = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 100.0, 250.0, 500.0, 1000.0, 10000.0)


@dataclass(frozen=True)
class Metric:
    """
    One metric as it is exported.

    Args:
        name: The OpenTelemetry name.
        kind: The kind of data.
        unit: The UCUM unit.
        description: What it says, in one sentence.
        attributes: Keys of its points, the pool's identity included.
        boundaries: The upper bounds of a histogram's buckets, in its unit; empty for the other kinds.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = POOL_ATTRIBUTES
    boundaries: tuple[float, ...] = ()

    @property
    def conventional(self) -> bool:
        """Whether the semantic conventions define it."""
        return not self.name.startswith("poolscope.")


# Metrics of the conventions
CONNECTION_COUNT: Final = Metric(
    "db.client.connection.count", Kind.UP_DOWN_COUNTER, "{connection}",
    "The number of connections that are currently in state described by the `state` attribute.",
    (*POOL_ATTRIBUTES, CONNECTION_STATE),
)  # fmt: skip
CONNECTION_MAX: Final = Metric(
    "db.client.connection.max", Kind.UP_DOWN_COUNTER, "{connection}",
    "The maximum number of open connections allowed.",
)  # fmt: skip
CONNECTION_IDLE_MAX: Final = Metric(
    "db.client.connection.idle.max", Kind.UP_DOWN_COUNTER, "{connection}",
    "The maximum number of idle open connections allowed.",
)  # fmt: skip
CONNECTION_IDLE_MIN: Final = Metric(
    "db.client.connection.idle.min", Kind.UP_DOWN_COUNTER, "{connection}",
    "The minimum number of idle open connections allowed.",
)  # fmt: skip
PENDING_REQUESTS: Final = Metric(
    "db.client.connection.pending_requests", Kind.UP_DOWN_COUNTER, "{request}",
    "The number of current pending requests for an open connection.",
)  # fmt: skip
TIMEOUTS: Final = Metric(
    "db.client.connection.timeouts", Kind.COUNTER, "{timeout}",
    "The number of connection timeouts that have occurred trying to obtain a connection from the pool.",
)  # fmt: skip
CREATE_TIME: Final = Metric(
    "db.client.connection.create_time", Kind.HISTOGRAM, "s",
    "The time it took to create a new connection.",
    boundaries=DURATION_BOUNDARIES,
)  # fmt: skip
WAIT_TIME: Final = Metric(
    "db.client.connection.wait_time", Kind.HISTOGRAM, "s",
    "The time it took to obtain an open connection from the pool.",
    (*POOL_ATTRIBUTES, ERROR_TYPE), DURATION_BOUNDARIES,
)  # fmt: skip
USE_TIME: Final = Metric(
    "db.client.connection.use_time", Kind.HISTOGRAM, "s",
    "The time between borrowing a connection and returning it to the pool.",
    boundaries=DURATION_BOUNDARIES,
)  # fmt: skip

# Metrics of our own: the pool
SATURATION_TIME: Final = Metric(
    "poolscope.pool.saturation_time", Kind.COUNTER, "s",
    "The time during which every allowed connection was in use; its rate is the share of time saturated.",
)  # fmt: skip
USED_PEAK: Final = Metric(
    "poolscope.pool.used.peak", Kind.GAUGE, "{connection}",
    "The most connections in use at once within the last 60 s.",
)  # fmt: skip
PENDING_PEAK: Final = Metric(
    "poolscope.pool.pending.peak", Kind.GAUGE, "{request}",
    "The most requests waiting for a connection at once within the last 60 s.",
)  # fmt: skip
OLDEST_LEASE_AGE: Final = Metric(
    "poolscope.pool.oldest_lease_age", Kind.GAUGE, "s",
    "The age of the oldest lease that is still held; 0 when no connection is checked out.",
)  # fmt: skip
WAIT_PHASE_TIME: Final = Metric(
    "poolscope.connection.wait_phase_time", Kind.COUNTER, "s",
    "The time spent obtaining connections, by what it was spent on: queueing, connecting, validating.",
    (*POOL_ATTRIBUTES, WAIT_PHASE),
)  # fmt: skip
HOLD_PHASE_TIME: Final = Metric(
    "poolscope.connection.hold_phase_time", Kind.COUNTER, "s",
    "The time connections were held, by what they did: running a query, idle in a transaction, idle.",
    (*POOL_ATTRIBUTES, HOLD_PHASE),
)  # fmt: skip
LEAKS: Final = Metric(
    "poolscope.connection.leaks", Kind.COUNTER, "{connection}",
    "The number of leaked connections, by how the leak was detected.",
    (*POOL_ATTRIBUTES, LEAK_KIND),
)  # fmt: skip
NESTED_CHECKOUTS: Final = Metric(
    "poolscope.connection.nested_checkouts", Kind.COUNTER, "{checkout}",
    "The number of times a unit of work checked out a connection of a pool while it held one of the same pool.",
)  # fmt: skip
UNATTRIBUTED: Final = Metric(
    "poolscope.connection.unattributed_checkouts", Kind.COUNTER, "{checkout}",
    "The number of checkouts outside of any unit of work, as by a bare thread or a script.",
)  # fmt: skip
CLOSURES: Final = Metric(
    "poolscope.connection.closures", Kind.COUNTER, "{connection}",
    "The number of physical connections that left the pool, by reason.",
    (*POOL_ATTRIBUTES, CLOSE_REASON),
)  # fmt: skip

# Metrics of our own: units of work
UNIT_QUERIES: Final = Metric(
    "poolscope.unit_of_work.queries", Kind.HISTOGRAM, "{query}",
    "The number of database calls per request, task or job.",
    (*UNIT_ATTRIBUTES, POOL_NAME), COUNT_BOUNDARIES,
)  # fmt: skip
UNIT_CONNECTIONS: Final = Metric(
    "poolscope.unit_of_work.connections", Kind.HISTOGRAM, "{connection}",
    "The most connections held at once by one request, task or job.",
    (*UNIT_ATTRIBUTES, POOL_NAME), COUNT_BOUNDARIES,
)  # fmt: skip
UNIT_WAIT_TIME: Final = Metric(
    "poolscope.unit_of_work.wait_time", Kind.HISTOGRAM, "s",
    "The time one request, task or job waited for connections of the pool.",
    (*UNIT_ATTRIBUTES, POOL_NAME), DURATION_BOUNDARIES,
)  # fmt: skip
UNIT_HOLD_TIME: Final = Metric(
    "poolscope.unit_of_work.hold_time", Kind.HISTOGRAM, "s",
    "The time one request, task or job held connections of the pool.",
    (*UNIT_ATTRIBUTES, POOL_NAME), DURATION_BOUNDARIES,
)  # fmt: skip
REPEATED_QUERIES: Final = Metric(
    "poolscope.unit_of_work.repeated_queries", Kind.COUNTER, "{query}",
    "The number of queries spent in N+1 loops.",
    (*UNIT_ATTRIBUTES, POOL_NAME),
)  # fmt: skip

# Metrics of our own: ourselves
DRIFT: Final = Metric(
    "poolscope.instrumentation.drift", Kind.GAUGE, "{connection}",
    "Connections in use by poolscope's count minus those by the library's own; a value other than 0 at rest is a bug.",
)  # fmt: skip
ERRORS: Final = Metric(
    "poolscope.instrumentation.errors", Kind.COUNTER, "{error}",
    "The number of errors of poolscope's own, caught before they reached the application.",
    (COMPONENT,),
)  # fmt: skip

METRICS: Final[tuple[Metric, ...]] = (
    CONNECTION_COUNT, CONNECTION_MAX, CONNECTION_IDLE_MAX, CONNECTION_IDLE_MIN, PENDING_REQUESTS, TIMEOUTS,
    CREATE_TIME, WAIT_TIME, USE_TIME,
    SATURATION_TIME, USED_PEAK, PENDING_PEAK, OLDEST_LEASE_AGE, WAIT_PHASE_TIME, HOLD_PHASE_TIME,
    LEAKS, NESTED_CHECKOUTS, UNATTRIBUTED, CLOSURES,
    UNIT_QUERIES, UNIT_CONNECTIONS, UNIT_WAIT_TIME, UNIT_HOLD_TIME, REPEATED_QUERIES,
    DRIFT, ERRORS,
)  # fmt: skip


@dataclass(frozen=True)
class Span:
    """
    One kind of span.

    Args:
        prefix: The first word of its name; the pool's name follows.
        description: When it is emitted and what it says.
        attributes: Keys it may carry.
    """

    prefix: str
    description: str
    attributes: tuple[str, ...]

    def named(self, pool: str) -> str:
        """The name of the span for the pool of that name."""
        return f"{self.prefix} {pool}"


CHECKOUT_SPAN: Final = Span(
    "checkout",
    "One checkout that waited longer than the threshold, or failed; linked to the leases that held the connections.",
    (
        *POOL_ATTRIBUTES, POOL_LIMIT, POOL_USED, POOL_PENDING, ERROR_TYPE, CHECKOUT_SPAN_THRESHOLD,
        "poolscope.wait.queue", "poolscope.wait.connect", "poolscope.wait.validate",
        CODE_FUNCTION, CODE_FILE, CODE_LINE,
    ),
)  # fmt: skip
HOLD_SPAN: Final = Span(
    "hold",
    "One lease inside a recorded span, from receiving the connection to returning it.",
    (
        *POOL_ATTRIBUTES, "poolscope.hold.query", "poolscope.hold.idle_in_transaction", "poolscope.hold.idle",
        LEASE_QUERIES, BACKEND_PROCESS_ID, LEAK_KIND, FINDINGS, CODE_FUNCTION, CODE_FILE, CODE_LINE,
    ),
)  # fmt: skip
SPANS: Final = (CHECKOUT_SPAN, HOLD_SPAN)

# Seconds of one wait or hold by phase, as span attributes: the prefix and the phase.
SPAN_WAIT_PHASE_PREFIX: Final = "poolscope.wait."
SPAN_HOLD_PHASE_PREFIX: Final = "poolscope.hold."


@dataclass(frozen=True)
class Event:
    """
    One kind of event: a log record with an event name, and the severity of its finding.

    Args:
        name: The event's name.
        description: When it is emitted.
    """

    name: str
    description: str


LEAK_EVENT: Final = Event("poolscope.connection.leak", "A connection was found leaked before it was returned.")
LEAK_RESOLVED_EVENT: Final = Event("poolscope.connection.leak.resolved", "A connection reported leaked was returned.")
EXHAUSTED_EVENT: Final = Event(
    "poolscope.pool.exhausted",
    "A checkout timed out or waited too long: every holder, oldest first, with its call site and current location.",
)
TURNED_AWAY_EVENT: Final = Event(
    "poolscope.pool.turned_away",
    "A pool at its limit refused a checkout at once: every holder, oldest first, with its call site.",
)
N_PLUS_ONE_EVENT: Final = Event(
    "poolscope.unit_of_work.n_plus_one",
    "One unit of work ran the same statement from the same line again and again.",
)
NESTED_CHECKOUT_EVENT: Final = Event(
    "poolscope.unit_of_work.nested_checkout",
    "One unit of work checked out a second connection of a pool while it held one.",
)
LONG_HOLD_EVENT: Final = Event(
    "poolscope.connection.long_hold",
    "A connection was held for longer than the threshold: by slow queries, or by non-database work.",
)
EVENTS: Final = (
    LEAK_EVENT, LEAK_RESOLVED_EVENT, EXHAUSTED_EVENT, TURNED_AWAY_EVENT,
    N_PLUS_ONE_EVENT, NESTED_CHECKOUT_EVENT, LONG_HOLD_EVENT,
)  # fmt: skip

# Evidence of a finding that has no attribute of its own: the prefix and its short name.
EVIDENCE_PREFIX: Final = "poolscope.evidence."
