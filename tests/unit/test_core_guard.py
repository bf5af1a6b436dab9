"""Our own bugs: caught, counted, logged once for each place."""

from __future__ import annotations

import ast
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import poolscope
from poolscope.core.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def fail() -> str:
    """A bug."""
    raise ValueError("a bug of ours")


def test_an_error_is_counted_and_its_first_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each error counts; only the first of its site is logged, by its type and place; the default takes its place."""
    guard = Guard()
    with caplog.at_level(logging.WARNING, "poolscope"):
        assert [guard.run("tests.one", fail, "default") for _ in range(3)] == ["default"] * 3
        guard.run("tests.two", fail, "default")
    assert guard.counts() == {"tests.one": 3, "tests.two": 1}
    line = fail.__code__.co_firstlineno + 2
    assert [record.args[0] for record in caplog.records if record.args] == ["tests.one", "tests.two"]
    assert caplog.text.count(f"ValueError at {__file__}:{line} in fail, from ") == 2
    assert "a bug of ours" not in caplog.text


def test_what_works_is_passed_on() -> None:
    """Without an error the result is the function's, and nothing is counted."""
    guard = Guard()
    assert guard.run("tests.one", lambda: "result", "default") == "result"
    assert guard.counts() == {}


def test_a_request_to_stop_is_no_bug_of_ours() -> None:
    """KeyboardInterrupt and its like pass through."""
    guard = Guard()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guard.run("tests.one", interrupt, None)
    assert guard.counts() == {}


class TimeLimitError(Exception):
    """What an application's signal handler raises, as Celery's and RQ's do."""


class Handler:
    """Signal handlers of several shapes."""

    def method(self, _: int, frame: FrameType | None) -> None:
        """One that is bound."""
        raise TimeLimitError

    @staticmethod
    def any_arguments(*_: object, **__: object) -> None:
        """One that takes whatever comes."""
        raise TimeLimitError


@pytest.mark.parametrize("handler", [Handler().method, Handler.any_arguments, lambda _, frame: fail()])
def test_what_a_signal_handler_raises_is_no_bug_of_ours(handler: Callable[..., None]) -> None:
    """A time limit that strikes while our code runs is the application's: it passes. A bug of ours does not."""
    guard = Guard()

    def ours() -> None:
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises((TimeLimitError, ValueError)):
            guard.run("tests.one", ours, None)
        assert guard.counts() == {}
        guard.run("tests.one", lambda: fail_with(sys._getframe(1)), None)
        assert guard.counts() == {"tests.one": 1}
    finally:
        signal.signal(signal.SIGUSR1, before)


def fail_with(_: FrameType) -> None:
    """A bug in a function that was given a frame."""
    fail()


def test_no_function_of_ours_is_given_the_frame_that_calls_it() -> None:
    """What it raises would be taken for a signal handler's, and pass: each takes the frame of a caller further out."""
    calls = [
        (str(path), node.lineno, node.args)
        for path in Path(poolscope.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "_getframe"
    ]
    assert len(calls) > 5
    assert [(path, line) for path, line, given in calls if not given or ast.unparse(given[0]) == "0"] == []


def test_something_lost_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A loss without an exception counts as an error; the counts can be forgotten."""
    guard = Guard()
    with caplog.at_level(logging.WARNING, "poolscope"):
        guard.count("tests.dropped")
        guard.count("tests.dropped")
    assert (guard.counts(), len(caplog.records)) == ({"tests.dropped": 2}, 1)
    guard.reset()
    assert guard.counts() == {}


@pytest.mark.parametrize(("kind", "passes"), [(TimeoutError, True), ("own", False)])
def test_what_another_greenlet_throws_passes(kind: type[Exception] | str, passes: bool) -> None:
    """It comes out of the function in which its greenlet gave way; an error of that function's own library does not."""
    hub = {"__name__": "hub.greenlets", "error": kind}
    source = "class OwnError(Exception): pass\ndef _greenlet_switch(): raise OwnError if error == 'own' else error"
    exec(source, hub)
    guard = Guard()
    if passes:
        with pytest.raises(TimeoutError):
            guard.run("tests.one", hub["_greenlet_switch"], None)
    else:
        guard.run("tests.one", hub["_greenlet_switch"], None)
    assert guard.counts() == ({} if passes else {"tests.one": 1})
