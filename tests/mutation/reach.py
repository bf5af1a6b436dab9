"""Which tests reach which line of the source."""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.venvs import cache

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from tests.mutation.mutants import Mutant

TESTS: Final = "tests/unit"
#: A file of tests that names neither reaches them by accident.
NAMES: Final = ("poolscope.core", "poolscope.detectors")
#: Tests of something else, though they name them: of tools and reports, and of the text of the source.
OTHERS: Final = (
    "test_core_names_no_library.py", "test_doctor.py", "test_linear.py", "test_mutation.py",
    "test_nothing_half_done.py", "test_report*.py", "test_soak.py", "test_tools_*.py",
)  # fmt: skip
#: Tests of time and memory, which take seconds, and fail on a busy machine whatever they reach; and of the text of all
#: of the source, whose names are of no mutant's.
COSTLY: Final = (
    "not (time_grows or takes_long or longer_than or memory_is or garbage_may_be_due or hundred_thousand"
    " or everything_that_is_kept)"
)
#: Of a line that more tests reach, so many are tried: what runs at import is reached by all of them.
MOST_TESTS: Final = 2_000
#: Only the lines of one process: programs that tests start are no slower for it, and none reports to another folder.
SETTINGS: Final = "[run]\nsource_pkgs = poolscope\n"


class TestsFailError(Exception):
    """Tests fail without any mutant; the message has the end of what they said."""


class Reach:
    """
    What the tests of a copy reach. It takes minutes to measure, and is kept until something in the copy is another.

    Args:
        copy: The folder of the copy.

    Raises:
        TestsFailError: Tests fail.
    """

    def __init__(self, copy: Path) -> None:
        self._copy = copy
        import coverage  # the matrix has none

        kept = cache() / "mutants" / f"{_digest(copy)}.coverage"
        if not kept.exists():
            shutil.rmtree(kept.parent, ignore_errors=True)
            kept.parent.mkdir(parents=True)
            shutil.move(_measured(copy), kept)
        self._data = coverage.CoverageData(str(kept))
        self._data.read()
        # It has whole paths, of a folder that is gone.
        self._files = {name.rpartition("/src/")[2]: name for name in self._data.measured_files()}
        self._every = {one.rpartition("|")[0] for one in self._data.measured_contexts() if "|" in one}
        self._contexts: dict[str, dict[int, set[str]]] = {}

    def tests(self, mutant: Mutant, draw: random.Random) -> list[str]:
        """
        The ids of tests that reach a mutant's statement, those of the module's own file first.

        Of what runs when the module is imported, such as a constant, these are all that reach the module; where none
        does, as one of constants alone, all that there are.
        """
        by_line = self._of(mutant.path)
        tree = ast.parse((self._copy / mutant.path).read_text(encoding="utf-8"))
        reached = set().union(*(by_line.get(line, set()) for line in lines_of_statement(tree, mutant.line)))
        if not reached:
            reached = set().union(*by_line.values()) or self._every
        own = [test for test in sorted(reached) if _is_own(test, mutant.path)]
        others = [test for test in sorted(reached) if test not in set(own)]
        draw.shuffle(own)
        draw.shuffle(others)
        return [*own, *others][:MOST_TESTS]

    def _of(self, path: str) -> dict[int, set[str]]:
        if path not in self._contexts:
            measured = self._files.get(path.removeprefix("src/"), "")
            by_line = self._data.contexts_by_lineno(measured)
            self._contexts[path] = {
                line: {one.rpartition("|")[0] for one in contexts if "|" in one} for line, contexts in by_line.items()
            }
        return self._contexts[path]


def files_of_tests(folder: Path) -> list[str]:
    """The files of unit tests that say something of core and detectors, from the copy's folder."""
    return [
        str(path.relative_to(folder))
        for path in sorted((folder / TESTS).rglob("test_*.py"))
        if any(name in path.read_text(encoding="utf-8") for name in NAMES)
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in OTHERS)
    ]


def lines_of_statement(tree: ast.AST, line: int) -> Iterable[int]:
    """
    The lines of the smallest statement that a line is of; of one with a body, those before the body.

    Args:
        tree: The module.
        line: The line, from 1.
    """
    spans = []
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            span = range(node.lineno, max(node.lineno, end) + 1)
            if line in span:
                spans.append(span)
    return min(spans, key=len, default=range(line, line + 1))


def _is_own(test: str, path: str) -> bool:
    return Path(path).stem in test.partition("::")[0]


def _measured(copy: Path) -> Path:
    data = copy / "reach.coverage"
    settings = copy / "reach.ini"
    settings.write_text(SETTINGS, encoding="utf-8")
    command = [
        sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "-k", COSTLY, *files_of_tests(copy),
        "--cov", f"--cov-config={settings}", "--cov-context=test", "--cov-report=",
    ]  # fmt: skip
    environ = {**os.environ, "COVERAGE_FILE": str(data), "PYTHONPATH": str(copy / "src")}
    run = subprocess.run(command, cwd=copy, env=environ, capture_output=True, text=True, check=False)
    if run.returncode:
        raise TestsFailError(f"the tests fail without any mutant:\n{run.stdout[-3000:]}")
    return data


def _digest(copy: Path) -> str:
    digest = hashlib.sha256(f"{sys.version}{sys.prefix}".encode())
    for folder in ("src", "tests", "examples"):
        for path in sorted((copy / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(copy)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
