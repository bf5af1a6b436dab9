"""The static checks: one failure fails the whole, a warning nothing."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone

import pytest

from tools import check, images, venvs


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The exit code of each check, for the test to set, in place of the real ones."""
    codes: dict[str, int] = {"one": 0, "two": 0}

    def checks(_: list[str]) -> dict[str, list[str]]:
        return {
            title: [sys.executable, "-c", f"print('so'); raise SystemExit({code})"] for title, code in codes.items()
        }

    monkeypatch.setattr(check, "_checks", checks)
    monkeypatch.setattr(sys, "argv", ["check.py"])
    return codes


def _lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition("  (")[0] for line in capfd.readouterr().out.splitlines()]


def test_a_warning_is_a_line_and_no_failure(
    results: dict[str, int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each sentence is a line that begins with `warn`, what has nothing to say has no line, and the checks pass."""
    monkeypatch.setattr(check, "WARNINGS", (lambda _: "it is late", lambda _: "", lambda now: f"{now:%Z}"))
    assert check.main() == 0
    assert _lines(capfd) == ["ok    one", "ok    two", "warn  it is late", "warn  UTC", "", "all checks passed"]


def test_a_failure_fails_with_its_words(
    results: dict[str, int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The other checks run all the same, and what the failed one printed is shown."""
    monkeypatch.setattr(check, "WARNINGS", ())
    results["one"] = 1
    assert check.main() == 1
    assert _lines(capfd) == ["FAIL  one", "so", "", "ok    two", "", "1 failed: one"]


def test_a_moment_long_ago_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """What newest means is among the warnings once it is too old."""
    monkeypatch.setattr(venvs, "AS_OF", "2026-01-02T00:00:00Z")
    monkeypatch.setattr(images, "unpinned", list)
    then = datetime(2026, 1, 2, tzinfo=timezone.utc)
    assert check.warnings(then) == []
    assert check.warnings(then + timedelta(days=61)) == [venvs.stale_as_of(then + timedelta(days=61))]
