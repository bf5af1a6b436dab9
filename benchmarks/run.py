"""
What poolscope costs: the tables that the README quotes.

Every variant is a process of its own (`worker.py`); batches run in turn, so each round compares them within the same
second. Figures are CPU time of the whole process for one operation: median over the rounds, and the spread between the
10th and 90th percentile. A second table has what an acquire and a release cost in each library (`adapters.py`).

Usage:
    python benchmarks/run.py [--rounds N] [--json] [--no-postgres] [--no-adapters]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import adapters  # noqa: E402 - the project's root is no package
from tools.venvs import environment  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: SQLAlchemy's newest that upstream's instrumentation works with.
REQUIREMENTS = (
    "sqlalchemy>=2.0,<2.1",
    "psycopg[binary]>=3.2",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-sqlalchemy",
    "wrapt",
)
VARIANTS = ("uninstrumented", "poolscope", "poolscope, no SDK", "upstream")
SURROUNDINGS = ("outside of a span", "in a span")
COUNTS = {"checkout and checkin": 4_000, "select 1, SQLite": 1_000, "select 1, PostgreSQL": 500}


@dataclass(frozen=True)
class Figure:
    """
    One cell of the table.

    Args:
        row: What was measured.
        surrounding: Whether a recorded span was around it.
        variant: Which instrumentation.
        median: CPU time of one operation, in microseconds.
        low: Its 10th percentile over the rounds.
        high: Its 90th.
        ratio: The median of the rounds' ratios to the uninstrumented.
        overhead: The median of the rounds' differences to the uninstrumented, in microseconds.
    """

    row: str
    surrounding: str
    variant: str
    median: float
    low: float
    high: float
    ratio: float
    overhead: float


class Worker:
    """One variant's process."""

    def __init__(self, python: Path, variant: str, surrounding: str, dsn: str | None) -> None:
        settings = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **({"BENCH_DSN": dsn} if dsn else {})}
        self._process = subprocess.Popen(
            [str(python), str(ROOT / "benchmarks" / "worker.py"), variant, surrounding],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=settings,
        )
        self._answer()

    def run(self, row: str, count: int) -> float:
        """CPU time of one operation in microseconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{row} {count}\n")
        self._process.stdin.flush()
        return float(self._answer().split()[0]) / 1000

    def stop(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            message = f"a benchmark process ended with exit code {self._process.wait()}"
            raise SystemExit(message)
        return line


def measure(python: Path, rounds: int, dsn: str | None) -> Iterator[Figure]:
    """Run all variants in turn, round by round."""
    rows = [row for row in COUNTS if dsn or "PostgreSQL" not in row]
    for surrounding in SURROUNDINGS:
        variants = [variant for variant in VARIANTS if surrounding == SURROUNDINGS[0] or "no SDK" not in variant]
        workers = {variant: Worker(python, variant, surrounding, dsn) for variant in variants}
        for row in rows:
            for worker in workers.values():
                worker.run(row, COUNTS[row])
            taken: dict[str, list[float]] = {variant: [] for variant in variants}
            for number in track(range(rounds), f"{row}, {surrounding}", console=Console(stderr=True), transient=True):
                order = variants if number % 2 else variants[::-1]
                for variant in order:
                    taken[variant].append(workers[variant].run(row, COUNTS[row]))
            yield from _figures(row, surrounding, taken)
        for worker in workers.values():
            worker.stop()


def _figures(row: str, surrounding: str, taken: dict[str, list[float]]) -> Iterator[Figure]:
    bare = taken[VARIANTS[0]]
    for variant, values in taken.items():
        ordered = sorted(values)
        ratio = statistics.median(value / base for value, base in zip(values, bare, strict=True))
        overhead = statistics.median(value - base for value, base in zip(values, bare, strict=True))
        low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
        yield Figure(row, surrounding, variant, statistics.median(values), low, high, ratio, overhead)


def draw(figures: Sequence[Figure], console: Console) -> None:
    """Print the table."""
    table = Table(title="CPU time of one operation", title_justify="left")
    for heading in ("operation", "surrounded by", "variant"):
        table.add_column(heading)
    for heading in ("median", "10 % to 90 %", "x bare", "overhead", "of upstream's"):
        table.add_column(heading, justify="right")
    for figure in figures:
        peer = next(
            other.overhead
            for other in figures
            if (other.row, other.surrounding, other.variant) == (figure.row, figure.surrounding, "upstream")
        )
        usage = f"{figure.overhead / peer:.0%}" if figure.variant.startswith("poolscope") else ""
        table.add_row(
            figure.row,
            figure.surrounding,
            figure.variant,
            f"{figure.median:.2f} us",
            f"{figure.low:.2f} to {figure.high:.2f}",
            f"{figure.ratio:.2f}",
            f"{figure.overhead:+.2f} us" if figure.variant != VARIANTS[0] else "",
            usage,
            end_section=figure.variant == VARIANTS[-1],
        )
    console.print(table)


@click.command()
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(3, 1000), help="Rounds of all variants.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--postgres/--no-postgres", default=True, help="Measure on the embedded PostgreSQL too.")
@click.option("--adapters/--no-adapters", "libraries", default=True, help="Measure each pool library too.")
def main(*, rounds: int, as_json: bool, postgres: bool, libraries: bool) -> None:
    """Measure what a checkout costs: bare, with poolscope, with the upstream SQLAlchemy instrumentation."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = environment(version, REQUIREMENTS)
    with ExitStack() as stack:
        dsn = None
        if postgres:
            from examples.lab.postgres import postgres as server  # noqa: PLC0415 - only where it is wanted

            dsn = str(stack.enter_context(server(variable="BENCH_DSN")).url("psycopg"))
        figures = list(measure(Path(python), rounds, dsn))
    rows = adapters.run(rounds) if libraries and postgres else []
    if as_json:
        told = {"variants": [asdict(figure) for figure in figures], "adapters": [row._asdict() for row in rows]}
        click.echo(json.dumps(told, indent=2))
        return
    draw(figures, Console(width=140))
    if rows:
        adapters.draw(rows, Console(width=140))


if __name__ == "__main__":
    main()
