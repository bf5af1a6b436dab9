"""``poolscope doctor``: checks whether poolscope can work in this interpreter, and what prevents it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from poolscope.cli.shown import console, in_ascii, lines
from poolscope.doctor import Examination, Remark, Status, examine

if TYPE_CHECKING:
    from rich.console import Console

_SIGNS: Final = {Status.OK: ("ok", "green"), Status.WARNING: ("warning", "yellow"), Status.PROBLEM: ("PROBLEM", "red")}
_WIDTH: Final = max(len(sign) for sign, _ in _SIGNS.values())


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.pass_context
def doctor(context: click.Context, *, as_json: bool) -> None:
    """
    Check whether poolscope can work in this interpreter.

    It imports, hooks and unhooks every pool library and framework that poolscope knows, and reads the environment. It
    opens no connection. Run it where the service runs, with the service's interpreter and variables. Exit code 1:
    poolscope cannot work there.
    """
    examination = examine()
    if as_json:
        click.echo(in_ascii(json.dumps(examination.as_dict(), indent=2)))
    else:
        render(console(highlight=False), examination)
    context.exit(0 if examination.works else 1)


def render(terminal: Console, examination: Examination) -> None:
    """Print the result of every check, each problem with its fix."""
    for result in examination.results:
        terminal.print(Text(result.title, "bold"))
        table = Table.grid(padding=(0, 2))
        table.add_column(width=_WIDTH, no_wrap=True)
        table.add_column(overflow="fold")
        for remark in result.remarks:
            sign, colour = _SIGNS[remark.status]
            table.add_row(Text(sign, colour), _words(remark))
        terminal.print(Padding(table, (0, 0, 0, 2)))
        terminal.print()
    problems, warnings = examination.count(Status.PROBLEM), examination.count(Status.WARNING)
    counted = f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}"
    outcome = "poolscope can work here" if examination.works else "poolscope cannot work here as it is"
    terminal.print(Text(f"{outcome}: {counted}", "bold green" if examination.works else "bold red"))


def _words(remark: Remark) -> Text:
    return Text.assemble(lines(remark.text), (f"\n{lines(remark.fix)}" if remark.fix else "", "dim"))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
