"""``poolscope report``: reports on the connection pools in telemetry files."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from poolscope.cli import picture
from poolscope.cli.pools import render_report
from poolscope.report import Report, ReportError, build_report, files

if TYPE_CHECKING:
    from collections.abc import Sequence

# Reading more than this takes seconds and shows its progress.
_LARGE_BYTES: Final = 10_000_000


class CommandError(click.ClickException):
    """An error with the problem and its fix; exit code 1."""

    def __init__(self, error: ReportError) -> None:
        super().__init__(f"{error.problem}\n{error.fix}")

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
        result = _read(files(paths))
    except ReportError as error:
        raise CommandError(error) from error
    except OSError as error:
        problem = f"{error.filename} cannot be read: {error.strerror}."
        raise CommandError(ReportError(problem, "Check the path and its permissions.")) from error
    for warning in result.warnings:
        click.echo(f"poolscope report: warning: {warning}", err=True)
    console = Console(record=svg is not None, file=io.StringIO() if as_json else None)
    render_report(console, result)
    if as_json:
        click.echo(json.dumps(as_dict(result), indent=2, default=str))
    if svg is not None:
        try:
            picture.save(console, svg, "poolscope report")
        except OSError as error:
            problem = f"{svg} cannot be written: {error.strerror}."
            raise CommandError(ReportError(problem, "Check the path and its permissions.")) from error


def _read(paths: Sequence[Path]) -> Report:
    total = sum(path.stat().st_size for path in paths)
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
