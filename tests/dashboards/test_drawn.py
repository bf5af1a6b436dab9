"""
Every dashboard, drawn by Grafana's own components in a browser, with data from a real Prometheus.
"""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from grafana.links import Dashboard
from grafana.pictures import draw, serve
from tests.dashboards.server import MissingError, programs, serving
from tests.dashboards.story import LENGTH, STEP, tell
from tests.support.skips import PIPELINE_TOOL_MISSING, require

if TYPE_CHECKING:
    from pathlib import Path

END = time.time() // STEP * STEP
UIDS = [dashboard.value for dashboard in Dashboard]
# Panels that are rightly empty while nothing is wrong; each says so in words of its own.
EMPTY_WHEN_WELL = {"Alerts"}

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """
    What draws: Prometheus, Node.js with the page's packages, Chromium.
    """
    try:
        programs()
    except MissingError as missing:
        require(None, f"{PIPELINE_TOOL_MISSING}: {missing}", "make pipeline-build")
    require(shutil.which("node"), "Node.js is missing", "install version 20 or newer")
    require(any(map(shutil.which, draw.CHROMIUMS)), "Chromium is missing", "apt-get install chromium")
    serve.ensure_built()


def drawn(
    folder: Path, *, exhausted: bool, dashboards: Path = serve.DASHBOARDS, uids: list[str] = UIDS
) -> list[draw.Drawn]:
    """
    The dashboards of one story, by the page and the browser.
    """
    with serving(tell(exhausted=exhausted, end=END), folder) as prometheus:
        page = serve.start(prometheus, scrape_seconds=STEP, dashboards=dashboards)
        try:
            return draw.draw(page.url, map(draw.Shot, uids), END - LENGTH, END)
        finally:
            page.close()


@pytest.fixture(scope="module")
def exhausted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, draw.Drawn]:
    """
    The dashboards while a pool runs dry.
    """
    return {one.uid: one for one in drawn(tmp_path_factory.mktemp("exhausted"), exhausted=True)}


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> dict[str, draw.Drawn]:
    """
    The dashboards after the causes are mended.
    """
    return {one.uid: one for one in drawn(tmp_path_factory.mktemp("repaired"), exhausted=False)}


@pytest.mark.parametrize("uid", UIDS)
def test_every_panel_shows_something(exhausted: dict[str, draw.Drawn], uid: str) -> None:
    """No panel is empty, in error or unpainted while a pool runs dry, and the browser has nothing to complain of."""
    assert exhausted[uid].panels
    assert exhausted[uid].faults == []


@pytest.mark.parametrize("uid", UIDS)
def test_a_healthy_service_leaves_no_panel_in_error(repaired: dict[str, draw.Drawn], uid: str) -> None:
    """With the causes mended every panel still shows something; only what lists trouble may be empty, and says so."""
    empty = {panel.title for panel in repaired[uid].panels if panel.state == "empty"}
    faults = [panel.fault for panel in repaired[uid].panels if panel.fault and panel.title not in EMPTY_WHEN_WELL]
    assert empty <= EMPTY_WHEN_WELL
    assert [*faults, *repaired[uid].complaints] == []


def test_the_first_page_tells_the_two_apart(exhausted: dict[str, draw.Drawn], repaired: dict[str, draw.Drawn]) -> None:
    """The figures at the top of the first page are those of the story: saturation, leaks and timeouts, or none."""
    figures = [
        {panel.title: panel.text.split("\n")[-1] for panel in story[serve.FIRST].panels if panel.kind == "stat"}
        for story in (exhausted, repaired)
    ]
    sick, well = figures
    assert (sick["Pools saturated"], sick["Fullest pool"], sick["Leaks"]) == ("1", "100%", "12")
    assert (well["Pools saturated"], well["Leaks"], well["Timeouts"]) == ("0", "0", "0")
    assert sick["Timeouts"] != "0"


def test_a_broken_and_an_empty_panel_are_seen(tmp_path: Path) -> None:
    """A panel whose query is refused is an error, one without series is empty, and their neighbour is neither."""
    model = json.loads((serve.DASHBOARDS / f"{serve.FIRST}.json").read_text(encoding="utf-8"))
    stats = [panel for panel in model["panels"] if panel["type"] == "stat"][:3]
    model["panels"] = stats
    stats[0]["targets"][0]["expr"] = "sum(rate(up))"
    stats[1]["targets"][0]["expr"] = "sum(no_such_series)"
    (tmp_path / "boards").mkdir()
    (tmp_path / "boards" / f"{serve.FIRST}.json").write_text(json.dumps(model), encoding="utf-8")
    (one,) = drawn(tmp_path, exhausted=True, dashboards=tmp_path / "boards", uids=[serve.FIRST])
    states = {panel.title: panel.state for panel in one.panels}
    assert states == {stats[0]["title"]: "error", stats[1]["title"]: "empty", stats[2]["title"]: "data"}
    assert len([panel for panel in one.panels if panel.fault]) == 2
