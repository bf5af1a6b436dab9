"""
How many defects the unit tests would find: mutants of core and detectors, each tried with the tests that reach it.

A mutant is the source with one small change, such as `<` in place of `<=`. It is killed when a test fails. Those drawn
that survive are listed; `explained.json` says why those that are known may.

Usage:
    python -m tests.mutation.run [--number N] [--seed TEXT] [--only WORD] [--jobs N] [--json]
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import click
import coverage
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.support.seeds import seed_of_run
from tools.venvs import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).resolve().parent
MUTATED: Final = ("src/poolscope/core", "src/poolscope/detectors")
TESTS: Final = "tests/unit"
EXPLAINED: Final = HERE / "explained.json"
#: The least share of mutants that tests have to kill.
GOAL: Final = 0.85
#: Of a line that hundreds of tests reach, so many are tried.
MOST_TESTS: Final = 150
#: Seconds for a mutant besides those of each test.
SECONDS: Final = 30.0


@dataclass(frozen=True)
class Mutant:
    """
    One small change of a file.

    Args:
        path: The file, from the root.
        operator: What makes it.
        number: Which of those that the operator makes in the file.
        line: Where it begins, from 1.
        text: That line.
    """

    path: str
    operator: str
    number: int
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.operator.partition('/')[2]}: {self.text}"


@dataclass(frozen=True)
class Result:
    """
    What came of a mutant.

    Args:
        mutant: The mutant.
        outcome: ``killed``, ``survived``, ``timeout``, or ``no test`` where none reaches its line.
        why: The reason why it may survive, where that is known.
    """

    mutant: Mutant
    outcome: str
    why: str = ""


def left_out(source: str) -> set[int]:
    """
    Lines whose change no test can notice: annotations, which Python does not evaluate here, and imports for checkers.

    Args:
        source: The file's text.

    Returns:
        Their numbers, from 1. A line with an annotation is left out as a whole where it holds nothing but the signature
        of a function or a field's type.
    """
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        spans: list[ast.AST] = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            given = node.args
            spans = [
                one.annotation
                for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
                if one is not None and one.annotation is not None
            ]
            spans += [node.returns] if node.returns is not None else []
        elif isinstance(node, ast.AnnAssign) and node.value is None:
            spans = [node.annotation]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            spans = [node]
        for span in spans:
            lines.update(range(span.lineno, (span.end_lineno or span.lineno) + 1))  # type: ignore[attr-defined]
    return lines


def annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """The spans of annotations beside a value, as lines from 1 and columns from 0."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign):
            one = node.annotation
            yield (one.lineno, one.col_offset), (one.end_lineno or one.lineno, one.end_col_offset or 0)


class Mutators:
    """The environment that makes mutants."""

    def __init__(self) -> None:
        self._python = environment(f"{sys.version_info[0]}.{sys.version_info[1]}", ["cosmic-ray>=8.7,<9"])

    def list(self, paths: Iterable[str]) -> list[Mutant]:
        """Every mutant that a test could notice."""
        found = []
        sources = {path: (ROOT / path).read_text(encoding="utf-8") for path in paths}
        dull = {path: left_out(source) for path, source in sources.items()}
        typed = {path: list(annotations(source)) for path, source in sources.items()}
        for line in self._ask("list", sources):
            given = json.loads(line)
            path, start = given["path"], tuple(given["start"])
            if start[0] in dull[path] or any(one <= start < end for one, end in typed[path]):
                continue
            text = sources[path].splitlines()[start[0] - 1].strip()
            found.append(Mutant(path, given["operator"], given["number"], start[0], text))
        return found

    def code(self, mutants: Iterable[Mutant]) -> list[str]:
        """The mutated source of each."""
        lines = [json.dumps({"path": one.path, "operator": one.operator, "number": one.number}) for one in mutants]
        return [json.loads(line)["code"] for line in self._ask("make", lines)]

    def _ask(self, what: str, lines: Iterable[str]) -> Sequence[str]:
        command = [str(self._python), str(HERE / "mutators.py"), what]
        asked = subprocess.run(command, cwd=ROOT, input="\n".join(lines), stdout=subprocess.PIPE, text=True, check=True)
        return asked.stdout.splitlines()


class Reach:
    """
    Which tests reach which line.

    Args:
        folder: Where the measurement is kept.
    """

    def __init__(self, folder: Path) -> None:
        data = folder / "coverage"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            TESTS,
            "--cov",
            "--cov-context=test",
            "--cov-report=",
        ]
        environ = {**os.environ, "COVERAGE_FILE": str(data)}
        run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        if run.returncode:
            raise click.ClickException(f"the tests fail without any mutant:\n{run.stdout[-3000:]}")
        self._data = coverage.CoverageData(str(data))
        self._data.read()
        self._contexts: dict[str, dict[int, list[str]]] = {}

    def tests(self, mutant: Mutant, draw: random.Random) -> list[str]:
        """The ids of tests that reach a mutant's line: those of the module's own file first."""
        by_line = self._of(mutant.path)
        reached = sorted({context.rpartition("|")[0] for context in by_line.get(mutant.line, ()) if "|" in context})
        own = [test for test in reached if Path(mutant.path).stem in test.partition("::")[0]]
        others = [test for test in reached if test not in own]
        draw.shuffle(others)
        return [*own, *others][:MOST_TESTS]

    def _of(self, path: str) -> dict[int, list[str]]:
        if path not in self._contexts:
            self._contexts[path] = self._data.contexts_by_lineno(str(ROOT / path))
        return self._contexts[path]


