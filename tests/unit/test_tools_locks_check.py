"""The check of locks: what it rejects, what it lets pass, and that it sees the locks of the package."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from tools import locks_check
from tools.locks_check import Check, Finding

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import logging
import threading
from threading import Lock, RLock
from ours.other import Other, helper, shared
from foreign import Foreign, call
_logger = logging.getLogger("ours")
"""
OTHER = """
import logging
_logger = logging.getLogger("ours")


def helper(value):
    return deeper(value)


def deeper(value):
    _logger.warning("deep")


class Base:
    def method(self):
        return None

    @property
    def text(self) -> str:
        return f"{self}"

    def __eq__(self, other):
        return repr(self) == repr(other)


class Other(Base):
    pass


class Derived(Other):
    def method(self):
        print("derived")


shared = Other()
"""
#: A statement that is done under a lock, and words of what is found.
REJECTED = {
    "logging": ("_logger.info('text')", "_logger.info"),
    "the logging module": ("logging.warning('text')", "logging.warning"),
    "printing": ("print(1)", "print"),
    "an f-string": ("text = f'{value}'", "formats"),
    "formatting by percent": ("text = '%s' % value", "formats"),
    "formatting by a method": ("text = '{}'.format(value)", "format"),
    "str": ("text = str(value)", "str"),
    "repr": ("text = repr(value)", "repr"),
    "a callback that was given": ("value()", "what it was given, value"),
    "a callback that is kept": ("self.callback()", "self.callback"),
    "a library": ("call()", "calls call"),
    "a library's object": ("Foreign().method()", "calls Foreign"),
    "a method of what is unknown": ("value.method()", "value.method"),
    "an import": ("import json", "imports"),
    "an import of a name": ("from json import dumps", "imports"),
    "what a function of ours calls": ("helper(1)", "_logger.warning"),
    "what a derived class does": ("self.other.method()", "print"),
    "what a variable's class does": ("shared.method()", "print"),
    "a property": ("length = self.other.text", "formats"),
    "an operator": ("same = self.other == 1", "repr"),
    "a list": ("found = [one for one in value]", "allocates"),
    "a set": ("found = {one for one in value}", "allocates"),
    "a dict": ("found = {one: one for one in value}", "allocates"),
    "what is called inside a call": ("length = len(value.copy())", "value.copy"),
    "what is called in a condition": ("length = 1 if value.is_open() else 2", "value.is_open"),
    "another manager": ("\n            with value:\n                pass", "enters value"),
    "sorting by a function": ("found = sorted(value)", "sorted"),
    "getattr": ("found = getattr(value, 'text')", "getattr"),
    "a result of a call": ("value.method()()", "calls"),
}
PASSES = {
    "stores": "self.count = 1; self.count += 1; value[1] = 2; del value[1]",
    "a container": "self.free.append(1); self.free.popleft(); self.known.get(1); self.known.copy()",
    "a function of ours": "self.count = self.plain(1)",
    "a class of ours": "made = Other()",
    "built-in functions": "self.count = max(len(value), min(1, 2)); zip(value, range(3))",
    "an error": "raise ValueError",
    "the lock again": "\n            with self.lock:\n                pass",
    "a function that is not called": "later = lambda: print(1)",
}
CLASS = """

class Ours:
    def __init__(self, callback):
        self.lock = {lock}
        self.callback = callback
        self.other: Other = Other()
        self.free: deque[int] = deque()
        self.known: dict[int, int] = {{}}
        self.count = 0

    def plain(self, value):
        return value + 1

    def method(self, value):
        {region}
"""


def found_in(folder: Path, region: str, lock: str = "RLock()", known: tuple[str, ...] = ()) -> list[Finding]:
    """What is found in a package with one region."""
    package = folder / "ours"
    package.mkdir()
    text = "from collections import deque" + HEAD + CLASS.format(lock=lock, region=region)
    (package / "one.py").write_text(text)
    (package / "other.py").write_text(OTHER)
    return Check(package, known).run()


def held(statement: str) -> str:
    """A region with one statement in it."""
    return f"with self.lock:\n            {statement}"


