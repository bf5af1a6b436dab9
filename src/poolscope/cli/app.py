"""
The group of commands.

Shell completion: ``eval "$(_POOLSCOPE_COMPLETE=bash_source poolscope)"`` (or ``zsh_source``; for fish,
``_POOLSCOPE_COMPLETE=fish_source poolscope | source``).
"""

from __future__ import annotations

import click

from poolscope.cli.doctor import doctor
from poolscope.cli.report import report
from poolscope.cli.shown import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="poolscope", message="%(prog)s %(version)s")
def app() -> None:
    """Find out why a Python service runs out of database connections."""


app.add_command(report)
app.add_command(doctor)
