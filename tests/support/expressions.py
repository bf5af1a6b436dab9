"""All regular expressions of poolscope, found in its source."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = ROOT / "src"
#: Functions of `re` whose first argument is an expression, and what of them is done with a text.
USES: Final = {"compile", "findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn"}


#: Uses that look everywhere in a text, as `finditer` does at least as long as any of them.
EVERYWHERE: Final = USES - {"compile", "fullmatch", "match"}


class Expression(NamedTuple):
    """
    One expression.

    Args:
        where: Its file.
        pattern: Its text.
        flags: Its flags.
        uses: The methods that are called on it.
    """

    where: str
    pattern: str
    flags: int
    uses: frozenset[str]

    def runs(self) -> Iterator[Callable[[str], object]]:
        """What is done with it, each a function of a text."""
        compiled = re.compile(self.pattern, self.flags)
        if not self.uses or self.uses & EVERYWHERE:
            yield lambda text: sum(1 for _ in compiled.finditer(text))
        yield from (getattr(compiled, use) for use in sorted(self.uses & {"match", "fullmatch"}))


def expressions(story: Callable[[], object]) -> Iterator[Expression]:
    """
    Every expression, each once for its file.

    Args:
        story: Makes each function of poolscope compile what it compiles of its own.

    Raises:
        AssertionError: A function compiles an expression that can neither be read off the source, nor was compiled in
            the story.
    """
    compiled = _compiled_in(story)
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py"))}
    everything = "\n".join(texts.values())
    for path, text in texts.items():
        tree = ast.parse(text)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_use(node)]
        if not calls:
            continue
        where = path.relative_to(SOURCE / "poolscope").as_posix()
        module = _module_of(path)
        uses: dict[tuple[str, int], set[str]] = {}
        for name, value in vars(module).items():
            for one in _patterns(value, set()):
                methods = re.findall(rf"\b{name}\.([a-z]+)\(", everything) if one is value else ()
                uses.setdefault((one.pattern, one.flags), set()).update(methods)
        functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        inside = {id(one) for function in functions for one in ast.walk(function)}
        for call in calls:
            if id(call) not in inside:
                assert uses, f"{where}:{call.lineno} makes an expression that the module does not keep"
                continue
            try:
                pattern = eval(ast.unparse(call.args[0]), vars(module))
            except NameError:
                assert compiled.get(str(path)), f"{where}:{call.lineno} makes an expression that the story does not"
                uses.update({one: set() for one in compiled[str(path)]})
            else:
                method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
                uses.setdefault((pattern, int(re.compile(pattern).flags)), set()).update({method} - {"compile"})
        for (pattern, flags), methods in sorted(uses.items()):
            yield Expression(where, pattern, flags, frozenset(methods))


def _module_of(path: Path) -> Any:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def _compiled_in(story: Callable[[], object]) -> dict[str, set[tuple[str, int]]]:
    # What is compiled is kept by caches: those are emptied first.
    for module in [module for name, module in list(sys.modules.items()) if name.startswith("poolscope.")]:
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    found: dict[str, set[tuple[str, int]]] = {}
    original = re.compile

    def recording(pattern: Any, flags: Any = 0) -> Any:
        made = original(pattern, flags)
        found.setdefault(sys._getframe(1).f_code.co_filename, set()).add((made.pattern, made.flags))
        return made

    re.compile = recording  # type: ignore[assignment]
    try:
        story()
    finally:
        re.compile = original  # type: ignore[assignment]
    return found


def _is_use(node: ast.Call) -> bool:
    function = node.func
    named = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "re"
    return named and function.attr in USES  # type: ignore[union-attr]


def _patterns(value: Any, seen: set[int]) -> Iterator[re.Pattern[str]]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        for one in list(value.values()):
            yield from _patterns(one, seen)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from _patterns(one, seen)
