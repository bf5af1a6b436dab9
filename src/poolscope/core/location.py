"""A place in code, as a person reads it, and how a frame that was kept raw becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from poolscope.core.libraries import KNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, FrameType

    from poolscope.core.origin import RawStack

#: In place of an instruction's index: the function's first line, which has no instruction before Python 3.11.
BEGINNING: Final = -1

# Of templates that were compiled to code: which of their lines each line of the code is for.
_TEMPLATES: Final[WeakKeyDictionary[CodeType, Sequence[tuple[int, int]]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Location:
    """
    A place in code.

    Args:
        function: The qualified name of the function (where the interpreter knows it, from Python 3.11).
        file: The path of the file.
        line: The line number, from 1; 0 when the interpreter does not know it.
    """

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        """In the form of a traceback, on one line."""
        return f"{self.file}:{self.line} in {self.function}"


def locate(code: CodeType, instruction: int) -> Location:
    """
    Resolve one raw frame. Cold: it reads the code's table of lines.

    Args:
        code: The code object.
        instruction: The index of the instruction in it, or `BEGINNING`.
    """
    line = code.co_firstlineno if instruction == BEGINNING else 0
    for start, end, number in code.co_lines():
        if start <= instruction < end:
            line = number or 0
            break
    for template_line, code_line in reversed(_TEMPLATES.get(code, ())):
        if code_line <= line:
            line = template_line
            break
    return Location(getattr(code, "co_qualname", code.co_name), code.co_filename, line)


def know_template(frame: FrameType) -> None:
    """
    If a frame is that of a template of a declared kind, see to it that `locate` gives lines of the template, not of the
    code that it was compiled to.

    Args:
        frame: The frame.
    """
    for name in KNOWN.templates:
        template = frame.f_globals.get(name)
        if template is not None and frame.f_code not in _TEMPLATES:
            _TEMPLATES[frame.f_code] = template.debug_info


def resolve(stack: RawStack) -> tuple[Location, ...]:
    """Resolve a raw stack, innermost first."""
    return tuple(locate(code, instruction) for code, instruction in stack)
