"""
The pool libraries' own tests, with poolscope's hooks and without: the same passes, skips and failures, test by test.

Usage:
    python tests/transparency/run.py              every suite
    python tests/transparency/run.py --quick      SQLAlchemy's newest of each line, on SQLite, and asyncpg
    python tests/transparency/run.py --part SEED  of these asyncpg and one SQLAlchemy, drawn by the seed
    python tests/transparency/run.py --only WORD  suites whose title contains it, such as "sqlalchemy 2.1" or postgresql
    python tests/transparency/run.py --list       only name them
    python tests/transparency/run.py --json       the result as JSON instead of a table
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from poolscope.adapters.registry import ADAPTERS
from poolscope.semconv import HOLD_SPAN
from tests.transparency.outcomes import ERROR, FAILED, PASSED, SKIPPED, XFAILED, tally
from tests.transparency.runs import Runner
from tests.transparency.server import server
from tests.transparency.suites import POSTGRESQL, SUITES, draw
from tests.transparency.verdicts import AT_A_TIME, judge_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.transparency.suites import Suite
    from tests.transparency.verdicts import Verdict


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` when left out.

    Returns:
        0 when the hooks change nothing and were there to do so; else 1.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="SQLAlchemy's newest of each line on SQLite, and asyncpg")
    parser.add_argument("--part", metavar="SEED", help="of these asyncpg and one SQLAlchemy, drawn by this text")
    parser.add_argument("--only", default="", metavar="WORD", help="suites whose title contains this")
    parser.add_argument("--list", action="store_true", help="only name the suites")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(argv)
    if options.part is not None and (options.quick or options.only):
        parser.error("--part draws the suites: neither --quick nor --only goes with it")
    chosen = [suite for suite in SUITES if options.only.lower() in suite.title and (suite.quick or not options.quick)]
    if options.part is not None:
        chosen = draw(options.part)
        # Beside the result, which may be JSON.
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(_drawn(options.part, chosen))
    runnable = [suite for suite in chosen if suite.adapter in ADAPTERS]
    waiting = [suite for suite in chosen if suite not in runnable]
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if options.list or not runnable:
        console.print("\n".join(suite.title for suite in chosen) or "no suite is called so; see --list")
        return 0 if options.list else 1
    verdicts = _judge(runnable)
    if options.json:
        console.print(json.dumps([verdict.as_json() for verdict in verdicts], indent=2))
    else:
        _show(verdicts, waiting)
    return 0 if all(verdict.transparent for verdict in verdicts) else 1


def _drawn(seed: str, suites: list[Suite]) -> str:
    again = shlex.quote(f"--part {shlex.quote(seed)}")
    named = []
    for suite in suites:
        long = " and ".join(test.rpartition("::")[2] for group in suite.long for test in group)
        named.append(f"{suite.title}{f', of its long tests {long}' if long else ''}")
    return f"drawn by the seed {seed}: {'; '.join(named)}; again: make transparency ARGS={again}"


def _judge(suites: list[Suite]) -> list[Verdict]:
    errors = Console(stderr=True, highlight=False)
    errors.print(f"{len(suites)} suites, each without and with the hooks, {AT_A_TIME} processes at a time")

    def done(verdict: Verdict) -> None:
        seconds = verdict.without.seconds + verdict.with_hooks.seconds
        errors.print(f"{verdict.suite.title}: {_word(verdict)} ({seconds:.0f} s of tests)", markup=False)

    with contextlib.ExitStack() as stack:
        needed = any(suite.database == POSTGRESQL for suite in suites)
        return judge_all(Runner(stack.enter_context(server()) if needed else None), suites, done)


def _word(verdict: Verdict) -> str:
    if verdict.problems:
        return "no comparison"
    return f"{len(verdict.differences)} differences" if verdict.differences else "the same"


def _show(verdicts: list[Verdict], waiting: list[Suite]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    table = Table(box=box.SIMPLE_HEAD, title="without / with the hooks", title_justify="left")
    for heading in ("suite", "version", "database"):
        table.add_column(heading, no_wrap=True)
    for heading in ("tests", "passed", "skipped", "failed", "leases", "hold spans", "seconds", "differences"):
        table.add_column(heading, justify="right", no_wrap=True)
    for verdict in verdicts:
        table.add_row(*_cells(verdict))
    console.print(table)
    for verdict in verdicts:
        for kind, lines in (
            ("PROBLEM", verdict.problems),
            ("done again", verdict.again),
            ("DIFFERENT", verdict.differences),
            ("unstable by itself (shown by repetition)", verdict.unstable),
        ):
            for line in lines:
                console.print(f"{kind}: {verdict.suite.title}: {line}", markup=False, soft_wrap=True)
    for suite in waiting:
        console.print(f"not run: {suite.title}: poolscope has no adapter {suite.adapter!r} yet", markup=False)


def _cells(verdict: Verdict) -> list[str]:
    runs = verdict.without, verdict.with_hooks
    counts = [tally(run.outcomes) for run in runs]
    seen = verdict.with_hooks.evidence

    def both(*kinds: str) -> str:
        return " / ".join(str(sum(count[kind] for kind in kinds)) for count in counts)

    return [
        verdict.suite.source.project,
        verdict.suite.source.version,
        verdict.suite.database,
        " / ".join(str(len(run.outcomes)) for run in runs),
        both(PASSED),
        both(SKIPPED, XFAILED),
        both(FAILED, ERROR),
        str(seen.get("leases", "-")),
        str(seen.get("spans", {}).get(HOLD_SPAN.prefix, "-")),
        " / ".join(f"{run.seconds:.0f}" for run in runs),
        _word(verdict) if verdict.problems else str(len(verdict.differences)),
    ]


if __name__ == "__main__":
    sys.exit(main())
