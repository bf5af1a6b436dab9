"""Saves the terminal's output as a picture."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

# rich's template loads its font from a server; a picture in a README must work without one.
_WEB_FONT = re.compile(r"@font-face \{[^{}]*\}\s*")


def save(console: Console, path: Path, title: str) -> None:
    """
    Save everything that a recording console printed.

    Args:
        console: Made with ``record=True``.
        path: The SVG file; its folder is made.
        title: The window's title.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_WEB_FONT.sub("", console.export_svg(title=title)), encoding="utf-8")
