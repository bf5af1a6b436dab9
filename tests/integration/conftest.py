"""What the tests of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from poolscope.otel.logs import Events

if TYPE_CHECKING:
    from poolscope.core.finding import Finding


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What is found from now on."""
    findings: list[Finding] = []
    monkeypatch.setattr(Events, "report", lambda _, finding: findings.append(finding))
    return findings
