"""
How often the cause is right: the confusion matrix of docs/diagnosis.md.

Services with planted causes, drawn at random from a seed, run on a real PostgreSQL until poolscope reports their pool
exhausted; what it says is compared with what was planted.

Usage:
    python -m benchmarks.diagnosis.run [--runs N] [--seed TEXT] [--jobs N] [--only WORD] [--json] [--write]
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.diagnosis.matrix import Matrix, Result
from benchmarks.diagnosis.scenarios import Scenario, draw
from examples.lab.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from examples.lab.postgres import Postgres

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "diagnosis.md"
_BEGIN: Final = "<!-- Made by `make diagnose ARGS=--write`; do not edit. -->\n"
_END: Final = "<!-- end -->\n"
# What runs in one process before it makes room for another: what a scenario leaves behind does not add up.
_BATCH: Final = 10


class WorkerFailedError(Exception):
    """A process that runs scenarios ended without an answer."""


@contextlib.contextmanager
def prepare(server: Postgres, runs: int) -> Iterator[None]:
    """
    The table that scenarios need, for as long as the block runs.

    Args:
        server: The database.
        runs: How many scenarios there are; each has a row.
    """
    with server.connect() as connection:
        connection.execute("create table votes (id int primary key)")
        connection.execute("insert into votes select generate_series(0, %s)", [runs])
        try:
            yield
        finally:
            connection.execute("drop table votes")


def measure(scenarios: Iterable[Scenario], server: Postgres, jobs: int, done: Callable[[Result], None]) -> list[Result]:
    """
    Run scenarios, some at a time, each worker in a process of its own.

    Args:
        scenarios: What to run.
        server: The database.
        jobs: How many processes run at once.
        done: Called with each result.

    Raises:
        WorkerFailedError: A process ended without an answer; with what it printed.
    """
    drawn = list(scenarios)
    size = max(1, min(_BATCH, -(-len(drawn) // jobs)))
    batches = [drawn[first : first + size] for first in range(0, len(drawn), size)]
    with ThreadPoolExecutor(jobs) as executor:
        found = executor.map(lambda batch: _run(batch, server, done), batches)
        return [result for results in found for result in results]


def _run(batch: list[Scenario], server: Postgres, done: Callable[[Result], None]) -> list[Result]:
    command = [sys.executable, "-m", "benchmarks.diagnosis.worker", server.dsn]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stderr is not None
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.extend(worker.stderr or ()))
        reader.start()
        for scenario in batch:
            worker.stdin.write(json.dumps(scenario.as_json()) + "\n")
        worker.stdin.close()
        results = []
        for line in worker.stdout:
            results.append(Result.from_json(json.loads(line)))
            done(results[-1])
        reader.join()
    if len(results) < len(batch):
        raise WorkerFailedError("".join(errors[-30:]))
    return results


def write(matrix: Matrix, seed: str, runs: int) -> None:
    """Put the table into its page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    after = rest.split(_END)[1]
    lines = "\n".join(f"- {line}" for line in matrix.lines())
    made = f"\n{runs} runs, seed `{seed}`:\n\n{lines}\n\n{matrix.markdown()}\n\n"
    PAGE.write_text(before + _BEGIN + made + _END + after, encoding="utf-8")


@click.command()
@click.option("--runs", default=300, show_default=True, help="How many scenarios.")
@click.option("--seed", default="2026", show_default=True, help="From what they are drawn; any text.")
@click.option("--jobs", default=3, show_default=True, help="How many run at once.")
@click.option("--only", default="", help="Only scenarios in which this cause is planted.")
@click.option("--json", "as_json", is_flag=True, help="A JSON line for each run instead of the table.")
@click.option("--write", "writes", is_flag=True, help="Put the table into docs/diagnosis.md.")
def main(runs: int, seed: str, jobs: int, only: str, *, as_json: bool, writes: bool) -> None:
    """Print how often the cause is right; exit with 1 where the goals are missed."""
    drawn = (draw(seed, number) for number in range(runs))
    scenarios = [one for one in drawn if not only or any(only in plant.cause for plant in one.plants)]
    console = Console(stderr=True)
    with postgres(variable="POOLSCOPE_TEST_DSN", max_connections=300) as server, Progress(console=console) as progress:
        task = progress.add_task("scenarios", total=len(scenarios))

        def done(result: Result) -> None:
            progress.advance(task)
            if as_json:
                print(json.dumps(_as_json(result)), flush=True)
            elif (result.is_clear or not result.scenario.plants) and not result.is_right:
                progress.console.print(_miss(result), highlight=False)

        try:
            with prepare(server, runs):
                results = measure(scenarios, server, jobs, done)
        except WorkerFailedError as error:
            raise click.ClickException(f"a worker failed:\n{error}") from error
    matrix = Matrix(results)
    if not as_json:
        out = Console()
        out.print(matrix.table())
        for line in matrix.lines():
            out.print(line, highlight=False)
    if writes:
        write(matrix, seed, runs)
    sys.exit(0 if matrix.holds else 1)


def _as_json(result: Result) -> dict[str, object]:
    return {
        **result.scenario.as_json(),
        "said": result.cause,
        "share": result.share,
        "right": result.is_right,
        "summary": result.summary,
    }


def _miss(result: Result) -> str:
    scenario = result.scenario
    planted = ", ".join(f"{plant.cause} {plant.connections}" for plant in scenario.plants) or "nothing"
    return (
        f"{scenario.number}: {scenario.driver}, {scenario.size} connections, {planted}, load {scenario.needed:.1f}: "
        f"{result.cause or 'nothing'} ({result.share:.0%}) {result.summary}"
    )


if __name__ == "__main__":
    main()
