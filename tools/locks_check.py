"""
No foreign code runs under a lock of ours: a log handler, an SDK, a callback or a ``__repr__`` of the application may
wait for a thread that waits for the lock.

Reads the source and finds every lock by where it is made, every region in which it is held, and whatever may be called
there, through functions and methods of ours. It rejects:

- calls that leave our code, among them logging, the SDK, callbacks and imports;
- formatting, which calls ``__str__``;
- what cannot be resolved, unless `KNOWN` says why it is harmless;
- `await` and `yield`, with which a region has no end that the source shows;
- comprehensions, which allocate as much as there is: the garbage collector may run, and finalisers with it;
- a lock that is not re-entrant and is waited for: a finaliser that runs in its region may want it too.

A lock that every taker gives up on, at once or after a time, makes no thread wait for ever: what it keeps apart may do
anything.

Usage:
    python tools/locks_check.py
"""

from __future__ import annotations

import ast
import builtins
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = "poolscope"

#: What makes a lock, and whether the thread that holds it may take it again.
MAKERS: Final = {
    "threading.Lock": False,
    "threading.RLock": True,
    "threading.Condition": True,
    "threading.Semaphore": False,
    "threading.BoundedSemaphore": False,
    "_thread.allocate_lock": False,
    "_thread.RLock": True,
}
#: What of Python's own may be called, and why.
HARMLESS: Final = {
    "bisect.bisect_left": "compares numbers",
    "collections.deque": "an empty container",
    "dataclasses.replace": "calls the constructor of a dataclass of ours",
    "itertools.count": "a counter",
    "threading.RLock": "makes a lock",
    "threading.Lock": "makes a lock",
    "time.monotonic": "reads the clock",
    "time.perf_counter": "reads the clock",
}
#: Functions that Python has built in and that neither format nor call what they are given.
BUILT_IN: Final = frozenset((
    "abs", "bool", "dict", "enumerate", "float", "frozenset", "id", "int", "isinstance", "iter", "len", "list", "max",
    "min", "next", "range", "set", "sum", "super", "tuple", "type", "zip",
))  # fmt: skip
#: Types of Python's own whose methods call nothing of the application's.
CONTAINERS: Final = frozenset((
    "bool", "bytes", "dict", "float", "frozenset", "int", "list", "set", "tuple", "collections.deque",
    "weakref.WeakSet", "weakref.WeakKeyDictionary",
))  # fmt: skip
#: What is rejected wherever it is, and what it does.
REJECTED: Final[dict[type[ast.AST], str]] = {
    ast.JoinedStr: "formats",
    ast.Import: "imports",
    ast.ImportFrom: "imports",
    ast.Await: "waits for whoever goes on with it,",
    ast.Yield: "waits for whoever goes on with it,",
    ast.YieldFrom: "waits for whoever goes on with it,",
    ast.AsyncWith: "waits for whoever goes on with it,",
    ast.AsyncFor: "waits for whoever goes on with it,",
    ast.ListComp: "allocates as much as there is,",
    ast.SetComp: "allocates as much as there is,",
    ast.DictComp: "allocates as much as there is,",
}
#: Methods that an operator calls.
OPERATORS: Final[dict[type[ast.AST], tuple[str, ...]]] = {
    ast.Compare: ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__", "__hash__"),
    ast.BinOp: ("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__and__", "__or__", "__mod__"),
    ast.AugAssign: ("__iadd__", "__add__", "__isub__", "__ior__"),
    ast.Subscript: ("__getitem__", "__setitem__", "__delitem__"),
    ast.For: ("__iter__", "__next__"),
}
#: What is called and cannot be resolved, by where, and why it is harmless.
KNOWN: Final = {
    "core/counters.py: Tally.read: self.add": "the method of an itertools.count",
}


class Type(NamedTuple):
    """
    A type as an annotation has it.

    Args:
        name: The class, by its full name.
        arguments: In brackets.
    """

    name: str
    arguments: tuple[Type, ...] = ()


