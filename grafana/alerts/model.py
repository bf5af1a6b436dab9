"""The model of an alert, before it is rendered for Prometheus or for Grafana."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Urgency(Enum):
    """How soon a person acts on the alert, as the label ``severity``: a page at once, a ticket the next working day."""

    PAGE = "critical"
    TICKET = "warning"
    NOTE = "info"


class ValueFormat(Enum):
    """How the value of an alert is formatted: a function of the templates of Prometheus and Grafana."""

    NUMBER = "humanize"
    SHARE = "humanizePercentage"
    DURATION = "humanizeDuration"


@dataclass(frozen=True)
class Alert:
    """
    One alert rule. Its expression returns series only while the condition is true, each with a value above 0.

    In the texts, ``<label>`` stands for the value of that label and ``<value>`` for the expression's value.

    Args:
        name: The alert's name.
        expression: PromQL.
        pending: How long the condition is true before the alert fires, a Prometheus duration; ``0s`` for at once.
        urgency: How soon a person acts on it.
        finding: The id of the finding whose page explains it; empty for problems of the telemetry itself.
        summary: One line: what is wrong, and where.
        description: What it means for the user, and where to look first.
        value_format: How the value is formatted.
        dashboard: The uid of the dashboard that the link leads to.
        variables: The dashboard's variables, each with the label that sets it.
    """

    name: str
    expression: str
    pending: str
    urgency: Urgency
    finding: str
    summary: str
    description: str
    value_format: ValueFormat
    dashboard: str
    variables: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Group:
    """
    Alerts that are evaluated together.

    Args:
        name: The group's name.
        alerts: Its alerts, in order.
    """

    name: str
    alerts: tuple[Alert, ...]


@dataclass(frozen=True)
class Pace:
    """
    How fast the rules run. Tests divide every duration, so that rules fire within seconds.

    Args:
        divisor: What every duration is divided by; 1 in operation.
        wait_limit: The longest wait within the objective, in seconds; a boundary of the histogram. Tests raise both
            limits for a busy machine.
        slow_checkout: The time in seconds that 19 in 20 of the checkouts that wait may take; a boundary as well.
        loop_lag: From how many seconds on an event loop is late; a boundary as well.
    """

    divisor: float = 1
    wait_limit: float = 0.1
    slow_checkout: float = 1.0
    loop_lag: float = 0.25

    def __call__(self, duration: str) -> str:
        """
        The duration at this pace.

        Args:
            duration: A Prometheus duration of one unit, such as ``5m``.

        Returns:
            The same duration, or its quotient in whole milliseconds.
        """
        if self.divisor == 1:
            return duration
        return f"{round(1000 * self.seconds(duration))}ms"

    def seconds(self, duration: str) -> float:
        """The duration at this pace, in seconds."""
        return int(duration[:-1]) * SECONDS[duration[-1]] / self.divisor
