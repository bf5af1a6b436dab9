"""Why there is no report, and what a report lacks: each with the file, the line and the fix."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_SENT: Final = "Check what wrote them: docs/cli.md says which programs can."
_WHOLE: Final = "It may still be written: report again once it is complete."
_APART: Final = "Redirect the other output of the process to another file."
_SMALLER: Final = "Let the exporter send smaller batches."
_SHORTER: Final = "Report on a part of the files."
_UTF_8: Final = "Check what wrote the file, or what converted it: OTLP JSON is UTF-8."

#: The first bytes of what is taken for OTLP JSON by mistake: what it is, and the fix.
_FOREIGN: Final = (
    (b"\x28\xb5\x2f\xfd", "zstd", "Set the Collector's file exporter to `format: json` without compression."),
    (b"\x1f\x8b", "gzip", "Decompress it: gzip -dc FILE > telemetry.jsonl"),
    (b"\xff\xfe", "UTF-16", "Convert it: iconv -f utf-16 -t utf-8 FILE > telemetry.jsonl"),
    (b"\xfe\xff", "UTF-16", "Convert it: iconv -f utf-16 -t utf-8 FILE > telemetry.jsonl"),
)
_BINARY: Final = "Set the Collector's file exporter to `format: json` without compression."


class ReportError(Exception):
    """
    Why there is no report.

    Args:
        problem: What is wrong, with the file or service by name.
        fix: How to fix it.
        warnings: What else was left out on the way there.
    """

    def __init__(self, problem: str, fix: str, warnings: tuple[str, ...] = ()) -> None:
        super().__init__(f"{problem} {fix}")
        self.problem = problem
        self.fix = fix
        self.warnings = warnings


@dataclass
class Tally:
    """
    How often something was left out, and where first.

    Args:
        count: How often.
        line: The line of the first.
        reason: The reason of the first; empty where the kind says it.
    """

    count: int = 0
    line: int = 0
    reason: str = ""

    def add(self, line: int, count: int = 1, reason: str = "") -> None:
        """Count, and keep the first."""
        if not self.count:
            self.line, self.reason = line, reason
        self.count += count


@dataclass
class Account:
    """
    What was read of one file and what was not.

    Args:
        path: The file.
        exports: The lines with telemetry.
        lines: The lines in all.
        cut: The last line, where it ends without an end of line and is not OTLP JSON; 0 where it does not.
        foreign: Lines that are not OTLP JSON.
        long: Lines above the longest that is read.
        garbled: Lines with bytes that are not UTF-8.
        items: Parts of lines that do not follow OTLP, by what they are.
        failed: Why reading ended before the file did; ``None`` where it did not.
        head: The first bytes.
    """

    path: Path
    exports: int = 0
    lines: int = 0
    cut: int = 0
    foreign: Tally = field(default_factory=Tally)
    long: Tally = field(default_factory=Tally)
    garbled: Tally = field(default_factory=Tally)
    left_out: Tally = field(default_factory=Tally)
    items: Counter[str] = field(default_factory=Counter)
    failed: ReportError | None = None
    head: bytes = b""

    def leave_out(self, items: Mapping[str, int], reason: str) -> None:
        """Count parts of the present line that do not follow OTLP."""
        self.items.update(items)
        self.left_out.add(self.lines, sum(items.values()), reason)

    def failure(self) -> ReportError:
        """Why this file adds nothing to the report."""
        if self.failed is not None:
            return self.failed
        if self.left_out.count:
            why = f": line {self.left_out.line}: {self.left_out.reason}"
        elif self.long.count:
            fix = "The file must have one JSON export request per line. " + _SMALLER
            return ReportError(f"{self.path} contains no OTLP JSON lines: line {self.long.line} is too long.", fix)
        elif not self.foreign.count and not self.cut:
            fix = "Wait for the first export (OTEL_METRIC_EXPORT_INTERVAL), or stop the process so that it flushes."
            return ReportError(f"{self.path} is empty.", fix)
        else:
            why = ""
        for start, what, fix in _FOREIGN:
            if self.head.startswith(start):
                return ReportError(f"{self.path} is not text but {what}.", fix)
        if b"\0" in self.head or self.garbled.count:
            return ReportError(f"{self.path} is not text.", _BINARY)
        fix = "The file must have one JSON export request per line (resourceMetrics, resourceSpans, resourceLogs)."
        return ReportError(f"{self.path} contains no OTLP JSON lines{why}.", fix)

    def warnings(self) -> Iterator[str]:
        """What this file lacks in the report, one sentence for each kind, and its fix."""
        if self.failed is not None:
            before = counted(self.lines, "line")
            yield f"{self.failed.problem} What came before, {before}, is reported. {self.failed.fix}"
        if self.cut:
            yield f"{self.path}: skipped line {self.cut}, which is incomplete; the file may still be in use. {_WHOLE}"
        if self.foreign.count:
            lines = "line that is" if self.foreign.count == 1 else "lines that are"
            yield (
                f"{self.path}: skipped {self.foreign.count} {lines} not OTLP JSON;"
                f" the first is line {self.foreign.line}. {_APART}"
            )
        if self.long.count:
            lines = "line that is" if self.long.count == 1 else "lines that are"
            yield (
                f"{self.path}: skipped {self.long.count} {lines} too long;"
                f" the first is line {self.long.line}, {self.long.reason}. {_SMALLER}"
            )
        if self.garbled.count:
            lines = counted(self.garbled.count, "line")
            yield f"{self.path}: {lines} not in UTF-8, the first is line {self.garbled.line}. {_UTF_8}"
        if self.left_out.count:
            what = ", ".join(counted(number, kind) for kind, number in sorted(self.items.items()))
            yield (
                f"{self.path}: left out {what} not as OTLP has it;"
                f" the first is in line {self.left_out.line} ({self.left_out.reason}). {_SENT}"
            )


def beyond(what: str, number: int, most: int) -> str:
    """
    The warning that more came than a report keeps.

    Args:
        what: What it is, in the plural.
        number: How many were left out.
        most: How many are kept.
    """
    return f"left out {number} {what}: a report keeps the first {most}. {_SHORTER}"


def counted(number: int, what: str) -> str:
    """A number and a noun with a regular plural."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
