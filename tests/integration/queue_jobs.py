"""The jobs that `test_boundaries_queues` enqueues, and what measures them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

from tests.support.telemetry import Collected
from tests.support.units import queries_by_unit

if TYPE_CHECKING:
    from pathlib import Path

#: What the jobs query; set by the test, inherited by processes that are forked.
run: Any = None


def send(number: int) -> int:
    """So many queries."""
    run(number)
    return number


def fails(number: int) -> int:
    """An error after so many queries."""
    run(number)
    raise RuntimeError("theirs")


async def send_later(_: Any, number: int) -> int:
    """So many queries, in a coroutine."""
    run(number)
    return number


class ToFile(MetricExporter):
    """
    Writes a line for each export.

    Args:
        path: Where.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        """Units of work and their queries."""
        with self._path.open("a") as lines:
            lines.write(json.dumps(queries_by_unit(Collected.of(metrics_data))) + "\n")
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        """Nothing is held back."""
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        """Nothing to let go of."""
