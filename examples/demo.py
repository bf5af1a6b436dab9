"""
The shop under load on a real PostgreSQL, and what left the process: ``make demo``.

The shop runs in a process of its own under ``opentelemetry-instrument``; its code does not mention poolscope. What is
printed at the end is read from the OTLP JSON lines that the shop's file exporters wrote, and from nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from examples.lab.postgres import postgres
from examples.lab.processes import ChildFailedError, survive_interrupt
from examples.lab.shop import FRAMEWORKS, database, payments, shop
from examples.shop.traffic import Tally, Traffic
from poolscope import semconv
from poolscope.cli import picture, print_in_any_encoding
from poolscope.cli.figures import code_location
from poolscope.cli.pools import render_report
from poolscope.report import Report, ReportError, build_report

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_SECONDS = 20.0
MOST_SECONDS = 3600.0
POOL = {"SHOP_POOL_SIZE": "10", "SHOP_MAX_OVERFLOW": "5", "SHOP_POOL_TIMEOUT": "1.0"}


def main() -> int:
    """
    Run the demo.

    Returns:
        The exit code: 0, 1 when something failed, 130 after Ctrl-C.
    """
    arguments = _arguments()
    print_in_any_encoding()
    console = Console(record=arguments.svg is not None, width=arguments.width, highlight=False)
    # A polite kill takes the same way out as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _telemetry_folder(arguments.keep) as folder:
            run(console, folder / "shop.jsonl", arguments.framework, arguments.seconds)
            report = build_report([folder / "shop.jsonl"])
        show(console, report, arguments)
    except KeyboardInterrupt:
        survive_interrupt()
        console.print("\nStopped; nothing is left running.")
        return 130
    except (ChildFailedError, ReportError, psycopg.Error, OSError) as error:
        Console(stderr=True).print(f"[bold red]The demo failed:[/] {escape(str(error))}", highlight=False)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description="The shop under load, and what poolscope reports.")
    seconds = os.environ.get("DEMO_SECONDS") or DEFAULT_SECONDS
    parser.add_argument("--seconds", type=_seconds, default=seconds, help="how long customers come (DEMO_SECONDS)")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="flask", help="what the shop is written in")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the telemetry in this folder")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="save the terminal's output as a picture")
    parser.add_argument("--width", type=int, help="columns of the output; the terminal's when left out")
    return parser.parse_args()


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if 0.0 < seconds <= MOST_SECONDS:
        return seconds
    text = f"{value!r} is not a number of seconds above 0 and up to {MOST_SECONDS:.0f} (--seconds or DEMO_SECONDS)"
    raise argparse.ArgumentTypeError(text)


@contextlib.contextmanager
def _telemetry_folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="poolscope-demo-") as folder:
            yield Path(folder)
        return
    keep.mkdir(parents=True, exist_ok=True)
    (keep / "shop.jsonl").unlink(missing_ok=True)
    yield keep


def run(console: Console, telemetry: Path, framework: str, seconds: float) -> None:
    """Start everything, send the requests, stop everything; the telemetry is complete afterwards."""
    with postgres(variable="DEMO_DSN") as server, database(server) as filled:
        whose = "embedded" if server.child else "DEMO_DSN"
        console.print(f"PostgreSQL at {server.host}:{server.port} ({whose}), filled with users, posts and orders")
        with payments() as payment_url, shop(framework, filled, payment_url, POOL, telemetry) as running:
            console.print(f"The shop at {running.address} ({framework}), a pool of 10 + 5 connections")
            tally = asyncio.run(_customers(console, running.address, seconds))
            if not tally.answered:
                raise ChildFailedError(f"the shop answered no request; its log ends:\n{running.child.log_tail()}")
            running.close()
    console.print(
        f"{tally.total} requests: {tally.answered} answered, {tally.rejected} refused for lack of a connection,"
        f" {tally.failed} failed"
    )


async def _customers(console: Console, address: str, seconds: float) -> Tally:
    columns = (TextColumn("Customers"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[tally]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("customers", total=seconds, tally="")

        def advance(gone: float, tally: Tally) -> None:
            text = f"{tally.total} requests, [red]{tally.rejected} refused"
            progress.update(task, completed=gone, tally=text)

        return await Traffic(address, seconds).run(advance)


def show(console: Console, report: Report, arguments: argparse.Namespace) -> None:
    """Print the report, and the result in one sentence."""
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")
    render_report(console, report)
    console.print(_result(report))
    if arguments.keep:
        console.print(f"The telemetry is in {arguments.keep}: poolscope report {arguments.keep}", markup=False)
    if arguments.svg:
        picture.save(console, arguments.svg, "make demo")


def _result(report: Report) -> str:
    pool = report.pools[0]
    name = escape(pool.name)
    if not pool.timeouts:
        return f"[bold green]The pool {name} held out:[/] at most {pool.peak} of {pool.limit} connections in use."
    figures = f"{pool.peak} of {pool.limit} in use, {pool.timeouts} requests timed out."
    lines = [f"[bold red]The pool {name} ran out of connections:[/] {figures}"]
    cause_id = next((one.evidence[semconv.CAUSE] for one in report.findings if semconv.CAUSE in one.evidence), None)
    for cause in report.findings:
        if cause.id == cause_id:
            where = escape(f"{cause.call_site.route}, {code_location(cause.call_site)}")
            lines.append(f"Cause: [bold]{cause.id.replace('_', ' ')}[/] in {where}.")
    if pool.holders:
        holder = pool.holders[0].call_site
        lines.append(f"Held longest: [bold]{escape(holder.route)}[/], {escape(code_location(holder))}.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
