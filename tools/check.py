"""
Every static check, one after the other; all of them run, and one failure fails the whole. A warning fails nothing.

Usage:
    python tools/check.py PATH...    the paths are what mypy reads
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import images
from tools.venvs import ROOT, stale_as_of

if TYPE_CHECKING:
    from collections.abc import Callable


def unpinned_images(_now: datetime) -> str:
    """A sentence about the images of docker-compose.yml without a digest; empty when all have one."""
    names = images.unpinned()
    return f"no digest pins {', '.join(names)}: run `make images` where its registry can be reached" if names else ""


#: What no change has to answer for, such as what time alone brings about: each is given the present, with its time
#: zone, and returns a sentence, or an empty text where all is well.
WARNINGS: tuple[Callable[[datetime], str], ...] = (stale_as_of, unpinned_images)


def main() -> int:
    """
    Run the checks and print a line for each, and one for each warning.

    Returns:
        0 when all passed, else 1.
    """
    failed = [title for title, command in _checks(sys.argv[1:]).items() if not _passes(title, command)]
    for warning in warnings(datetime.now(timezone.utc)):
        print(f"warn  {warning}", flush=True)
    print(f"\n{len(failed)} failed: {', '.join(failed)}" if failed else "\nall checks passed")
    return 1 if failed else 0


def warnings(now: datetime) -> list[str]:
    """
    What needs attention before long.

    Args:
        now: The present, with its time zone.

    Returns:
        A sentence each.
    """
    return [sentence for warn in WARNINGS if (sentence := warn(now))]


def _checks(typed: list[str]) -> dict[str, list[str]]:
    python = sys.executable
    return {
        "ruff check": [python, "-m", "ruff", "check", "--quiet", "--output-format", "concise", "."],
        "ruff format": [python, "-m", "ruff", "format", "--check", "--quiet", "--output-format", "concise", "."],
        "mypy --strict": [python, "-m", "mypy", "--no-error-summary", *typed],
        "locks": [python, "tools/locks_check.py"],
        "import rules": [str(Path(python).parent / "lint-imports"), "--no-logo"],
        "generated files": [python, "tools/generate.py", "--check"],
        "links and names in the docs": [python, "tools/docs_check.py"],
        "spelling": [python, "-m", "codespell_lib"],
        "lock file": [python, "tools/environment.py", "--check"],
    }


def _passes(title: str, command: list[str]) -> bool:
    start = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"{'ok  ' if result.returncode == 0 else 'FAIL'}  {title}  ({time.monotonic() - start:.1f} s)", flush=True)
    if result.returncode:
        print(result.stdout + result.stderr, flush=True)
    return result.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
