"""The tools that run tests again: many times on a busy machine, late on purpose, and all of what CI runs in part."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.late import WAYS
from tools import flaky, late, nightly, steps
from tools.venvs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# Fails in every second run, with the state between runs in a file.
EVERY_SECOND = """
from pathlib import Path

def test_now_and_then():
    state = Path(__file__).with_suffix(".count")
    runs = int(state.read_text()) + 1 if state.exists() else 1
    state.write_text(str(runs))
    assert runs % 2, "an even run"

def test_always():
    pass
"""


@pytest.fixture
def tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of tests, and a cache of its own."""
    monkeypatch.setenv("POOLSCOPE_CACHE", str(tmp_path / "cache"))
    # The runs need none of pytest's plugins, whose imports take most of their time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    file = tmp_path / "test_made_up.py"
    file.write_text(EVERY_SECOND)
    return file


def run_flaky(tests: Path, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and what it says as JSON."""
    capfd.readouterr()
    code = flaky.main(["--json", "--cpu", "0", *words, "--", str(tests)])
    return code, json.loads(capfd.readouterr().out)


def test_what_fails_now_and_then_is_counted(tests: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of four runs two fail: the test is named with that number and what it said, and the output of both is kept."""
    code, told = run_flaky(tests, capfd, "--times", "4")
    assert code == 1
    (failed,) = told["failed"]
    assert failed["test"].endswith("test_made_up.py::test_now_and_then")
    assert failed["runs"] == 2
    assert "an even run" in failed["message"]
    assert len(told["output"]) == 2
    assert told["broken"] == {}


def test_a_run_that_is_no_run_is_no_success(tests: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where pytest has nothing to run, or cannot, the run counts as broken."""
    tests.write_text("")
    code, told = run_flaky(tests, capfd, "--times", "1")
    assert (code, told["failed"], told["broken"]) == (1, [], {"1": 5})


def test_the_load_is_there_for_as_long_as_the_block() -> None:
    """As many processes as asked for, of each kind, each at work; none afterwards."""
    with flaky.loaded({"cpu": 2, "memory": 1, "disk": 1}) as loads:
        assert len(loads) == 4
        assert all(psutil.pid_exists(one.pid) and one.exit_code() is None for one in loads)
    assert all(one.exit_code() is not None for one in loads)


@pytest.mark.parametrize("kind", flaky.LOADS)
def test_every_kind_of_load_works(kind: str) -> None:
    """It does not end by itself: it still runs after it has used some CPU."""
    with flaky.loaded({kind: 1}) as (load,):

        def worked() -> bool:
            times = psutil.Process(load.pid).cpu_times()
            return times.user + times.system > 0.3

        load.wait_ready(worked, 60)


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_number_of_runs_that_is_none_is_refused(number: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One line names it."""
    with pytest.raises(SystemExit, match="2"):
        flaky.main(["--times", number, "tests"])
    assert f"'{number}' is not a number of runs" in capfd.readouterr().err


def test_a_part_is_the_same_for_the_same_seed() -> None:
    """A seed draws one way and a part of the files; over seeds every way and every file is drawn."""
    files = late.test_files()
    assert all((ROOT / file).is_file() for file in files)
    assert late.draw("one", list(WAYS), files) == late.draw("one", list(WAYS), files)
    drawn = [late.draw(str(seed), list(WAYS), files) for seed in range(200)]
    assert all(len(ways) == 1 and len(part) == late.PART for ways, part in drawn)
    assert {way for ways, _ in drawn for way in ways} == set(WAYS)
    assert {file for _, part in drawn for file in part} == set(files)


def test_the_whole_has_what_ci_runs_in_part() -> None:
    """
    Every way to be late, all of the matrix and of the transparency runs are steps of `make nightly`, and they make a
    graph.
    """
    plan = nightly.plan()
    steps.Run(plan, ROOT)
    commands = [step.command for step in plan]
    assert {"make check", "make test", "make matrix", "make transparency"} <= set(commands)
    assert {f"make late ARGS='--way {way}'" for way in WAYS} <= set(commands)