@pytest.mark.parametrize("case", REJECTED)
def test_what_leaves_our_code_is_rejected(case: str, tmp_path: Path) -> None:
    """Under a lock, however it is held and wherever in it; with the place and the lock in the text."""
    statement, words = REJECTED[case]
    found = found_in(tmp_path, held(statement))
    assert found
    assert any(words in one.text and "under lock (made in one.py:" in one.text for one in found)


@pytest.mark.parametrize("case", PASSES)
def test_what_stays_in_our_code_passes(case: str, tmp_path: Path) -> None:
    """Stores, containers, and functions that do the same."""
    assert found_in(tmp_path, held(PASSES[case])) == []


@pytest.mark.parametrize("case", REJECTED)
def test_outside_of_a_lock_all_is_allowed(case: str, tmp_path: Path) -> None:
    """Before and after the region."""
    statement, _ = REJECTED[case]
    before = textwrap.indent(f"if value:\n    {statement.lstrip()}", " " * 8).lstrip()
    assert found_in(tmp_path, f"{before}\n        with self.lock:\n            pass\n        {before}") == []


@pytest.mark.parametrize(
    "taken", ["self.lock.acquire()", "self.lock.acquire(True)", "taken = self.lock.acquire(timeout=-1)"]
)
def test_a_lock_that_is_taken_by_name_is_held_until_the_end(taken: str, tmp_path: Path) -> None:
    """It may be released anywhere."""
    assert found_in(tmp_path, f"{taken}\n        _logger.info('text')\n        self.lock.release()")


@pytest.mark.parametrize("how", ["blocking=False", "False", "timeout=1", "True, 1"])
def test_what_every_taker_gives_up_on_may_be_held(how: str, tmp_path: Path) -> None:
    """At once, or after a time: no thread waits for ever."""
    region = f"if self.lock.acquire({how}):\n            print(1)"
    assert found_in(tmp_path, region) == []
    both = tmp_path / "both"
    both.mkdir()
    assert found_in(both, f"{region}\n        with self.lock:\n            pass")


@pytest.mark.parametrize(
    "lock", ["Lock()", "threading.Lock()", "threading.Semaphore(2)", "threading.BoundedSemaphore()"]
)
def test_a_lock_that_is_waited_for_is_re_entrant(lock: str, tmp_path: Path) -> None:
    """A finaliser of ours may run in the midst of the region, in the same thread."""
    (found,) = found_in(tmp_path, held("self.count = 1"), lock)
    assert "is not re-entrant" in found.text


def test_waiting_for_whoever_goes_on_is_rejected(tmp_path: Path) -> None:
    """A region in a generator or a coroutine may never end."""
    assert found_in(tmp_path, held("yield 1"))
    (tmp_path / "two").mkdir()
    assert found_in(tmp_path / "two", held("yield from value"))


def test_a_lock_without_a_name_is_rejected(tmp_path: Path) -> None:
    """It could not be followed."""
    assert any("no name" in one.text for one in found_in(tmp_path, "self.locks = [RLock()]"))


def test_what_is_known_passes_as_long_as_it_is_there(tmp_path: Path) -> None:
    """An entry of the list allows one call in one function, and is rejected itself once that is gone."""
    assert found_in(tmp_path, held("self.callback()"), known=("one.py: Ours.method: self.callback",)) == []
    (tmp_path / "two").mkdir()
    (found,) = found_in(tmp_path / "two", held("pass"), known=("one.py: Ours.method: self.callback",))
    assert "KNOWN names what is not there" in found.text


def test_the_package_is_clean_and_its_locks_are_seen(capsys: pytest.CaptureFixture[str]) -> None:
    """Every lock of poolscope has regions, and nothing is found in them; each that is known has its reason."""
    assert (locks_check.main(), capsys.readouterr().out) == (0, "")
    check = Check(locks_check.ROOT / "src" / "poolscope")
    assert {"_changing", "_readers"} <= check.locks.keys()
    check.run()
    assert check.regions >= len(check.locks)
    assert all(reason for reason in (*locks_check.KNOWN.values(), *locks_check.HARMLESS.values()))


def test_a_package_without_locks_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A check that sees nothing has not checked."""
    (tmp_path / "src" / "poolscope").mkdir(parents=True)
    monkeypatch.setattr(locks_check, "ROOT", tmp_path)
    assert locks_check.main() == 1
