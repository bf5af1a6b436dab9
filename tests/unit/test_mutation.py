"""What tries mutants tells one that a test finds from one that lives, hangs, or takes the process along."""

from __future__ import annotations

import ast
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from examples.lab.processes import wait_until
from tests.mutation import run
from tests.mutation.copies import EACH, Worker, WorkerEndedError
from tests.mutation.mutants import Mutant, is_another, unnoticed
from tests.mutation.reach import lines_of_statement
from tests.mutation.run import Result
from tests.unit.test_lab_processes import is_running
from tools.venvs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE: Final = "def larger(one, other):\n    return one if one > other else other\n"
TESTS: Final = """
from calculus import larger

def test_the_larger_one():
    assert larger(2, 1) == 2

def test_either_way():
    assert larger(1, 2) == 2
"""
IDS: Final = ("tests/test_calculus.py::test_the_larger_one", "tests/test_calculus.py::test_either_way")
PATH: Final = "src/calculus.py"
AS_ONE: Final = Mutant(PATH, "core/ReplaceComparisonOperator_Gt_GtE", 0, 2, "return one if one > other else other")


def project(folder: Path) -> Path:
    """A project with one function."""
    for name, text in ((PATH, SOURCE), ("tests/test_calculus.py", TESTS), ("pytest.ini", "[pytest]\n")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """What tries mutants of the project."""
    with Worker(project(tmp_path_factory.mktemp("project")), ["tests"]) as made:
        yield made


@pytest.mark.parametrize(
    ("before", "after", "outcome", "by"),
    [
        ("", "", "survived", ""),
        ("one > other", "one < other", "killed", IDS[0]),
        ("else other", "else one", "killed", IDS[1]),
        ("one > other", "one >= other", "survived", ""),
        ("def larger", "def smaller", "killed", "tests/test_calculus.py"),
        ("    return", "    raise SystemExit(0)\n    return", "killed", IDS[0]),
        ("    return", "    __import__('os')._exit(0)\n    return", "killed", "the end of the process"),
        ("    return", "    __import__('os').kill(0, 9)\n    return", "killed", "the end of the process"),
        ("    return", "    'x' * 8 * 2**30\n    return", "killed", IDS[0]),
        ("    return", "    while True: pass\n    return", "killed", IDS[0]),
    ],
    ids=["none", "found", "by the other", "alike", "no name", "exit", "ends", "strikes", "memory", "loops"],
)
def test_what_comes_of_a_mutant(worker: Worker, before: str, after: str, outcome: str, by: str) -> None:
    """One after the other, each with the source as it was: none has to do with those before it."""
    code = SOURCE.replace(before, after, 1) if before else SOURCE
    each = 0.5 if "while" in after else EACH
    assert worker.outcome(PATH, code, IDS, each=each) == (outcome, by)


def test_what_cannot_be_interrupted_is_ended(worker: Worker) -> None:
    """A mutant that takes no signal has its time, and the next one is tried."""
    deaf = "    import signal, time; signal.pthread_sigmask(0, range(1, 32)); time.sleep(600)\n    return"
    assert worker.outcome(PATH, SOURCE.replace("    return", deaf), IDS, seconds=0.5)[0] == "timeout"
    assert worker.outcome(PATH, SOURCE, IDS)[0] == "survived"


def test_at_an_interrupt_the_mutant_ends_as_well(tmp_path: Path) -> None:
    """Whoever waits for its outcome learns of it, its process is gone, and the source is as it was."""
    writes = f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}} ')"
    hangs = f"    import os, time; {writes}; time.sleep(600)\n    return"
    with Worker(project(tmp_path), ["tests"]) as made, ThreadPoolExecutor(1) as executor:
        outcome = executor.submit(made.outcome, PATH, SOURCE.replace("    return", hangs), IDS, each=600.0)
        started = tmp_path / "pid"
        wait_until(lambda: started.exists() and started.read_text().endswith(" "), 60)
        made.end()
        with pytest.raises(WorkerEndedError):
            outcome.result(60)
    assert not is_running(int(started.read_text()))
    assert (tmp_path / PATH).read_text() == SOURCE


