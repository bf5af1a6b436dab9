"""Draws dashboards in headless Chromium and reports the state of every panel."""

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
PATIENCE: Final = 300.0  # seconds for one request
GRACE: Final = 20.0  # seconds for the browser to close
# Kinds of panel that draw on a canvas.
PAINTED: Final = {"timeseries", "heatmap"}


class MissingToolError(Exception):
    """A program that draws is not installed; the message says how to install it."""


#: Panels that only some services fill: one without an event loop has no lag of one.
OF_SOME_SERVICES: Final = frozenset({"Lag of event loops, p99, by process"})


@dataclass(frozen=True)
class Shot:
    """
    One picture to take.

    Args:
        uid: The dashboard's uid.
        file: The picture's file; None to draw without saving.
        variables: Selected values by variable; a variable that is missing has all values.
    """

    uid: str
    file: Path | None = None
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Panel:
    """
    The outcome of one panel.

    Args:
        title: Its title.
        kind: Its type.
        state: ``data``, ``empty`` or ``error``.
        message: The error.
        text: The text in it.
        painted: The number of painted pixels of each canvas.
    """

    title: str
    kind: str
    state: str
    message: str
    text: str
    painted: tuple[int, ...]

    @property
    def fault(self) -> str:
        """What is wrong with it; empty if it shows data, or has none to show."""
        if self.state == "empty" and self.title in OF_SOME_SERVICES:
            return ""
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
    The outcome of one dashboard.

    Args:
        uid: The dashboard's uid.
        panels: Its panels.
        complaints: The browser's errors.
    """

    uid: str
    panels: tuple[Panel, ...]
    complaints: tuple[str, ...]

    @property
    def faults(self) -> list[str]:
        """Everything that is wrong with it."""
        return [*(panel.fault for panel in self.panels if panel.fault), *self.complaints]


def whole(folder: Path | None = None, suffix: str = "", variables: tuple[tuple[str, str], ...] = ()) -> list[Shot]:
    """
    A picture of each dashboard.

    Args:
        folder: The folder for the pictures; None to draw without saving.
        suffix: The end of the files' names.
        variables: Selected values by variable.
    """
    names = [(board.value, board.value.removeprefix("poolscope-")) for board in Dashboard]
    return [Shot(uid, folder / f"{name}{suffix}.png" if folder else None, variables) for uid, name in names]


class Browser:
    """
    A browser that draws any number of dashboards; a context manager. Starting it takes as long as drawing one.

    Raises:
        MissingToolError: Node.js or Chromium is missing.
    """

    def __init__(self) -> None:
        # Its errors go into a file: nothing reads a pipe meanwhile, so a pipe can fill up and block the browser.
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
            start: The start of the time range, in seconds since the epoch.
            end: The end of the time range.

        Returns:
            The outcome of each, in order.

        Raises:
            subprocess.CalledProcessError: The browser failed or took too long; `stderr` has its output.
        """
        wanted = [_request(shot) for shot in shots]
        request = {"page": page, "query": f"from={start * 1000:.0f}&to={end * 1000:.0f}", "shots": wanted}
        timeout = threading.Timer(PATIENCE, self._node.kill)
        timeout.start()
        try:
            return list(self._answers(json.dumps(request), len(wanted)))
        finally:
            timeout.cancel()

    def _answers(self, request: str, number: int) -> Iterator[Drawn]:
        requests, answers = self._node.stdin, self._node.stdout
        if requests is None or answers is None:  # they are pipes
            return
        with contextlib.suppress(BrokenPipeError):
            requests.write(f"{request}\n")
            requests.flush()
        for _ in range(number):
            if not (line := answers.readline()):
                code = self._node.wait()
                self._errors.seek(0)
                raise subprocess.CalledProcessError(code, self._node.args, stderr=self._errors.read())
            yield _drawn(line)

    def close(self) -> None:
        """End it; may be called twice."""
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
    """Draw each dashboard once, in a browser of its own, with the arguments of `Browser.draw`."""
    with Browser() as browser:
        return browser.draw(page, shots, start, end)


def check_tools() -> None:
    """
    Check before a long run that its end can be drawn.

    Raises:
        MissingToolError: Node.js or Chromium is missing.
    """
    node()
    chromium()


def chromium() -> str:
    """
    The path of the browser.

    Raises:
        MissingToolError: No browser is installed.
    """
    for name in CHROMIUMS:
        if found := shutil.which(name):
            return found
    raise MissingToolError("Chromium is not installed: apt-get install chromium")


def node() -> str:
    """
    The path of Node.js.

    Raises:
        MissingToolError: It is not installed.
    """
    if found := shutil.which("node"):
        return found
    raise MissingToolError("Node.js is not installed: install version 20 or newer (https://nodejs.org)")


def _request(shot: Shot) -> dict[str, object]:
    query = "&".join(f"var-{name}={value}" for name, value in shot.variables)
    return {"uid": shot.uid, "file": str(shot.file) if shot.file else None, "query": query}


def _drawn(line: str) -> Drawn:
    answer = json.loads(line)
    return Drawn(answer["uid"], tuple(map(_panel, answer["panels"])), tuple(answer["complaints"]))


def _panel(answer: dict[str, Any]) -> Panel:
    return Panel(
        title=answer["title"],
        kind=answer["type"],
        state=answer["state"],
        message=answer.get("message") or "",
        text=answer["text"],
        painted=tuple(answer["painted"]),
    )
