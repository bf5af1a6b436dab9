"""
Writes the files that are made from code, or checks that they are what the code makes.

A generator is a module in `tools/generators` with a function `generate()` that returns the text of each file by its
path from the project's root. It must be deterministic: no dates, no machine.

Usage:
    python tools/generate.py            write
    python tools/generate.py --check    write nothing; fail and name the files that are stale
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
GENERATORS = ROOT / "tools" / "generators"


def main() -> int:
    """
    Run the command line.

    Returns:
        1 when a file is stale under ``--check``, else 0.
    """
    sys.path.insert(0, str(ROOT))
    check = "--check" in sys.argv[1:]
    stale = list(stale_files(ROOT))
    for path, text in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is stale: run `make generate` and commit it")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


def stale_files(root: Path) -> Iterator[tuple[Path, str]]:
    """
    The files that differ from what their generator makes.

    Args:
        root: The folder that the generators' paths start from.

    Yields:
        Each stale path with its new text.
    """
    for name, text in generated().items():
        path = root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield path, text


def generated() -> dict[str, str]:
    """
    What all generators make.

    Returns:
        Text by path from the project's root.

    Raises:
        ValueError: Two generators claim one path.
    """
    files: dict[str, str] = {}
    for module in sorted(GENERATORS.glob("[a-z]*.py")):
        made: dict[str, str] = importlib.import_module(f"tools.generators.{module.stem}").generate()
        if claimed := files.keys() & made.keys():
            raise ValueError(f"{module.name} makes what another generator makes: {sorted(claimed)}")
        files |= made
    return files


if __name__ == "__main__":
    sys.exit(main())
