"""Locks of ours that notice what is called while they are held."""

from __future__ import annotations

import gc
import sys
import sysconfig
import threading
from collections import deque
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, WeakSet

from tools.locks_check import KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

ROOT: Final = Path(__file__).resolve().parents[2]
OURS: Final = str(ROOT / "src" / "poolscope")
#: Modules of Python's own that call nothing of an application's, and what dataclasses generate.
_STANDARD: Final = Path(sysconfig.get_path("stdlib"))
HARMLESS: Final = {
    *(str(_STANDARD / f"{name}.py") for name in ("weakref", "_weakrefset", "dataclasses", "copy")),
    "<string>",
    __file__,
}
#: Modules whose functions in C are harmless, and types whose methods are; but for functions that format or import.
MODULES: Final = {"builtins", "_bisect", "_collections", "itertools", "_weakref", "_thread", "time", "sys", None}
TYPES: Final = (
    bool,
    bytes,
    deque,
    dict,
    float,
    frozenset,
    int,
    list,
    set,
    str,
    tuple,
    count,
    WeakSet,
    WeakKeyDictionary,
)
FORMATS: Final = {"print", "repr", "format", "ascii", "open", "exec", "eval", "compile", "__import__", "input"}
#: Files whose locks the check of the source knows to be held over all kinds of things.
EXCUSED: Final = {name.partition(":")[0] for name in KNOWN if ".run_once: " in name}


class Watch:
    """What was called while a lock was held, and which locks were held."""

    def __init__(self) -> None:
        self.foreign: list[str] = []
        self.held: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """What `sys.setprofile` is given."""
        if event == "call" and not frame.f_code.co_filename.startswith(OURS):
            if frame.f_code.co_filename not in HARMLESS:
                self.foreign.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
        elif event == "c_call" and not _is_harmless(argument):
            self.foreign.append(f"{frame.f_code.co_filename}:{frame.f_lineno} calls {argument!r}")


def _is_harmless(function: Any) -> bool:
    owner = getattr(function, "__self__", None)
    if isinstance(owner, (*TYPES, type)):
        return True
    return getattr(function, "__module__", "") in MODULES and function.__name__ not in FORMATS


class WatchedLock:
    """
    A lock of ours.

    Args:
        lock: The real one.
        made_in: The file that makes it.
        watch: What is called while it is waited for and held.
    """

    def __init__(self, lock: Any, made_in: str, watch: Watch) -> None:
        self._lock, self._made_in, self._watch = lock, made_in, watch
        self._before: list[Any] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken: bool = self._lock.acquire(blocking, timeout)
        if taken:
            self._before.append(sys.getprofile())
            if blocking and timeout == -1 and self._made_in not in EXCUSED:
                self._watch.held.add(self._made_in)
                sys.setprofile(self._watch)
        return taken

    def release(self) -> None:
        sys.setprofile(self._before.pop())
        self._lock.release()

    def locked(self) -> bool:
        return bool(self._before)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class _Threading:
    # `threading` or `_thread` as a module of ours sees it.
    def __init__(self, module: Any, makers: dict[str, Any]) -> None:
        self._module = module
        self.__dict__.update(makers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def watched_locks() -> Iterator[Watch]:
    """
    Every lock that poolscope makes meanwhile is watched. There is no garbage collection: it would call finalisers of
    the test's.
    """
    import _thread

    watch = Watch()
    changed: list[tuple[Any, str, Any]] = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "poolscope":
            continue
        made_in = str(getattr(module, "__file__", "")).removeprefix(f"{OURS}/")

        def maker(original: Any, made_in: str = made_in) -> Any:
            return lambda *arguments: WatchedLock(original(*arguments), made_in, watch)

        originals = {kind: getattr(threading, kind) for kind in ("Lock", "RLock")}
        for attribute, value in list(vars(module).items()):
            if value in (threading, _thread):
                thread = {"allocate_lock": _thread.allocate_lock} if value is _thread else {}
                makers = {kind: maker(original) for kind, original in {**originals, **thread}.items()}
                changed.append((module, attribute, value))
                setattr(module, attribute, _Threading(value, makers))
            elif any(value is original for original in originals.values()):
                changed.append((module, attribute, value))
                setattr(module, attribute, maker(value))
    gc.collect()
    gc.disable()
    try:
        yield watch
    finally:
        gc.enable()
        for module, attribute, value in changed:
            setattr(module, attribute, value)