class Workers:
    """
    Copies of the project in which mutants are tried.

    Args:
        folder: Where the copies are made.
        number: How many.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._all = []
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        for place in range(number):
            copy = folder / f"copy{place}"
            for name in listed.stdout.splitlines():
                if (ROOT / name).is_file():
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / name, copy / name)
            environ = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
            worker = subprocess.Popen(
                [sys.executable, str(copy / "tests" / "mutation" / "worker.py")],
                cwd=copy, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
            self._all.append(worker)
            self._free.put(worker)

    def outcome(self, mutant: Mutant, code: str, tests: list[str]) -> str:
        """What the tests say of a mutant."""
        if not tests:
            return "no test"
        worker = self._free.get()
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps({"path": mutant.path, "code": code, "tests": tests, "seconds": SECONDS}) + "\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
        self._free.put(worker)
        if not answer:
            raise click.ClickException(f"the process that tries mutants ended at {mutant}")
        return str(json.loads(answer)["outcome"])

    def stop(self) -> None:
        """End them."""
        for worker in self._all:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, 9)
            worker.communicate()


def explanation(mutant: Mutant) -> str:
    """Why a mutant may survive; empty where that is not known."""
    for known in json.loads(EXPLAINED.read_text(encoding="utf-8")):
        if (known["path"], known["text"]) == (mutant.path, mutant.text) and known["operator"] in {
            mutant.operator.partition("/")[2],
            "*",
        }:
            return str(known["why"])
    return ""


def measure(
    mutants: Sequence[Mutant], folder: Path, jobs: int, draw: random.Random, done: Callable[[Result], None]
) -> list[Result]:
    """Try mutants, some at a time."""
    reach = Reach(folder)
    tests = [reach.tests(mutant, draw) for mutant in mutants]
    codes = Mutators().code(mutants)
    workers = Workers(folder, jobs)

    def one(mutant: Mutant, code: str, chosen: list[str]) -> Result:
        outcome = workers.outcome(mutant, code, chosen)
        alive = outcome in {"survived", "no test"}
        result = Result(mutant, outcome, explanation(mutant) if alive else "")
        done(result)
        return result

    try:
        with ThreadPoolExecutor(jobs) as executor:
            return list(executor.map(one, mutants, codes, tests))
    finally:
        workers.stop()


def score(results: Iterable[Result]) -> float:
    """The share that was killed of those of which it is not known why they may survive."""
    counted = [one for one in results if not one.why]
    killed = sum(one.outcome in {"killed", "timeout"} for one in counted)
    return killed / len(counted) if counted else 1.0


@click.command()
@click.option("--number", default=300, show_default=True, help="How many mutants are drawn; 0 for all.")
@click.option("--seed", default=None, help="From what they are drawn; any text  [default: the commit]")
@click.option("--only", default="", help="Only files whose path has this in it.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="How many are tried at a time.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of the tables.")
def main(number: int, seed: str | None, only: str, jobs: int, *, as_json: bool) -> None:
    """Print the share of mutants that tests kill; exit with 1 where that is below the goal."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    seed = seed or seed_of_run()
    files = sorted(
        str(path.relative_to(ROOT)) for folder in MUTATED for path in (ROOT / folder).rglob("*.py") if only in str(path)
    )
    if not files:
        raise click.BadParameter(f"no file of {' or '.join(MUTATED)} has {only!r} in its path", param_hint="--only")
    every = Mutators().list(files)
    draw = random.Random(seed)
    drawn = draw.sample(every, min(number or len(every), len(every)))
    console.print(f"{len(drawn)} of {len(every)} mutants, drawn by the seed {seed}")
    with tempfile.TemporaryDirectory(prefix="poolscope-mutants-") as folder, Progress(console=console) as progress:
        task = progress.add_task("mutants", total=len(drawn))

        def done(result: Result) -> None:
            progress.advance(task)
            if result.outcome in {"survived", "no test"} and not result.why and not as_json:
                progress.console.print(f"{result.outcome}: {result.mutant}", markup=False)

        results = measure(drawn, Path(folder), jobs, draw, done)
    reached = score(results)
    if as_json:
        click.echo(json.dumps({"seed": seed, "score": reached, "results": [_as_json(one) for one in results]}))
    else:
        _show(results, reached)
    sys.exit(0 if reached >= GOAL else 1)


def _as_json(result: Result) -> dict[str, Any]:
    return {**vars(result.mutant), "outcome": result.outcome, "why": result.why}


def _show(results: list[Result], reached: float) -> None:
    table = Table("package", "mutants", "killed", "survived", "no test", "explained", box=box.SIMPLE_HEAD)
    by_package: dict[str, Counter[str]] = {}
    for one in results:
        package = str(Path(one.mutant.path).parent).removeprefix("src/poolscope/")
        outcome = "explained" if one.why else "killed" if one.outcome == "timeout" else one.outcome
        by_package.setdefault(package, Counter())[outcome] += 1
    for package, counts in sorted(by_package.items()):
        words = ("killed", "survived", "no test", "explained")
        table.add_row(package, str(counts.total()), *(str(counts[word]) for word in words))
    out = Console(highlight=False)
    out.print(table)
    out.print(f"{reached:.1%} killed; the goal is {GOAL:.0%}")


if __name__ == "__main__":
    main()
