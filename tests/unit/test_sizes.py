"""Files stay small enough to be read in one piece."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
MOST_LINES: Final = 350


@pytest.mark.parametrize(
    "path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_a_file_of_the_package_is_short(path: Path) -> None:
    """No file of the package is longer than 350 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
