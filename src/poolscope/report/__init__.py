"""
A report from telemetry that left a process: OTLP as JSON lines, read without a backend.

    report = build_report([Path("telemetry.jsonl")])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.report.findings import finding_reports
from poolscope.report.model import FindingReport, Holder, Phase, Place, PoolReport, Report, Starvation, Timing
from poolscope.report.pools import pool_reports
from poolscope.report.reader import ReportError, files, read
from poolscope.report.traces import Traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = [
    "FindingReport",
    "Holder",
    "Phase",
    "Place",
    "PoolReport",
    "Report",
    "ReportError",
    "Starvation",
    "Timing",
    "build_report",
    "files",
]


def build_report(paths: Iterable[Path], advance: Callable[[int], None] | None = None) -> Report:
    """
    Read files or directories of OTLP JSON lines and say what happened to the pools.

    Args:
        paths: The files and directories.
        advance: Told about each line that was read: how many characters it has.

    Raises:
        ReportError: There is nothing to report on; says what is missing and what to do.
    """
    telemetry = read(paths, advance)
    traces = Traces(telemetry.spans)
    pools = pool_reports(telemetry, traces)
    if not pools:
        services = ", ".join(sorted({source.service for source in telemetry.sources})) or "unknown"
        cure = (
            "Install poolscope into that service's environment, start it with opentelemetry-instrument and"
            " OTEL_METRICS_EXPORTER set, and let it check out a connection."
        )
        raise ReportError(f"There is telemetry here (service: {services}), but none of a connection pool.", cure)
    return Report(pools, finding_reports(telemetry.events, traces), tuple(telemetry.warnings))
