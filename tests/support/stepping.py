"""
Functions that call the test before each of their statements. Other than in a trace function, anything may happen there,
a switch to another greenlet whose statements are followed as well.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEP = "_step_of_the_test"


class _Steps(ast.NodeTransformer):
    """Puts a call before each statement of each function."""

    def _with_steps(self, node: Any) -> Any:
        self.generic_visit(node)
        for part in ("body", "orelse", "finalbody"):
            statements = getattr(node, part, None)
            if isinstance(statements, list):
                setattr(node, part, [one for old in statements for one in _preceded(old)])
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_If = visit_Try = visit_With = visit_For = visit_While = (  # noqa: N815
        _with_steps
    )
    visit_ExceptHandler = _with_steps  # noqa: N815


def _preceded(statement: ast.stmt) -> list[ast.stmt]:
    if isinstance(statement, (ast.Nonlocal, ast.Global)):
        return [statement]
    call = ast.Expr(ast.Call(ast.Name(_STEP, ast.Load()), [], []))
    return [ast.copy_location(call, statement), statement]


def with_steps(function: Any, step: Callable[[], None]) -> Any:
    """
    The same function with a call before each statement, those of its inner functions included.

    Args:
        function: A plain function, or a class method; without ``super()`` and closures.
        step: What to call.
    """
    bare = function.__func__ if isinstance(function, classmethod) else function
    tree = ast.parse(textwrap.dedent(inspect.getsource(bare)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    tree = ast.fix_missing_locations(_Steps().visit(tree))
    flags = bare.__code__.co_flags & __future__annotations
    space = {**bare.__globals__, _STEP: step}
    exec(compile(tree, bare.__code__.co_filename, "exec", flags=flags, dont_inherit=True), space)
    made = space[bare.__name__]
    return classmethod(made) if isinstance(function, classmethod) else made


__future__annotations = annotations.compiler_flag


@contextlib.contextmanager
def stepping(*functions: tuple[type, str], step: Callable[[], None]) -> Iterator[None]:
    """
    While the block runs, functions call the test before each of their statements.

    Args:
        functions: Each by its class and name.
        step: What to call.
    """
    before = [(owner, name, vars(owner)[name]) for owner, name in functions]
    for owner, name, function in before:
        setattr(owner, name, with_steps(function, step))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)
