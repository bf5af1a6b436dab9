"""
The unit and contract tests on every Python of this machine and on the oldest and newest version of each library.

Not every pair: each Python with the newest of everything; the oldest Python with the oldest of everything; and each
library's other versions alone, beside the newest of the rest. Environments are kept (see `tools/venvs.py`).

Usage:
    python tools/matrix.py             all cells
    python tools/matrix.py --quick     two: all oldest, all newest
    python tools/matrix.py --oldest    one: all oldest
    python tools/matrix.py --part SEED one of the others over a quarter of the test files, both drawn by the seed; with
                                       --oldest that one, too
    python tools/matrix.py --latest    newest is what is released by now; else by the moment in `tools/venvs.py`
    python tools/matrix.py --list      only name the cells
    python tools/matrix.py --only WORD the cells whose name contains the word; -k, -x and others after -- go to pytest
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import random
import shlex
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.venvs import AS_OF, MOMENT, ROOT, Interpreter, environment, interpreters

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYERS = ("tests/unit", "tests/contract")
# The tools and their tests run in .venv only, as do the tests that read files and answer the same everywhere.
LEFT_OUT = (
    "*/test_tools_*",
    "*/test_support_*",
    "*/test_vocabulary.py",
    "*/test_sizes.py",
    "*/test_core_names_no_library.py",
)
#: What free-threaded builds run.
FREE_THREADED = ("tests/unit/test_core_", "tests/contract/test_exactness.py", "tests/contract/test_any_order.py")
#: The part of the test files that `--part` draws.
PART = 1 / 4
PROJECT = "-e.[test,cli]"
# No drivers: most have no wheels there, and turn the lock on again where they have.
FREE_THREADED_PROJECT = (
    *("-e.[sdk,cli]", "aiosqlite", "greenlet", "hypothesis", "jinja2", "peewee", "psutil", "pytest<9.2"),
    *("pytest-timeout", "pytest-xdist", "sqlalchemy[asyncio]"),
)
# It does nothing beside the newest SQLAlchemy, so only here is it seen whether we get along.
PEER = "opentelemetry-instrumentation-sqlalchemy"
OLDEST_OTEL = (
    "opentelemetry-api==1.28.0",
    "opentelemetry-sdk==1.28.0",
    "opentelemetry-instrumentation==0.49b0",
    "opentelemetry-semantic-conventions==0.49b0",
)
OLDEST_POOLS = (
    "aiomysql==0.2.0",
    "aiopg==1.3.5",
    "asyncpg==0.29.0",
    "dbutils==3.0.0",
    "django==4.2",
    "mysql-connector-python==8.1.0",
    "oracledb==2.0.0",
    "peewee==4.5.0",
    "psycopg[binary]==3.2.1",
    "psycopg-pool==3.2.0",
    "psycopg2-binary==2.9.6",
)
# Beside the newest, which every Python gets: the oldest supported version, and the newest of each older series.
OLDER = {
    "SQLAlchemy 1.4, oldest": ("sqlalchemy[asyncio]==1.4.24",),
    "SQLAlchemy 1.4": ("sqlalchemy[asyncio]>=1.4,<2", PEER),
    "SQLAlchemy 2.0": ("sqlalchemy[asyncio]>=2.0,<2.1", PEER),
    "pool libraries, oldest": OLDEST_POOLS,
    "OpenTelemetry, oldest": OLDEST_OTEL,
    # mysql-connector has its asyncio pool from 9.4 on.
    "wrapt, oldest": ("wrapt==1.14.0", "mysql-connector-python==9.4.0"),
}
ALL_OLDEST = ("sqlalchemy[asyncio]==1.4.24", *OLDEST_OTEL, f"{PEER}==0.49b0", "wrapt==1.14.0", *OLDEST_POOLS)
SHOWN = ("sqlalchemy", "opentelemetry-sdk", "wrapt")
VERSIONS = f"from importlib.metadata import version; print(*map(version, {SHOWN!r}))"
FAILURE_LINES = 200


class Cell(NamedTuple):
    """
    One combination.

    Args:
        name: What is special about it.
        python: The interpreter.
        pins: Requirements beside the project's own.
        files: The test files to run, from the root of the checkout; all of them when empty.
    """

    name: str
    python: Interpreter
    pins: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """
    What came of a cell.

    Args:
        versions: Those of `SHOWN`.
        result: pytest's closing line, or why there is none.
        passed: Whether every test did.
        seconds: How long it took, the environment included.
    """

    versions: tuple[str, ...]
    result: str
    passed: bool
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` when left out.

    Returns:
        1 when a cell failed, or there is none; else 0.
    """
    options = _parse(argv)
    # Packages are of this moment, so that it is the one to note, and not of whenever an environment was made.
    began = datetime.now(timezone.utc).strftime(MOMENT)
    chosen = _choose(options, interpreters())
    if options.list:
        print("\n".join(cell.name for cell in chosen))
        return 0
    as_of = began if options.latest else AS_OF
    outcomes = {cell: _run(cell, options.pytest, as_of) for cell in chosen}
    _print_table(outcomes)
    if not outcomes or not all(outcome.passed for outcome in outcomes.values()):
        return 1
    if options.latest:
        print(_to_note(options, began))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--quick", action="store_true", help="all oldest and all newest alone")
    ends.add_argument("--oldest", action="store_true", help="all oldest alone")
    parser.add_argument("--part", metavar="SEED", help="another cell over a quarter of the files, drawn by this text")
    parser.add_argument("--latest", action="store_true", help=f"newest means released by now, not by {AS_OF}")
    parser.add_argument("--list", action="store_true", help="only name the cells")
    parser.add_argument("--only", default="", metavar="WORD", help="cells whose name contains this")
    parser.add_argument("pytest", nargs="*", help="more arguments for pytest, after --")
    options = parser.parse_args(argv)
    if options.part is not None and options.only:
        parser.error("--part draws a cell, --only names some: one or the other")
    return options