def test_what_no_test_reaches_is_not_tried(worker: Worker) -> None:
    """It counts as one that survives."""
    assert worker.outcome(PATH, SOURCE, ()) == ("no test", "")


def test_the_score_is_of_those_that_should_die() -> None:
    """What hangs is found, what no test reaches is not, and what is explained does not count."""
    outcomes = ["killed"] * 8 + ["timeout", "survived", "no test"]
    results = [Result(AS_ONE, outcome) for outcome in outcomes] + [Result(AS_ONE, "survived", why="alike")] * 5
    share, low, high = run.score(results)
    assert share == pytest.approx(9 / 11)
    assert [low, high] == pytest.approx([0.5230, 0.9486], abs=1e-4)
    assert run.score([]) == (1.0, 0.0, 1.0)


def test_an_explanation_is_of_one_line_and_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another file, another line or another operator is not explained by it; `*` is for all."""
    known = {"path": PATH, "text": AS_ONE.text, "operator": AS_ONE.kind, "why": "the larger of two equal ones"}
    monkeypatch.setattr(run, "EXPLAINED", tmp_path / "explained.json")
    run.EXPLAINED.write_text(json.dumps([known]))
    assert run.explanation(AS_ONE) == known["why"]
    for field, value in (("path", "src/other.py"), ("text", "return other"), ("operator", "core/NumberReplacer")):
        assert not run.explanation(Mutant(**{**vars(AS_ONE), field: value}))
    run.EXPLAINED.write_text(json.dumps([{**known, "path": "*"}]))
    assert run.explanation(Mutant(**{**vars(AS_ONE), "path": "src/other.py"})) == known["why"]
    run.EXPLAINED.write_text(json.dumps([{**known, "operator": "*"}]))
    assert run.explanation(Mutant(**{**vars(AS_ONE), "operator": "core/NumberReplacer"})) == known["why"]


def test_what_is_explained_is_there() -> None:
    """Each explanation is of a line that the source still has."""
    for known in json.loads(run.EXPLAINED.read_text(encoding="utf-8")):
        paths = (ROOT / "src").rglob("*.py") if known["path"] == "*" else [ROOT / known["path"]]
        lines = {line.strip() for path in paths for line in path.read_text(encoding="utf-8").splitlines()}
        assert known["text"] in lines, known
        assert known["why"]


def test_annotations_are_no_mutants() -> None:
    """Python does not evaluate them; a value beside one, and a default, are."""
    lines = [
        "x: int | None = 1 | 2",
        "def f(a: int | None = 3 | 4) -> str | None: pass",
        "if TYPE_CHECKING: y = 1",
    ]
    source = "\n".join(lines)
    found = [(lines[line - 1][column:], end) for (line, column), end in unnoticed(source)]
    assert sorted(text.partition(" ")[0] for text, _ in found) == ["if", "int", "int", "str"]
    kept = (1, lines[0].index("1 | 2")), (2, lines[1].index("3 | 4"))
    assert not any(first <= place < end for place in kept for first, end in unnoticed(source))


def test_a_line_stands_for_its_statement() -> None:
    """A line amid a statement has no event of its own: what reaches the statement reaches it."""
    tree = ast.parse("x = [\n    1,\n    2,\n]\nif (\n    x\n):\n    y = 1\n")
    lines = [list(lines_of_statement(tree, line)) for line in (2, 5, 6, 8, 9)]
    assert lines == [[1, 2, 3, 4], [5, 6, 7], [5, 6, 7], [8], [9]]


def test_what_is_no_program_or_the_same_is_no_mutant() -> None:
    """It would be found, or survive, whatever the tests are."""
    source = "f(**a)\nb = 1\n"
    assert not is_another("f(* *a)\nb = 1\n", source)
    assert not is_another("f(**a)\nb = (1)  # the same\n", source)
    assert is_another("f(**a)\nb = 2\n", source)
