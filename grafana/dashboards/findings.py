"""
*Findings*: what poolscope and the alerts found, since when and where, and whether poolscope's
figures are reliable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana import alerts, board, links, prometheus
from grafana.collector import COLLECTOR_IN_FLIGHT, COLLECTOR_QUEUE_SIZE, SERVICE, TRACE_FINDINGS
from grafana.panels import (
    PanelOptions,
    Target,
    bar_gauge_panel,
    stat_options,
    stat_panel,
    text_panel,
    time_series_panel,
)
from grafana.query import (
    BY_POOL,
    LATELY,
    POOL,
    POOLS,
    RECENT,
    SERVER,
    SERVICES,
    UNIT,
    Scope,
    increase,
    or_zero,
    over,
    rate,
    value,
)
from grafana.tables import Column, table_panel
from poolscope import semconv
from poolscope.core.catalogue import FINDING_IDS, KINDS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.queries import N_PLUS_ONE

if TYPE_CHECKING:
    from grafana.board import Panels
    from poolscope.semconv import Metric

FINDING_LABEL: Final = prometheus.label(semconv.FINDINGS)
FINDING_ID: Final = prometheus.label(semconv.FINDING_ID)
# Only our own alerts: those on pools of the selected services, and those that belong to no service.
FIRING: Final = (
    Scope(('alertstate="firing"',))
    .having("alertname", "|".join(alert.name for alert in alerts.alerts()), "=~")
    .having(SERVICE, "$service|", "=~")
)
ALERTS: Final = "ALERTS"
LEGEND: Final = f"{{{{{SERVICE}}}}} · {{{{{POOL}}}}}"
TO_POOL = (links.to(links.POOL, "Pools", "service", "pool"), links.POOL_OF_SERIES)
TO_REQUESTS = (links.to(links.REQUESTS, "Routes", "service", "pool"),)
TO_SERVER = (links.to(links.POSTGRESQL, "PostgreSQL server", "service"),)
TO_TRACES = (links.traces("Traces with findings", f"{{ span.{semconv.FINDINGS} != nil }}"), *TO_REQUESTS)


def dashboard() -> dict[str, object]:
    """The dashboard in Grafana's model."""
    return board.board(
        links.FINDINGS,
        "Findings",
        "Causes, not symptoms: what was found, since when, where, and how to fix it; and the alerts that fire.",
        ("service", "pool"),
        {
            "What was found?": _found(),
            "Since when, and where?": _where(),
            "What does it mean, and how is it fixed?": [text_panel("The findings", _meanings(), height=15)],
            "Are poolscope's figures reliable?": _trust(),
        },
    )


def _found() -> Panels:
    counts: list[tuple[str, str, Metric, str]] = [
        ("Leaks", LEAK, semconv.LEAKS, "any."),
        ("Timeouts", POOL_EXHAUSTED, semconv.TIMEOUTS, "any: requests failed."),
        (
            "Nested checkouts",
            NESTED_CHECKOUT,
            semconv.NESTED_CHECKOUTS,
            "any: under load these requests can deadlock.",
        ),
        ("N+1 queries", N_PLUS_ONE, semconv.REPEATED_QUERIES, "any; hundreds take seconds."),
    ]
    for title, found, metric, bad in counts:
        yield stat_panel(
            stat_options(
                title,
                good="0.",
                bad=bad,
                unit="locale",
                thresholds=(1,),
                links=(links.page(found), *TO_TRACES),
                decimals=0,
            ),
            or_zero(over("sum", increase(prometheus.family(metric), POOLS))),
        )
    yield stat_panel(
        stat_options(
            "With findings",
            good="0.",
            bad="any: the traces of these requests are all kept.",
            unit="locale",
            thresholds=(1,),
            links=TO_TRACES,
            decimals=0,
        ),
        or_zero(over("sum", increase(prometheus.family(TRACE_FINDINGS), SERVICES))),
    )
    yield stat_panel(
        stat_options(
            "Alerts firing",
            good="0.",
            bad="any: the table below lists them.",
            unit="locale",
            thresholds=(1,),
            links=TO_POOL[:1],
            decimals=0,
        ),
        or_zero(over("count", f"{ALERTS}{FIRING}")),
    )


