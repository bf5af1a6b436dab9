"""
Draws dashboards in headless Chromium, and tells what became of every panel.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from grafana.links import Dashboard
from grafana.pictures import serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CHROMIUMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE: Final = 300.0
# Kinds of panel that paint on a canvas.
PAINTED: Final = {"timeseries", "heatmap"}


class MissingToolError(Exception):
    """
    A program that draws is not here; the message says how to get it.
    """


@dataclass(frozen=True)
class Shot:
    """
    One picture to take.

    Args:
        uid: Of the dashboard.
        file: Where the picture goes; None to look only.
        variables: Chosen values by variable; all values where one is missing.
    """

    uid: str
    file: Path | None = None
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Panel:
    """
    What became of one panel.

    Args:
        title: Its title.
        kind: Its type.
        state: ``data``, ``empty`` or ``error``.
        message: The error.
        text: What is to be read in it.
        painted: Pixels painted, per canvas.
    """

    title: str
    kind: str
    state: str
    message: str
    text: str
    painted: tuple[int, ...]

    @property
    def fault(self) -> str:
        """
        What is wrong with it; empty when it shows something.
        """
        if self.state != "data":
            return f"{self.title}: {self.state} {self.message}".rstrip()
        if self.kind in PAINTED and not any(self.painted):
            return f"{self.title}: nothing painted"
        if "NaN" in self.text:
            return f"{self.title}: shows NaN"
        return ""


@dataclass(frozen=True)
class Drawn:
    """
    What became of one dashboard.

    Args:
        uid: Of the dashboard.
        panels: Its panels.
        complaints: What the browser complained of.
    """

    uid: str
    panels: tuple[Panel, ...]
    complaints: tuple[str, ...]

    @property
    def faults(self) -> list[str]:
        """
        Everything that is wrong with it.
        """
        return [*(panel.fault for panel in self.panels if panel.fault), *self.complaints]


def whole(folder: Path | None = None, suffix: str = "", variables: tuple[tuple[str, str], ...] = ()) -> list[Shot]:
    """
    A picture of each dashboard.

    Args:
        folder: Where the pictures go; None to look only.
        suffix: At the end of the files' names.
        variables: Chosen values by variable.
    """
    names = [(board.value, board.value.removeprefix("poolscope-")) for board in Dashboard]
    return [Shot(uid, folder / f"{name}{suffix}.png" if folder else None, variables) for uid, name in names]


def draw(page: str, shots: Iterable[Shot], start: float, end: float) -> list[Drawn]:
    """
    Draw each dashboard once.

    Args:
        page: The address of a `serve.PageServer`.
        shots: What to draw.
        start: From when on, in seconds of the epoch.
        end: Until when.

    Returns:
        What became of each, in order.

    Raises:
        MissingToolError: Node.js or Chromium is missing.
        subprocess.CalledProcessError: The browser failed; its words are in `stderr`.
    """
    order = {
        "page": page,
        "chromium": chromium(),
        "query": f"from={start * 1000:.0f}&to={end * 1000:.0f}",
        "shots": [_asked(shot) for shot in shots],
    }
    command = [node(), str(serve.HERE / "shoot.mjs"), "-"]
    done = subprocess.run(
        command, input=json.dumps(order), capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    return list(_drawn(done.stdout))


def check_tools() -> None:
    """
    Find out before a long run whether it can be drawn at its end.

    Raises:
        MissingToolError: Node.js or Chromium is missing.
    """
    node()
    chromium()


def chromium() -> str:
    """
    The browser.

    Raises:
        MissingToolError: There is none.
    """
    for name in CHROMIUMS:
        if found := shutil.which(name):
            return found
    raise MissingToolError("no Chromium: apt-get install chromium")


def node() -> str:
    """
    Node.js.

    Raises:
        MissingToolError: There is none.
    """
    if found := shutil.which("node"):
        return found
    raise MissingToolError("no Node.js: install version 20 or newer (https://nodejs.org)")


def _asked(shot: Shot) -> dict[str, object]:
    query = "&".join(f"var-{name}={value}" for name, value in shot.variables)
    return {"uid": shot.uid, "file": str(shot.file) if shot.file else None, "query": query}


def _drawn(lines: str) -> Iterator[Drawn]:
    for line in lines.splitlines():
        told = json.loads(line)
        panels = tuple(map(_panel, told["panels"]))
        yield Drawn(told["uid"], panels, tuple(told["complaints"]))


def _panel(told: dict[str, Any]) -> Panel:
    return Panel(
        title=told["title"],
        kind=told["type"],
        state=told["state"],
        message=told.get("message") or "",
        text=told["text"],
        painted=tuple(told["painted"]),
    )
