"""The containers of poolscope that live on and grow: found in its source."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE: Final = Path(__file__).resolve().parents[2] / "src" / "poolscope"
#: What makes an empty container that is looked up by a key, or a queue without a bound of its own.
MAKERS: Final = {
    "dict", "set", "defaultdict", "Counter", "OrderedDict", "WeakKeyDictionary", "WeakValueDictionary", "WeakSet",
    "deque", "SimpleQueue", "Queue",
}  # fmt: skip
CACHES: Final = {"lru_cache", "cache", "cached_property"}


def growing() -> Iterator[str]:
    """Empty dicts, sets and queues of modules and objects, and functions that remember: ``core/a.py: A.attribute``."""
    for path in sorted(SOURCE.rglob("*.py")):
        where = path.relative_to(SOURCE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found: dict[str, None] = {}
        for statement in tree.body:
            owner = f"{statement.name}." if isinstance(statement, ast.ClassDef) else ""
            for node in ast.walk(statement):
                if isinstance(node, (ast.Assign, ast.AnnAssign)) and _is_empty(node.value):
                    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                    if isinstance(target, ast.Attribute):
                        found[f"{owner}{target.attr}"] = None
                    elif node is statement and isinstance(target, ast.Name):
                        found[target.id] = None
                elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    for decorator in node.decorator_list:
                        call = decorator.func if isinstance(decorator, ast.Call) else decorator
                        if ast.unparse(call).rpartition(".")[2] in CACHES:
                            found[f"{owner}{node.name}()"] = None
        yield from (f"{where}: {name}" for name in found)


def _is_empty(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Dict):
        return not node.keys
    if isinstance(node, ast.Call):
        if any(one.arg in ("maxlen", "maxsize") for one in node.keywords):
            return False
        return not node.args and ast.unparse(node.func).rpartition(".")[2].partition("[")[0] in MAKERS
    return False
