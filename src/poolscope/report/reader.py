"""Reads files of OTLP JSON lines, which the SDK's file exporter and the Collector's file exporter write."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from poolscope.report.otlp import Batch, Event, Source, Span, decode, is_export
from poolscope.report.series import SeriesStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

_PATTERNS = ("*.json", "*.jsonl", "*.ndjson")


class ReportError(Exception):
    """
    Why there is no report.

    Args:
        problem: What is wrong, with the file or service by name.
        fix: How to fix it.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem} {fix}")
        self.problem = problem
        self.fix = fix


@dataclass
class Telemetry:
    """The content of all files."""

    series: SeriesStore = field(default_factory=SeriesStore)
    spans: list[Span] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    sources: set[Source] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """Add the content of one line."""
        self.series.add(batch.points)
        self.spans.extend(batch.spans)
        self.events.extend(batch.events)
        self.sources |= batch.sources


def read(paths: Iterable[Path], advance: Callable[[int], None] | None = None) -> Telemetry:
    """
    Read files, and the JSON files of directories.

    Args:
        paths: The files and directories.
        advance: Called with the length of each line, in characters.

    Raises:
        ReportError: A path does not exist, cannot be read, or holds no telemetry.
    """
    telemetry = Telemetry()
    empty = [problem for path in files(paths) if (problem := _read_file(path, telemetry, advance or _ignore))]
    if empty and not telemetry.sources:
        raise empty[0]
    telemetry.warnings.extend(error.problem for error in empty)
    return telemetry


def files(paths: Iterable[Path]) -> Sequence[Path]:
    """
    The files that `read` reads.

    Raises:
        ReportError: A path does not exist, or a directory contains no such file.
    """
    return list(_files(paths))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            fix = "Give the file that the OTLP JSON file exporter or the Collector's file exporter writes."
            raise ReportError(f"There is no file or directory {path}.", fix)
        if not path.is_dir():
            yield path
            continue
        found = sorted({file for pattern in _PATTERNS for file in path.glob(pattern)})
        if not found:
            fix = "Give a directory of OTLP JSON lines, or the files themselves."
            raise ReportError(f"The directory {path} contains no {', '.join(_PATTERNS)} file.", fix)
        yield from found


def _ignore(_: int) -> None:
    pass


def _read_file(path: Path, telemetry: Telemetry, advance: Callable[[int], None]) -> ReportError | None:
    """
    Add the content of a file.

    Returns:
        An error if the file contains no telemetry; the caller raises it if no other file contains any.
    """
    foreign: list[int] = []
    exports = number = 0
    ended = True
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                ended = line.endswith("\n")
                batch = _decode_line(line)
                advance(len(line))
                if batch is not None:
                    telemetry.add(batch)
                    exports += 1
                elif line.strip():
                    foreign.append(number)
    except UnicodeDecodeError as error:
        fix = "Set the Collector's file exporter to `format: json` without compression."
        raise ReportError(f"{path} is not text.", fix) from error
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error
    if not exports:
        return _no_telemetry(path, empty=not foreign)
    telemetry.warnings.extend(_skipped(path, foreign, truncated=not ended and foreign[-1:] == [number]))
    return None


def _decode_line(line: str) -> Batch | None:
    if not line.lstrip().startswith("{"):
        return None
    try:
        document = json.loads(line)
        return decode(document) if is_export(document) else None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _no_telemetry(path: Path, *, empty: bool) -> ReportError:
    if empty:
        fix = "Wait for the first export (OTEL_METRIC_EXPORT_INTERVAL), or stop the process so that it flushes."
        return ReportError(f"{path} is empty.", fix)
    fix = "The file must have one JSON export request per line (resourceMetrics, resourceSpans, resourceLogs)."
    return ReportError(f"{path} contains no OTLP JSON lines.", fix)


def _skipped(path: Path, foreign: list[int], *, truncated: bool) -> Iterator[str]:
    if truncated:
        yield f"{path}: skipped line {foreign.pop()}, which is incomplete; the file may still be in use."
    if foreign:
        lines = "line" if len(foreign) == 1 else "lines"
        yield f"{path}: skipped {len(foreign)} {lines} that are not OTLP JSON; the first is line {foreign[0]}."
