"""
The command line: arguments and terminal output, nothing else.

It needs the extra ``cli`` (click, rich); without it the command says so.
"""

from __future__ import annotations

import io
import sys


def print_in_any_encoding() -> None:
    """
    Let a character that the terminal's encoding lacks (a bar, under ``LC_ALL=C``) become a question mark, not an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main() -> int:
    """
    Run ``poolscope``.

    Returns:
        The exit code: 0, or 1 where the command line's own packages are missing; click exits by itself otherwise.
    """
    try:
        import click  # noqa: F401, PLC0415 - the package works without them
        import rich  # noqa: F401, PLC0415
    except ImportError as error:
        sys.stderr.write(f"poolscope: the command line needs {error.name}: pip install 'poolscope[cli]'\n")
        return 1
    from poolscope.cli.app import app  # noqa: PLC0415 - needs click

    print_in_any_encoding()
    app(prog_name="poolscope")
    return 0
