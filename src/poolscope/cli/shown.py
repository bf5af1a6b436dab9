"""
Texts from files and from the environment, made fit for a terminal.

A terminal obeys what is in them: control codes (C0, C1, escape sequences), marks of direction, invisible characters.
"""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass, replace
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import click
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator


Shown = TypeVar("Shown")

#: Characters of one text that are shown.
LONGEST: Final = 2_000
_MARKS: Final = 3
# A terminal that claims more has no screen of that width; rows are padded to it.
WIDEST: Final = 500
# Below this there is no room for a figure beside its frame.
NARROWEST: Final = 20


def line(text: str, longest: int = LONGEST) -> str:
    """
    A text in one line: what a terminal would not print as it is, is escaped as in Python's string literals.

    Args:
        text: From anywhere.
        longest: How many characters of it to show.
    """
    if len(text) > longest:
        text = f"{text[:longest]}…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_printable(text))


def lines(text: str, longest: int = LONGEST) -> str:
    """The same for a text of several lines; only ends of lines are kept."""
    if len(text) > longest:
        text = f"{text[:longest]}…"
    return "\n".join(line(each, longest + 1) for each in text.split("\n"))


def _printable(text: str) -> Iterator[str]:
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character).startswith("M") else 0
        if not character.isprintable():
            yield character.encode("unicode_escape").decode("ascii")
        elif marks <= _MARKS:
            yield character
        # Further marks on one letter would cover the lines above and below it.


def whole(value: Shown) -> Shown:
    """A dataclass with every text in it made fit, however deep inside."""
    plain: Any = value
    fit: Shown = replace(plain, **{one.name: _any(getattr(plain, one.name)) for one in fields(plain) if one.init})
    return fit


def _any(value: object) -> object:
    if isinstance(value, str):
        return lines(value)
    if is_dataclass(value) and not isinstance(value, type):
        return whole(value)
    if isinstance(value, dict):
        return {_any(key): _any(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_any(each) for each in value)
    return value


def in_ascii(document: str) -> str:
    """A JSON document in ASCII with the one control code escaped that JSON leaves as it is."""
    return document.replace("\x7f", "\\u007f")


def console(file: IO[str] | None = None, *, record: bool = False, highlight: bool = True) -> Console:
    """
    The terminal, as wide as it claims to be but not absurdly so.

    Args:
        file: What to print to; standard output when not given.
        record: Whether to keep what is printed, for a picture.
        highlight: Whether figures and names get colours.
    """
    terminal = Console(file=file, record=record, highlight=highlight)
    if not NARROWEST <= terminal.width <= WIDEST:
        terminal.width = max(NARROWEST, min(terminal.width, WIDEST))
    return terminal


class Group(click.Group):
    """A group of commands whose errors are made fit, and that says where its output cannot be written."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        """Read the arguments."""
        with _fit():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """
        Run the command.

        Raises:
            click.ClickException: It failed, or what it says cannot be printed.
        """
        with _fit():
            try:
                return super().invoke(ctx)
            except OSError as error:
                if error.errno == errno.EPIPE:  # click ends silently
                    raise
                _print_no_more()
                reason = error.strerror or type(error).__name__
                raise click.ClickException(f"the output cannot be written: {reason}") from error


@contextmanager
def _fit() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = lines(error.message)
        raise


def _print_no_more() -> None:
    # What is left in the buffer would fail once more when the interpreter ends.
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
