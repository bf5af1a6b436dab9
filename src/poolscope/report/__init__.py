"""
A report from exported telemetry: it reads OTLP JSON lines and needs no backend.

    report = build_report([Path("telemetry.jsonl")])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.report.findings import finding_reports
from poolscope.report.model import CallSite, FindingReport, Holder, Phase, PoolReport, Report, Starvation, Timing
from poolscope.report.pools import pool_reports
from poolscope.report.problems import ReportError
from poolscope.report.reader import read, size
from poolscope.report.traces import Traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_SERVICES_SHOWN: Final = 5

__all__ = [
    "CallSite",
    "FindingReport",
    "Holder",
    "Phase",
    "PoolReport",
    "Report",
    "ReportError",
    "Starvation",
    "Timing",
    "build_report",
    "size",
]


def build_report(paths: Iterable[Path], advance: Callable[[int], None] | None = None) -> Report:
    """
    Read files or directories of OTLP JSON lines and report on their connection pools.

    Args:
        paths: The files and directories.
        advance: Called with the length of each line that was read, in bytes.

    Raises:
        ReportError: There is nothing to report on; it states what is missing and how to fix it.
    """
    telemetry = read(paths, advance)
    traces = Traces(telemetry.spans)
    pools = pool_reports(telemetry, traces)
    if not pools:
        services = sorted({source.service for source in telemetry.sources}) or ["unknown"]
        shown = ", ".join(services[:_SERVICES_SHOWN])
        if len(services) > _SERVICES_SHOWN:
            shown += f" and {len(services) - _SERVICES_SHOWN} more"
        fix = (
            "Install poolscope into that service's environment, start it with opentelemetry-instrument and"
            " OTEL_METRICS_EXPORTER set, and let it check out a connection."
        )
        raise ReportError(
            f"The telemetry (service: {shown}) contains no connection pool.", fix, tuple(telemetry.warnings)
        )
    return Report(pools, finding_reports(telemetry.events, traces), tuple(telemetry.warnings))
