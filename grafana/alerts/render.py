"""The alerts as files: rules for Prometheus, and provisioning for Grafana."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.catalogue import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grafana.alerts.model import Alert, Group
    from grafana.alerts.traces import TraceQuery

# The uids of the data sources in ``grafana/provisioning/datasources``.
PROMETHEUS_UID: Final = "poolscope-prometheus"
TEMPO_UID: Final = "poolscope-tempo"
TOKEN: Final = re.compile(r"<([a-zA-Z_][a-zA-Z0-9_]*)>")
FOLDER: Final = "poolscope"
EXPRESSION_SOURCE: Final = "__expr__"


def prometheus_rules(groups: Iterable[Group]) -> dict[str, Any]:
    """
    A rule file of Prometheus.

    The links start with the external labels ``grafana_url`` and ``docs_url`` of Prometheus.

    Args:
        groups: The alerts.

    Returns:
        The file's content.
    """
    return {"groups": [{"name": group.name, "rules": [_rule(alert) for alert in group.alerts]} for group in groups]}


def _rule(alert: Alert) -> dict[str, Any]:
    value = f"{{{{ $value | {alert.value_format.value} }}}}"
    annotations = _texts(alert, value)
    annotations["dashboard"] = "{{ $externalLabels.grafana_url }}" + dashboard_path(alert)
    if alert.finding:
        annotations["runbook_url"] = "{{ $externalLabels.docs_url }}/" + page(alert.finding)
    rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expression}
    if not alert.pending.startswith("0"):
        rule["for"] = alert.pending
    return {**rule, "labels": _labels(alert), "annotations": annotations}


def grafana_rules(groups: Iterable[Group], interval: str = "1m") -> dict[str, Any]:
    """
    The alert rules in the form of Grafana's file provisioning.

    Args:
        groups: The alerts.
        interval: How often they are evaluated.

    Returns:
        The file's content; every literal dollar is doubled, since Grafana replaces environment variables.
    """
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": group.name,
                "folder": FOLDER,
                "interval": interval,
                "rules": [_grafana_rule(alert) for alert in group.alerts],
            }
            for group in groups
        ],
    }


def _grafana_rule(alert: Alert) -> dict[str, Any]:
    annotations = _texts(alert, f"{{{{ $values.A.Value | {alert.value_format.value} }}}}")
    annotations["dashboard"] = "{{ externalURL }}" + dashboard_path(alert).removeprefix("/")
    annotations = {key: text.replace("$", "$$") for key, text in annotations.items()}
    if alert.finding:
        annotations["runbook_url"] = "$POOLSCOPE_DOCS_URL/" + page(alert.finding)
    query = {"expr": alert.expression.replace("$", "$$"), "instant": True, "range": False, "refId": "A"}
    return {
        "uid": f"poolscope-{alert.name.lower()}",
        "title": alert.name,
        "condition": "B",
        "data": [_query(PROMETHEUS_UID, query), _above_zero()],
        # The expression returns no series while nothing is wrong.
        "noDataState": "OK",
        "execErrState": "Error",
        "for": alert.pending,
        "labels": _labels(alert),
        "annotations": annotations,
    }


def traceql_rules(queries: Iterable[TraceQuery]) -> dict[str, Any]:
    """TraceQL alert rules; Grafana needs its feature toggle ``tempoAlerting`` for them."""
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": "poolscope-traceql",
                "folder": FOLDER,
                "interval": "1m",
                "rules": [_traceql_rule(query) for query in queries],
            }
        ],
    }


def _traceql_rule(query: TraceQuery) -> dict[str, Any]:
    model = {"query": query.query, "queryType": "traceql", "refId": "A", "metricsQueryType": "instant"}
    return {
        "uid": f"poolscope-{query.name.lower()}",
        "title": query.name,
        "condition": "B",
        "data": [_query(TEMPO_UID, model), _above_zero()],
        "noDataState": "OK",
        "execErrState": "Error",
        "for": "0s",
        "labels": {"severity": "warning", "finding": query.finding},
        "annotations": {"summary": query.summary, "runbook_url": "$POOLSCOPE_DOCS_URL/" + page(query.finding)},
    }


def dashboard_path(alert: Alert) -> str:
    """The path of the alert's dashboard in Grafana, with variables that the alert's labels set."""
    variables = "&".join(f"var-{name}={{{{ $labels.{label} | urlquery }}}}" for name, label in alert.variables)
    return f"/d/{alert.dashboard}" + (f"?{variables}" if variables else "")


def page(finding: str) -> str:
    """The documentation page of a finding, relative to the folder of the documentation."""
    return KINDS[finding].page.removeprefix("docs/")


def _texts(alert: Alert, value: str) -> dict[str, str]:
    def fill(text: str) -> str:
        return TOKEN.sub(
            lambda token: value if token[1] == "value" else f"{{{{ $labels.{token[1]} }}}}",
            text,
        )

    return {"summary": fill(alert.summary), "description": fill(alert.description)}


def _labels(alert: Alert) -> dict[str, str]:
    return {"severity": alert.urgency.value, **({"finding": alert.finding} if alert.finding else {})}


def _query(source: str, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "refId": "A",
        "datasourceUid": source,
        "relativeTimeRange": {"from": 600, "to": 0},
        "model": model,
    }


def _above_zero() -> dict[str, Any]:
    conditions = [{"evaluator": {"type": "gt", "params": [0]}}]
    return {
        "refId": "B",
        "datasourceUid": EXPRESSION_SOURCE,
        "model": {"refId": "B", "type": "threshold", "expression": "A", "conditions": conditions},
    }
