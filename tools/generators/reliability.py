"""docs/reliability.md: every fault that a test provokes, made from the tests' marks."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
MARK = "pytest.mark.reliability"
COLUMNS = ("fault", "application", "lost")
HEAD = """\
# Reliability

<!-- Made by `make generate` from the marks `reliability` in tests; do not edit. -->

What goes wrong in a process, what the application sees of it with poolscope, compared with the same fault without, and
what telemetry lacks afterwards. Each line is a test that provokes the fault. `make test` tries each some times,
`make trust` as often as it takes to be sure.

| fault | what the application sees | what telemetry lacks | test |
| --- | --- | --- | --- |"""


class Line(NamedTuple):
    """
    One fault.

    Args:
        fault: What goes wrong.
        application: What the application sees, compared with the same fault without poolscope.
        lost: What telemetry lacks afterwards.
        path: The test's file, from the root.
        test: The test's name.
    """

    fault: str
    application: str
    lost: str
    path: str
    test: str


def generate() -> dict[str, str]:
    """
    The page.

    Returns:
        Its text by its path.

    Raises:
        ValueError: A mark lacks a column, or has one that is no plain text.
    """
    return {"docs/reliability.md": "\n".join([HEAD, *(_row(line) for line in lines()), ""])}


def lines() -> Iterator[Line]:
    """
    All faults, by file and in the order of its tests.

    Raises:
        ValueError: A mark lacks a column, or has one that is no plain text.
    """
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if MARK not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == MARK:
                        yield _line(mark, path.relative_to(ROOT).as_posix(), node.name)


def _line(mark: ast.Call, path: str, test: str) -> Line:
    given = {argument.arg: argument.value for argument in mark.keywords}
    texts = []
    for column in COLUMNS:
        value = given.pop(column, None)
        if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
            raise ValueError(f"{path}: {test}: the mark `reliability` needs {column}=, a plain text")  # noqa: TRY004
        texts.append(value.value)
    if given or mark.args:
        raise ValueError(f"{path}: {test}: the mark `reliability` takes {', '.join(COLUMNS)} and nothing else")
    fault, application, lost = texts
    return Line(fault, application, lost, path, test)


def _row(line: Line) -> str:
    texts = (line.fault, line.application, line.lost)
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + f" | [{line.test}](../{line.path}) |"
