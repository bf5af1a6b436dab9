"""Generated files: what is stale is found, what is fresh is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools import generate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the generators make, for the test to set."""
    files = {"docs/a.md": "new\n"}
    monkeypatch.setattr(generate, "generated", lambda: files)
    return files


def test_a_file_that_differs_or_is_absent_is_stale(tmp_path: Path, made: dict[str, str]) -> None:
    """A generated file is stale while it is absent or has other text, and fresh once it has exactly the generator's."""
    target = tmp_path / "docs" / "a.md"
    assert list(generate.stale_files(tmp_path)) == [(target, "new\n")]
    target.parent.mkdir()
    target.write_text("old\n")
    assert list(generate.stale_files(tmp_path)) == [(target, "new\n")]
    target.write_text("new\n")
    assert list(generate.stale_files(tmp_path)) == []


def test_generators_are_deterministic() -> None:
    """Two runs of every generator make the same files."""
    first = generate.generated()
    assert first == generate.generated()
    assert "docs/metrics.md" in first
