"""
Draws dashboards in headless Chromium, and tells what became of every panel.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from grafana.links import Dashboard
from grafana.pictures import serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

CHROMIUMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE: Final = 300.0  # seconds for one order
GRACE: Final = 20.0  # seconds that the browser has to close
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


class Browser:
    """
    A browser that draws dashboards, as many as come; a context manager. To start it takes as long as to draw one.

    Raises:
        MissingToolError: Node.js or Chromium is missing.
    """

    def __init__(self) -> None:
        # What it complains of goes into a file: a pipe that nobody reads would fill up.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the browser
        self._node = subprocess.Popen(
            [node(), str(serve.HERE / "shoot.mjs"), chromium()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def draw(self, page: str, shots: Iterable[Shot], start: float, end: float) -> list[Drawn]:
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
            subprocess.CalledProcessError: The browser failed, or took too long; its words are in `stderr`.
        """
        asked = [_asked(shot) for shot in shots]
        order = {"page": page, "query": f"from={start * 1000:.0f}&to={end * 1000:.0f}", "shots": asked}
        late = threading.Timer(PATIENCE, self._node.kill)
        late.start()
        try:
            return list(self._answers(json.dumps(order), len(asked)))
        finally:
            late.cancel()

    def _answers(self, order: str, number: int) -> Iterator[Drawn]:
        orders, answers = self._node.stdin, self._node.stdout
        if orders is None or answers is None:  # they are pipes
            return
        with contextlib.suppress(BrokenPipeError):
            orders.write(f"{order}\n")
            orders.flush()
        for _ in range(number):
            if not (line := answers.readline()):
                code = self._node.wait()
                self._errors.seek(0)
                raise subprocess.CalledProcessError(code, self._node.args, stderr=self._errors.read())
            yield _drawn(line)

    def close(self) -> None:
        """
        End it; may be called twice.
        """
        for pipe in (self._node.stdin, self._node.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._node.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._node.kill()
            self._node.wait()
        self._errors.close()


def draw(page: str, shots: Iterable[Shot], start: float, end: float) -> list[Drawn]:
    """
    Draw each dashboard once, in a browser of its own; see `Browser.draw`.
    """
    with Browser() as browser:
        return browser.draw(page, shots, start, end)


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


def _drawn(line: str) -> Drawn:
    told = json.loads(line)
    return Drawn(told["uid"], tuple(map(_panel, told["panels"])), tuple(told["complaints"]))


def _panel(told: dict[str, Any]) -> Panel:
    return Panel(
        title=told["title"],
        kind=told["type"],
        state=told["state"],
        message=told.get("message") or "",
        text=told["text"],
        painted=tuple(told["painted"]),
    )
