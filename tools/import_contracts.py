"""
A contract for import-linter: which modules may import which libraries.

Everything outside the standard library is forbidden but for what the contract lists, so that a new dependency, or an
old one in a new place, is a decision and not an accident.
"""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

from importlinter import Contract, ContractCheck, fields, output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from grimp import ImportGraph


class ExternalsContract(Contract):
    """
    Libraries are imported where they belong and nowhere else.

    Configuration options:
        allowed: Lines ``module: library library``; they hold for the module and what is below it, ``*`` stands for any
            ending, the longest match counts, and a module without a line may import the standard library only.
    """

    type_name = "externals"
    allowed = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 - import-linter's signature
        """Compare every import of a library with what is allowed."""
        allowed = parse(cast("Iterable[str]", self.allowed))
        squashed = {module for module in graph.modules if graph.is_module_squashed(module)}
        broken = [
            (importer, imported)
            for importer in sorted(graph.modules - squashed)
            for imported in sorted(graph.find_modules_directly_imported_by(importer) & squashed)
            if not permits(allowed, importer, imported)
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print every import that is not allowed."""
        for importer, imported in check.metadata["broken"]:
            output.print_error(f"{importer} may not import {imported}")


def parse(lines: Iterable[str]) -> dict[str, set[str]]:
    """The libraries by the module that may import them."""
    pairs = (line.partition(":") for line in lines)
    return {module.strip(): set(libraries.split()) for module, _, libraries in pairs}


def permits(allowed: Mapping[str, Any], importer: str, imported: str) -> bool:
    """
    Whether a module may import a library.

    Args:
        allowed: Libraries by module, from `parse`.
        importer: The module that imports.
        imported: What it imports; only the top-level name counts.

    Returns:
        True for the standard library and for what the longest matching line lists.
    """
    library = imported.partition(".")[0]
    if library in sys.stdlib_module_names:
        return True
    matching = [line for line in allowed if fnmatchcase(importer, line) or importer.startswith(f"{line}.")]
    return bool(matching) and library in allowed[max(matching, key=len)]
