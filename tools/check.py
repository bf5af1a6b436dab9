"""
Every static check, one after the other; all of them run, and one failure fails the whole.

Usage:
    python tools/check.py PATH...    the paths are what mypy reads
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """
    Run the checks and print a line for each.

    Returns:
        0 when all passed, else 1.
    """
    failed = [title for title, command in _checks(sys.argv[1:]).items() if not _passes(title, command)]
    print(f"\n{len(failed)} failed: {', '.join(failed)}" if failed else "\nall checks passed")
    return 1 if failed else 0


def _checks(typed: list[str]) -> dict[str, list[str]]:
    python = sys.executable
    return {
        "ruff check": [python, "-m", "ruff", "check", "--quiet", "--output-format", "concise", "."],
        "ruff format": [python, "-m", "ruff", "format", "--check", "--quiet", "--output-format", "concise", "."],
        "mypy --strict": [python, "-m", "mypy", "--no-error-summary", *typed],
        "import rules": [str(Path(python).parent / "lint-imports"), "--no-logo"],
        "generated files": [python, "tools/generate.py", "--check"],
        "links and names in the docs": [python, "tools/docs_check.py"],
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
