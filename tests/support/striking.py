"""An exception at one line of poolscope's, raised as Python raises what a signal handler raises."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import itertools
import linecache
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import poolscope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

ROOT: Final = str(Path(poolscope.__file__).parent)
_SIGNAL: Final = signal.SIGUSR2
# What the garbage collector calls: Python drops what is raised there.
_COLLECTED: Final = frozenset({"collected", "_collected", "__del__"})


class TimeLimitError(Exception):
    """What the signal handler of a task's time limit raises, such as Celery's ``SoftTimeLimitExceeded``."""


class ExitError(BaseException):
    """What ends a greenlet or a task, such as ``GreenletExit``: no ``Exception``."""


def _of_greenlets() -> Iterator[type[BaseException]]:
    # What ends a greenlet from outside, where there are any.
    for module, name in (("greenlet", "GreenletExit"), ("gevent", "Timeout")):
        with contextlib.suppress(ImportError):
            yield getattr(importlib.import_module(module), name)


#: What may be raised anywhere in an application's code: by the handler of a signal, or into a greenlet.
INTERRUPTS: Final[tuple[type[BaseException], ...]] = (
    KeyboardInterrupt,
    TimeLimitError,
    ExitError,
    MemoryError,
    *_of_greenlets(),
)
#: The same in an event loop, which ``KeyboardInterrupt`` ends.
ASYNC_INTERRUPTS: Final[tuple[type[BaseException], ...]] = (ExitError, TimeLimitError, MemoryError)


class Place(NamedTuple):
    """
    One moment of a run in poolscope's code.

    Args:
        file: The module's path within the package.
        function: The function's name.
        line: The line.
        nth: How often the run had been there by then, from 1 on.
    """

    file: str
    function: str
    line: int
    nth: int

    def __str__(self) -> str:
        """As one finds it in the source."""
        return f"{self.file}:{self.line} {self.function}" + (f" ({self.nth})" if self.nth > 1 else "")


class Spot(NamedTuple):
    """
    Where a library, or the application, called a hook: the same in a run without poolscope.

    Args:
        file: The module's file.
        function: The function's name.
        line: The line.
        nth: How often the run had been at the line by then.
    """

    file: str
    function: str
    line: int
    nth: int = 0


class Striker:
    """
    Follows a thread, and raises at one moment of its run, once.

    Args:
        only: Says whether what the thread runs now is followed: in an event loop, a library's own tasks run beside the
            application's. All of it when not given.
    """

    def __init__(self, only: Callable[[], bool] | None = None) -> None:
        self._only = only
        self.seen: list[Place] = []
        #: Where in poolscope to raise; nowhere when None.
        self.target: Place | None = None
        #: Where in other code to raise instead, and whether before that line or once it is done.
        self.spot: Spot | None = None
        self.once_done = False
        self.error: type[BaseException] = KeyboardInterrupt
        self.struck = False
        #: What was raised.
        self.raised: BaseException | None = None
        #: Who called the hook that was interrupted, and whether the garbage collector had called it.
        self.caller: Spot | None = None
        self.was_collecting = False
        #: Whether nothing of the hook had begun, or it was where it calls what it hooks: directly before that, as
        #: without poolscope.
        self.was_at_entry = False
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self._due: FrameType | None = None

    def begin(self, *, elsewhere: bool = False) -> None:
        """
        Follow the running thread from now on: what it calls.

        Args:
            elsewhere: Whether threads that are started from now on are followed in its place.
        """
        self.seen, self.struck, self._counts, self._due = [], False, Counter(), None
        (threading if elsewhere else sys).settrace(self._enter)

    def follow(self) -> None:
        """Follow the running thread, too."""
        sys.settrace(self._enter)

    @staticmethod
    def end() -> None:
        """Follow no thread any more."""
        threading.settrace(None)  # type: ignore[arg-type]
        sys.settrace(None)

    def _enter(self, frame: FrameType, _: str, __: object) -> Any:
        code = frame.f_code
        if code.co_filename.startswith(ROOT):
            follow = self._follow
        elif self.spot is not None and (code.co_filename, code.co_name) == self.spot[:2]:
            follow = self._follow_other
        else:
            return None
        return follow if self._only is None or self._only() else None

    def _follow(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and not self.struck:
            code, line = frame.f_code, frame.f_lineno
            key = code.co_filename, code.co_name, line
            self._counts[key] += 1
            place = Place(code.co_filename[len(ROOT) + 1 :], code.co_name, line, self._counts[key])
            if self.target is None:
                self.seen.append(place)
            elif place == self.target:
                self._note(frame)
                self._strike()
        return self._follow

    def _follow_other(self, frame: FrameType, event: str, _: object) -> Any:
        assert self.spot is not None
        if self.struck:
            return None
        if frame is self._due and event in ("line", "return") and not self._is_unreachable(frame, event):
            self._strike()
        code = frame.f_code
        if event == "line" and frame.f_lineno == self.spot.line:
            key = code.co_filename, code.co_name, frame.f_lineno
            self._counts[key] += 1
            if self.target is None and self._counts[key] == self.spot.nth:
                if self.once_done:
                    self._due = frame
                else:
                    self._strike()
        return self._follow_other

    @staticmethod
    def _is_unreachable(frame: FrameType, event: str) -> bool:
        # A library's lock would be lost between what acquires it and its ``try``, or before its ``finally``.
        try:
            return event == "line" and frame.f_lineno in unreachable(frame.f_code.co_filename)
        except (OSError, SyntaxError, ValueError):
            return False

    def _note(self, frame: FrameType) -> None:
        outer: FrameType | None = frame
        self.was_at_entry = (
            frame.f_lineno in _at_entry(frame.f_code.co_filename)
            or _calls_original(frame.f_code.co_filename, frame.f_lineno)
        ) and not (frame.f_back is not None and frame.f_back.f_code.co_filename.startswith(ROOT))
        self.was_collecting = False
        while outer is not None and outer.f_code.co_filename.startswith(ROOT):
            self.was_collecting = self.was_collecting or outer.f_code.co_name in _COLLECTED
            outer = outer.f_back
        if outer is not None:
            code = outer.f_code
            key = code.co_filename, code.co_name, outer.f_lineno
            self.caller = Spot(*key, self._counts[key])

    def _strike(self) -> None:
        self.struck = True
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(_SIGNAL)
        else:  # Python runs handlers in the main thread; a loop that runs there would be interrupted like this
            self.handler(_SIGNAL, sys._getframe())

    def handler(self, _: int, __: FrameType | None) -> None:
        """The application's signal handler."""
        self.raised = self.error()
        raise self.raised

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """While the application's handler is there."""
        before = signal.signal(_SIGNAL, self.handler)
        try:
            yield
        finally:
            signal.signal(_SIGNAL, before)


