"""The lines that say how far a run is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST = """
from tests.support import progress
progress.Progress.__init__.__defaults__ = (0.05,)
from tests.support.progress import pytest_configure
"""
SLOW = """
import time, pytest

@pytest.mark.parametrize("number", range(4))
def test_slow(number):
    time.sleep(0.4)
"""


class Reporter:
    """Keeps lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def test_it_names_how_many_are_done_and_what_takes_longest() -> None:
    """Of the tests that run the first to have started comes first, without the group that it is in."""
    progress = Progress(Reporter())  # type: ignore[arg-type]
    progress.pytest_xdist_node_collection_finished(["a", "b", "c"])
    for name in ("tests/a.py::one@scene", "tests/b.py::two", "tests/c.py::three"):
        progress.pytest_runtest_logstart(name)
    progress.pytest_runtest_logfinish("tests/c.py::three")
    expected = r"\d+ s: 1 of 3 tests are done; now: tests/a.py::one \(\d+ s\), tests/b.py::two \(\d+ s\)"
    assert re.fullmatch(expected, progress.line())


def test_nothing_runs() -> None:
    """Before the first test and after the last one that is said too."""
    assert re.fullmatch(r"\d+ s: 0 tests are done; now: none", Progress(Reporter()).line())  # type: ignore[arg-type]


def test_what_has_failed_is_said_at_once() -> None:
    """A failure is named with the end of its reason in the next line, once."""
    progress = Progress(Reporter())  # type: ignore[arg-type]
    for when, outcome in (("setup", "passed"), ("call", "failed")):
        report = pytest.TestReport(
            "tests/a.py::one@scene", ("", 0, ""), {}, outcome, "it\n  is " + 400 * "wrong ", when
        )  # type: ignore[arg-type]
        progress.pytest_runtest_logreport(report)
    (line,) = re.findall(r"(?<=\n).*", progress.line())
    assert re.fullmatch(r"failed: tests/a.py::one: \w* ?(wrong )+wrong", line)
    assert len(line) < 450
    assert "failed" not in progress.line()


def test_a_run_in_several_processes_reports(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The lines come while tests run in other processes, and pytest's closing line stays the last one."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_slow.py").write_text(SLOW)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "2", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(request.config.rootpath), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.strip().splitlines()
    assert [line for line in lines if re.search(r"\d of 4 tests are done; now: .*test_slow\[\d\] \(\d+ s\)", line)]
    assert lines[-1].startswith("4 passed in ")
