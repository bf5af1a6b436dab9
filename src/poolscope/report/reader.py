"""Reads files of OTLP JSON lines, which the SDK's file exporter and the Collector's file exporter write."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from poolscope.report import wire
from poolscope.report.lines import Line, lines
from poolscope.report.otlp import Batch, Event, Recent, Source, Span, decode, is_export
from poolscope.report.problems import Account, ReportError, beyond
from poolscope.report.series import SeriesStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_SUFFIXES: Final = (".json", ".jsonl", ".ndjson")
_BOM: Final = b"\xef\xbb\xbf"
_HEAD: Final = 1000
#: What a report keeps in memory, however much there is to read.
MOST_SPANS: Final = 1_000_000
MOST_EVENTS: Final = 100_000
MOST_SERIES: Final = 100_000
_MOST_SOURCES: Final = 10_000

Item = TypeVar("Item")


@dataclass
class Telemetry:
    """The content of all files."""

    series: SeriesStore = field(default_factory=lambda: SeriesStore(MOST_SERIES))
    spans: list[Span] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    sources: set[Source] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    _beyond: Counter[str] = field(default_factory=Counter)

    def add(self, batch: Batch) -> None:
        """Add the content of one line."""
        self.series.add(batch.points)
        self._keep("spans", self.spans, batch.spans, MOST_SPANS)
        self._keep("events", self.events, batch.events, MOST_EVENTS)
        if len(self.sources) < _MOST_SOURCES:
            self.sources |= batch.sources

    def _keep(self, what: str, kept: list[Item], more: list[Item], most: int) -> None:
        room = most - len(kept)
        kept.extend(more if len(more) <= room else more[:room])
        if len(more) > room:
            self._beyond[what] += len(more) - room

    def cut(self) -> Iterator[str]:
        """What was left out because there is more of it than a report keeps."""
        for what, most in (("spans", MOST_SPANS), ("events", MOST_EVENTS)):
            if number := self._beyond[what]:
                yield beyond(what, number, most)
        if number := self.series.beyond:
            yield beyond("metric points of further series", number, MOST_SERIES)


def read(paths: Iterable[Path], advance: Callable[[int], None] | None = None) -> Telemetry:
    """
    Read files, and the JSON files of directories.

    Args:
        paths: The files and directories.
        advance: Called with the length of each line, in bytes.

    Raises:
        ReportError: No path can be read, or none holds telemetry. Where one does, the others are warnings.
    """
    telemetry = Telemetry()
    failures: list[ReportError] = []
    for path in _files(paths, failures):
        failures.extend(_read_file(path, telemetry, advance or _ignore))
    telemetry.warnings.extend(telemetry.cut())
    if failures and not telemetry.sources:
        first, *others = failures
        raise ReportError(first.problem, first.fix, tuple(_sentence(one) for one in others))
    telemetry.warnings.extend(_sentence(one) for one in failures)
    return telemetry


def _sentence(failure: ReportError) -> str:
    return f"{failure.problem} {failure.fix}"


def size(paths: Iterable[Path]) -> int:
    """How much `read` has to read, in bytes; what cannot be looked at counts as 0."""
    total = 0
    for path in _files(paths, []):
        with suppress(OSError, ValueError):
            total += path.stat().st_size
    return total


def _files(paths: Iterable[Path], failures: list[ReportError]) -> Iterator[Path]:
    for path in paths:
        try:
            if not path.is_dir():
                yield path
                continue
            found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and not file.is_dir())
        except OSError as error:
            failures.append(_unreadable(path, error))
            continue
        if not found:
            fix = "Give a directory of OTLP JSON lines, or the files themselves."
            shown = ", ".join(f"*{suffix}" for suffix in _SUFFIXES)
            failures.append(ReportError(f"The directory {path} contains no {shown} file.", fix))
        yield from found


def _unreadable(path: Path, error: OSError | ValueError) -> ReportError:
    if isinstance(error, FileNotFoundError):
        fix = "Give the file that the OTLP JSON file exporter or the Collector's file exporter writes."
        return ReportError(f"There is no file or directory {path}.", fix)
    if isinstance(error, TimeoutError):
        fix = "Check that a program writes to it, or give a file."
        return ReportError(f"{path} cannot be read: {error.strerror}.", fix)
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return ReportError(f"{path} cannot be read: {reason}.", "Check the path and its permissions.")


def _ignore(_: int) -> None:
    pass


def _read_file(path: Path, telemetry: Telemetry, advance: Callable[[int], None]) -> Iterator[ReportError]:
    """
    Add the content of a file.

    Yields:
        An error if the file adds nothing.
    """
    account = Account(path)
    recent = Recent()
    try:
        for line in lines(path):
            account.lines += 1
            _read_line(line, account, telemetry, recent)
            advance(line.length)
    except (OSError, ValueError) as error:
        account.failed = _unreadable(path, error)
    if account.exports:
        telemetry.warnings.extend(account.warnings())
    else:
        yield account.failure()


def _read_line(line: Line, account: Account, telemetry: Telemetry, recent: Recent) -> None:
    content = line.content
    if account.lines == 1:
        account.head = content[:_HEAD]
    if line.is_long:
        account.long.add(account.lines, reason=f"of {line.length} bytes")
        return
    content = content.removeprefix(_BOM)
    document = _document(content, account)
    if document is None:
        if not content.endswith(b"\n"):
            account.cut = account.lines
        elif not content.isspace():
            account.foreign.add(account.lines)
        return
    batch = decode(document, recent)
    if batch.left_out:
        account.leave_out(batch.left_out, batch.reason)
    if batch.sources or not batch.left_out:
        telemetry.add(batch)
        account.exports += 1


def _document(content: bytes, account: Account) -> dict[str, Any] | None:
    """An export request; None for anything else."""
    is_object = content[:1] == b"{" or content.lstrip()[:1] == b"{"
    try:
        line = content.decode()
    except UnicodeDecodeError:
        account.garbled.add(account.lines)
        line = content.decode(errors="replace")
    try:
        document = wire.parse(line) if is_object else None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and is_export(document) else None
