"""
Tries mutants in a copy of the project, one after the other: JSON lines in, JSON lines out.

What tests import of other projects is there before; each mutant has a process of its own, which is forked from here and
runs the tests.

Usage:
    python worker.py TESTS      in the folder of the copy
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

#: Bytes of memory that the process of a mutant may map.
MEMORY = 4 * 2**30
#: The same for every run: without plugins that it has no use for, and one failure is enough.
OPTIONS = (
    "-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", "-p", "no:faulthandler",
    "-W", "ignore::pytest.PytestAssertRewriteWarning", "--hypothesis-seed=0",
)  # fmt: skip


class First:
    """The first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep it."""
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep the file that cannot be imported."""
        if report.failed and not self.name:
            self.name = report.nodeid


def outcome(given: dict[str, Any]) -> dict[str, str]:
    """
    What the tests say of a mutant.

    Args:
        given: Its `path`; `code`, the mutated source; the ids of `tests`; the `seconds` that all may take, and those of
            `each`.

    Returns:
        The `outcome`: ``killed``, ``survived`` or ``timeout``; and the test `by` which it is killed.
    """
    target = Path(given["path"])
    before = target.stat()
    original = target.read_bytes()
    target.write_text(given["code"], encoding="utf-8")
    # Python knows a compiled file by the second in which its source was written.
    os.utime(target, (before.st_atime, before.st_mtime + 100))
    try:
        return _tried(given["tests"], given["seconds"], given["each"])
    finally:
        target.write_bytes(original)
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))


def _tried(tests: list[str], seconds: float, each: float) -> dict[str, str]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(reader)
        _run([*tests, f"--timeout={each}"], writer)
    os.close(writer)
    try:
        said = _said(reader, time.monotonic() + seconds)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it had no group of its own yet
        os.waitpid(child, 0)
        os.close(reader)
    if said is None:
        return {"outcome": "timeout", "by": ""}
    if not said:  # it ended amid the tests, whatever its exit code
        return {"outcome": "killed", "by": "the end of the process"}
    answer = json.loads(said)
    return {"outcome": "killed" if answer["code"] else "survived", "by": answer["by"]}


def _run(arguments: list[str], writer: int) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    first = First()
    code = 3
    try:
        code = int(pytest.main([*OPTIONS, *arguments], plugins=[first]))
    finally:
        # A BaseException of the mutant's is a failure as well.
        os.write(writer, json.dumps({"code": code, "by": first.name}).encode())
        os._exit(0)


def _said(reader: int, deadline: float) -> bytes | None:
    # Until the first line is whole, not until the end: what a test has left running may hold the other end.
    said = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        more = os.read(reader, 65536)
        said += more
        if not more or said.endswith(b"}"):
            return said


def _load(tests: list[str]) -> None:
    # Of other projects only: a module of the copy that was imported here would not be the mutated one. Compiled files
    # are written here and never again.
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        pytest.main(["--collect-only", *OPTIONS, *tests])
        with os.fdopen(writer, "w") as out:
            out.write("\n".join(name for name in sys.modules if not _is_ours(name)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        names = pipe.read().splitlines()
    os.waitpid(child, 0)
    for name in names:
        if name not in sys.modules and name != "__main__":
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    assert not [name for name in sys.modules if name != "__main__" and _is_ours(name)]
    sys.dont_write_bytecode = True


def _is_ours(name: str) -> bool:
    module = sys.modules[name]
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and Path(place).is_relative_to(Path.cwd()) for place in places)


def _ends(*_: object) -> None:
    raise SystemExit  # what runs a mutant ends it then


def main() -> None:
    """Answer until standard input ends."""
    signal.signal(signal.SIGTERM, _ends)
    _load(sys.argv[1:])
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(outcome(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
