"""Reading a text takes time in proportion to its length, whatever the text: none blocks the application's thread."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
import re
from typing import TYPE_CHECKING, Any

import pytest

import poolscope.core.sql
from poolscope.adapters import identity
from poolscope.cli import figures
from poolscope.config import Settings
from poolscope.core.libraries import is_within
from poolscope.core.sql.fingerprint import shape_of
from tests.support.expressions import Expression, expressions
from tests.support.pumping import inputs_for, slow_inputs, token_inputs
from tests.support.scale import times
from tests.support.seeds import seed_of_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SYSTEMS = (
    "postgresql", "cockroachdb", "mysql", "mariadb", "sqlite", "oracle.db", "microsoft.sql_server", "other_sql",
)  # fmt: skip
#: Inputs that are drawn for each expression, and for all functions, besides the tokens.
DRAWN = times(15, whole=2_000)
#: Sizes for functions, which do more for each character than an expression does; a fourth of the last one is compared.
SIZES = (500, times(4_000, whole=32_000))
#: What was, or may be, slow: a beginning, what is repeated, and an end.
KNOWN = (
    ("E''", "\n", "x"), ("E''", " \n", "x"), ("select ", "%(", ""), ("select ", "%(a", ")s"), ("", "[", ""),
    ("select 'a", "\\'", ""), ("", "$a$ $b$", ""), ("", "/*", ""), ("select ", "(", ""), ("", "values (", ""),
    ("values ", "(?),", "("), ("lock table ", "a,", ""), ("", "update a;", ""), ("", "insert into a;", ""),
    ("select from a where ", "from b(", ""), ("", "select from a.", ""), ("create index ", "create ", "on a"),
    ("select * from a where ", "where ", "id"), ("select get_lock(", "get_lock((a)", ""), ("", "truncate a,", ""),
    ("select ", "pg_advisory_lock(1) ", ""), ("insert into a values ", "(1, 2), ", ""), ("select a in (", "1, ", ")"),
    ("select * from a where b > ", "? , ", " order by c limit ?"), ("select ", "a.", ""), ("", "q'[", ""),
    ("with a as (select ", "with a as (select ", ""), ("", "--\r", ""), ("", "''", "'"), ("", '""', '"'),
    ("alter role ", "password '", ""), ("", "/*! ", ""), ("", "with limit ?", "x"),
)  # fmt: skip


def compiles() -> object:
    """What compiles the expressions of functions."""
    return [shape_of("select 1", system) for system in SYSTEMS]


EXPRESSIONS = list(expressions(compiles))


@pytest.mark.reliability(
    fault="a statement, address or name that is made to be slow to read",
    application="a delay in proportion to the length of the text, of which 10,000 characters are read",
    lost="nothing",
)
@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda one: f"{one.where}-{one.pattern[:30]}")
def test_expressions_are_linear(expression: Expression) -> None:
    """Every regular expression, on inputs that are made for it: four times the length takes four times the time."""
    for run in expression.runs():
        inputs = inputs_for(expression.pattern, expression.flags, DRAWN, str(seed_of_run()))
        assert next(slow_inputs(run, inputs), None) is None


def functions() -> Iterator[tuple[str, Callable[[str], object]]]:
    """Every public function of `core/sql` that reads a text, for each database; and the others that read long ones."""
    for info in pkgutil.iter_modules(poolscope.core.sql.__path__):
        module = importlib.import_module(f"poolscope.core.sql.{info.name}")
        for name, function in vars(module).items():
            if not inspect.isfunction(function) or function.__module__ != module.__name__ or name.startswith("_"):
                continue
            parameters = inspect.signature(function).parameters.values()
            required = [one.name for one in parameters if one.default is inspect.Parameter.empty]
            texts = [one.name for one in parameters if one.annotation == "str" and one.name != "system"]
            if not texts:
                continue
            unknown = set(required) - ARGUMENTS.keys() - {texts[0]}
            assert not unknown, f"{info.name}.{name} needs {unknown}: say in ARGUMENTS what is given"
            for system in _drawn_systems(name) if "system" in required else SYSTEMS[:1]:
                yield f"{name}-{system}", _applied(function, texts[0], required, system)
    yield "short_paths", figures.short_paths
    yield "login_of", identity.login_of
    yield "settings", lambda text: Settings.read({"disabled_adapters": text}, {})
    yield "is_within", lambda text: is_within(text, ("a", "b"))


def _drawn_systems(name: str) -> tuple[str, ...]:
    return tuple(random.Random(f"{seed_of_run()} {name}").sample(SYSTEMS, times(2, whole=len(SYSTEMS))))


#: What a function of `core/sql` is given besides the text.
ARGUMENTS: dict[str, Callable[[str, str], Any]] = {
    "system": lambda _, system: system,
    "shape": lambda text, _: text,
    "stand_in": lambda *_: lambda *__: "?",
}


def _applied(
    function: Callable[..., object], text_name: str, required: list[str], system: str
) -> Callable[[str], object]:
    def apply(text: str) -> object:
        # A marker: what is remembered of a text is not read again.
        _applied_count[0] += 1
        marked = f"{text}{_applied_count[0]}"
        others = {name: ARGUMENTS[name](marked, system) for name in required if name != text_name}
        return function(**{text_name: marked}, **others)

    return apply


_applied_count = [0]
FUNCTIONS = dict(functions())


@pytest.fixture
def uncut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements are read to their end, however long: what is quadratic shows."""
    for info in pkgutil.iter_modules(poolscope.core.sql.__path__):
        module = importlib.import_module(f"poolscope.core.sql.{info.name}")
        if hasattr(module, "LONGEST"):
            monkeypatch.setattr(module, "LONGEST", 10**9)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_linear(name: str, uncut: None) -> None:
    """Every function that reads SQL, on tokens over and over, without the limit on its length."""
    function = FUNCTIONS[name]
    seed = f"{seed_of_run()} {name}"
    inputs = [*KNOWN, *token_inputs(DRAWN, seed)]
    few = random.Random(seed).sample(inputs, times(16, whole=len(inputs)))
    assert next(slow_inputs(function, iter(few), SIZES), None) is None


SLOW = {
    r"(a+)+$": "match",
    r"(?:a|aa)+$": "match",
    r"%\([^)]*\)": "finditer",
    r"\s*\n\s*b": "match",
    r"'(?:[^']|'')*'x": "finditer",
    r"\bwhere\b.*?id": "finditer",
    r"\d+$": "finditer",
    r"(?:/[^/\s]+)*/[^/\s]+\.py": "finditer",
    r"/\*.*?\*/": "finditer",
    r"\([^)]*\)": "finditer",
}


@pytest.mark.parametrize("pattern", SLOW)
def test_what_is_slow_is_found(pattern: str) -> None:
    """Expressions with nested or neighbouring repetitions, and those that look from each place to the end."""
    (run,) = Expression("", pattern, int(re.compile(pattern).flags), frozenset({SLOW[pattern]})).runs()
    assert next(slow_inputs(run, inputs_for(pattern, 0, 200, "slow")), None) is not None


def test_all_expressions_are_found() -> None:
    """Those of modules, of functions, and of containers."""
    places = {one.where for one in EXPRESSIONS}
    assert {"core/sql/fingerprint.py", "adapters/refusals.py", "adapters/oracledb.py", "cli/figures.py"} <= places
    assert len(EXPRESSIONS) > 40
    uses = {one.pattern: one.uses for one in EXPRESSIONS}
    assert uses[r"pool-\d+"] == {"fullmatch"}
