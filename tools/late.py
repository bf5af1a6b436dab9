"""
The unit and contract tests with threads that are late on purpose, in every way of ``tests/support/late.py``.

Usage:
    python tools/late.py                one run of pytest for each way
    python tools/late.py --way wakes    one way
    python tools/late.py --part SEED    one way over a part of the files, both drawn by the seed: what CI runs
    python tools/late.py --list         only name the ways

What stands after ``--`` goes to pytest as it is.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.late import WAYS
from tools.matrix import LAYERS
from tools.venvs import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How many files of tests a part has, and how often each of its two processes is late: for 80 s, as CI ends in minutes.
PART: Final = 8
MOST: Final = 400


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` when left out.

    Returns:
        0 when every test passed in every way, else 1.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--way", choices=sorted(WAYS), help="this way alone")
    parser.add_argument("--part", metavar="SEED", help="one way over a part of the files, drawn by this text")
    parser.add_argument("--list", action="store_true", help="only name the ways")
    parser.add_argument("pytest", nargs="*", metavar="PYTEST", help="more arguments for pytest, after --")
    options = parser.parse_args(argv)
    if options.list:
        print("\n".join(WAYS))
        return 0
    ways = [options.way] if options.way else list(WAYS)
    files = test_files()
    more = options.pytest
    if options.part is not None:
        more = ["--late-most", str(MOST), *more]
        ways, files = draw(options.part, ways, files)
        print(f"drawn by the seed {options.part}: {ways[0]}, {len(files)} files; again: make late", end=" ")
        print(f"ARGS='--part {options.part}'", flush=True)
    failed = [way for way in ways if not _passes(way, files, more)]
    print(f"failed when late by: {', '.join(failed)}" if failed else f"all passed when late by: {', '.join(ways)}")
    return 1 if failed else 0


def test_files() -> list[str]:
    """The files of tests that run under late threads, from the root of the checkout."""
    return sorted(str(path.relative_to(ROOT)) for layer in LAYERS for path in (ROOT / layer).rglob("test_*.py"))


def draw(seed: str, ways: Sequence[str], files: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    One way and a part of the files, the same for the same seed.

    Args:
        seed: Any text.
        ways: What to draw the way from.
        files: What to draw the files from.

    Returns:
        The way and the files, each a list.
    """
    chance = random.Random(seed)
    return [chance.choice(ways)], sorted(chance.sample(files, min(PART, len(files))))


def _passes(way: str, files: Sequence[str], more: Sequence[str]) -> bool:
    print(f"=== late: {way}", flush=True)
    options = ["-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider", "-p", "tests.support.late"]
    command = [sys.executable, "-m", "pytest", *options, "--late", way, *more, *files]
    return subprocess.run(command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
