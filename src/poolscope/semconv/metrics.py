"""Metrics."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from poolscope.semconv.attributes import (
    CHECKOUT_OUTCOME,
    CLOSE_REASON,
    COMPONENT,
    CONNECTION_STATE,
    COUNT_BOUNDARIES,
    DURATION_BOUNDARIES,
    ERROR_TYPE,
    FINDING_ID,
    HOLD_PHASE,
    LEAK_KIND,
    POOL_ATTRIBUTES,
    POOL_NAME,
    UNIT_ATTRIBUTES,
    WAIT_PHASE,
)


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
    "The time spent obtaining connections, by what it was spent on: queueing, connecting, validating, resuming.",
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
FAILED_CHECKOUTS: Final = Metric(
    "poolscope.connection.failed_checkouts", Kind.COUNTER, "{checkout}",
    "The number of checkouts that got no connection, by how they ended and by the kind of error.",
    (*POOL_ATTRIBUTES, CHECKOUT_OUTCOME, ERROR_TYPE),
)  # fmt: skip
NESTED_CHECKOUTS: Final = Metric(
    "poolscope.connection.nested_checkouts", Kind.COUNTER, "{checkout}",
    "The number of times a unit of work checked out a connection of a pool while it held one of the same pool.",
)  # fmt: skip
UNATTRIBUTED: Final = Metric(
    "poolscope.connection.unattributed_checkouts", Kind.COUNTER, "{checkout}",
    "The number of checkouts outside of any unit of work, as by a library's thread or a task in the background.",
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

# Metrics of our own: event loops
EVENT_LOOP_LAG: Final = Metric(
    "poolscope.event_loop.lag", Kind.HISTOGRAM, "s",
    "How late event loops that use pools run what they are to run at once, by a heartbeat about every second.",
    (), DURATION_BOUNDARIES,
)  # fmt: skip

# Metrics of our own: findings
FINDING_COUNT: Final = Metric(
    "poolscope.findings", Kind.COUNTER, "{finding}",
    "The number of findings, also of those that no event of their own reports.",
    (*POOL_ATTRIBUTES, FINDING_ID),
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
    LEAKS, FAILED_CHECKOUTS, NESTED_CHECKOUTS, UNATTRIBUTED, CLOSURES,
    UNIT_QUERIES, UNIT_CONNECTIONS, UNIT_WAIT_TIME, UNIT_HOLD_TIME, REPEATED_QUERIES,
    EVENT_LOOP_LAG, FINDING_COUNT, DRIFT, ERRORS,
)  # fmt: skip
