"""The drivers of all libraries; a module here holds a library's as ``DRIVERS``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.contract.drivers.base import Driver

_NOT_A_LIBRARY = ("__init__", "base")


def all_drivers() -> list[type[Driver]]:
    """Every driver of every module in this folder."""
    found: list[type[Driver]] = []
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in _NOT_A_LIBRARY:
            found.extend(importlib.import_module(f"tests.contract.drivers.{path.stem}").DRIVERS)
    return found
