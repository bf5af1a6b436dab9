"""
Findings in the log, for those without a log pipeline.
"""

from __future__ import annotations

import logging

import pytest

from poolscope.core.finding import LEAK, Finding, Severity
from poolscope.signals.events import Events


@pytest.mark.parametrize("resolved", [False, True])
def test_who_reads_of_a_leak_reads_that_it_is_none(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, resolved: bool
) -> None:
    """
    Both are shown where nobody has configured logging: Python's last resort shows warnings only.
    """
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    finding = Finding(LEAK, Severity.INFO if resolved else Severity.CRITICAL, "came back", "-", resolved=resolved)
    Events(None).report(finding)
    assert "[connection_leak] came back" in capfd.readouterr().err
