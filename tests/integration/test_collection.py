"""Garbage collection inside a collection of metrics, and the other way round."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.stateful
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_garbage_collection_never_deadlocks(kind: str) -> None:
    """
    With the garbage collector running at nearly every allocation and finding dropped connections in cycles, inside the
    SDK's collections and our background thread, nothing hangs and every lease is counted once.
    """
    program = subprocess.run(
        [sys.executable, "-m", "tests.integration.programs.collecting", kind],
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
        cwd=ROOT,
    )
    assert (program.returncode, program.stdout) == (0, "exact\n"), program.stderr[-5000:]