class Finding(NamedTuple):
    """
    What is wrong.

    Args:
        place: File and line.
        text: What, and under which lock.
    """

    place: str
    text: str


@dataclass
class Class:
    """A class of ours: where it is, what it is derived from, its methods, and what its attributes are."""

    name: str
    module: Module
    bases: list[str] = field(default_factory=list)
    methods: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)
    attributes: dict[str, tuple[Type, ...]] = field(default_factory=dict)


@dataclass
class Module:
    """A file of ours: what its names stand for."""

    name: str
    path: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    variables: dict[str, tuple[Type, ...]] = field(default_factory=dict)


class Lock(NamedTuple):
    """
    A lock.

    Args:
        name: Of the attribute or variable that holds it.
        place: Where it is made.
        again: Whether the thread that holds it may take it again.
    """

    name: str
    place: str
    again: bool


@dataclass(frozen=True)
class Scope:
    """Where an expression is: its file, class and function."""

    module: Module
    owner: Class | None
    function: ast.FunctionDef | ast.AsyncFunctionDef

    @property
    def label(self) -> str:
        """How `KNOWN` names it."""
        return f"{self.module.path}: {f'{self.owner.name}.' if self.owner else ''}{self.function.name}"


class Source:
    """
    All files of a package.

    Args:
        root: The folder of the package.
    """

    def __init__(self, root: Path) -> None:
        self.modules: dict[str, Module] = {}
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join((root.name, *(parts[:-1] if parts[-1] == "__init__" else parts)))
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self.modules[name] = Module(name, path.relative_to(root).as_posix(), tree)
        for module in self.modules.values():
            _read_names(module)
        for module in self.modules.values():
            self._read_types(module)

    def scopes(self) -> Iterator[Scope]:
        """Every function and method; functions inside of others are part of them."""
        for module in self.modules.values():
            for function in module.functions.values():
                yield Scope(module, None, function)
            for owner in module.classes.values():
                for function in owner.methods.values():
                    yield Scope(module, owner, function)

    def full_name(self, module: Module, node: ast.expr) -> str | None:
        """What a dotted name stands for, by its full name."""
        if isinstance(node, ast.Name):
            if node.id in module.classes or node.id in module.functions:
                return f"{module.name}.{node.id}"
            return module.names.get(node.id, f"builtins.{node.id}" if hasattr(builtins, node.id) else None)
        if isinstance(node, ast.Attribute):
            owner = self.full_name(module, node.value)
            return f"{owner}.{node.attr}" if owner is not None and not owner.startswith("builtins.") else None
        return None

    def class_of(self, name: str) -> Class | None:
        """A class of ours by its full name."""
        module, _, last = name.rpartition(".")
        found = self.modules.get(module)
        return found.classes.get(last) if found is not None else None

    def kin(self, owner: Class) -> list[Class]:
        """A class, those that it is derived from, and those that are derived from it."""
        return [*self.above(owner), *(one for one in self._classes() if one is not owner and owner in self.above(one))]

    def above(self, owner: Class) -> list[Class]:
        """A class and those that it is derived from."""
        bases = [found for base in owner.bases if (found := self.class_of(base)) is not None]
        return [owner, *(one for base in bases for one in self.above(base))]

    def _classes(self) -> Iterator[Class]:
        for module in self.modules.values():
            yield from module.classes.values()

    def annotated(self, module: Module, node: ast.expr | None) -> tuple[Type, ...]:
        """The types that an annotation names."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        if isinstance(node, ast.BinOp):
            return (*self.annotated(module, node.left), *self.annotated(module, node.right))
        if isinstance(node, ast.Subscript):
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            outer = self.annotated(module, node.value)
            arguments = [self.annotated(module, one) for one in inner]
            if outer and outer[0].name.rpartition(".")[2] in {"Final", "ClassVar", "Optional"}:
                return arguments[0]
            return tuple(Type(one.name, tuple(types[0] for types in arguments if types)) for one in outer)
        name = self.full_name(module, node) if node is not None else None
        return (Type(name.removeprefix("builtins.")),) if name is not None and name != "builtins.None" else ()

    def _read_types(self, module: Module) -> None:
        for node in module.tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                module.variables[node.target.id] = self.annotated(module, node.annotation) or self._made(
                    module, node.value
                )
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                module.variables[node.targets[0].id] = self._made(module, node.value)
        for owner in module.classes.values():
            for part in ast.walk(_class_node(module, owner)):
                if isinstance(part, ast.AnnAssign) and (attribute := _own_attribute(part.target)) is not None:
                    owner.attributes[attribute] = self.annotated(module, part.annotation)
                elif isinstance(part, ast.Assign) and (attribute := _own_attribute(part.targets[0])) is not None:
                    found = self._made(module, part.value) or self._given(module, owner, part.value)
                    owner.attributes.setdefault(attribute, found)

    def _made(self, module: Module, node: ast.expr | None) -> tuple[Type, ...]:
        if isinstance(node, ast.Call):
            made = self.annotated(module, node.func)
            return tuple(one for one in made if self.class_of(one.name) is not None or one.name in CONTAINERS)
        return (Type(type(node.value).__name__),) if isinstance(node, ast.Constant) and node.value is not None else ()

    def _given(self, module: Module, owner: Class, node: ast.expr) -> tuple[Type, ...]:
        init = owner.methods.get("__init__")
        for argument in [*init.args.args, *init.args.kwonlyargs] if init is not None else ():
            if isinstance(node, ast.Name) and node.id == argument.arg:
                return self.annotated(module, argument.annotation)
        return ()


def _class_node(module: Module, owner: Class) -> ast.ClassDef:
    return next(node for node in module.tree.body if isinstance(node, ast.ClassDef) and node.name == owner.name)


def _own_attribute(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _read_names(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                module.names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    module.functions = _functions(module.tree)
    classes = [statement for statement in module.tree.body if isinstance(statement, ast.ClassDef)]
    module.classes = {one.name: Class(one.name, module, methods=_functions(one)) for one in classes}
    for one in classes:
        bases = [base.value if isinstance(base, ast.Subscript) else base for base in one.bases]
        module.classes[one.name].bases = [_plain(module, base) for base in bases]


def _functions(where: ast.Module | ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {part.name: part for part in where.body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))}


def _plain(module: Module, node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return f"{module.name}.{node.id}" if node.id in module.classes else module.names.get(node.id, node.id)
    return ast.unparse(node)


class Check:
    """
    The check of one package.

    Args:
        root: Its folder.
        known: What cannot be resolved and is harmless, as `KNOWN`.
    """

    def __init__(self, root: Path, known: Iterable[str] = KNOWN) -> None:
        self.source = Source(root)
        self._package = root.name
        self.findings: list[Finding] = []
        self.regions = 0
        self._known = set(known)
        self._used: set[str] = set()
        self.locks = {lock.name: lock for lock in self._locks()}

    def run(self) -> list[Finding]:
        """Check every region of every lock."""
        regions = [(scope, *region) for scope in self.source.scopes() for region in self._regions(scope)]
        waited_for = {lock.name for _, lock, _, waits in regions if waits is not None}
        self.regions = len(regions)
        for scope, lock, body, waits in regions:
            if waits is not None and self._is_known(scope, waits):
                continue
            if waits is not None and not lock.again:
                self._finds(scope, waits, "is not re-entrant, and waits for", lock, ())
            if lock.name in waited_for:
                self._look(body, scope, lock, ())
        for name in sorted(self._known - self._used):
            self.findings.append(Finding("tools/locks_check.py", f"KNOWN names what is not there: {name}"))
        return self.findings

    def _locks(self) -> Iterator[Lock]:
        for module in self.source.modules.values():
            for node in ast.walk(module.tree):
                value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
                if isinstance(value, ast.Call) and (kind := self.source.full_name(module, value.func)) in MAKERS:
                    target = node.targets[0] if isinstance(node, ast.Assign) else node.target  # type: ignore[attr-defined]
                    name = target.attr if isinstance(target, ast.Attribute) else ast.unparse(target)
                    yield Lock(name, f"{module.path}:{node.lineno}", MAKERS[kind])  # type: ignore[attr-defined]
            assigned = {
                id(node.value) for node in ast.walk(module.tree) if isinstance(node, (ast.Assign, ast.AnnAssign))
            }
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Call) and id(node) not in assigned:
                    kind = self.source.full_name(module, node.func)
                    if kind in MAKERS:
                        place = f"{module.path}:{node.lineno}"
                        self.findings.append(Finding(place, "makes a lock that has no name of its own"))

    def _regions(self, scope: Scope) -> Iterator[tuple[Lock, list[ast.AST], ast.expr | None]]:
        # The lock, what is done while it is held, and where it is waited for without an end.
        for node in ast.walk(scope.function):
            if isinstance(node, (ast.With, ast.AsyncWith)):
                for item in node.items:
                    lock = self._lock_of(item.context_expr)
                    if lock is not None:
                        yield lock, list(node.body), item.context_expr
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "acquire":
                lock = self._lock_of(node.func.value)
                if lock is not None:
                    yield lock, _after(scope.function, node), None if _gives_up(node) else node.func.value

    def _lock_of(self, node: ast.expr) -> Lock | None:
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        return self.locks.get(name)

    def _look(self, body: Iterable[ast.AST], scope: Scope, lock: Lock, chain: tuple[str, ...]) -> None:
        for node in _run_by(body):
            kind = type(node)
            if isinstance(node, ast.Call):
                self._call(node, scope, lock, chain)
            elif isinstance(node, ast.Attribute):
                self._property(node, scope, lock, chain)
            elif kind in REJECTED or _is_formatting(node):
                self._finds(scope, node, REJECTED.get(kind, "formats"), lock, chain)
            elif kind in OPERATORS:
                self._operator(node, scope, lock, chain)
            elif isinstance(node, ast.With):
                self._enters(node, scope, lock, chain)

    def _enters(self, node: ast.With, scope: Scope, lock: Lock, chain: tuple[str, ...]) -> None:
        for item in node.items:
            if self._lock_of(item.context_expr) is None:
                self._finds(scope, item.context_expr, "enters", lock, chain)

    def _call(self, node: ast.Call, scope: Scope, lock: Lock, chain: tuple[str, ...]) -> None:
        function = node.func
        if isinstance(function, ast.Name) and function.id in _locals(scope.function):
            self._finds(scope, function, "calls what it was given,", lock, chain)
            return
        name = self.source.full_name(scope.module, function)
        if isinstance(function, ast.Name) or (name is not None and self._is_module(scope, function)):
            self._named(name, node, scope, lock, chain)
        elif isinstance(function, ast.Attribute):
            self._method(function, scope, lock, chain)
        else:
            self._finds(scope, function, "calls", lock, chain)

    def _is_module(self, scope: Scope, function: ast.expr) -> bool:
        while isinstance(function, ast.Attribute):
            function = function.value
        if not isinstance(function, ast.Name) or function.id in _locals(scope.function):
            return False
        name = scope.module.names.get(function.id, "")
        return bool(name) and (not name.startswith(f"{self._package}.") or name in self.source.modules)

    def _named(self, name: str | None, node: ast.Call, scope: Scope, lock: Lock, chain: tuple[str, ...]) -> None:
        owner = self.source.class_of(name) if name is not None else None
        where, _, last = (name or "").rpartition(".")
        module = self.source.modules.get(where)
        if owner is not None:
            for one in self.source.above(owner):
                for method in one.methods.keys() & {"__new__", "__init__", "__post_init__"}:
                    self._follow(one.module, one, one.methods[method], lock, chain)
        elif module is not None and last in module.functions:
            self._follow(module, None, module.functions[last], lock, chain)
        elif name not in HARMLESS and not (where == "builtins" and (last in BUILT_IN or _is_error(last))):
            self._finds(scope, node.func, "calls", lock, chain)

    def _method(self, function: ast.Attribute, scope: Scope, lock: Lock, chain: tuple[str, ...]) -> None:
        if self._lock_of(function.value) is not None:
            return
        types = self._types(function.value, scope)
        if not types:
            self._finds(scope, function, "calls", lock, chain)
        for one in types:
            owner = self.source.class_of(one.name)
            if owner is None:
                if one.name not in CONTAINERS:
                    self._finds(scope, function, "calls", lock, chain)
                continue
            found = [kin for kin in self.source.kin(owner) if function.attr in kin.methods]
            for kin in found:
                self._follow(kin.module, kin, kin.methods[function.attr], lock, chain)
            if not found:
                self._finds(scope, function, "calls", lock, chain)

    def _operator(self, node: ast.AST, scope: Scope, lock: Lock, chain: tuple[str, ...]) -> None:
        for part in ast.iter_child_nodes(node):
            for one in self._types(part, scope) if isinstance(part, ast.expr) else ():
                owner = self.source.class_of(one.name)
                for kin in self.source.kin(owner) if owner is not None else ():
                    for name in OPERATORS[type(node)]:
                        if name in kin.methods:
                            self._follow(kin.module, kin, kin.methods[name], lock, chain)

    def _property(self, node: ast.Attribute, scope: Scope, lock: Lock, chain: tuple[str, ...]) -> None:
        for one in self._types(node.value, scope):
            owner = self.source.class_of(one.name)
            for kin in self.source.kin(owner) if owner is not None else ():
                method = kin.methods.get(node.attr)
                if method is not None and _is_property(method):
                    self._follow(kin.module, kin, method, lock, chain)

    def _follow(
        self,
        module: Module,
        owner: Class | None,
        function: ast.FunctionDef | ast.AsyncFunctionDef,
        lock: Lock,
        chain: tuple[str, ...],
    ) -> None:
        scope = Scope(module, owner, function)
        if scope.label not in chain:
            self._look(function.body, scope, lock, (*chain, scope.label))

    def _types(self, node: ast.expr, scope: Scope) -> tuple[Type, ...]:  # noqa: PLR0911 - one line for each kind
        if isinstance(node, ast.Name):
            if node.id == "self" and scope.owner is not None:
                return (Type(f"{scope.module.name}.{scope.owner.name}"),)
            if node.id in CONTAINERS and hasattr(builtins, node.id):
                return (Type(node.id),)
            return self._types_of_local(node.id, scope) or self._types_of_variable(node.id, scope.module)
        if isinstance(node, ast.Attribute):
            return tuple(found for one in self._types(node.value, scope) for found in self._attribute(one, node.attr))
        if isinstance(node, ast.Subscript):
            return tuple(argument for one in self._types(node.value, scope) for argument in one.arguments[-1:])
        if isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.Dict)):
            return (Type(type(node).__name__.lower()),)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "super" and scope.owner is not None:
                return tuple(Type(base) for base in scope.owner.bases)
            if isinstance(node.func, ast.Attribute):
                return self._returned(node.func, scope)
            name = self.source.full_name(scope.module, node.func)
            return (Type(name.removeprefix("builtins.")),) if name is not None else ()
        return ()

    def _returned(self, function: ast.Attribute, scope: Scope) -> tuple[Type, ...]:
        found: list[Type] = []
        for one in self._types(function.value, scope):
            owner = self.source.class_of(one.name)
            if owner is None:
                # A copy is of the same kind, what is taken out is of the kind that is inside.
                inside = function.attr in {"pop", "popleft", "get", "setdefault"}
                found += one.arguments[-1:] if inside else [one] if function.attr == "copy" else ()
            for kin in self.source.above(owner) if owner is not None else ():
                if function.attr in kin.methods:
                    found += self.source.annotated(kin.module, kin.methods[function.attr].returns)
                    break
        return tuple(found)

    def _attribute(self, of: Type, name: str) -> tuple[Type, ...]:
        owner = self.source.class_of(of.name)
        for kin in self.source.above(owner) if owner is not None else ():
            if kin.attributes.get(name):
                return kin.attributes[name]
            if name in kin.methods and _is_property(kin.methods[name]):
                return self.source.annotated(kin.module, kin.methods[name].returns)
        return ()

    def _types_of_variable(self, name: str, module: Module) -> tuple[Type, ...]:
        if name in module.variables:
            return module.variables[name]
        where, _, last = module.names.get(name, "").rpartition(".")
        found = self.source.modules.get(where)
        return found.variables.get(last, ()) if found is not None else ()

    def _types_of_local(self, name: str, scope: Scope) -> tuple[Type, ...]:
        arguments = scope.function.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            if argument.arg == name:
                return self.source.annotated(scope.module, argument.annotation)
        found: list[Type] = []
        for node in ast.walk(scope.function):
            if isinstance(node, ast.AnnAssign) and _is_name(node.target, name):
                return self.source.annotated(scope.module, node.annotation)
            if isinstance(node, ast.Assign) and any(_is_name(target, name) for target in node.targets):
                if not _mentions(node.value, name):
                    found += self._types(node.value, scope)
            elif isinstance(node, (ast.For, ast.comprehension)) and _is_name(node.target, name):
                found += [inner for one in self._types(node.iter, scope) for inner in one.arguments[:1]]
        return tuple(found)

    def _is_known(self, scope: Scope, node: ast.AST) -> bool:
        key = f"{scope.label}: {ast.unparse(node)}"
        if key in self._known:
            self._used.add(key)
        return key in self._known

    def _finds(self, scope: Scope, node: ast.AST, what: str, lock: Lock, chain: tuple[str, ...]) -> None:
        if self._is_known(scope, node):
            return
        way = f", by {' and '.join(chain)}" if chain else ""
        place = f"{scope.module.path}:{getattr(node, 'lineno', 0)}"
        text = ast.unparse(node)
        found = Finding(place, f"under {lock.name} (made in {lock.place}){way}: {what} {text}")
        if found not in self.findings:
            self.findings.append(found)


def _run_by(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    # All that runs with these statements: what a function inside does is done when that is called.
    for node in body:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _run_by(ast.iter_child_nodes(node))


def _after(function: ast.FunctionDef | ast.AsyncFunctionDef, call: ast.Call) -> list[ast.AST]:
    # Whatever comes after a lock was taken, to the end of the function: it may be released anywhere.
    return [
        node
        for node in _run_by(function.body)
        if isinstance(node, ast.expr)
        and not isinstance(node, (ast.Attribute, ast.Name, ast.Constant))
        and (node.lineno, node.col_offset) > (call.lineno, call.col_offset)
    ]


def _gives_up(call: ast.Call) -> bool:
    given = dict(zip(("blocking", "timeout"), call.args, strict=False)) | {one.arg: one.value for one in call.keywords}
    blocking, timeout = given.get("blocking"), given.get("timeout")
    at_once = isinstance(blocking, ast.Constant) and blocking.value is False
    return at_once or (timeout is not None and ast.unparse(timeout) != "-1")


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    arguments = function.args
    names = {one.arg for one in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
    stored = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names | stored


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _mentions(node: ast.expr, name: str) -> bool:
    return any(_is_name(one, name) for one in ast.walk(node) if isinstance(one, ast.expr))


def _is_formatting(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Mod)
        and isinstance(node.left, ast.Constant)
        and isinstance(node.left.value, (str, bytes))
    )


def _is_error(name: str) -> bool:
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)


def _is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def main() -> int:
    """
    Check the package and print what is wrong.

    Returns:
        1 if anything is, else 0.
    """
    check = Check(ROOT / "src" / PACKAGE)
    for finding in check.run():
        print(f"{finding.place}: {finding.text}")
    if not check.regions:
        print("no lock was found: the check does not see what it checks")
    return 1 if check.findings or not check.regions else 0


if __name__ == "__main__":
    sys.exit(main())
