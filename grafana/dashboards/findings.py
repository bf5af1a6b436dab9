"""
*Findings*: what poolscope and the alerts found, since when and where, and whether poolscope itself can be trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana import alerts, board, links, prometheus
from grafana.collector import COLLECTOR_IN_FLIGHT, COLLECTOR_QUEUE_SIZE, SERVICE, TRACE_FINDINGS
from grafana.panels import Ask, Face, bars, course, one, prose, tile
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
from grafana.tables import Column, rows
from poolscope import semconv
from poolscope.core import finding

if TYPE_CHECKING:
    from grafana.board import Panels
    from poolscope.semconv import Metric

FINDING_LABEL: Final = prometheus.label(semconv.FINDINGS)
# Of Prometheus's alerts ours: on pools of the chosen services, and on what belongs to no service.
FIRING: Final = (
    Scope(('alertstate="firing"',))
    .having("alertname", "|".join(alert.name for alert in alerts.alerts()), "=~")
    .having(SERVICE, "$service|", "=~")
)
ALERTS: Final = "ALERTS"
LEGEND: Final = f"{{{{{SERVICE}}}}} · {{{{{POOL}}}}}"
TO_POOL = (links.to(links.POOL, "The pools", "service", "pool"), links.POOL_OF_SERIES)
TO_REQUESTS = (links.to(links.REQUESTS, "The routes", "service", "pool"),)
TO_SERVER = (links.to(links.POSTGRESQL, "The server's side", "service"),)
TO_TRACES = (links.traces("Traces with findings", f"{{ span.{semconv.FINDINGS} != nil }}"), *TO_REQUESTS)


def dashboard() -> dict[str, object]:
    """
    The dashboard in Grafana's model.
    """
    return board.board(
        links.FINDINGS,
        "Findings",
        "Causes, not symptoms: what was found, since when, where, what cures it; and the alerts that fire.",
        ("service", "pool"),
        {
            "What was found?": _found(),
            "Since when, and where?": _where(),
            "What does it mean, and what cures it?": [prose("The findings", _meanings(), height=15)],
            "Can poolscope be trusted?": _trust(),
        },
    )


def _found() -> Panels:
    counts: list[tuple[str, str, Metric, str]] = [
        ("Leaks", finding.LEAK, semconv.LEAKS, "any."),
        ("Timeouts", finding.POOL_EXHAUSTED, semconv.TIMEOUTS, "any: requests failed."),
        ("Nested", finding.NESTED_CHECKOUT, semconv.NESTED_CHECKOUTS, "any: a deadlock in waiting."),
        ("N+1 queries", finding.N_PLUS_ONE, semconv.REPEATED_QUERIES, "any; hundreds cost seconds."),
    ]
    for title, found, metric, bad in counts:
        yield one(
            tile(
                title,
                good="0.",
                bad=bad,
                unit="locale",
                limits=(1,),
                onward=(links.page(found), *TO_TRACES),
                decimals=0,
            ),
            or_zero(over("sum", increase(prometheus.family(metric), POOLS))),
        )
    yield one(
        tile(
            "Requests hit",
            good="0.",
            bad="any: their traces are all kept.",
            unit="locale",
            limits=(1,),
            onward=TO_TRACES,
            decimals=0,
        ),
        or_zero(over("sum", increase(prometheus.family(TRACE_FINDINGS), SERVICES))),
    )
    yield one(
        tile(
            "Alerts firing",
            good="0.",
            bad="any: listed below.",
            unit="locale",
            limits=(1,),
            onward=TO_POOL[:1],
            decimals=0,
        ),
        or_zero(over("count", f"{ALERTS}{FIRING}")),
    )


def _where() -> Panels:
    route = (SERVICE, UNIT)
    where = (SERVICE, POOL, SERVER)
    yield course(
        Face(
            "Requests with findings per minute, by finding",
            good="0.",
            bad="a step up at a deploy: that deploy brought it.",
            unit="short",
            limits=(0.1, 10),
            onward=TO_TRACES,
            width=12,
            height=9,
        ),
        [Ask(_per_minute(found), found) for found in finding.FINDING_IDS],
        many=True,
    )
    yield rows(
        Face(
            "Alerts",
            good="none.",
            bad="any: its page says what to do. Rules that Grafana evaluates are not here but under Alerting.",
            unit="short",
            limits=(1,),
            onward=TO_POOL[:1],
            width=12,
            height=9,
            empty="No alert is firing.",
        ),
        [
            Column("Alert", "alertname"),
            Column("Service", SERVICE, width=100),
            Column("Pool", POOL, width=100),
            Column("Server", SERVER, width=100),
            Column("Severity", "severity", width=80),
            Column("Firing", over("count", f"{ALERTS}{FIRING}", ("alertname", *where, "severity")), "short", (1,), 80),
        ],
        worst_first="Firing",
    )
    yield course(
        Face(
            "Leaks found in 5 minutes, by pool",
            good="0.",
            bad="comes back again and again: each time a connection less.",
            unit="locale",
            limits=(1,),
            decimals=0,
            onward=TO_POOL,
        ),
        [Ask(over("sum", increase(prometheus.family(semconv.LEAKS), POOLS, LATELY), BY_POOL), LEGEND)],
    )
    yield course(
        Face("Timeouts per minute, by pool", good="0.", bad="any.", unit="short", limits=(0.1, 10), onward=TO_POOL),
        [Ask(f"60 * {over('sum', rate(prometheus.family(semconv.TIMEOUTS), POOLS), BY_POOL)}", LEGEND)],
    )
    yield bars(
        Face(
            "Queries in N+1 loops, by route",
            good="0.",
            bad="the route to mend first.",
            unit="locale",
            limits=(1, 100),
            onward=TO_REQUESTS,
            decimals=0,
        ),
        f"sort_desc(topk(5, {over('sum', increase(prometheus.family(semconv.REPEATED_QUERIES), POOLS), route)}))",
        f"{{{{{SERVICE}}}}} · {{{{{UNIT}}}}}",
    )


def _per_minute(found: str) -> str:
    """
    Units of work per minute that carry this finding among theirs; the label is the list as JSON.
    """
    scope = SERVICES.having(FINDING_LABEL, f".*{found}.*", "=~")
    return or_zero(f"60 * {over('sum', rate(prometheus.family(TRACE_FINDINGS), scope))}")


def _meanings() -> str:
    lines = (f"| [{one.id}]({links.page(one.id).url}) | {one.meaning} | {one.fix} |" for one in finding.KINDS.values())
    return "\n".join(("| finding | what is wrong | fix |", "| --- | --- | --- |", *lines))


def _trust() -> Panels:
    drift = over("max", f"abs({value(semconv.DRIFT, POOLS)})", BY_POOL)
    site = prometheus.label(semconv.SITE)
    # Exporters without a queue have what they are sending.
    queued = over("sum", COLLECTOR_QUEUE_SIZE, ("exporter",))
    sending = over("sum", COLLECTOR_IN_FLIGHT, ("exporter",))
    yield course(
        Face(
            "Drift by pool",
            good="0: our ledger equals the pool's own account.",
            bad="stays off 0: do not trust us there; report it.",
            unit="short",
            limits=(1,),
            onward=TO_POOL,
        ),
        [Ask(drift, LEGEND)],
    )
    yield course(
        Face(
            "Errors of poolscope's own",
            good="0.",
            bad="any: caught before the application saw it; report it.",
            unit="short",
            limits=(1,),
            onward=TO_SERVER,
        ),
        [
            Ask(or_zero(over("sum", increase(prometheus.family(semconv.ERRORS), SERVICES, RECENT))), "all"),
            Ask(
                over("sum", increase(prometheus.family(semconv.ERRORS), SERVICES, RECENT), (SERVICE, site)),
                f"{{{{{SERVICE}}}}} · {{{{{site}}}}}",
            ),
        ],
    )
    yield course(
        Face(
            "On the way out of the Collector",
            good="0.",
            bad="grows: a store is away. Nothing is lost while there is room. In spans, points, log records.",
            unit="short",
            limits=(100_000, 1_000_000),
            onward=TO_SERVER,
        ),
        [Ask(f"{queued} or {sending}", "{{exporter}}")],
    )
