"""
A graph of commands: in which order they run, what is printed, and what is left when one fails or
all are interrupted.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import Child, wait_until
from tests.unit.test_lab_processes import is_running
from tools import steps
from tools.venvs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, in which the steps run, and a cache of the test's own."""
    monkeypatch.setenv("POOLSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    # Where a step runs this process's Ctrl-C handling, the test's own comes back.
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def test_a_step_starts_when_those_before_it_have_ended(capfd: pytest.CaptureFixture[str]) -> None:
    """
    Steps that wait for nothing run at the same time: each of the two waits for the other's file. What waits for both
    finds what both made.
    """
    meet = "touch {mine}; for _ in $(seq 3000); do [ -e {other} ] && exit 0; sleep 0.01; done; exit 1"
    plan = [
        ("last", "a b", "ls -1 a b"),
        ("first", "", meet.format(mine="a", other="b")),
        ("second", "", meet.format(mine="b", other="a")),
    ]
    words = [word for name, after, command in plan for word in (name, after.replace("a b", "first second"), command)]
    assert steps.main(words) == 0
    assert "=== last\na\nb\n--- last: ok" in capfd.readouterr().out


def test_what_a_step_prints_is_printed_whole_and_kept(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """
    The lines of steps that run at the same time do not mix, stderr stands among them, and each has
    a file of its own.
    """
    count = "for n in 1 2 3; do echo {0}$n; echo {0}err$n >&2; sleep 0.01; done"
    assert steps.main(["--logs", "logs", "x", "", count.format("x"), "y", "", count.format("y")]) == 0
    printed = capfd.readouterr().out
    for name in ("x", "y"):
        whole = "".join(f"{name}{n}\n{name}err{n}\n" for n in (1, 2, 3))
        assert f"=== {name}\n{whole}--- {name}: ok" in printed
        assert (folder / "logs" / f"{name}.log").read_text() == whole


def test_a_failure_is_named_and_hides_nothing_behind_it(capfd: pytest.CaptureFixture[str]) -> None:
    """A step behind one that failed runs all the same, the result names what failed and with which code."""
    assert steps.main(["bad", "", "exit 7", "good", "bad", "echo still here"]) == 1
    printed = capfd.readouterr().out
    assert "--- bad: FAILED with 7" in printed
    assert "still here\n--- good: ok" in printed
    assert printed.endswith("failed: bad\n")


def test_the_table_has_time_and_cpu_of_each(capfd: pytest.CaptureFixture[str]) -> None:
    """
    A step that computes has used its CPU, that of the processes that it waited for included; one
    that waits has not.
    """
    compute = f"{sys.executable} -c 'import time\nwhile time.process_time() < 1.2: pass'"
    assert steps.main(["computes", "", compute, "waits", "", "sleep 0.1"]) == 0
    rows = dict(re.findall(r"^ *(computes|waits) .* (\d+) *$", capfd.readouterr().out, re.MULTILINE))
    assert int(rows["computes"]) >= 1
    assert int(rows["waits"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a", "", "true", "a", "", "true"], "two steps are called 'a'"),
        (["a", "b", "true"], "'a' waits for 'b', and no step is called so"),
        (["a", "b", "true", "b", "a", "true"], "wait for one another"),
        (["a b", "", "true"], "'a b' is no name"),
        (["a", ""], "each step is 3 words"),
    ],
)
def test_steps_that_make_no_graph_are_refused(words: list[str], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing runs, and one line says what is wrong."""
    with pytest.raises(SystemExit, match="2"):
        steps.main(words)
    assert told in capfd.readouterr().err


def test_when_it_last_passed(capfd: pytest.CaptureFixture[str]) -> None:
    """A run of a name says when the one of that name last passed; one that fails does not count."""
    for command, code, before in (("exit 1", 1, "never"), ("true", 0, "never"), ("exit 1", 1, "20")):
        assert steps.main(["--note", "whole", "only", "", command]) == code
        assert f"whole last passed: {before}" in capfd.readouterr().out
    assert re.fullmatch(r"20[\d-]+ [\d:]+\+00:00, commit \S+", steps.last_passed("whole"))


def test_a_step_that_runs_for_long_is_reported(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing ends, the last line that each running step printed is shown."""
    monkeypatch.setattr(steps, "HEARTBEAT", 0.05)
    seen = folder / "seen"
    say = steps._say

    def listen(line: str) -> None:
        if line.endswith("slow: half way"):
            seen.touch()
        say(line)

    monkeypatch.setattr(steps, "_say", listen)
    slow = f"echo begun; echo half way; for _ in $(seq 3000); do [ -e {seen} ] && exit 0; sleep 0.01; done; exit 1"
    assert steps.main(["slow", "", slow]) == 0
    assert "slow: half way" in capfd.readouterr().out


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_steps(folder: Path, word: signal.Signals) -> None:
    """Ctrl-C and a polite kill end what runs, with what that started, and the exit code is 130."""
    pids = folder / "pids"
    pids.mkdir()
    forever = f"sleep 1000 & touch {pids}/$!; wait"
    command = [sys.executable, str(ROOT / "tools" / "steps.py"), "a", "", forever, "b", "", forever]
    with Child(command) as run:
        run.wait_ready(lambda: len(list(pids.iterdir())) == 2, 60)
        run.signal(word)
        assert run.wait(60) == 130
        assert "no step is left running" in run.log.read_text()
    for pid in (int(path.name) for path in pids.iterdir()):
        wait_until(lambda pid=pid: not is_running(pid), 30, "what a step started to end")


def test_an_interrupt_while_a_step_starts_ends_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes effect when the run knows of the step: a busy machine can let the step run before that."""
    start = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(*given: Any, **named: Any) -> subprocess.Popen[bytes]:
        started.append(start(*given, **named))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    assert steps.main(["--logs", str(folder), "a", "", "sleep 1000", "b", "", "sleep 1000"]) == steps.INTERRUPTED
    assert [process.returncode for process in started] == [-signal.SIGTERM]
