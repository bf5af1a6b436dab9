"""Core names no library: what it knows of one, an adapter or a framework declares."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import poolscope.core
from poolscope.adapters.registry import load as adapters
from poolscope.core.sql import syntax
from poolscope.frameworks.registry import load as frameworks

if TYPE_CHECKING:
    from collections.abc import Iterator

CORE: Final = Path(poolscope.core.__file__).parent
#: Not hooked themselves, but part of how libraries run the application's code.
BESIDE: Final = {"greenlet", "gevent", "jinja", "jinja2", "uvloop", "werkzeug", "wrapt"}
#: Names of databases, as the semantic conventions have them.
DATABASES: Final = {part for system in syntax.SYSTEMS for part in (system, *system.split("."))}


def libraries() -> set[str]:
    """The names of all that the registries hook, and of what their adapters declare."""
    names = set(BESIDE)
    for hook in (*adapters(), *frameworks()):
        modules = (hook.module, *getattr(hook, "library_modules", ()))
        packages = {module.partition(".")[0] for module in modules}
        if not packages & sys.stdlib_module_names:
            names |= {hook.name, *packages}
    return names - DATABASES


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """The string literals of a file, by their lines; docstrings are none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def named(text: str) -> set[str]:
    """The libraries that a text names, as a word or as a part of an identifier."""
    words = set(re.split(r"[^a-z0-9-]+", text.lower())) | set(re.split(r"[^a-z0-9_]+", text.lower()))
    return words & libraries()


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_no_string_in_core_names_a_library(path: Path) -> None:
    """Neither as the name of a module or file, nor in what a person reads."""
    found = [(line, text) for line, text in literals(path) if named(text)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "library"),
    [
        ("sqlalchemy/orm/strategies.py", "sqlalchemy"),
        ("django.db.", "django"),
        ("SQLAlchemy lazy load", "sqlalchemy"),
        ("psycopg_pool", "psycopg_pool"),
        ("mysql-connector", "mysql-connector"),
        ("greenlet_spawn", "greenlet"),
        ("__jinja_template__", "jinja"),
        ("/uvloop/__init__.py", "uvloop"),
        ("mysql", None),
        ("oracle.db", None),
        ("threading", None),
        ("a flashy thing", None),
    ],
)
def test_what_names_one(text: str, library: str | None) -> None:
    """The test above finds each kind of mention; databases and the standard library may be named."""
    assert library in named(text) if library is not None else not named(text)
