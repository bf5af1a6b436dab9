"""Skips: counted with their fix, and failures where CI could have had the tool."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.skips import PIPELINE_TOOL_MISSING, pipeline_tools_are_due, require, summary

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["pytester"]


def test_only_what_is_absent_skips() -> None:
    """`require` lets a test run when the thing is there, and skips it naming thing and fix when it is not."""
    require("/usr/bin/thing", "thing missing", "apt-get install thing")
    with pytest.raises(pytest.skip.Exception, match="thing missing; fix: apt-get install thing"):
        require(None, "thing missing", "apt-get install thing")


def test_skips_are_counted_by_reason_with_the_fix() -> None:
    """Each reason is one line with its number and fix, the most frequent first; a reason without a fix says so."""
    assert summary(["no fork", "a; fix: b", "a; fix: b"]) == ["   2  a  ->  b", "   1  no fork  ->  no fix named"]


@pytest.mark.parametrize(("ci", "go", "due"), [("true", "go", True), ("true", None, False), ("", "go", False)])
def test_the_pipeline_is_due_in_ci_with_go(monkeypatch: pytest.MonkeyPatch, ci: str, go: str | None, due: bool) -> None:
    """A missing program of the pipeline is a failure only under CI on a machine that could build it."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(shutil, "which", lambda name: go)
    assert pipeline_tools_are_due() is due


@pytest.mark.parametrize(("ci", "outcome"), [("true", "failed"), ("", "skipped")])
def test_the_plugin_fails_what_is_due(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str, tmp_path: Path
) -> None:
    """
    The same skip for a tool of the pipeline is a failed test in CI with Go and a skipped one elsewhere, and the report
    at the end names the fix.
    """
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CI", ci)
    pytester.makeconftest("from tests.support.skips import pytest_runtest_makereport, pytest_terminal_summary")
    pytester.makepyfile(
        "from tests.support.skips import require\n"
        f"def test_it(): require(None, '{PIPELINE_TOOL_MISSING}: collector', 'build it')"
    )
    result = pytester.runpytest_inprocess("-p", "no:xdist")
    result.assert_outcomes(**{outcome: 1})
    if outcome == "skipped":
        result.stdout.fnmatch_lines([f"*1  {PIPELINE_TOOL_MISSING}: collector  ->  build it"])
