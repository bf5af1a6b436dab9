"""Building the pipeline's programs: one at a time, and nothing is left running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import pipeline_build

ROOT = Path(__file__).resolve().parents[2]


def test_two_builds_do_not_meet(tmp_path: Path) -> None:
    """While one builds, a second one says that it waits, and starts when the first is done."""
    program = (
        "import pathlib, sys\n"
        "from tools import pipeline_build\n"
        "pipeline_build.PROGRESS_EVERY = 0.01\n"
        "with pipeline_build.alone(pathlib.Path(sys.argv[1]), 'collector'):\n"
        "    print((pathlib.Path(sys.argv[1]) / 'first').read_text())\n"
    )
    with pipeline_build.alone(tmp_path, "collector"):
        second = subprocess.Popen(
            [sys.executable, "-c", program, tmp_path],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert second.stderr is not None
        assert second.stderr.readline().startswith("collector: another process builds it, waiting")
        (tmp_path / "first").write_text("the first is done")
    told, _ = second.communicate(timeout=30)
    assert (told.strip(), second.returncode) == ("the first is done", 0)


def test_an_interrupted_step_leaves_nothing_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a step runs ends the step's program too."""
    ended = tmp_path / "ended"
    program = (
        "import pathlib, signal, sys\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(ended)!r}).touch(), sys.exit(1)))\n"
        "signal.alarm(60)\n"  # should the test not end it
        "print('started', flush=True)\n"
        "signal.pause()\n"
    )

    def interrupt(message: str) -> None:
        if "started" in message:
            raise KeyboardInterrupt

    monkeypatch.setattr(pipeline_build, "say", interrupt)
    monkeypatch.setattr(pipeline_build, "PROGRESS_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        pipeline_build.run("step", [sys.executable, "-c", program], cwd=tmp_path)
    assert ended.exists()
