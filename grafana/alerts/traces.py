"""
Alerts on traces: on metrics that the Collector makes from every span before sampling, and, as an option, in TraceQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from grafana import collector, links, prometheus
from grafana.alerts.expressions import BY_POOL, POOL_VARIABLES, SERVICE_VARIABLES, events, label, rate
from grafana.alerts.model import Alert, Group, Pace, Shown, Urgency
from grafana.alerts.pools import WHERE
from grafana.collector import SERVICE
from poolscope import semconv
from poolscope.core import finding

CHECKOUT: Final = f'span_name=~"{semconv.CHECKOUT_SPAN.prefix} .*"'


def groups(pace: Pace) -> tuple[Group, ...]:
    """
    The alerts on metrics made of spans; exemplars lead from each to a trace.
    """
    return (Group("poolscope-traces", (failed_checkouts(pace), slow_checkouts(pace), findings(pace))),)


def failed_checkouts(pace: Pace) -> Alert:
    """
    Check-outs whose span ended in an error.
    """
    error = label(semconv.ERROR_TYPE)
    series = f'{prometheus.family(collector.SPAN_CALLS)}{{{CHECKOUT}, status_code="STATUS_CODE_ERROR"}}'
    return Alert(
        name="CheckoutSpansFail",
        expression=f"{events(series, f'{BY_POOL}, {error}', '5m', pace)} > 0",
        held=pace("0s"),
        urgency=Urgency.TICKET,
        finding=finding.POOL_EXHAUSTED,
        summary=f"<value> check-outs from the {WHERE} failed with <{error}>",
        description="Counted in traces, before sampling. Each such trace is kept: the check-out's span links to the "
        "spans that held the connections.",
        shown=Shown.NUMBER,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def slow_checkouts(pace: Pace) -> Alert:
    """
    Waiting check-outs of which one in twenty takes longer than a second.
    """
    buckets = rate(f"{prometheus.bucket(collector.SPAN_DURATION)}{{{CHECKOUT}}}", f"{BY_POOL}, le", "5m", pace)
    return Alert(
        name="CheckoutSpansSlow",
        expression=f"histogram_quantile(0.95, {buckets}) > {pace.slow_checkout:g}",
        held=pace("5m"),
        urgency=Urgency.TICKET,
        finding=finding.POOL_EXHAUSTED,
        summary=f"Of the requests that wait for the {WHERE}, one in twenty waits longer than <value>",
        description="Counted in traces: only check-outs that waited at all have a span. Exemplars on the dashboard "
        "lead to the traces.",
        shown=Shown.DURATION,
        dashboard=links.POOL,
        variables=POOL_VARIABLES,
    )


def findings(pace: Pace) -> Alert:
    """
    Traces of requests in which something was found.
    """
    return Alert(
        name="TracesWithFindings",
        expression=f"{events(prometheus.family(collector.TRACE_FINDINGS), SERVICE, '15m', pace)} > 0",
        held=pace("0s"),
        urgency=Urgency.NOTE,
        finding="",
        summary="<value> traces of <service_name> carry findings",
        description="Each of them is kept, whatever the sampling. The dashboard lists them by route.",
        shown=Shown.NUMBER,
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
        finding.POOL_EXHAUSTED,
        "Check-outs failed, as the trace store has them",
    ),
    TraceQuery(
        "TraceQLLongWaits",
        f"{{ span.{semconv.UNIT_OF_WORK_WAIT_TIME} > {Pace().slow_checkout:g} }}"
        " | count_over_time() by (resource.service.name)",
        finding.POOL_TOO_SMALL,
        "Requests waited longer than a second for connections",
    ),
)
