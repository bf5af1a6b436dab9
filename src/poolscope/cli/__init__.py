"""
The command line: arguments and terminal output, nothing else.

It needs the extra ``cli`` (click, rich); without the extra, the command prints how to install it.
"""

from __future__ import annotations

import io
import sys


def print_in_any_encoding() -> None:
    """Print a question mark for a character that the terminal's encoding lacks, such as a bar under ``LC_ALL=C``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main() -> int:
    """
    Run ``poolscope``.

    Returns:
        The exit code: 1 if the command line's own packages are missing, else 0; click exits with its own codes.
    """
    try:
        import click  # noqa: F401, PLC0415 - poolscope works without them
        import rich  # noqa: F401, PLC0415
    except ImportError as error:
        sys.stderr.write(f"poolscope: the command line needs {error.name}: pip install 'poolscope[cli]'\n")
        return 1
    from poolscope.cli.app import app  # noqa: PLC0415 - needs click

    print_in_any_encoding()
    app(prog_name="poolscope")
    return 0
