"""
Files of OTLP JSON lines, as the SDK's file exporter and the Collector's write them.
"""

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
        problem: What is wrong, with the name of the thing.
        cure: What to do about it.
    """

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"{problem} {cure}")
        self.problem = problem
        self.cure = cure


@dataclass
class Telemetry:
    """
    Everything that the files held.
    """

    series: SeriesStore = field(default_factory=SeriesStore)
    spans: list[Span] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    sources: set[Source] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """
        Take one line's worth.
        """
        self.series.add(batch.points)
        self.spans.extend(batch.spans)
        self.events.extend(batch.events)
        self.sources |= batch.sources


def read(paths: Iterable[Path], advance: Callable[[int], None] | None = None) -> Telemetry:
    """
    Read files, and the JSON files of directories.

    Args:
        paths: The files and directories.
        advance: Told about each line: how many characters it has.

    Raises:
        ReportError: A path does not exist, cannot be read, or holds no telemetry.
    """
    telemetry = Telemetry()
    without = [trouble for path in files(paths) if (trouble := _read_file(path, telemetry, advance or _untold))]
    if without and not telemetry.sources:
        raise without[0]
    telemetry.warnings.extend(error.problem for error in without)
    return telemetry


def files(paths: Iterable[Path]) -> Sequence[Path]:
    """
    The files that `read` reads.

    Raises:
        ReportError: A path does not exist, or a directory holds none.
    """
    return list(_files(paths))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            cure = "Give the file that the OTLP JSON file exporter or the Collector's file exporter writes."
            raise ReportError(f"There is no file or directory {path}.", cure)
        if not path.is_dir():
            yield path
            continue
        found = sorted({file for pattern in _PATTERNS for file in path.glob(pattern)})
        if not found:
            cure = "Give a directory of OTLP JSON lines, or the files themselves."
            raise ReportError(f"The directory {path} holds no {', '.join(_PATTERNS)} file.", cure)
        yield from found


def _untold(_: int) -> None:
    pass


def _read_file(path: Path, telemetry: Telemetry, advance: Callable[[int], None]) -> ReportError | None:
    """
    Add what a file holds.

    Returns:
        Why it holds nothing, where it does: only a fault when no other file has anything either.
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
        cure = "Set the Collector's file exporter to `format: json` without compression."
        raise ReportError(f"{path} is not text.", cure) from error
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error
    if not exports:
        return _nothing_in(path, empty=not foreign)
    telemetry.warnings.extend(_left_out(path, foreign, truncated=not ended and foreign[-1:] == [number]))
    return None


def _decode_line(line: str) -> Batch | None:
    if not line.lstrip().startswith("{"):
        return None
    try:
        document = json.loads(line)
        return decode(document) if is_export(document) else None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _nothing_in(path: Path, *, empty: bool) -> ReportError:
    if empty:
        cure = "Wait for the first export (OTEL_METRIC_EXPORT_INTERVAL), or stop the process so that it flushes."
        return ReportError(f"{path} is empty.", cure)
    cure = "It must hold one JSON export request per line (resourceMetrics, resourceSpans, resourceLogs)."
    return ReportError(f"{path} holds no OTLP JSON lines.", cure)


def _left_out(path: Path, foreign: list[int], *, truncated: bool) -> Iterator[str]:
    if truncated:
        yield f"{path} ends in the middle of line {foreign.pop()}, which is left out (is it still being written?)."
    if foreign:
        lines = "line" if len(foreign) == 1 else "lines"
        yield f"{path}: {len(foreign)} {lines} that are not OTLP JSON left out, the first is line {foreign[0]}."
