"""What is said and looked at of an exception: its type and place, never its message; no code of its own runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from poolscope.adapters.base import resolve
from poolscope.config import Settings
from poolscope.core.failure import texts_of, type_and_place
from poolscope.core.guard import guard
from poolscope.doctor import Check, examine
from poolscope.doctor import hooks as doctor_hooks
from poolscope.hooks.registry import HookRegistry, State
from tests.support.secrets import SECRET, Heard, SecretiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Odd(type):
    """A class of classes whose names cannot be asked for."""

    def __getattribute__(cls, name: str) -> Any:
        if name in {"__qualname__", "__name__", "__module__"}:
            raise RuntimeError(SECRET)
        return super().__getattribute__(name)


class OddError(SecretiveError, metaclass=Odd):
    """One of them."""


def fails(kind: type[SecretiveError] = SecretiveError) -> NoReturn:
    """Raise, from a line with a secret in it."""
    secret = SECRET
    raise kind(secret[:0] + "label")


def recurses(depth: int) -> None:
    """Raise from far below."""
    if depth == 0:
        fails()
    recurses(depth - 1)


@pytest.fixture(autouse=True)
def _nothing_is_formatted() -> Iterator[None]:
    """Whoever formats one of these errors fails the test."""
    SecretiveError.formatted.clear()
    yield
    assert SecretiveError.formatted == []
    guard.reset()


def said_of(function: Callable[[], object]) -> str:
    """What is said of what a function raises."""
    with pytest.raises(SecretiveError) as raised:
        function()
    error = raised.value
    del raised
    return type_and_place(error)


def test_type_and_place_are_said_and_nothing_else() -> None:
    """The class, and file, line and function of each frame, innermost first."""
    line = fails.__code__.co_firstlineno + 3
    said = said_of(fails)
    assert said.startswith(f"SecretiveError at {__file__}:{line} in fails, from {__file__}:")
    assert SECRET not in said


def test_a_class_that_hides_its_name_is_named() -> None:
    """Its metaclass is not called."""
    assert said_of(lambda: fails(OddError)).startswith("OddError at ")


def test_a_long_way_is_cut() -> None:
    """Of a recursion the innermost frames are named."""
    said = said_of(lambda: recurses(200))
    assert said.count(" in recurses") == 19
    assert " in fails, from " in said


def test_an_error_without_a_place_has_its_type() -> None:
    """One that was never raised; and none at all."""
    assert type_and_place(SecretiveError("one")) == "SecretiveError"
    assert type_and_place(None) == "no exception"


class Message:
    """As Oracle's driver has it."""

    def __init__(self, message: object) -> None:
        self.message = message

    def __str__(self) -> str:
        raise RuntimeError(SECRET)


def test_texts_are_read_without_formatting() -> None:
    """Plain texts of the arguments, of a dict among them, and the message of an object among them."""
    error = SecretiveError("one")
    error.args = ("plain", 1040, {"C": "53300", "n": 1}, Message("ORA-00018"), Message(error), error)
    assert list(texts_of(error)) == ["plain", "53300", "ORA-00018"]


class Library:
    """A hook that fails, or refuses since a module cannot be imported."""

    versions = ""

    def __init__(self, module: str, does: Callable[[Any], None]) -> None:
        self.name = self.module = module
        self._does = does

    def hook(self, module: Any, _: object, __: object) -> None:
        """Put nothing in place."""
        self._does(module)

    def release(self) -> None:
        """Nothing to release."""


def _hook_fails(tmp_path: Path) -> object:
    registry: HookRegistry[Any] = HookRegistry(None, [Library("logging", lambda _: fails())], (), "")  # type: ignore[arg-type]
    registry.start()
    registry.stop()
    return guard.counts()


def _hook_refuses(tmp_path: Path) -> object:
    (tmp_path / "secretive_module.py").write_text(
        "from tests.support.secrets import SECRET\nraise ImportError(SECRET)\n"
    )
    library = Library("logging", lambda module: resolve(module, "secretive_module:Pool.get"))
    registry: HookRegistry[Any] = HookRegistry(None, [library], (), "")  # type: ignore[arg-type]
    registry.start()
    status = registry.statuses["logging"]
    registry.stop()
    assert status.state in {State.REFUSED, State.ABSENT}
    assert "secretive_module cannot be imported: ImportError at " in status.reason
    return status.reason


def _doctor(tmp_path: Path) -> object:
    (tmp_path / "secretive_library.py").write_text(
        "from tests.support.secrets import SecretiveError\nraise SecretiveError('doctor')\n"
    )
    check = Check("broken", "Broken", lambda _: fails())
    library = Library("secretive_library", lambda _: None)
    return examine((check,), {}), doctor_hooks._imported(library)  # type: ignore[arg-type]


def _guarded(_: Path) -> object:
    return guard.run("tests.one", fails, None)


def _settings(_: Path) -> object:
    wrong = {"max_pools": SecretiveError("value"), "stack_depth": f"postgresql://me:{SECRET}@db", "enabled": [SECRET]}
    return Settings.read(wrong, {"POOLSCOPE_MAX_UNITS": f"password={SECRET}"})


@pytest.mark.reliability(
    fault="an exception whose message, notes, cause or value of a setting holds a password is caught by poolscope",
    application="nothing of it: the log has the type and the place of the exception",
    lost="the message of the exception",
)
@pytest.mark.parametrize("cause", [_guarded, _hook_fails, _hook_refuses, _doctor, _settings])
def test_no_message_is_said(
    cause: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in the log, formatted in full, nor in what is returned or printed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    logging.getLogger("poolscope").setLevel(logging.DEBUG)
    with Heard() as heard:
        returned = cause(tmp_path)
    logging.getLogger("poolscope").setLevel(logging.NOTSET)
    printed = capfd.readouterr()
    told = f"{heard.text} {returned!r} {printed.out} {printed.err}"
    assert SECRET not in told
    assert " at " in told or "is not allowed" in told
