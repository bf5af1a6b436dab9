"""The list of tests that wait."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "tests" / "RACES.md").read_text())


@lru_cache
def functions(file: str) -> set[str]:
    """The names of the functions in a file."""
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("file", sorted({file for file, _ in LISTED}))
def test_every_test_that_is_listed_exists(file: str) -> None:
    """A test that is renamed or removed is renamed or removed in the list."""
    assert {name for listed, name in LISTED if listed == file} <= functions(file)
