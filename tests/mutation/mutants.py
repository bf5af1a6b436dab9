"""Mutants: sources with one small change each, such as `<` in place of `<=`. cosmic-ray makes them."""

from __future__ import annotations

import ast
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.venvs import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HERE: Final = Path(__file__).resolve().parent
#: How many mutants are made with one start of the environment.
AT_A_TIME: Final = 50
#: Where a span begins and ends: a line from 1 and a column from 0.
Place = tuple[int, int]


@dataclass(frozen=True)
class Mutant:
    """
    One small change of a file.

    Args:
        path: The file, from the root.
        operator: What makes it.
        number: Which of those that the operator makes in the file.
        line: Where it begins, from 1.
        text: That line.
    """

    path: str
    operator: str
    number: int
    line: int
    text: str

    @property
    def kind(self) -> str:
        """The operator without the name of its package."""
        return self.operator.partition("/")[2]

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.kind}: {self.text}"


def unnoticed(source: str) -> Iterator[tuple[Place, Place]]:
    """
    What no test can notice a change of: annotations, which Python does not evaluate here, and imports for checkers.

    Args:
        source: The file's text, which postpones the evaluation of annotations.

    Yields:
        The beginning and the end of each.
    """
    for node in ast.walk(ast.parse(source)):
        found: list[ast.AST | None] = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found = [node.returns]
        elif isinstance(node, (ast.arg, ast.AnnAssign)):
            found = [node.annotation]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            found = [node]
        for one in found:
            if isinstance(one, (ast.expr, ast.stmt)):
                yield (one.lineno, one.col_offset), (one.end_lineno or one.lineno, one.end_col_offset or 0)


def is_another(code: str, source: str) -> bool:
    """
    Whether it is a program, and not the same as before.

    Args:
        code: The mutated source.
        source: The source.
    """
    try:
        return ast.dump(ast.parse(code)) != ast.dump(ast.parse(source))
    except SyntaxError:  # `**` before an argument is no operator
        return False


class Mutators:
    """The environment that makes mutants."""

    def __init__(self) -> None:
        self._python = environment(f"{sys.version_info[0]}.{sys.version_info[1]}", ["cosmic-ray>=8.7,<9"])

    def every(self, paths: Iterable[str]) -> list[Mutant]:
        """
        Every mutant that a test could notice.

        Args:
            paths: The files, from the root.
        """
        found = []
        sources = {path: (ROOT / path).read_text(encoding="utf-8") for path in paths}
        dull = {path: list(unnoticed(source)) for path, source in sources.items()}
        for line in self._ask("list", sources):
            given = json.loads(line)
            path, start = given["path"], tuple(given["start"])
            text = sources[path].splitlines()[start[0] - 1]
            is_bare_star = text[start[1] :].replace(" ", "").startswith("*,")  # no operator: by keyword from here on
            if not is_bare_star and not any(first <= start < end for first, end in dull[path]):
                found.append(Mutant(path, given["operator"], given["number"], start[0], text.strip()))
        return found

    def code(self, mutants: Iterable[Mutant]) -> Iterator[tuple[Mutant, str]]:
        """
        The mutated sources.

        Args:
            mutants: Those that are wanted; of what is taken, so many are made at a time.

        Yields:
            Each with its source, without those that are no Python or no other program.
        """
        left = iter(mutants)
        while some := list(itertools.islice(left, AT_A_TIME)):
            lines = [json.dumps({"path": one.path, "operator": one.operator, "number": one.number}) for one in some]
            for mutant, line in zip(some, self._ask("make", lines), strict=True):
                code = json.loads(line)["code"]
                if is_another(code, (ROOT / mutant.path).read_text(encoding="utf-8")):
                    yield mutant, code

    def _ask(self, what: str, lines: Iterable[str]) -> Sequence[str]:
        command = [str(self._python), str(HERE / "mutators.py"), what]
        asked = subprocess.run(command, cwd=ROOT, input="\n".join(lines), stdout=subprocess.PIPE, text=True, check=True)
        return asked.stdout.splitlines()
