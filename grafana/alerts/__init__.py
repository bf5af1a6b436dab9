"""Alert rules: written once with the metric names of ``poolscope.semconv``, rendered for Prometheus and for Grafana."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import yaml

from grafana.alerts import fleet, kinds, pools, traces
from grafana.alerts.model import Pace
from grafana.alerts.render import grafana_rules, prometheus_rules, traceql_rules

if TYPE_CHECKING:
    from grafana.alerts.model import Alert, Group

FOLDER: Final = "grafana/generated/alerts"
PROVISIONED: Final = "grafana/provisioning/alerting/rules.yaml"
HEAD: Final = "# Made by `make generate` from grafana/alerts; do not edit.\n"
EXPERIMENTAL: Final = (
    "# Experimental and not provisioned: Grafana needs its feature toggle tempoAlerting for these rules.\n"
)


def alert_groups(pace: Pace | None = None) -> tuple[Group, ...]:
    """
    Every alert.

    Args:
        pace: The pace of the rules, where a test needs a faster one.

    Returns:
        The groups, in the order of the files.
    """
    pace = pace or Pace()
    return (*pools.groups(pace), *kinds.groups(pace), *fleet.groups(pace), *traces.groups(pace))


def alerts(pace: Pace | None = None) -> tuple[Alert, ...]:
    """Every alert, without its group."""
    return tuple(alert for group in alert_groups(pace) for alert in group.alerts)


def generate(pace: Pace | None = None) -> dict[str, str]:
    """
    The rule files.

    Args:
        pace: The pace of the rules, where a test needs a faster one.

    Returns:
        The text of each file by its path from the project's root.
    """
    groups = alert_groups(pace)
    return {
        f"{FOLDER}/prometheus.yaml": HEAD + _dump(prometheus_rules(groups)),
        PROVISIONED: HEAD + _dump(grafana_rules(groups)),
        f"{FOLDER}/traceql-experimental.yaml": HEAD + EXPERIMENTAL + _dump(traceql_rules(traces.TRACE_QUERIES)),
    }


def _dump(content: dict[str, object]) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and repeats values instead of using anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        """Always true, since anchors make a file hard to read."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
