"""
The PromQL expressions that the dashboards are built from.

A function takes a `Metric` and returns an expression with the metric's name in Prometheus; labels are attributes, or
labels that the Collector adds. This module knows nothing of panels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana import collector, prometheus
from grafana.collector import INSTANCE, SERVICE
from poolscope import semconv

if TYPE_CHECKING:
    from poolscope.semconv import Metric

POOL: Final = prometheus.label(semconv.POOL_NAME)
UNIT: Final = prometheus.label(semconv.UNIT_OF_WORK_NAME)
SERVER: Final = prometheus.label(semconv.SERVER_ADDRESS)
PORT: Final = prometheus.label(semconv.SERVER_PORT)
BY_POOL: Final = (SERVICE, POOL)
# A machine may have several servers.
BY_SERVER: Final = (SERVER, PORT)
SERVER_LEGEND: Final = f"{{{{{SERVER}}}}}:{{{{{PORT}}}}}"
# The labels that identify one pool of one process.
ONE_POOL: Final = (SERVICE, INSTANCE, POOL)

# Windows that Grafana fills in: the shortest with enough samples for a rate, and the whole time range.
RECENT: Final = "$__rate_interval"
RANGE: Final = "$__range"
# Long enough that a rare event stays visible.
LATELY: Final = "5m"


@dataclass(frozen=True)
class Scope:
    """
    Which series a query reads: the label matchers between its braces.

    Args:
        matchers: Each as PromQL writes it.
    """

    matchers: tuple[str, ...] = ()

    def having(self, label: str, value: str, operator: str = "=") -> Scope:
        """
        This scope, narrowed by one more matcher.

        Args:
            label: The label's name in Prometheus.
            value: What it is compared with; a regular expression is not escaped.
            operator: ``=``, ``!=``, ``=~`` or ``!~``.
        """
        return Scope((*self.matchers, f'{label}{operator}"{value}"'))

    def __str__(self) -> str:
        return "{" + ", ".join(self.matchers) + "}" if self.matchers else ""


def variables(*pairs: tuple[str, str]) -> Scope:
    """
    The scope that dashboard variables select.

    Args:
        pairs: Each is a label and the variable with its value or values.
    """
    return Scope(tuple(f'{label}=~"${variable}"' for label, variable in pairs))


FLEET: Final = variables((SERVICE, "service"), (SERVER, "server"))
SERVICES: Final = variables((SERVICE, "service"))
POOLS: Final = variables((SERVICE, "service"), (POOL, "pool"))
INSTANCES: Final = variables((SERVICE, "service"), (POOL, "pool"), (INSTANCE, "instance"))
SERVERS: Final = variables((SERVER, "server"))


def value(metric: Metric, scope: Scope) -> str:
    """The series of a gauge or of an up-down counter, unchanged."""
    return f"{prometheus.family(metric)}{scope}"


def rate(counter: str, scope: Scope, window: str = RECENT) -> str:
    """
    The increase per second of each series of a counter.

    Args:
        counter: A series name from `grafana.prometheus`.
        scope: Which of its series.
        window: The time window.
    """
    return f"rate({counter}{scope}[{window}])"


def increase(counter: str, scope: Scope, window: str = RANGE) -> str:
    """The increase of each series of a counter over the window."""
    return f"increase({counter}{scope}[{window}])"


def over(aggregation: str, expression: str, by: tuple[str, ...] = ()) -> str:
    """
    An aggregation of an expression, by labels or into one series.

    Args:
        aggregation: ``sum``, ``max``, ``count`` and so on.
        expression: What is aggregated.
        by: The labels that remain.
    """
    kept = f" by ({', '.join(by)}) " if by else ""
    return f"{aggregation}{kept}({expression})"


def quantile(share: float, histogram: Metric, scope: Scope, by: tuple[str, ...] = (), window: str = RECENT) -> str:
    """
    A quantile of a histogram, over all series with the same labels.

    Args:
        share: 0.95 for the 95th percentile.
        histogram: The metric.
        scope: Which of its series.
        by: The labels that remain.
        window: The time window.
    """
    buckets = over("sum", rate(prometheus.bucket(histogram), scope, window), ("le", *by))
    return f"histogram_quantile({share}, {buckets})"


def mean(histogram: Metric, scope: Scope, by: tuple[str, ...] = (), window: str = RECENT) -> str:
    """The mean of the values of a histogram."""
    total = over("sum", rate(prometheus.total(histogram), scope, window), by)
    return f"{total} / {over('sum', rate(prometheus.count(histogram), scope, window), by)}"


def ratio(part: str, whole: str, on: tuple[str, ...]) -> str:
    """One expression divided by another, matched by labels."""
    return f"{part} / on ({', '.join(on)}) {whole}"


def or_zero(expression: str) -> str:
    """The expression, or 0 where it has no series because the event never happened."""
    return f"{expression} or vector(0)"


def usage(scope: Scope) -> str:
    """The share of the allowed connections that each pool of each process had in use at its recent peak."""
    # The highest of each: until the series of the previous version expire, a process has two of them.
    used, limit = (
        over("max", value(metric, scope), ONE_POOL) for metric in (semconv.USED_PEAK, semconv.CONNECTION_MAX)
    )
    return ratio(used, limit, ONE_POOL)


def accepted() -> str:
    """The connections that each server has for roles without special rights."""
    limit, reserved = (
        over("max", value(metric, SERVERS), BY_SERVER)
        for metric in (collector.SERVER_CONNECTIONS_MAX, collector.SERVER_CONNECTIONS_RESERVED)
    )
    return f"({limit} - {reserved})"


def monitored(expression: str) -> str:
    """
    The series whose server the Collector monitors, which leaves out those of a cache or of a connection pooler.

    Args:
        expression: Series with the server's address and port.
    """
    return f"({expression} and on ({', '.join(BY_SERVER)}) {value(collector.SERVER_CONNECTIONS_MAX, SERVERS)})"
