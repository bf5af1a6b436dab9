"""
Finds links in the documentation that lead nowhere, names of telemetry that do not exist, and places that have moved.

Checked in every Markdown file that git knows: each relative link and its anchor; each name in backticks that begins
like one of our metrics, spans, events or attributes, against `poolscope.semconv` and the semantic conventions; and each
line of the example shop in a sample of a report, against the function that the sample has there.

Usage:
    python tools/docs_check.py
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from poolscope import semconv
from poolscope.core.catalogue import UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1`*\s*$", re.MULTILINE | re.DOTALL)
# The first cell of a row in a table "before | now": a name that is gone.
FORMER_NAME = re.compile(r"^ *\| (?P<before>[^|]*) \|(?= `)(?=.*\|$)", re.MULTILINE)
FORMER_NAMES = re.compile(r"(?<=\| before \| now \|\n)(?:.*\|\n?)+", re.MULTILINE)
INLINE_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s+<?(\S+?)>?\s*$", re.MULTILINE)
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
HTML_ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")
HTML_SOURCE = re.compile(r"<(?:img|a)\s[^>]*?(?:src|href)=\"([^\"]+)\"")
EXTERNAL = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)
# "shop/flask_app.py:75 in sales", as reports have it; the name is qualified, and a line may end before it.
PLACE = re.compile(r"\bshop/(?P<file>\w+\.py):(?P<line>\d+)\s+in\s+(?P<function>\w+(?:\.\w+)*)")
TELEMETRY_NAME = re.compile(r"(?:poolscope|db\.client)(?:\.[a-z0-9_]+)+(?:\.\*)?")


def main() -> int:
    """
    Check the project's documentation and print what is wrong.

    Returns:
        1 when something is, else 0.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    known = known_names()
    problems = 0
    for name in listed.stdout.splitlines():
        page = ROOT / name
        if not page.exists():
            continue
        text = page.read_text(encoding="utf-8")
        for problem in (*broken_links(page, text, ROOT), *unknown_names(text, known), *moved_places(text, ROOT)):
            print(f"{name}: {problem}")
            problems += 1
    return 1 if problems else 0


def broken_links(page: Path, text: str, root: Path) -> Iterator[str]:
    """
    The links of a page that lead nowhere.

    Args:
        page: The Markdown file.
        text: What is in it.
        root: The project's root, which links may not leave.

    Yields:
        What is wrong with each.
    """
    prose = INLINE_CODE.sub("", FENCE.sub("", text))
    for pattern in (LINK, REFERENCE, HTML_SOURCE):
        for link in pattern.findall(prose):
            if not EXTERNAL.match(link) and (problem := _broken(page, link, root)):
                yield f"{link}: {problem}"


def _broken(page: Path, link: str, root: Path) -> str | None:
    path, _, anchor = unquote(link).partition("#")
    target = (root / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve() if path else page
    if not target.is_relative_to(root):
        return "leaves the project"
    if not target.exists():
        return "no such file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
        return "no such heading"
    return None


def anchors(text: str) -> set[str]:
    """The anchors of a page: those of its headings, as GitHub forms them, and those set in HTML."""
    found: set[str] = set(HTML_ANCHOR.findall(text))
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        unique, count = slug, 0
        while unique in found:
            count += 1
            unique = f"{slug}-{count}"
        found.add(unique)
    return found


def unknown_names(text: str, known: set[str]) -> Iterator[str]:
    """
    Names of telemetry in backticks that poolscope does not emit; names of our modules are none.

    Args:
        text: A page.
        known: Every name there is.

    Yields:
        What is wrong with each.
    """
    current = FORMER_NAMES.sub(lambda table: FORMER_NAME.sub("|", table.group()), FENCE.sub("", text))
    for _, code in INLINE_CODE.findall(current):
        if not TELEMETRY_NAME.fullmatch(code):
            continue
        family = code.removesuffix(".*")
        if code not in known and not any(name.startswith(f"{family}.") for name in known) and not _is_module(family):
            yield f"`{code}`: no such metric, span, event, attribute or module"


def moved_places(text: str, root: Path) -> Iterator[str]:
    """
    Lines of the example shop that are not in the function that a page has there; other shops' files do not exist.

    Args:
        text: A page.
        root: The project's root.

    Yields:
        What is wrong with each.
    """
    for place in PLACE.finditer(text):
        file, line = root / "examples" / "shop" / place["file"], int(place["line"])
        name = place["function"].rpartition(".")[2]
        if file.exists() and not any(first <= line <= last for first, last in _lines_of(file, name)):
            yield f"shop/{place['file']}:{line}: not in {name}"


def _lines_of(file: Path, name: str) -> list[tuple[int, int]]:
    """The first and last lines of the functions of that name."""
    return [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]


def _is_module(name: str) -> bool:
    """Whether the dotted name is a module of ours or something in one; nothing is imported."""
    parts = name.split(".")
    package = ROOT / "src"
    for depth in range(len(parts), 1, -1):
        base = package.joinpath(*parts[:depth])
        if base.with_suffix(".py").exists():
            return (
                depth == len(parts)
                or re.search(rf"\b{parts[depth]}\b", base.with_suffix(".py").read_text()) is not None
            )
        if base.is_dir():
            return depth == len(parts)
    return False


def known_names() -> set[str]:
    """Every name of telemetry: the dictionary's strings, the findings' evidence, and what the conventions have."""
    found = {value for value in vars(semconv).values() if isinstance(value, str)}
    found |= {metric.name for metric in semconv.METRICS} | {event.name for event in semconv.EVENTS} | set(UNITS)
    for attributes in [metric.attributes for metric in semconv.METRICS] + [span.attributes for span in semconv.SPANS]:
        found.update(attributes)
    conventions = importlib.import_module("opentelemetry.semconv._incubating")
    for module in pkgutil.walk_packages(conventions.__path__, f"{conventions.__name__}."):
        if ".db_" in module.name or module.name.endswith((".attributes", ".metrics")):
            loaded = importlib.import_module(module.name)
            found |= {value for value in vars(loaded).values() if isinstance(value, str) and value.startswith("db.")}
    return found


if __name__ == "__main__":
    sys.exit(main())
