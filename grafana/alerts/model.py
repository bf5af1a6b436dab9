"""
What an alert is, before it is written down for Prometheus or for Grafana.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Urgency(Enum):
    """
    What somebody is to do, as the label ``severity``: a page wakes a person, a ticket waits for the morning.
    """

    PAGE = "critical"
    TICKET = "warning"
    NOTE = "info"


class Shown(Enum):
    """
    How the value of an alert reads: a function of the templates of Prometheus and Grafana.
    """

    NUMBER = "humanize"
    SHARE = "humanizePercentage"
    DURATION = "humanizeDuration"


@dataclass(frozen=True)
class Alert:
    """
    One alert rule. Its expression returns series only while it holds, each with a value above 0.

    In the texts, ``<label>`` stands for the value of that label and ``<value>`` for the expression's value.

    Args:
        name: The alert's name.
        expression: PromQL.
        held: How long it must hold before somebody is told, a Prometheus duration; ``0s`` for at once.
        urgency: What somebody is to do.
        finding: The id of the finding whose page explains it; empty for trouble of the telemetry itself.
        summary: One line: what is wrong, where.
        description: What it means for the user, and where to look first.
        shown: How the value reads.
        dashboard: The id of the dashboard that the link leads to.
        variables: The dashboard's variables by the label that fills each.
    """

    name: str
    expression: str
    held: str
    urgency: Urgency
    finding: str
    summary: str
    description: str
    shown: Shown
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
    The pace at which the rules run: 1 in operation; tests divide every duration to see rules fire within seconds.

    Args:
        divisor: What every duration is divided by.
        wait_limit: Seconds that a check-out may wait within the objective; a boundary of the histogram. Tests allow for
            a machine that has other work, as they do with the next.
        slow_checkout: Seconds that 19 in 20 of the check-outs that wait at all may take; a boundary as well.
    """

    divisor: float = 1
    wait_limit: float = 0.1
    slow_checkout: float = 1.0

    def __call__(self, duration: str) -> str:
        """
        The duration at this pace.

        Args:
            duration: A Prometheus duration of one unit, such as ``5m``.

        Returns:
            The same, or its part in whole milliseconds.
        """
        if self.divisor == 1:
            return duration
        return f"{round(1000 * self.seconds(duration))}ms"

    def seconds(self, duration: str) -> float:
        """
        The duration at this pace, in seconds.
        """
        return int(duration[:-1]) * SECONDS[duration[-1]] / self.divisor
