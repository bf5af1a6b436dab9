"""For programs: what poolscope finds in this process, printed as one line of JSON."""

from __future__ import annotations

import json
from typing import Any

from examples.lab.processes import wait_until
from poolscope.otel.logs import Events
from tests.support.telemetry import Telemetry

#: Seconds that `Findings.wait` waits for a finding that must come.
DEADLINE = 60.0


class Findings:
    """
    Poolscope, on, and its findings.

    Args:
        settings: Poolscope's.
    """

    def __init__(self, **settings: object) -> None:
        self.found: list[dict[str, Any]] = []
        Events.report = lambda _, finding: self.found.append(self._said(finding))  # type: ignore[method-assign]
        self.telemetry = Telemetry(**settings)
        self.telemetry.start()

    def wait(self, identity: str) -> None:
        """Until one of that id is found; a `TimeoutError` says which was not by the deadline."""

        def is_found() -> bool:
            self.telemetry.instrumentor.flush()
            return any(one["id"] == identity for one in self.found)

        wait_until(is_found, DEADLINE, f"a finding {identity}")

    def print(self, **more: object) -> None:
        """All of them, with what else the program has to say."""
        print(json.dumps({"found": self.found, **more}), flush=True)

    @staticmethod
    def _said(finding: Any) -> dict[str, Any]:
        return {
            "id": finding.id,
            "pool": finding.pool.name if finding.pool is not None else None,
            "cause": finding.evidence.get("cause"),
            "summary": finding.summary,
            "fix": finding.fix,
            "unit": str(finding.unit),
            "function": finding.origin[0].co_name if finding.origin is not None else None,
        }