def _choose(options: argparse.Namespace, pythons: list[Interpreter]) -> list[Cell]:
    if options.quick or options.oldest or options.part is not None:
        ends = cells(pythons, quick=True)
        chosen = ends if options.quick else ends[:1] if options.oldest else []
    else:
        chosen = [*cells(pythons), *free_threaded_cells(interpreters(free_threaded=True))]
    chosen = [cell for cell in chosen if options.only.lower() in cell.name.lower()]
    if options.part is None or not pythons:
        return chosen
    files = test_files()
    drawn = draw(options.part, pythons, files)
    if not options.list:
        again = shlex.quote(f"--part {shlex.quote(options.part)}")
        print(
            f"drawn by the seed {options.part}: {drawn.name}, {len(drawn.files)} of {len(files)} test files;", end=" "
        )
        print(f"again: make matrix ARGS={again}", flush=True)
    return [*chosen, drawn]


def _to_note(options: argparse.Namespace, began: str) -> str:
    given = {
        "--quick": options.quick,
        "--oldest": options.oldest,
        "--part": options.part is not None,
        "--only": options.only,
        "arguments for pytest": options.pytest,
    }
    narrowed = [name for name, value in given.items() if value]
    if narrowed:
        return f"AS_OF in tools/venvs.py stays as it is: not everything was run ({', '.join(narrowed)})"
    return f'every cell passed; the line for tools/venvs.py:\nAS_OF = "{began}"'


def cells(pythons: list[Interpreter], *, quick: bool = False) -> list[Cell]:
    """
    The combinations to run.

    Args:
        pythons: What the machine has, oldest first.
        quick: Only the two ends.

    Returns:
        The cells; none without a Python.
    """
    if not pythons:
        return []
    newest = [Cell(f"Python {python.minor}, all newest", python) for python in pythons]
    oldest = Cell(f"Python {pythons[0].minor}, all oldest", pythons[0], ALL_OLDEST)
    if quick:
        return [oldest, newest[-1]]
    # One Python for the rest: the second oldest, which the newest SQLAlchemy still supports.
    middle = pythons[min(1, len(pythons) - 1)]
    return [oldest, *(Cell(f"Python {middle.minor}, {name}", middle, pins) for name, pins in OLDER.items()), *newest]


def free_threaded_cells(pythons: list[Interpreter]) -> list[Cell]:
    """
    What runs on builds without the global interpreter lock, as far as the machine has any: the core, and the pools on
    SQLite. Few drivers have wheels for them, and most that are imported turn the lock on again.

    Args:
        pythons: These builds.
    """
    files = tuple(file for file in test_files() if file.startswith(FREE_THREADED))
    return [Cell(f"Python {python.minor}, free-threaded", python, files=files) for python in pythons]


def test_files() -> list[str]:
    """The test files that a cell runs, from the root of the checkout."""
    found = (path.relative_to(ROOT).as_posix() for layer in LAYERS for path in (ROOT / layer).rglob("test_*.py"))
    return sorted(file for file in found if not any(fnmatch.fnmatch(file, pattern) for pattern in LEFT_OUT))


def draw(seed: str, pythons: list[Interpreter], files: Sequence[str]) -> Cell:
    """
    A cell that is neither of the two ends, and a quarter of the test files; the same for the same seed.

    Args:
        seed: Any text.
        pythons: What the machine has, oldest first; at least one.
        files: What to draw the files from.

    Returns:
        The cell, with the files that were drawn.
    """
    chance = random.Random(seed)
    ends = cells(pythons, quick=True)
    cell = chance.choice([cell for cell in cells(pythons) if cell not in ends])
    drawn = sorted(chance.sample(files, math.ceil(len(files) * PART)))
    return cell._replace(name=f"{cell.name}, a part", files=tuple(drawn))


def _project(cell: Cell) -> tuple[str, ...]:
    return FREE_THREADED_PROJECT if cell.python.free_threaded else (PROJECT,)


def _run(cell: Cell, arguments: list[str], as_of: str) -> Outcome:
    print(f"{cell.name} ...", flush=True)
    start = time.monotonic()
    try:
        python = environment(cell.python.path, [*_project(cell), *cell.pins], as_of=as_of)
    except subprocess.CalledProcessError as error:
        return Outcome((), f"no environment: {error}", passed=False, seconds=time.monotonic() - start)
    versions = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.split()
    layers = [layer for layer in LAYERS if (ROOT / layer).is_dir()]
    options = ["-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    options += [*(f"--ignore-glob={pattern}" for pattern in LEFT_OUT), *arguments]
    command = [python, "-m", "pytest", *(cell.files or layers), *options]
    tests = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = (tests.stdout + tests.stderr).strip().splitlines() or ["no output"]
    if tests.returncode:
        told = [line for line in lines if not line.startswith("SKIPPED ")]
        print("\n".join(told[-FAILURE_LINES:]), flush=True)
    print(f"  {lines[-1]}", flush=True)
    return Outcome(tuple(versions), lines[-1], tests.returncode == 0, time.monotonic() - start)


def _print_table(outcomes: dict[Cell, Outcome]) -> None:
    table = Table(box=box.SIMPLE_HEAD, title="The matrix", title_justify="left")
    for column in ("cell", *SHOWN, "result", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    for cell, outcome in outcomes.items():
        versions = outcome.versions or ("-",) * len(SHOWN)
        style = None if outcome.passed else "bold red"
        table.add_row(cell.name, *versions, outcome.result.strip("= "), f"{outcome.seconds:.0f}", style=style)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    sys.exit(main())
