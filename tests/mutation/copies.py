"""Copies of the project, in each of which one mutant at a time is tried."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.venvs import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

WORKER: Final = Path(__file__).resolve().parent / "worker.py"
#: Seconds that one test may take with a mutant; what takes longer hangs.
EACH: Final = 20.0
#: Seconds that the process has to end by itself.
GRACE: Final = 20.0
#: Seconds for all tests of a mutant, and besides for each of them.
SECONDS: Final = 60.0
PER_TEST: Final = 0.5


class WorkerEndedError(Exception):
    """The process that tries mutants ended, which no mutant should bring about; the message says when."""


def copied(folder: Path) -> Path:
    """
    A copy of what is, or may be, under version control.

    Args:
        folder: Where it is made; it is not there yet.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


class Worker:
    """
    The process that tries mutants in a copy. A context manager.

    Args:
        copy: The folder of the copy, whose packages are in `src`.
        tests: Files of tests, from there, whose imports are made ready.
    """

    def __init__(self, copy: Path, tests: Sequence[str]) -> None:
        environ = {**os.environ, "PYTHONPATH": str(copy / "src")}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), *tests],
            cwd=copy, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        """Wait until it is ready."""
        if self._line() != "ready\n":
            self.stop()
            raise WorkerEndedError("the process that tries mutants did not start")
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.stop()

    def outcome(
        self, path: str, code: str, tests: Sequence[str], *, seconds: float = SECONDS, each: float = EACH
    ) -> tuple[str, str]:
        """
        What the tests say of a mutant.

        Args:
            path: The file that it is of, from the copy's folder.
            code: The mutated source.
            tests: The ids of the tests.
            seconds: How long they may take, besides half a second for each.
            each: Seconds that one may take.

        Returns:
            ``killed``, ``survived``, ``timeout``, or ``no test`` where none is given; and by which test.

        Raises:
            WorkerEndedError: The process ended.
        """
        if not tests:
            return "no test", ""
        seconds += PER_TEST * len(tests)
        order = {"path": path, "code": code, "tests": list(tests), "seconds": seconds, "each": each}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._line()
        if not answer:
            raise WorkerEndedError(f"the process that tries mutants ended at one of {path}")
        said = json.loads(answer)
        return said["outcome"], said["by"]

    def end(self) -> None:
        """Ask it to end, and the mutant that it tries; who waits for an outcome gets an error."""
        self._process.terminate()

    def stop(self) -> None:
        """End it, and what it started."""
        self.end()
        try:
            self._process.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()
