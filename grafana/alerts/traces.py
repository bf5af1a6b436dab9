"""Alerts on traces: on metrics that the Collector makes from all spans before sampling, and optionally in TraceQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from grafana import collector, links, prometheus
from grafana.alerts.expressions import BY_POOL, POOL_VARIABLES, SERVICE_VARIABLES, events, label, rate
from grafana.alerts.model import Alert, Group, Pace, Urgency, ValueFormat
from grafana.alerts.pools import WHERE
from grafana.collector import SERVICE
from poolscope import semconv
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED, POOL_TOO_SMALL

CHECKOUT: Final = f'span_name=~"{semconv.CHECKOUT_SPAN.prefix} .*"'


def groups(pace: Pace) -> tuple[Group, ...]:
    """The alerts on metrics made from spans; their exemplars lead to traces."""
    return (Group("poolscope-traces", (failed_checkouts(pace), slow_checkouts(pace), findings(pace))),)


def failed_checkouts(pace: Pace) -> Alert:
    """Checkouts whose span ended in an error."""
    error = label(semconv.ERROR_TYPE)
    series = f'{prometheus.family(collector.SPAN_CALLS)}{{{CHECKOUT}, status_code="STATUS_CODE_ERROR"}}'
    return Alert(
        name="CheckoutSpansFail",
        expression=f"{events(series, f'{BY_POOL}, {error}', '5m', pace)} > 0",
        pending=pace("0s"),
        urgency=Urgency.TICKET,
        finding=POOL_EXHAUSTED,
        summary=f"<value> checkouts from the {WHERE} failed with <{error}>",
        description="Counted from spans before sampling. Every such trace is kept: the checkout's span links to the "
        "spans that held the connections.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def slow_checkouts(pace: Pace) -> Alert:
    """Waiting checkouts of which one in twenty takes longer than a second."""
    buckets = rate(f"{prometheus.bucket(collector.SPAN_DURATION)}{{{CHECKOUT}}}", f"{BY_POOL}, le", "5m", pace)
    return Alert(
        name="CheckoutSpansSlow",
        expression=f"histogram_quantile(0.95, {buckets}) > {pace.slow_checkout:g}",
        pending=pace("5m"),
        urgency=Urgency.TICKET,
        finding=POOL_EXHAUSTED,
        summary=f"One in twenty of the checkouts that wait for the {WHERE} waits longer than <value>",
        description="Counted from spans: only checkouts that waited have one. Exemplars on the dashboard lead to the "
        "traces.",
        value_format=ValueFormat.DURATION,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def findings(pace: Pace) -> Alert:
    """Traces of requests that have findings."""
    return Alert(
        name="TracesWithFindings",
        expression=f"{events(prometheus.family(collector.TRACE_FINDINGS), SERVICE, '15m', pace)} > 0",
        pending=pace("0s"),
        urgency=Urgency.NOTE,
        finding="",
        summary="<value> traces of <service_name> have findings",
        description="All of them are kept, whatever the sampling. The dashboard shows them by finding and links to the "
        "traces.",
        value_format=ValueFormat.NUMBER,
        dashboard=links.FINDINGS,
        variables=SERVICE_VARIABLES,
    )


@dataclass(frozen=True)
class TraceQuery:
    """
    An alert on the trace store itself: a TraceQL metrics query, which fires above 0.

    Args:
        name: The alert's name.
        query: TraceQL.
        finding: The id of the finding whose page explains it.
        summary: One line.
    """

    name: str
    query: str
    finding: str
    summary: str


TRACE_QUERIES: Final = (
    TraceQuery(
        "TraceQLFailedCheckouts",
        f'{{ name =~ "{semconv.CHECKOUT_SPAN.prefix} .*" && status = error }}'
        " | count_over_time() by (resource.service.name)",
        POOL_EXHAUSTED,
        "Checkouts failed, by the count of the trace store",
    ),
    TraceQuery(
        "TraceQLLongWaits",
        f"{{ span.{semconv.UNIT_OF_WORK_WAIT_TIME} > {Pace().slow_checkout:g} }}"
        " | count_over_time() by (resource.service.name)",
        POOL_TOO_SMALL,
        "Requests waited longer than a second for connections, by the count of the trace store",
    ),
)
