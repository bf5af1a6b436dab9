"""
How many defects the unit tests would find: mutants of core and detectors, each tried with the tests that reach it.

A mutant is the source with one small change, such as `<` in place of `<=`. It is killed when a test fails. Those drawn
that survive are listed; `explained.json` says why those that are known may. Every some mutants the source is tried as
it is, which has to survive: a test that fails by chance would count for one that finds something.

Usage:
    python -m tests.mutation.run [--number N] [--seed TEXT] [--only WORD] [--jobs N] [--json]
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.mutation.copies import Worker, copied
from tests.mutation.mutants import Mutant, Mutators
from tests.mutation.reach import Reach, TestsFailError, files_of_tests
from tests.support.seeds import seed_of_run
from tools.venvs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MUTATED: Final = ("src/poolscope/core", "src/poolscope/detectors")
EXPLAINED: Final = Path(__file__).resolve().parent / "explained.json"
#: The least share of mutants that tests have to kill.
GOAL: Final = 0.85
#: After so many mutants the source is tried as it is.
CONTROL_EVERY: Final = 20
#: Standard deviations on both sides that hold 95 of 100 results.
DEVIATIONS: Final = 1.96


@dataclass(frozen=True)
class Result:
    """
    What came of a mutant.

    Args:
        mutant: The mutant.
        outcome: ``killed``, ``survived``, ``timeout``, or ``no test`` where none reaches its line.
        by: The test that kills it.
        why: The reason why it may survive, where that is known.
    """

    mutant: Mutant
    outcome: str
    by: str = ""
    why: str = ""

    @property
    def alive(self) -> bool:
        """Whether no test noticed it."""
        return self.outcome in {"survived", "no test"}


def explanation(mutant: Mutant) -> str:
    """Why a mutant may survive; empty where that is not known."""
    for known in json.loads(EXPLAINED.read_text(encoding="utf-8")):
        places = known["path"] in {mutant.path, "*"} and known["text"] == mutant.text
        if places and known["operator"] in {mutant.kind, "*"}:
            return str(known["why"])
    return ""


def measure(
    mutants: Sequence[tuple[Mutant, str]], jobs: int, draw: random.Random, done: Callable[[Result], None]
) -> list[Result]:
    """
    Try mutants.

    Args:
        mutants: The mutants, each with its source.
        jobs: How many at a time.
        draw: What orders the tests.
        done: Called with each result.

    Returns:
        The results in the order of the mutants.

    Raises:
        TestsFailError: Tests fail without a mutant.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="poolscope-mutants-")))
        copies = [copied(folder / f"copy{place}") for place in range(jobs)]
        unchanged = {mutant.path: (copies[0] / mutant.path).read_text(encoding="utf-8") for mutant, _ in mutants}
        reach = Reach(copies[0])
        tests = [reach.tests(mutant, draw) for mutant, _ in mutants]
        free: SimpleQueue[Worker] = SimpleQueue()
        workers = [stack.enter_context(Worker(copy, files_of_tests(copy))) for copy in copies]
        for worker in workers:
            free.put(worker)

        def one(place: int) -> Result:
            mutant, code = mutants[place]
            worker = free.get()
            try:
                if place % CONTROL_EVERY == 0:
                    outcome, by = worker.outcome(mutant.path, unchanged[mutant.path], tests[place])
                    if outcome in {"killed", "timeout"}:
                        raise TestsFailError(f"{outcome} by {by} without a mutant, among the tests of {mutant}")
                outcome, by = worker.outcome(mutant.path, code, tests[place])
            finally:
                free.put(worker)
            result = Result(mutant, outcome, by)
            if result.alive:
                result = Result(mutant, outcome, by, explanation(mutant))
            done(result)
            return result

        with ThreadPoolExecutor(jobs) as executor:
            try:
                return list(executor.map(one, range(len(mutants))))
            except BaseException:
                for worker in workers:
                    worker.end()
                executor.shutdown(wait=False, cancel_futures=True)
                raise


def score(results: Iterable[Result]) -> tuple[float, float, float]:
    """
    The share that is killed of those of which it is not known why they may survive.

    Returns:
        The share, and between which it is with a confidence of 95 % for all mutants (Wilson's interval).
    """
    counted = [one for one in results if not one.why]
    if not counted:
        return 1.0, 0.0, 1.0
    number = len(counted)
    share = sum(not one.alive for one in counted) / number
    square = DEVIATIONS**2 / number
    middle = (share + square / 2) / (1 + square)
    half = DEVIATIONS / (1 + square) * math.sqrt(share * (1 - share) / number + square / (4 * number))
    return share, middle - half, middle + half


@click.command()
@click.option("--number", default=300, show_default=True, help="How many mutants are drawn; 0 for all.")
@click.option("--seed", default=None, help="From what they are drawn; any text  [default: SEED, else .ci/seed]")
@click.option("--only", default="", help="Only files whose path has this in it.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="How many are tried at a time.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of the tables.")
def main(number: int, seed: str | None, only: str, jobs: int, *, as_json: bool) -> None:
    """Print the share of mutants that tests kill; exit with 1 where that is below the goal."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    seed = seed or seed_of_run()
    files = sorted(
        str(path.relative_to(ROOT))
        for folder in MUTATED
        for path in (ROOT / folder).rglob("*.py")
        if only in str(path.relative_to(ROOT))
    )
    if not files:
        raise click.BadParameter(f"no file of {' or '.join(MUTATED)} has {only!r} in its path", param_hint="--only")
    mutators = Mutators()
    every = mutators.every(files)
    draw = random.Random(seed)
    number = min(number or len(every), len(every))
    console.print(f"{number} of {len(every)} mutants, drawn by the seed {seed}; first, which tests reach what")
    drawn = list(itertools.islice(mutators.code(draw.sample(every, len(every))), number))
    columns = (TextColumn("mutants"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console) as progress:
        task = progress.add_task("", total=len(drawn))
        tried: Counter[bool] = Counter()

        def done(result: Result) -> None:
            survives = result.alive and not result.why
            tried[survives] += 1
            progress.update(task, advance=1, description=f"{tried[True]} survive")
            if survives and not as_json:
                place = f"{sum(tried.values())} of {number}"
                progress.console.print(f"{place}, {result.outcome}: {result.mutant}", markup=False)

        try:
            results = measure(drawn, jobs, draw, done)
        except TestsFailError as error:
            raise click.ClickException(str(error)) from error
    share, low, high = score(results)
    if as_json:
        figures = {"seed": seed, "mutants": len(every), "score": share, "low": low, "high": high}
        click.echo(json.dumps({**figures, "results": [_as_json(one) for one in results]}))
    else:
        _show(results)
        click.echo(f"{share:.1%} killed ({low:.1%} to {high:.1%} of all {len(every)} mutants); the goal is {GOAL:.0%}")
    sys.exit(0 if share >= GOAL else 1)


def _as_json(result: Result) -> dict[str, Any]:
    return {**vars(result.mutant), "outcome": result.outcome, "by": result.by, "why": result.why}


def _show(results: Iterable[Result]) -> None:
    words = ("killed", "timeout", "survived", "no test", "explained")
    table = Table("package", "mutants", *words, box=box.SIMPLE_HEAD)
    by_package: dict[str, Counter[str]] = {}
    for one in results:
        package = str(Path(one.mutant.path).parent).removeprefix("src/poolscope/")
        by_package.setdefault(package, Counter())["explained" if one.why else one.outcome] += 1
    for package, counts in sorted(by_package.items()):
        table.add_row(package, str(sum(counts.values())), *(str(counts[word]) for word in words))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
