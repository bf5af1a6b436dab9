"""Attributes: their keys, their values, and the buckets of histograms."""

from __future__ import annotations

from typing import Final

SCOPE: Final = "poolscope"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

# Attributes of the conventions
POOL_NAME: Final = "db.client.connection.pool.name"
CONNECTION_STATE: Final = "db.client.connection.state"
DB_SYSTEM: Final = "db.system.name"
DB_NAMESPACE: Final = "db.namespace"
DB_QUERY_TEXT: Final = "db.query.text"
DB_RESPONSE_STATUS: Final = "db.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
CODE_FUNCTION: Final = "code.function.name"
CODE_FILE: Final = "code.file.path"
CODE_LINE: Final = "code.line.number"
CODE_STACKTRACE: Final = "code.stacktrace"

# Attributes of our own
WAIT_PHASE: Final = "poolscope.wait.phase"
HOLD_PHASE: Final = "poolscope.hold.phase"
LEAK_KIND: Final = "poolscope.leak.kind"
LEAK_ENDING: Final = "poolscope.leak.ending"
CLOSE_REASON: Final = "poolscope.close.reason"
COMPONENT: Final = "poolscope.component"
FINDINGS: Final = "poolscope.finding.ids"
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
CHECKOUT_OUTCOME: Final = "poolscope.checkout.outcome"
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

# Evidence of a finding that has no attribute of its own: the prefix and its short name.
EVIDENCE_PREFIX: Final = "poolscope.evidence."
