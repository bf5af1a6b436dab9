"""What `make fuzz` looks for holds for its seeds, and for all that it has found."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import FOUND, TARGETS
from tools import fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_pass(name: str) -> None:
    """Else the fuzzer finds nothing but them."""
    seeds = list(TARGETS[name].seeds())
    assert len(seeds) > 20
    for seed in seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("path", sorted(FOUND.glob("*-*")), ids=lambda path: path.name[:40])
def test_what_was_found_passes(path: object) -> None:
    """Each file was a failure once."""
    TARGETS[path.name.partition("-")[0]].run(path.read_bytes())  # type: ignore[attr-defined]


def test_the_tool_runs_all_of_them() -> None:
    """It does not import them: it runs on Pythons where they need what is not there."""
    assert tuple(TARGETS) == fuzz.TARGETS


def test_where_atheris_cannot_run_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing has failed."""
    monkeypatch.setattr(fuzz, "interpreters", list)
    assert fuzz.main([]) == 0
    assert "skipped" in capsys.readouterr().out
