"""
A part of the tests, many times over, beside processes that load the machine: how often does each fail?

A test that passes because the machine is idle fails here. Every run is a pytest of its own; what a failed one printed
is kept below ``$POOLSCOPE_CACHE`` (else ``~/.cache/poolscope``), folder ``flaky``.

Usage:
    python tools/flaky.py tests/contract/test_cancellation.py             10 times beside one process for each core
    python tools/flaky.py --times 50 --cpu 4 --disk 1 -- tests/unit -k worker -n 2
    python tools/flaky.py --late wakes -- tests/contract                  and threads late on purpose

What stands after ``--`` goes to pytest as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.lab.processes import Child
from tools.venvs import ROOT, cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: What loads the machine: a program for each kind, which runs until it is stopped.
LOADS: Final = {
    "cpu": "while True: pass",
    "memory": "while True:\n    for at in range(0, len(block := bytearray(256 << 20)), 4096): block[at] = 1",
    "disk": (
        "import os, tempfile\n"
        "with tempfile.TemporaryFile() as file:\n"
        "    while True:\n"
        "        file.seek(0); file.write(os.urandom(8 << 20)); file.flush(); os.fsync(file.fileno())"
    ),
}
TIMES: Final = 10
FAILURE: Final = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - (.*))?$", re.MULTILINE)
# pytest's exit codes of a session that came to its end: all passed, some failed.
ALL_PASSED, SOME_FAILED = 0, 1


class Failures(NamedTuple):
    """
    What came of all runs.

    Args:
        runs: How many there were.
        by_test: In how many runs each test failed.
        messages: What the first failure of each said.
        broken: Runs that pytest could not bring to an end, by their numbers, with its exit code.
        kept: The output of each run that did not pass.
    """

    runs: int
    by_test: Counter[str]
    messages: dict[str, str]
    broken: dict[int, int]
    kept: list[Path]

    @property
    def none(self) -> bool:
        """Whether every test passed in every run."""
        return not self.by_test and not self.broken


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` when left out.

    Returns:
        0 when every test passed each time, 1 when one failed, 130 after an interrupt.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--times", type=_positive, default=TIMES, metavar="N", help="runs (default: %(default)s)")
    parser.add_argument("--cpu", type=int, default=os.cpu_count() or 1, metavar="N", help="processes that compute")
    parser.add_argument("--memory", type=int, default=0, metavar="N", help="processes that write to 256 MiB")
    parser.add_argument("--disk", type=int, default=0, metavar="N", help="processes that write to disk")
    parser.add_argument("--late", metavar="WAY", help="threads late on purpose, see tests/support/late.py")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("pytest", nargs="+", metavar="PYTEST", help="the tests, and whatever else pytest takes")
    options = parser.parse_args(argv)
    late = ["-p", "tests.support.late", "--late", options.late] if options.late else []
    loads = {kind: getattr(options, kind) for kind in LOADS}
    try:
        with loaded(loads):
            failures = repeat([*options.pytest, *late], options.times)
    except KeyboardInterrupt:
        print("\nstopped; nothing is left running", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(_as_json(failures), indent=2))
    else:
        _show(failures)
    return 0 if failures.none else 1


@contextlib.contextmanager
def loaded(loads: dict[str, int]) -> Iterator[list[Child]]:
    """
    Load the machine for the time of the block.

    Args:
        loads: How many processes of each kind of `LOADS`.

    Yields:
        The processes.
    """
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Child([sys.executable, "-c", LOADS[kind]]))
            for kind, number in loads.items()
            for _ in range(number)
        ]


def repeat(arguments: Sequence[str], times: int) -> Failures:
    """
    Run pytest again and again.

    Args:
        arguments: Its arguments.
        times: How often.

    Returns:
        What failed.
    """
    folder = cache() / "flaky"
    folder.mkdir(parents=True, exist_ok=True)
    found = Failures(times, Counter(), {}, {}, [])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("runs, 0 of them with failures", total=times)
        for number in range(1, times + 1):
            command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *arguments]
            environment = {**os.environ, "COLUMNS": "400"}  # no message is cut short
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode != ALL_PASSED:
                kept = folder / f"{os.getpid()}-{number}.log"
                kept.write_text(done.stdout + done.stderr)
                found.kept.append(kept)
                _count(found, number, done.returncode, done.stdout)
            progress.update(task, advance=1, description=f"runs, {len(found.kept)} of them with failures")
    return found


def _count(found: Failures, number: int, code: int, output: str) -> None:
    if code != SOME_FAILED:
        found.broken[number] = code
    failed = {match[1]: match[2] or "" for match in FAILURE.finditer(output)}
    found.by_test.update(failed.keys())
    for test, message in failed.items():
        found.messages.setdefault(test, message)


def _as_json(failures: Failures) -> dict[str, object]:
    return {
        "runs": failures.runs,
        "failed": [
            {"test": test, "runs": runs, "message": failures.messages[test]}
            for test, runs in failures.by_test.most_common()
        ],
        "broken": failures.broken,
        "output": [str(path) for path in failures.kept],
    }


def _show(failures: Failures) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if failures.none:
        console.print(f"{failures.runs} runs, every test passed in each")
        return
    table = Table(box=box.SIMPLE_HEAD, title=f"{failures.runs} runs", title_justify="left")
    table.add_column("failed in", justify="right")
    for column in ("test", "the first said"):
        table.add_column(column, overflow="fold")
    for test, runs in failures.by_test.most_common():
        table.add_row(str(runs), test, failures.messages[test])
    console.print(table, markup=False)
    for number, code in failures.broken.items():
        console.print(f"run {number}: pytest ended with {code}", markup=False)
    for path in failures.kept:
        console.print(f"output: {path}", markup=False, soft_wrap=True)


def _positive(value: str) -> int:
    if value.isdigit() and int(value) > 0:
        return int(value)
    raise argparse.ArgumentTypeError(f"{value!r} is not a number of runs from 1 on")


if __name__ == "__main__":
    sys.exit(main())
