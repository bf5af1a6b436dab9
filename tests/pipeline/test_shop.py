"""
The shop itself under load, each cause in a process of its own next to the repaired shop, through
the whole pipeline.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

import grafana.alerts
from examples.lab.pipeline import ROOT
from examples.lab.processes import wait_until
from grafana.collector import SERVICE
from grafana.prometheus import bucket, family, label
from poolscope import semconv
from tests.support.shops import CAUSES, LONG_WAIT

if TYPE_CHECKING:
    from pathlib import Path

    from examples.lab.webhook import Webhook
    from tests.support.shops import Shops

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("scene")]


def arrived(told: Webhook, name: str) -> set[str]:
    """The names of the alerts that fired about a shop."""
    labels = [alert["labels"] for alert in list(told.alerts) if alert["status"] == "firing"]
    return {each["alertname"] for each in labels if each.get(SERVICE) == name}


@pytest.mark.parametrize("name", CAUSES)
def test_each_cause_brings_exactly_its_alerts(shops: Shops, name: str) -> None:
    """About a shop with that cause these alerts arrive, and about the repaired shop none."""
    expected = CAUSES[name].alerts
    # The last may still be on its way.
    wait_until(lambda: arrived(shops.told, name) >= expected, 60, f"{sorted(expected)}")
    assert arrived(shops.told, name) == expected


def test_nothing_else_is_reported(shops: Shops) -> None:
    """
    The fleet and the pipeline itself are well; of the server it is said that leaked connections
    stand in transactions.
    """
    labels = [alert["labels"] for alert in shops.told.alerts]
    assert {each["alertname"] for each in labels if each.get(SERVICE) not in CAUSES} == {"ServerIdleInTransaction"}


def test_exemplars_of_long_waits_lead_to_kept_traces(shops: Shops) -> None:
    """A point of the wait histogram beyond the sampler's threshold names a trace that is in the trace store."""
    query = f'{bucket(semconv.WAIT_TIME)}{{{SERVICE}="too-small"}}'
    # A trace is stored once its decision is made.
    before = time.time() - 10
    exemplars = [
        exemplar["labels"]["trace_id"]
        for exemplar in shops.prometheus.exemplars(query, shops.began, before)
        if float(exemplar["value"]) > LONG_WAIT
    ]
    assert exemplars
    wait_until(lambda: set(exemplars) <= set(shops.store.traces()), 60, "the traces that the exemplars name")


def test_the_pool_registry_agrees_with_the_pools(shops: Shops) -> None:
    """
    Under all that load no instance's pool registry drifted for longer than a moment, and poolscope caught
    no error of its own.
    """
    assert [s for s in shops.prometheus.query(f"min_over_time(abs({family(semconv.DRIFT)})[10s:1s])") if s.value] == []
    assert [s for s in shops.prometheus.query(family(semconv.ERRORS)) if s.value] == []


DASHBOARDS = sorted((ROOT / "grafana" / "generated" / "dashboards").glob("*.json"))
LABELS = {label(value) for value in vars(semconv).values() if isinstance(value, str)}
SERIES = re.compile(r"\b((?:db_client|poolscope|traces_span|postgresql)_[a-z_]+)\b(?=[\[{)])")
VARIABLE = re.compile(r"\$\{?([a-zA-Z_]\w*)\}?")
# The counter begins with the first error of poolscope's own, of which there is none here; and the shops' pools are
# SQLAlchemy's, which has no such limit.
UNSEEN = {
    family(semconv.ERRORS),
    family(semconv.CONNECTION_IDLE_MIN),
    # The shops of these tests have no event loop.
    *(f"{family(semconv.EVENT_LOOP_LAG)}_{part}" for part in ("bucket", "count")),
}
# Windows that Grafana fills in; every other variable is set to "all".
WINDOWS = {"__rate_interval": "20s", "__range": "2m", "__interval": "5s"}


def queries(board: Path) -> list[tuple[str, str]]:
    """Title and expression of every query of a dashboard, its variables filled in."""
    panels = [panel for panel in json.loads(board.read_text())["panels"] if panel["type"] != "row"]
    return [
        (panel["title"], VARIABLE.sub(lambda found: WINDOWS.get(found[1], ".*"), target["expr"]))
        for panel in panels
        for target in panel.get("targets", [])
        if "expr" in target
    ]


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.stem)
def test_every_query_has_data(shops: Shops, board: Path) -> None:
    """Every query of every panel is accepted by Prometheus and has had an answer while the shops ran."""
    asked = queries(board)
    assert asked
    at_any_time = {one: f"last_over_time(({one[1]})[{time.time() - shops.began:.0f}s:5s])" for one in asked}
    without = [one for one, expression in at_any_time.items() if not shops.prometheus.query(expression)]
    assert [one for one in without if not any(name in one[1] for name in UNSEEN)] == []


def test_every_rule_is_evaluated(shops: Shops) -> None:
    """
    With what a running pipeline brings, no rule ends in an error: such an alert would never fire,
    and no alert sent.
    """
    rules = [rule for group in shops.prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {alert.name for alert in grafana.alerts.alerts()}
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_every_alert_uses_series_that_exist(shops: Shops) -> None:
    """Each series that an alert names has been seen while the shops ran."""
    known = set(shops.prometheus.api("label/__name__/values"))
    asked = {name for alert in grafana.alerts.alerts() for name in SERIES.findall(alert.expression)} - LABELS
    assert len(asked) > 10
    assert asked - known <= UNSEEN