@functools.cache
def unreachable(file: str) -> frozenset[int]:
    """
    The lines of a module where no signal is handled. Python looks for signals where functions begin and after calls.
    None of these lies between an exception and its handler's first call; nor between the last call of a ``try`` block,
    whose own handlers see what comes then, and the first line of its ``finally``; nor between an assignment without a
    call and the return of a name. What ``try`` itself is made of is never interrupted, by CPython's rule.

    Args:
        file: Its path; within the package unless it is absolute.
    """
    lines: set[int] = set()
    for node in ast.walk(ast.parse((Path(ROOT) / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            lines.update((node.lineno, *_first_lines(node.body)))
        elif isinstance(node, ast.Try):
            lines.update((node.lineno, *_first_lines(node.finalbody)))
        lines.update(_returns(getattr(node, "body", [])))
    return frozenset(lines)


def _returns(body: list[ast.stmt] | ast.expr) -> Iterator[int]:
    # Of a name, directly after an assignment without a call.
    if isinstance(body, list):
        for before, one in itertools.pairwise(body):
            if (
                isinstance(one, ast.Return)
                and isinstance(one.value, (ast.Name, ast.Constant))
                and _ends_plainly(before)
            ):
                yield one.lineno


def _ends_plainly(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return (
            not _calls(statement.test)
            and _ends_plainly(statement.body[-1])
            and (not statement.orelse or _ends_plainly(statement.orelse[-1]))
        )
    return isinstance(statement, ast.Assign) and not _calls(statement)


def _first_lines(body: list[ast.stmt]) -> Iterator[int]:
    # Up to the first call.
    while body:
        yield body[0].lineno
        first = body[0]
        body = first.body if isinstance(first, ast.If) and not _calls(first.test) else []


def _calls(node: ast.AST) -> bool:
    return any(isinstance(one, (ast.Call, ast.Await, ast.Yield, ast.YieldFrom)) for one in ast.walk(node))


@functools.cache
def _at_entry(file: str) -> frozenset[int]:
    # The lines of functions up to their first `try`, else the first one alone: nothing of ours has begun.
    lines: set[int] = set()
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = next((one for one in node.body if not _is_docstring(one)), node.body[0])
            tries = [one.lineno for one in node.body if isinstance(one, ast.Try)]
            lines.update(range(first.lineno, tries[0] if tries else first.lineno + 1))
    return frozenset(lines)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


@functools.cache
def _calls_original(file: str, line: int) -> bool:
    # Whether what was hooked is called there: to be interrupted at its beginning is to be so without poolscope.
    return "original(" in linecache.getline(file, line)