def _where() -> Panels:
    route = (SERVICE, UNIT)
    found = prometheus.family(semconv.FINDING_COUNT)
    where = (SERVICE, POOL, SERVER)
    yield time_series_panel(
        PanelOptions(
            "Requests with findings per minute, by finding",
            good="0.",
            bad="a step up at a deploy: that deploy caused it.",
            unit="short",
            thresholds=(0.1, 10),
            links=TO_TRACES,
            width=12,
            height=9,
        ),
        [Target(_per_minute(one), one) for one in FINDING_IDS],
        many_series=True,
    )
    yield table_panel(
        PanelOptions(
            "Alerts",
            good="none.",
            bad="any: its page says what to do. Rules that Grafana evaluates are under Alerting, not here.",
            unit="short",
            thresholds=(1,),
            links=TO_POOL[:1],
            width=12,
            height=9,
            no_value="No alert fires.",
        ),
        [
            Column("Alert", "alertname"),
            Column("Service", SERVICE, width=100),
            Column("Pool", POOL, width=100),
            Column("Server", SERVER, width=100),
            Column("Severity", "severity", width=80),
            Column("Firing", over("count", f"{ALERTS}{FIRING}", ("alertname", *where, "severity")), "short", (1,), 80),
        ],
        sort_by="Firing",
    )
    yield time_series_panel(
        PanelOptions(
            "Leaks found in 5 minutes, by pool",
            good="0.",
            bad="repeated: each leak removes a connection from the pool.",
            unit="locale",
            thresholds=(1,),
            decimals=0,
            links=TO_POOL,
        ),
        [Target(over("sum", increase(prometheus.family(semconv.LEAKS), POOLS, LATELY), BY_POOL), LEGEND)],
    )
    yield time_series_panel(
        PanelOptions(
            "Findings per minute, by pool and finding",
            good="0.",
            bad="any that stays. Counted exactly, also what no event reports by itself.",
            unit="short",
            thresholds=(0.1, 10),
            links=TO_REQUESTS,
        ),
        [
            Target(or_zero(f"60 * {over('sum', rate(found, POOLS))}"), "all"),
            Target(
                f"60 * {over('sum', rate(found, POOLS), (*BY_POOL, FINDING_ID))}",
                f"{LEGEND} · {{{{{FINDING_ID}}}}}",
            ),
        ],
    )
    yield bar_gauge_panel(
        PanelOptions(
            "Queries in N+1 loops, by route",
            good="0.",
            bad="the longest bar: the route to fix first.",
            unit="locale",
            thresholds=(1, 100),
            links=TO_REQUESTS,
            decimals=0,
        ),
        f"sort_desc(topk(5, {over('sum', increase(prometheus.family(semconv.REPEATED_QUERIES), POOLS), route)}))",
        f"{{{{{SERVICE}}}}} · {{{{{UNIT}}}}}",
    )


def _per_minute(found: str) -> str:
    """Units of work per minute with this finding among theirs; the label is the list as JSON."""
    scope = SERVICES.having(FINDING_LABEL, f".*{found}.*", "=~")
    return or_zero(f"60 * {over('sum', rate(prometheus.family(TRACE_FINDINGS), scope))}")


def _meanings() -> str:
    lines = (f"| [{one.id}]({links.page(one.id).url}) | {one.meaning} | {one.fix} |" for one in KINDS.values())
    return "\n".join(("| finding | what is wrong | fix |", "| --- | --- | --- |", *lines))


def _trust() -> Panels:
    drift = over("max", f"abs({value(semconv.DRIFT, POOLS)})", BY_POOL)
    component = prometheus.label(semconv.COMPONENT)
    # An exporter without a queue has only the requests that it currently sends.
    queued = over("sum", COLLECTOR_QUEUE_SIZE, ("exporter",))
    sending = over("sum", COLLECTOR_IN_FLIGHT, ("exporter",))
    yield time_series_panel(
        PanelOptions(
            "Drift by pool",
            good="0: poolscope's count equals the pool's own.",
            bad="stays away from 0: do not rely on poolscope's counts there; report it.",
            unit="short",
            thresholds=(1,),
            links=TO_POOL,
        ),
        [Target(drift, LEGEND)],
    )
    yield time_series_panel(
        PanelOptions(
            "Internal errors of poolscope",
            good="0.",
            bad="any: it did not reach the application; report it.",
            unit="short",
            thresholds=(1,),
            links=TO_SERVER,
        ),
        [
            Target(or_zero(over("sum", increase(prometheus.family(semconv.ERRORS), SERVICES, RECENT))), "all"),
            Target(
                over("sum", increase(prometheus.family(semconv.ERRORS), SERVICES, RECENT), (SERVICE, component)),
                f"{{{{{SERVICE}}}}} · {{{{{component}}}}}",
            ),
        ],
    )
    yield time_series_panel(
        PanelOptions(
            "Queued in the Collector",
            good="0.",
            bad="grows: a store does not answer. No loss until the queue is full. In spans, points, log records.",
            unit="short",
            thresholds=(100_000, 1_000_000),
            links=TO_SERVER,
        ),
        [Target(f"{queued} or {sending}", "{{exporter}}")],
    )
