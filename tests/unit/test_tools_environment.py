"""The lock: fits pyproject.toml, and names no place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tools.environment import FINGERPRINT, IMAGE_LOCK, LOCK, PYPROJECT, UV_LOCK, fingerprint

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = """\
[project]
name = "p"
requires-python = ">=3.10"
dependencies = [
  "a>=1",
]

[project.optional-dependencies]
x = ["b>=2"]

[tool.ruff]
line-length = 120
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [('"a>=1"', '"a>=2"'), ('x = ["b>=2"]', 'x = ["b>=2", "c"]'), (">=3.10", ">=3.11"), ("x =", "y =")],
)
def test_a_change_of_dependencies_makes_the_lock_stale(before: str, after: str) -> None:
    """Another dependency, bound, extra or Python is another fingerprint."""
    assert before in PROJECT
    assert fingerprint(PROJECT) != fingerprint(PROJECT.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [("120", "88"), ('name = "p"', 'name = "q"'), ('  "a>=1",', '  # why\n  "a>=1",'), ('["b>=2"]', '[\n"b>=2"]')],
)
def test_any_other_change_does_not(before: str, after: str) -> None:
    """Settings of tools, metadata, comments and layout leave the fingerprint as it is."""
    assert before in PROJECT
    assert fingerprint(PROJECT) == fingerprint(PROJECT.replace(before, after))


def test_the_locks_hold_versions_and_hashes_and_no_address() -> None:
    """
    Each requirement of a lock is one exact version with hashes, no line names an address, and the lock is the
    fingerprint's.
    """
    for lock in (LOCK, UV_LOCK, IMAGE_LOCK):
        text = lock.read_text()
        requirements = requirements_of(lock)
        assert requirements
        assert all(re.match(r"[\w.-]+==\S+", item) and "--hash=sha256:" in item for item in requirements)
        assert not re.search(r"://|--\w*index|--find-links|^-e|\.whl", text, re.MULTILINE)
    assert FINGERPRINT.findall(LOCK.read_text()) == [fingerprint(PYPROJECT.read_text())]


def requirements_of(lock: Path) -> list[str]:
    """The requirements of a lock, each with its hashes."""
    return re.findall(r"^\w.*(?:\n +.*)*", lock.read_text(), re.MULTILINE)


def test_the_image_has_what_the_tests_have() -> None:
    """Each version that the image installs is one that the tests run with, by the same hashes; also what builds it."""
    tested = {version_of(each): hashes_of(each) for each in requirements_of(LOCK)}
    for each in requirements_of(IMAGE_LOCK):
        assert hashes_of(each) == tested[version_of(each)], version_of(each)
    assert any(each.startswith("hatchling==") for each in requirements_of(IMAGE_LOCK))
    assert any(each.startswith("flask==") for each in requirements_of(IMAGE_LOCK))


def version_of(requirement: str) -> str:
    """Name and version."""
    return requirement.split(maxsplit=1)[0]


def hashes_of(requirement: str) -> set[str]:
    """The hashes."""
    return set(re.findall(r"sha256:\w+", requirement))
