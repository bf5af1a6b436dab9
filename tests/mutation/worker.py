"""
Tries mutants in a copy of the project, one after the other: JSON lines in, JSON lines out.

What all tests import is there before; each mutant has a process of its own, which forks off and runs the tests.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

#: Seconds that a mutant has for each test besides what all of them take at most.
PER_TEST = 1.0


def outcome(path: str, code: str, tests: list[str], seconds: float) -> str:
    """
    What the tests say of a mutant.

    Args:
        path: The file that it is of.
        code: The mutated source.
        tests: The tests' ids.
        seconds: How long they may take.

    Returns:
        ``killed``, ``survived`` or ``timeout``.
    """
    target = Path(path)
    original = target.read_text(encoding="utf-8")
    target.write_text(code, encoding="utf-8")
    try:
        child = os.fork()
        if child == 0:
            _run(tests)
        return _result(child, time.monotonic() + seconds)
    finally:
        target.write_text(original, encoding="utf-8")


def _run(tests: list[str]) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    code = 2
    try:
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", *tests])
    finally:
        os._exit(int(code))


def _result(child: int, deadline: float) -> str:
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timeout"
        time.sleep(0.01)


def _load() -> None:
    # Libraries only: a module of poolscope that was imported here would not be the mutated one.
    import hypothesis  # noqa: F401
    import psycopg  # noqa: F401
    import sqlalchemy  # noqa: F401

    assert not [name for name in sys.modules if name.partition(".")[0] == "poolscope"]


def main() -> None:
    """Answer until standard input ends."""
    _load()
    for line in sys.stdin:
        given = json.loads(line)
        seconds = given["seconds"] + PER_TEST * len(given["tests"])
        print(json.dumps({"outcome": outcome(given["path"], given["code"], given["tests"], seconds)}), flush=True)


if __name__ == "__main__":
    main()
