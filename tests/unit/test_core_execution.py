"""What all threads execute now: reading it stops nothing, on any Python."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from poolscope.core.execution import ThreadsNow
from tests.support.skips import is_installed, require

ROOT = Path(__file__).resolve().parent.parent.parent

#: Reads the frames of 30 threads, each time with a collection of garbage due at another moment of that.
PROGRAM = """
import faulthandler, gc, threading

from poolscope.core.execution import ThreadsNow

THREADS = 30
faulthandler.dump_traceback_later(60, exit=True)
for early in range(THREADS + 10):
    gate = threading.Semaphore(0)
    threads = [threading.Thread(target=gate.acquire) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    gc.collect()
    gc.disable()
    for _ in range(50):
        garbage = [threading.local()]
        garbage.append(garbage)
    del garbage
    kept = []
    due = gc.get_count()[0] + 60
    gc.set_threshold(due, 1000, 1000)
    gc.enable()
    while gc.get_count()[0] < due - early:
        kept.append([])
    with ThreadsNow() as now:
        assert len(now) == THREADS + 1
    assert gc.isenabled()
    gate.release(THREADS)
    for thread in threads:
        thread.join()
print("read")
"""


def python_3_11() -> str | None:
    """The Python in which a collection amid that would wait for itself."""
    if sys.version_info[:2] == (3, 11) or not is_installed("uv"):
        return sys.executable if sys.version_info[:2] == (3, 11) else None
    from tools.venvs import interpreters  # the matrix has no uv

    return next((str(one.path) for one in interpreters() if one.minor == "3.11"), None)


@pytest.mark.parametrize("other", [False, True], ids=["here", "python-3.11"])
def test_garbage_may_be_due_while_the_frames_are_read(*, other: bool) -> None:
    """Python 3.11 collects it amid that, and stops for ever where a `threading.local` is among it (cpython#106883)."""
    python = python_3_11() if other else sys.executable
    require(python, "no Python 3.11", "install one, as pyenv and uv do")
    assert python
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [python, "-c", PROGRAM]
    ran = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=100)
    assert (ran.stdout, ran.returncode) == ("read\n", 0), ran.stderr


def test_whoever_has_disabled_the_collector_finds_it_so() -> None:
    """Reading the frames leaves it as it was."""
    assert gc.isenabled()
    gc.disable()
    try:
        with ThreadsNow():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
