"""Hooks in and out of libraries; what a registry does with one that it does not recognise."""

from __future__ import annotations

import inspect
import logging
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.adapters.registry import Registry, State, load
from poolscope.core.guard import guard
from poolscope.core.pool_registry import PoolRegistry
from poolscope.hooks.patching import Patcher, Refused, active_patches, when_imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Library:
    """A library's class."""

    def method(self, value: int, *, more: int = 0) -> int:
        """Theirs."""
        return value + more

    @classmethod
    def of_class(cls, value: int) -> tuple[str, int]:
        """Theirs too."""
        return cls.__name__, value

    @staticmethod
    def static(value: int) -> int:
        """And theirs."""
        return value


class Heir(Library):
    """Inherits everything."""


@pytest.fixture
def patcher() -> Iterator[Patcher]:
    """A patcher whose patches are taken back."""
    made = Patcher()
    yield made
    made.revert()


def doubling(original: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a hook that doubles what the original returns."""

    def hook(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        return 2 * result if isinstance(result, int) else (*result, "hooked")

    return hook


def test_functions_are_replaced_and_put_back(patcher: Patcher) -> None:
    """
    Methods of all kinds are hooked for what exists already, keep their looks, and are the very
    originals afterwards.
    """
    originals = dict(vars(Library))
    signature = inspect.signature(Library.method)
    instance = Heir()
    for name in ("method", "of_class", "static"):
        patcher.replace(Library, name, doubling)
    assert instance.method(2, more=1) == 6
    assert Heir.of_class(1) == ("Heir", 1, "hooked")
    assert instance.static(4) == Library.static(4) == 8
    assert (Library.method.__doc__, inspect.signature(Library.method)) == (originals["method"].__doc__, signature)
    assert patcher.has(Library, "method")
    assert not patcher.has(Heir, "method")
    assert active_patches() == tuple(f"{__name__}.Library.{name}" for name in ("method", "of_class", "static"))
    patcher.revert()
    assert dict(vars(Library)) == originals
    assert active_patches() == ()
    assert not patcher.has(Library, "method")


def test_a_function_is_wrapped_and_put_back(patcher: Patcher) -> None:
    """The same with a wrapt proxy, which receives the instance."""
    original = vars(Library)["method"]
    seen = []

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append(instance)
        return wrapped(*args, **kwargs) + 1

    patcher.wrap(Library, "method", wrapper)
    library = Library()
    assert (library.method(1), seen) == (2, [library])
    patcher.revert()
    assert vars(Library)["method"] is original


def test_a_module_is_patched_like_a_class(patcher: Patcher) -> None:
    """Functions of modules are named by the module."""
    module: Any = ModuleType("some_library")
    module.work = lambda: 3
    patcher.replace(module, "work", doubling)
    assert module.work() == 6
    assert active_patches() == ("some_library.work",)


def test_where_another_library_wrapped_after_us_the_hook_stays(
    patcher: Patcher, caplog: pytest.LogCaptureFixture
) -> None:
    """Taking ours out would take theirs out too."""
    original = vars(Library)["method"]
    patcher.replace(Library, "method", doubling)
    ours = vars(Library)["method"]
    theirs: Any = lambda self, value: ours(self, value) + 100  # noqa: E731
    Library.method = theirs  # type: ignore[method-assign]
    try:
        with caplog.at_level(logging.INFO, "poolscope"):
            patcher.revert()
        assert vars(Library)["method"] is theirs
        assert "Library.method was wrapped by other code" in caplog.text
    finally:
        Library.method = original  # type: ignore[method-assign]


def test_what_is_missing_is_refused_by_name(patcher: Patcher) -> None:
    """Before the first patch every symbol must be there, in the class itself."""
    patcher.require(Library, ("method", "static"))
    with pytest.raises(Refused, match="Library has no nothing, nowhere"):
        patcher.require(Library, ("method", "nothing", "nowhere"))
    with pytest.raises(Refused, match="Heir has no method"):
        patcher.require(Heir, ("method",))
    with pytest.raises(Refused, match="some_library has no work"):
        patcher.require(ModuleType("some_library"), ("work",))


@pytest.fixture
def importable(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that can be imported and has not been."""
    name = f"poolscope_tests_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text("def work():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_an_action_waits_for_the_import(importable: str) -> None:
    """
    It is called with the module when that comes, at once when it is there already, and not after it
    was taken back.
    """
    seen: list[tuple[str, str]] = []
    forget = when_imported(importable, lambda module: seen.append(("early", module.__name__)))
    forget_too = when_imported(importable, lambda module: seen.append(("forgotten", module.__name__)))
    forget_too()
    forget_too()
    assert seen == []
    __import__(importable)
    assert seen == [("early", importable)]
    when_imported(importable, lambda module: seen.append(("late", module.__name__)))()
    assert seen == [("early", importable), ("late", importable)]
    forget()


def test_an_error_of_an_action_does_not_reach_the_import(importable: str) -> None:
    """The application's import succeeds though our hook fails."""

    def fail(_: ModuleType) -> None:
        raise ValueError("ours")

    forget = when_imported(importable, fail)
    assert __import__(importable).work() == 1
    assert guard.counts() == {f"import.{importable}": 1}
    guard.reset()
    forget()


class Adapter:
    """An adapter for the module of the fixture."""

    versions = ""
    capabilities = None

    def __init__(self, module: str, *, requires: tuple[str, ...] = (), error: Exception | None = None) -> None:
        self.name = "tests"
        self.module = module
        self.requires = requires
        self.error = error
        self.released = 0

    def hook(self, module: Any, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        patcher.replace(module, "work", doubling)
        patcher.require(module, self.requires)
        if self.error is not None:
            raise self.error

    def release(self) -> None:
        self.released += 1


def registry(adapter: Any, *disabled: str) -> Registry:
    """A registry of that adapter alone."""
    return Registry(PoolRegistry((1.0,)), disabled, [adapter])


def test_a_library_is_hooked_when_it_is_imported(importable: str) -> None:
    """Absent until the import, active after it, and as it was after the stop; a later import is left alone."""
    adapter = Adapter(importable)
    made = registry(adapter)
    made.start()
    assert made.statuses["tests"].state is State.ABSENT
    module = __import__(importable)
    assert (made.statuses["tests"].state, module.work()) == (State.ACTIVE, 2)
    made.stop()
    assert (made.statuses["tests"].state, module.work(), adapter.released) == (State.ABSENT, 1, 1)
    del sys.modules[importable]
    assert __import__(importable).work() == 1


def test_a_library_that_is_not_recognised_is_left_whole(importable: str, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal takes back what was patched, gives its reason once, and stays."""
    made = registry(Adapter(importable, requires=("gone",)))
    made.start()
    module = __import__(importable)
    status = made.statuses["tests"]
    assert (status.state, status.reason, module.work()) == (State.REFUSED, f"{importable} has no gone", 1)
    assert active_patches() == ()
    assert f"poolscope does not instrument tests: {importable} has no gone" in caplog.text
    made.stop()
    assert status.state is State.REFUSED


def test_a_hook_that_fails_leaves_the_library_whole(importable: str) -> None:
    """Our bug while hooking is counted, and nothing stays half-patched."""
    made = registry(Adapter(importable, error=ValueError("ours")))
    made.start()
    assert __import__(importable).work() == 1
    assert active_patches() == ()
    assert guard.counts() == {f"import.{importable}": 1}
    guard.reset()
    made.stop()


def test_a_disabled_adapter_hooks_nothing(importable: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the setting names is not hooked; an unknown name is logged, with the known ones."""
    made = registry(Adapter(importable), "tests", "nonesuch")
    made.start()
    assert __import__(importable).work() == 1
    assert made.statuses["tests"].state is State.DISABLED
    assert "'nonesuch', which poolscope does not know; it knows: tests" in caplog.text
    made.stop()


def test_every_adapter_says_what_it_is() -> None:
    """Name, module, versions and capabilities are there for each, and names are unique."""
    adapters = load()
    assert len({adapter.name for adapter in adapters}) == len(adapters)
    for adapter in adapters:
        assert adapter.module
        assert adapter.versions
        assert adapter.capabilities
