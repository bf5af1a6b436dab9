"""
The queries for the trace store, in the links of dashboards and in the experimental alerts, by
Grafana's own grammar.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

import grafana.alerts
from grafana.pictures import serve
from poolscope import semconv
from tests.support.skips import require

ROOT = Path(__file__).resolve().parents[2]
# Those of our own spans, and what is set on the span around a unit of work.
ATTRIBUTES = {value for value in vars(semconv).values() if isinstance(value, str)}.union(
    *(span.attributes for span in semconv.SPANS)
)

pytestmark = pytest.mark.xdist_group("browser")


def of_dashboards() -> set[str]:
    """The queries in the links to the trace store."""
    boards = "".join(path.read_text() for path in serve.DASHBOARDS.glob("*.json"))
    panes = [json.loads(unquote(pane)) for pane in re.findall(r'panes=([^"&]+)', boards)]
    return {query["query"] for pane in panes for each in pane.values() for query in each["queries"]}


def of_alerts() -> set[str]:
    """The queries of the experimental alerts."""
    content = yaml.safe_load((ROOT / grafana.alerts.FOLDER / "traceql-experimental.yaml").read_text())
    return {rule["data"][0]["model"]["query"] for group in content["groups"] for rule in group["rules"]}


def faults(queries: list[str]) -> list[list[str]]:
    """What Grafana's grammar does not know in each of the queries."""
    require(shutil.which("node"), "Node.js is missing", "install version 20 or newer")
    serve.ensure_built()
    command = ["node", str(serve.HERE / "traceql.mjs")]
    done = subprocess.run(command, input=json.dumps(queries), capture_output=True, text=True, check=True)
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_every_query_is_traceql() -> None:
    """
    Grafana's grammar knows every query that a dashboard links to or an alert asks, from the first
    to the last sign.
    """
    queries = sorted(of_dashboards() | of_alerts())
    assert of_dashboards()
    assert of_alerts()
    assert dict(zip(queries, faults(queries), strict=True)) == {query: [] for query in queries}


@pytest.mark.parametrize("query", ["{ duration > .5 ", "{ name =~ checkout }", "{ status = error } | rate( by (name)"])
def test_what_is_no_traceql_is_seen(query: str) -> None:
    """A query with a fault is not taken for one without."""
    assert faults([query]) != [[]]


def test_queries_use_attributes_of_the_dictionary() -> None:
    """An attribute of ours in a query is one that spans have."""
    asked = {name for query in of_dashboards() | of_alerts() for name in re.findall(r"span\.([\w.]+)", query)}
    assert asked
    assert asked <= ATTRIBUTES
