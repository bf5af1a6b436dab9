"""Subinterpreters: poolscope says that it does not work there, once, and does nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.skips import require

PROGRAM = Path(__file__).parent / "programs" / "subinterpreter.py"
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.reliability(
    fault="instrument() is called in a subinterpreter",
    application="the same; one line is logged",
    lost="everything of that interpreter",
)
@pytest.mark.parametrize("kind", ["legacy", "isolated"])
def test_a_subinterpreter_is_refused(kind: str) -> None:
    """
    In a subinterpreter of either kind one line is logged, nothing is hooked and no thread is started; it ends well, and
    the main interpreter can be instrumented.
    """
    breaks = kind == "isolated" and sys.version_info[:2] == (3, 12)
    require(
        not breaks,
        "Python 3.12 aborts after an isolated one that imported asyncio, bare as well",
        "Python 3.11 or 3.13",
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", PROGRAM, kind],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "poolscope: poolscope does not work in a subinterpreter: nothing is instrumented in this one",
        "0 patches, 1 threads, session None",
        "done",
        "in the main interpreter: True",
    ]
