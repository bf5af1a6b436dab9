"""Every dashboard, drawn by Grafana's own components in a browser, with data from a real Prometheus."""

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
from tests.support.shops import HEALTHY
from tests.support.skips import PIPELINE_TOOL_MISSING, require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.shops import Shops

END = time.time() // STEP * STEP
UIDS = [dashboard.value for dashboard in Dashboard]
# Panels that are rightly empty while nothing is wrong; each says so in words of its own.
EMPTY_WHEN_WELL = {"Alerts"}

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("scene")]


@pytest.fixture(scope="module")
def browser() -> Iterator[draw.Browser]:
    """One browser for all pictures."""
    try:
        programs()
    except MissingError as missing:
        require(None, f"{PIPELINE_TOOL_MISSING}: {missing}", "make pipeline-build")
    require(shutil.which("node"), "Node.js is missing", "install version 20 or newer")
    require(any(map(shutil.which, draw.CHROMIUMS)), "Chromium is missing", "apt-get install chromium")
    serve.ensure_built()
    with draw.Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def exhausted(browser: draw.Browser, shops: Shops) -> dict[str, draw.Drawn]:
    """The dashboards of all shops under load, while each cause does what it does."""
    return {one.uid: one for one in browser.draw(shops.page, map(draw.Shot, UIDS), shops.began, shops.ended)}


@pytest.fixture(scope="module")
def repaired(browser: draw.Browser, shops: Shops) -> dict[str, draw.Drawn]:
    """The same dashboards of the same time, with the repaired shop alone chosen."""
    shots = [draw.Shot(uid, variables=(("service", HEALTHY),)) for uid in UIDS]
    return {one.uid: one for one in browser.draw(shops.page, shots, shops.began, shops.ended)}


@pytest.mark.parametrize("uid", UIDS)
def test_every_panel_shows_something(exhausted: dict[str, draw.Drawn], uid: str) -> None:
    """No panel is empty, in error or unpainted while pools run dry, and the browser has nothing to complain of."""
    assert exhausted[uid].panels
    assert exhausted[uid].faults == []


@pytest.mark.parametrize("uid", UIDS)
def test_a_healthy_service_leaves_no_panel_in_error(repaired: dict[str, draw.Drawn], uid: str) -> None:
    """With the causes mended every panel still shows something; only what lists trouble may be empty, and says so."""
    empty = {panel.title for panel in repaired[uid].panels if panel.state == "empty"}
    faults = [panel.fault for panel in repaired[uid].panels if panel.fault and panel.title not in EMPTY_WHEN_WELL]
    assert empty <= EMPTY_WHEN_WELL | draw.OF_SOME_SERVICES
    assert [*faults, *repaired[uid].complaints] == []


def told(browser: draw.Browser, folder: Path, *, exhausted: bool, dashboards: Path = serve.DASHBOARDS) -> draw.Drawn:
    """The first page of a made-up story, whose figures are known."""
    folder.mkdir(exist_ok=True)
    with serving(tell(exhausted=exhausted, end=END), folder) as prometheus:
        page = serve.start(prometheus, scrape_seconds=STEP, dashboards=dashboards)
        try:
            (one,) = browser.draw(page.url, [draw.Shot(serve.FIRST)], END - LENGTH, END)
            return one
        finally:
            page.close()


def test_the_first_page_distinguishes_the_two(browser: draw.Browser, tmp_path: Path) -> None:
    """The figures at the top of the first page are those of the story: saturation, leaks and timeouts, or none."""
    sick, well = (
        {
            panel.title: panel.text.split("\n")[-1]
            for panel in told(browser, tmp_path / name, exhausted=exhausted).panels
            if panel.kind == "stat"
        }
        for name, exhausted in (("sick", True), ("well", False))
    )
    assert (sick["Pools saturated"], sick["Fullest pool"], sick["Leaks"]) == ("1", "100%", "12")
    assert (well["Pools saturated"], well["Leaks"], well["Timeouts"]) == ("0", "0", "0")
    assert sick["Timeouts"] != "0"


def test_a_broken_and_an_empty_panel_are_seen(browser: draw.Browser, tmp_path: Path) -> None:
    """A panel whose query is refused is an error, one without series is empty, and their neighbour is neither."""
    model = json.loads((serve.DASHBOARDS / f"{serve.FIRST}.json").read_text(encoding="utf-8"))
    stats = [panel for panel in model["panels"] if panel["type"] == "stat"][:3]
    model["panels"] = stats
    stats[0]["targets"][0]["expr"] = "sum(rate(up))"
    stats[1]["targets"][0]["expr"] = "sum(no_such_series)"
    (tmp_path / "boards").mkdir()
    (tmp_path / "boards" / f"{serve.FIRST}.json").write_text(json.dumps(model), encoding="utf-8")
    one = told(browser, tmp_path, exhausted=True, dashboards=tmp_path / "boards")
    states = {panel.title: panel.state for panel in one.panels}
    assert states == {stats[0]["title"]: "error", stats[1]["title"]: "empty", stats[2]["title"]: "data"}
    assert len([panel for panel in one.panels if panel.fault]) == 2
