"""The seed of what a run of the tests draws: the commit, or what `SEED` says."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


def seed_of_run() -> str:
    """The seed: `SEED=text` repeats what a run has drawn."""
    return os.environ.get("SEED") or commit()


@functools.cache
def commit() -> str:
    """The commit that is tested; nothing where there is no git."""
    git = shutil.which("git")
    if git is None:
        return ""
    asked = subprocess.run([git, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip()
