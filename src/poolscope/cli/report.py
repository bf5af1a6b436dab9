"""``poolscope report``: reports on the connection pools in telemetry files."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from poolscope.cli import picture
from poolscope.cli.pools import render_report
from poolscope.cli.shown import console, in_ascii, line
from poolscope.report import Report, ReportError, build_report, size

if TYPE_CHECKING:
    from collections.abc import Sequence

# Reading more than this takes seconds and shows its progress.
_LARGE_BYTES: Final = 10_000_000


class CommandError(click.ClickException):
    """An error with the problem and its fix; exit code 1."""

    def __init__(self, error: ReportError) -> None:
        super().__init__(f"{line(error.problem)}\n{line(error.fix)}")

    def show(self, file: IO[Any] | None = None) -> None:
        """Print both lines to stderr."""
        click.echo(f"poolscope report: {self.message}", err=file is None, file=file)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Also save the tables as an SVG picture.")
def report(paths: tuple[Path, ...], *, as_json: bool, svg: Path | None) -> None:
    """
    Report on the connection pools in telemetry files.

    PATHS are files or directories of OTLP JSON lines, written by the SDK's OTLP JSON file exporter or by the
    Collector's file exporter.
    """
    try:
        result = _read(paths)
    except ReportError as error:
        _warn(error.warnings)
        raise CommandError(error) from error
    _warn(result.warnings)
    terminal = console(record=svg is not None, file=io.StringIO() if as_json else None)
    if svg is not None or not as_json:
        render_report(terminal, result)
    if as_json:
        click.echo(in_ascii(json.dumps(as_dict(result), indent=2, default=str)))
    if svg is not None:
        try:
            picture.save(terminal, svg, "poolscope report")
        except OSError as error:
            problem = f"{svg} cannot be written: {error.strerror}."
            raise CommandError(ReportError(problem, "Check the path and its permissions.")) from error


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"poolscope report: warning: {line(warning)}", err=True)


def _read(paths: Sequence[Path]) -> Report:
    total = size(paths)
    if total < _LARGE_BYTES or not sys.stderr.isatty():
        return build_report(paths)
    with click.progressbar(length=total, label="PoolObservation", file=sys.stderr) as shown:
        return build_report(paths, shown.update)


def as_dict(result: Report) -> dict[str, Any]:
    """The report as plain dictionaries and lists, with the derived figures."""
    plain = asdict(result)
    for pool, described in zip(result.pools, plain["pools"], strict=True):
        described["saturation"] = pool.saturation
    return plain
