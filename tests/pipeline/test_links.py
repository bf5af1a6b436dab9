"""
Where alerts and dashboards send a person: both in Compose, whose Grafana serves the documentation, and on the page of
`make stack`.
"""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import pytest
import yaml

import grafana.alerts
from examples.lab.pipeline import ROOT
from grafana.collector import SERVICE
from grafana.links import DOCS, Dashboard
from grafana.pictures import serve
from poolscope.core.catalogue import FINDING_IDS
from tests.support.shops import CAUSES
from tests.support.skips import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.shops import Shops

SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
# Where the image of Grafana has the files that it serves under /public/.
PUBLIC = "/usr/share/grafana/public"
RULES = yaml.safe_load((ROOT / grafana.alerts.FOLDER / "prometheus.yaml").read_text())
PROVISIONED = yaml.safe_load((ROOT / grafana.alerts.PROVISIONED).read_text())


def annotations(content: dict[str, list[dict[str, list[dict[str, dict[str, str]]]]]], name: str) -> set[str]:
    """What the rules of a file say under one annotation."""
    rules = [rule for group in content["groups"] for rule in group["rules"]]
    return {rule["annotations"][name] for rule in rules if name in rule["annotations"]}


def pages() -> set[str]:
    """The address of every page that an alert or a dashboard of the Compose stack links to."""
    of_prometheus = SERVICES["prometheus"]["environment"]["POOLSCOPE_DOCS_URL"]
    of_grafana = SERVICES["grafana"]["environment"]["POOLSCOPE_DOCS_URL"]
    root = SERVICES["grafana"]["environment"]["GF_SERVER_ROOT_URL"].rstrip("/")
    boards = "".join(path.read_text() for path in serve.DASHBOARDS.glob("*.json"))
    return {
        *(url.replace("{{ $externalLabels.docs_url }}", of_prometheus) for url in annotations(RULES, "runbook_url")),
        *(url.replace("$POOLSCOPE_DOCS_URL", of_grafana) for url in annotations(PROVISIONED, "runbook_url")),
        *(root + path for path in re.findall(r"/public/[\w./-]+", boards)),
    }


def mounted(path: str) -> Path:
    """The file of this repository that a path in Grafana's container is."""
    for volume in SERVICES["grafana"]["volumes"]:
        source, target, *_ = volume.split(":")
        if source.startswith("./") and path.startswith(f"{target}/"):
            return ROOT / source / path.removeprefix(f"{target}/")
    raise LookupError(path)


def test_in_compose_every_page_is_a_file_that_grafana_serves() -> None:
    """Every link to a page starts with the address that Grafana is published at, and leads to that finding's page."""
    found = pages()
    assert {url.rpartition("/")[2] for url in found} == {f"{finding}.md" for finding in FINDING_IDS}
    host, port, inside = SERVICES["grafana"]["ports"][0].split(":")
    for url in found:
        address = urllib.parse.urlsplit(url)
        assert (address.netloc, inside) == (f"{host}:{port}", "3000")
        file = mounted(PUBLIC + address.path.removeprefix("/public"))
        assert file.read_text().startswith(f"# {file.stem}\n")


def test_in_compose_every_dashboard_is_one_that_grafana_has() -> None:
    """
    The links of alerts start with Grafana's address, and the dashboards that they name are mounted
    where it looks.
    """
    environment = SERVICES["grafana"]["environment"]
    assert SERVICES["prometheus"]["environment"]["POOLSCOPE_GRAFANA_URL"] == environment["GF_SERVER_ROOT_URL"].rstrip(
        "/"
    )
    provider = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/poolscope.yaml").read_text())["providers"][0]
    folder = provider["options"]["path"]
    assert mounted(environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).exists()
    links = annotations(RULES, "dashboard") | annotations(PROVISIONED, "dashboard")
    assert links
    uids = {re.search(r"/?d/([\w-]+)", link)[1] for link in links}  # type: ignore[index]
    assert uids <= {dashboard.value for dashboard in Dashboard}
    assert all(mounted(f"{folder}/{uid}.json").exists() for uid in uids)


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """The address of the page that `make stack` serves, without a Prometheus behind it."""
    server = serve.PageServer(serve.Source("http://127.0.0.1:9"))
    yield server.url
    server.close()


def test_in_make_stack_every_page_is_served(page: str) -> None:
    """The same links lead to the same pages there."""
    for url in pages():
        path = urllib.parse.urlsplit(url).path
        with urllib.request.urlopen(page + path, timeout=10) as answer:
            finding = path.rpartition("/")[2].removesuffix(".md")
            assert answer.read().decode().startswith(f"# {finding}\n")


@pytest.mark.timeout(400)
@pytest.mark.xdist_group("scene")
def test_every_alert_that_arrives_leads_to_a_dashboard_and_a_page(shops: Shops) -> None:
    """
    Of each alert about a shop under load the dashboard that it names is served with the shop chosen, and the page of
    its finding begins with the finding's name.
    """
    require(shutil.which("npm"), "Node.js is missing", "install version 20 or newer")
    serve.ensure_built()
    alerts = [alert for alert in shops.told.alerts if alert["labels"].get(SERVICE) in CAUSES]
    assert alerts
    with urllib.request.urlopen(f"{shops.page}/settings.json", timeout=10) as answer:
        served = {board["uid"] for board in json.load(answer)["dashboards"]}
    for alert in alerts:
        dashboard = urllib.parse.urlsplit(alert["annotations"]["dashboard"])
        assert dashboard.path.removeprefix("/d/") in served
        assert urllib.parse.parse_qs(dashboard.query)["var-service"] == [alert["labels"][SERVICE]]
        with urllib.request.urlopen(alert["annotations"]["dashboard"], timeout=10) as answer:
            assert answer.status == 200
    of_findings = [alert for alert in alerts if "finding" in alert["labels"]]
    assert of_findings
    for alert in of_findings:
        with urllib.request.urlopen(alert["annotations"]["runbook_url"], timeout=10) as answer:
            assert answer.read().decode().startswith(f"# {alert['labels']['finding']}\n")


def test_what_is_no_page_is_not_served(page: str) -> None:
    """A page that is missing is a 404, and no link leads out of the documentation."""
    for path in (f"{DOCS}/findings/nothing.md", f"{DOCS}/../pyproject.toml", f"{DOCS}/%2e%2e/pyproject.toml"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(page + path, timeout=10)
