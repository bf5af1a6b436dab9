"""
Skips that say what is missing and how to get it, and what becomes of them.

At the end of a run the skips are counted by reason, each with its fix. Where CI has Go, and so can build the Collector
and Prometheus, a test that misses a tool of the pipeline fails instead of skipping.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

PIPELINE_TOOL_MISSING = "pipeline tool missing"
FIX = "; fix: "


def require(present: object, missing: str, fix: str) -> None:
    """
    Skip the test when something outside the project is not there.

    Args:
        present: Whatever is true when it is there.
        missing: What is missing; starts with `PIPELINE_TOOL_MISSING` for the programs of the pipeline.
        fix: The command that brings it.
    """
    if not present:
        pytest.skip(f"{missing}{FIX}{fix}")


def is_installed(module: str) -> bool:
    """
    Whether a module is there to be imported; the packages that it is in are imported for it.

    Args:
        module: Its dotted name.
    """
    parts = module.split(".")
    return all(importlib.util.find_spec(".".join(parts[:depth])) for depth in range(1, len(parts) + 1))


def pipeline_tools_are_due() -> bool:
    """Whether a missing program of the pipeline is a failure: in CI, with Go on the machine."""
    return os.environ.get("CI") == "true" and shutil.which("go") is not None


def summary(reasons: Iterable[str]) -> list[str]:
    """
    The lines that report skips.

    Args:
        reasons: The reason of each skip.

    Returns:
        One line per reason, the most frequent first.
    """
    lines = []
    for reason, count in Counter(reasons).most_common():
        what, _, fix = reason.partition(FIX)
        lines.append(f"{count:4d}  {what}  ->  {fix or 'no fix named'}")
    return lines


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test was skipped, without pytest's prefix."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip for a missing program of the pipeline into a failure where it is due."""
    report = yield
    if report.skipped and pipeline_tools_are_due() and reason_of(report).startswith(PIPELINE_TOOL_MISSING):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: {reason_of(report)} (CI has Go, so this is a failure)"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List the skips, counted, each reason with its fix."""
    skipped = [reason_of(report) for report in terminalreporter.stats.get("skipped", ())]
    if skipped:
        terminalreporter.section(f"{len(skipped)} skipped: what is missing, and the fix")
        for line in summary(skipped):
            terminalreporter.line(line)
