"""
The metrics that the Collector makes from SQL and from spans, in the form of the metrics in ``poolscope.semconv``.

No process of an application emits them, so they are not in that module. Dashboards and alerts import them from here and
their Prometheus names from ``grafana.prometheus``. A test compares them with ``collector-config/collector.yaml`` and
with what the running Collector serves.
"""

from __future__ import annotations

from typing import Final

from poolscope.semconv import (
    CODE_FILE,
    CODE_FUNCTION,
    CODE_LINE,
    ERROR_TYPE,
    FINDINGS,
    POOL_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
    Kind,
    Metric,
)

# Labels of every series: the Collector turns resource attributes into labels.
SERVICE: Final = "service_name"
INSTANCE: Final = "service_instance_id"
VERSION: Final = "service_version"

_SERVER: Final = (SERVER_ADDRESS, SERVER_PORT)
_SPAN: Final = ("span.name", "status.code", POOL_NAME, ERROR_TYPE, CODE_FUNCTION, CODE_FILE, CODE_LINE)

# What the Collector's sqlquery receiver queries in PostgreSQL ---------------------------------------------------------
SERVER_CONNECTIONS: Final = Metric(
    "poolscope.server.connections",
    Kind.GAUGE,
    "{connection}",
    "Client connections that the server has, by state, application and database.",
    (*_SERVER, "state", "application_name", "datname"),
)
SERVER_OLDEST_IDLE_IN_TRANSACTION: Final = Metric(
    "poolscope.server.idle_in_transaction.oldest_age",
    Kind.GAUGE,
    "s",
    "Age of the oldest transaction that is open and idle.",
    _SERVER,
)
SERVER_CONNECTIONS_MAX: Final = Metric(
    "poolscope.server.connections.max",
    Kind.GAUGE,
    "{connection}",
    "Connections that the server accepts (max_connections).",
    _SERVER,
)
SERVER_CONNECTIONS_RESERVED: Final = Metric(
    "poolscope.server.connections.reserved",
    Kind.GAUGE,
    "{connection}",
    "Connections of these that are reserved (superuser_reserved_connections, reserved_connections).",
    _SERVER,
)
# What its postgresql receiver reports and the dashboards use ----------------------------------------------------------
POSTGRESQL_BACKENDS: Final = Metric(
    "postgresql.backends", Kind.UP_DOWN_COUNTER, "1", "The number of backends.", (*_SERVER, "postgresql.database.name")
)
POSTGRESQL_CONNECTION_MAX: Final = Metric(
    "postgresql.connection.max",
    Kind.GAUGE,
    "{connections}",
    "Configured maximum number of client connections.",
    _SERVER,
)
# What it counts from spans, before sampling ------------------------------------------------------
SPAN_CALLS: Final = Metric(
    "traces.span.metrics.calls",
    Kind.COUNTER,
    "",
    "Spans of poolscope and of units of work.",
    _SPAN,
)
SPAN_DURATION: Final = Metric(
    "traces.span.metrics.duration",
    Kind.HISTOGRAM,
    "s",
    "Duration of spans of poolscope and of units of work.",
    _SPAN,
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
TRACE_FINDINGS: Final = Metric(
    "poolscope.trace.findings",
    Kind.COUNTER,
    "",
    "Spans of units of work with findings, before sampling.",
    (FINDINGS,),
)

SERVER_METRICS: Final = (
    SERVER_CONNECTIONS,
    SERVER_OLDEST_IDLE_IN_TRANSACTION,
    SERVER_CONNECTIONS_MAX,
    SERVER_CONNECTIONS_RESERVED,
)
RECEIVER_METRICS: Final = (POSTGRESQL_BACKENDS, POSTGRESQL_CONNECTION_MAX)
SPAN_METRICS: Final = (SPAN_CALLS, SPAN_DURATION, TRACE_FINDINGS)
COLLECTOR_METRICS: Final = (*SERVER_METRICS, *RECEIVER_METRICS, *SPAN_METRICS)

# The jobs of ``collector-config/prometheus/prometheus.yml``, as a regular expression.
SCRAPE_JOBS: Final = "poolscope-(processes|counted|collector)"
# The Collector's counters of lost data, and how the alert describes each.
_LOSSES: Final = {
    "exporter_send_failed": "not delivered",
    "exporter_enqueue_failed": "not queued",
    "receiver_refused": "refused",
    "receiver_failed": "not received",
}
_SIGNALS: Final = {"spans": "spans", "metric_points": "metric points", "log_records": "log records"}
# What its exporters have still to send; the dashboards show it.
COLLECTOR_QUEUE_SIZE: Final = "otelcol_exporter_queue_size"
COLLECTOR_IN_FLIGHT: Final = "otelcol_exporter_in_flight_requests"


def losses() -> tuple[tuple[str, str], ...]:
    """
    The Collector's counters of lost data, each with its description.

    They are separate, since a function over a window drops the metric's name, and two counters with the same labels are
    then an error. The suffix depends on how the Collector's version names counters.
    """
    return tuple(
        (f'{{__name__=~"otelcol_{kind}_{signal}(_total)?"}}', f"{items} {fate}")
        for kind, fate in _LOSSES.items()
        for signal, items in _SIGNALS.items()
    )
