"""
The dashboards as committed: current, loadable, and without the faults that linters of dashboards
and queries look for.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from grafana import generate, links, query
from grafana.board import TAG
from grafana.dashboards import ALL
from grafana.sdk import dashboard as sdk
from grafana.sdk import plain
from poolscope.core.catalogue import FINDING_IDS
from tests.dashboards import lint

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / generate.FOLDER).glob("*.json"))


def read(path: Path) -> lint.Model:
    """One committed dashboard."""
    model: lint.Model = json.loads(path.read_text(encoding="utf-8"))
    return model


def fleet() -> lint.Model:
    """A dashboard to break."""
    return copy.deepcopy(read(ROOT / generate.FOLDER / f"{links.FLEET}.json"))


def panel(model: lint.Model, kind: str) -> Any:
    """The first panel of a kind."""
    return next(panel for panel in model["panels"] if panel["type"] == kind)


def test_what_is_committed_is_what_the_code_makes() -> None:
    """The JSON is never stale, and no file lies there that no code makes."""
    made = generate.generate()
    assert {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES} == made


def test_making_it_twice_gives_the_same() -> None:
    """What is generated depends on nothing but the code."""
    assert generate.generate() == generate.generate()


def test_the_five_dashboards_are_there() -> None:
    """Each dashboard that links may lead to exists, and no other."""
    assert {model["uid"] for model in map(read, FILES)} == {dashboard.value for dashboard in links.Dashboard}
    assert len(ALL) == len(FILES) == 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_passes_unchanged_through_the_sdk(path: Path) -> None:
    """Grafana's own model reads the file and writes the same again: nothing unknown, nothing lost."""
    model = read(path)
    assert plain(sdk.Dashboard.from_json(model)) == model


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_has_no_fault(path: Path) -> None:
    """No check of `lint` complains."""
    assert lint.complaints(read(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_leads_to_the_others(path: Path) -> None:
    """Each carries the tag by which all link to one another, and keeps time and variables on the way."""
    model = read(path)
    assert model["tags"] == [TAG]
    assert [(link["type"], link["tags"], link["keepTime"], link["includeVars"]) for link in model["links"]] == [
        ("dashboards", [TAG], True, True)
    ]


def test_the_variables_of_the_contract() -> None:
    """Between them the dashboards filter by service, pool, instance and server, each with the choice of all."""
    filters = {
        variable["name"]: variable
        for model in map(read, FILES)
        for variable in model["templating"]["list"]
        if variable["type"] == "query"
    }
    assert set(filters) == {"service", "pool", "instance", "server"}
    assert all(variable["includeAll"] and variable["multi"] for variable in filters.values())


def test_every_finding_is_explained() -> None:
    """The dashboard of findings names each finding of the dictionary and links its page."""
    text = panel(read(ROOT / generate.FOLDER / f"{links.FINDINGS}.json"), "text")["options"]["content"]
    assert all(f"[{found}]({links.page(found).url})" in text for found in FINDING_IDS)


def _no_description(model: lint.Model) -> None:
    panel(model, "stat")["description"] = "Something."


def _no_unit(model: lint.Model) -> None:
    del panel(model, "stat")["fieldConfig"]["defaults"]["unit"]


def _no_link(model: lint.Model) -> None:
    panel(model, "timeseries")["links"] = []


def _unknown_kind(model: lint.Model) -> None:
    panel(model, "bargauge")["type"] = "piechart"


def _overlap(model: lint.Model) -> None:
    panel(model, "table")["gridPos"] = {"x": 0, "y": 0, "w": 24, "h": 3}


def _fixed_source(model: lint.Model) -> None:
    panel(model, "stat")["targets"][0]["datasource"] = {"type": "prometheus", "uid": "abc"}


def _no_legend(model: lint.Model) -> None:
    panel(model, "timeseries")["targets"][0]["legendFormat"] = ""


def _lost_legend(model: lint.Model) -> None:
    panel(model, "timeseries")["targets"][0]["legendFormat"] = "{{job}}"


def _dead_link(model: lint.Model) -> None:
    panel(model, "stat")["links"][0]["url"] = "/d/nowhere"


def _foreign_variable(model: lint.Model) -> None:
    panel(model, "stat")["links"][0]["url"] = "/d/poolscope-pool?${pool:queryparam}"


def _lost_label(model: lint.Model) -> None:
    with_link = next(panel for panel in model["panels"] if "__field.labels" in str(panel.get("fieldConfig")))
    with_link["targets"][0]["expr"] = f"max(sum by (service_name, {query.POOL}) (db_client_connection_max{SERVICE}))"


def _lost_column(model: lint.Model) -> None:
    override = next(one for one in panel(model, "table")["fieldConfig"]["overrides"] if "links" in str(one))
    override["properties"][-1]["value"][0]["url"] = '/d/poolscope-pool?var-pool=${__data.fields["Basin"]:percentencode}'


def _unencoded(model: lint.Model) -> None:
    override = next(one for one in panel(model, "table")["fieldConfig"]["overrides"] if "links" in str(one))
    override["properties"][-1]["value"][0]["url"] = '/d/poolscope-pool?var-pool=${__data.fields["Pool"]}'


def _asks(expr: str) -> Callable[[lint.Model], None]:
    def change(model: lint.Model) -> None:
        panel(model, "timeseries")["targets"][0]["expr"] = expr

    return change


SERVICE = '{service_name=~"$service"}'


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (_no_description, "good and bad"),
        (_no_unit, "no unit"),
        (_no_link, "leads nowhere"),
        (_unknown_kind, "nothing draws a piechart"),
        (_overlap, "overlaps"),
        (_fixed_source, "fixed data source"),
        (_no_legend, "no legend"),
        (_lost_legend, "does not keep"),
        (_dead_link, "does not exist"),
        (_foreign_variable, "which this dashboard has not"),
        (_lost_label, "which its series do not have"),
        (_lost_column, "which is not there"),
        (_unencoded, "end at the #"),
        (_asks(f"sum by (service_name, {query.POOL}) (rate("), "unclosed"),
        (_asks(f"sum(db_client_connections_usage{SERVICE})"), "no series"),
        (_asks(f"sum(rate(db_client_connection_count{SERVICE}[5m]))"), "which is no counter"),
        (_asks(f"sum(db_client_connection_timeouts_total{SERVICE})"), "not rated"),
        (_asks("sum(db_client_connection_max)"), "not narrowed"),
        (_asks('sum(db_client_connection_max{service_name=~"$service", port="1"})'), "has no label port"),
        (_asks(f"sum by (route) (db_client_connection_max{SERVICE})"), "by (route)"),
        (_asks('sum(db_client_connection_max{service_name=~"$team"})'), "unknown variable"),
    ],
)
def test_each_fault_is_seen(fault: Callable[[lint.Model], None], expected: str) -> None:
    """A dashboard with one fault gets a complaint about that fault; the same dashboard without it gets none."""
    model = fleet()
    assert lint.complaints(model) == []
    fault(model)
    assert any(expected in said for said in lint.complaints(model)), lint.complaints(model)
