"""
Mutants of source files, made by cosmic-ray. Runs in an environment of its own, which has that and not poolscope.

    python mutators.py list     paths on standard input, one a line; a JSON line for each mutant
    python mutators.py make     such lines on standard input; the same lines with the mutant's `code`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def operators() -> Iterator[tuple[str, Any]]:
    """Every operator that needs no arguments; what it does to the code is up to it."""
    for name in operator_names():
        kind = get_operator(name)
        if not kind.arguments() and not name.endswith("/NoOp"):
            yield name, kind()


def found(paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """
    Every mutant of some files.

    Args:
        paths: The files.

    Yields:
        Its file, operator and number among those of the operator, and where it begins and ends: lines from 1, columns
        from 0.
    """
    for path in paths:
        nodes = list(ast_nodes(get_ast(Path(path).read_text(encoding="utf-8"))))
        for name, operator in operators():
            positions = (position for node in nodes for position in operator.mutation_positions(node))
            for number, (start, end) in enumerate(positions):
                yield {"path": path, "operator": name, "number": number, "start": start, "end": end}


def main() -> None:
    """Obey the command line."""
    lines = [line.strip() for line in sys.stdin if line.strip()]
    if sys.argv[1] == "list":
        for mutant in found(lines):
            print(json.dumps(mutant))
        return
    for mutant in map(json.loads, lines):
        source = Path(mutant["path"]).read_text(encoding="utf-8")
        code = mutate_code(source, get_operator(mutant["operator"])(), mutant["number"])
        print(json.dumps({**mutant, "code": code}), flush=True)


if __name__ == "__main__":
    main()
