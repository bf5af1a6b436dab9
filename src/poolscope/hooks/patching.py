"""
Putting hooks into libraries, and taking them out again; the only user of wrapt.

wrapt finds and sets the attributes, watches imports, and wraps what is cold. On the hot path a wrapt proxy would cost
0.5 us a call (twelve times a plain call), so there a plain function with the original's fixed signature takes its
place; `functools.wraps` keeps its name, signature and documentation.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import wrapt

from poolscope.core.guard import guard
from poolscope.core.serially import toggling

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from poolscope.types import LibraryObject

#: Packages whose frames stand between a hook and what it wraps.
PACKAGES: Final = ("wrapt",)

_logger: Final = logging.getLogger("poolscope")


class Refused(Exception):  # noqa: N818 - it is a refusal with a reason, and part of normal life
    """A library is not as a hook expects it; the message says what is missing. Nothing was patched."""


@dataclass(frozen=True)
class Patch:
    """
    One attribute that was replaced.

    Args:
        owner: The class or module.
        name: The attribute.
        original: What its own ``__dict__`` held.
        replacement: What it holds now.
    """

    owner: Any
    name: str
    original: Any
    replacement: Any

    def __str__(self) -> str:
        """The attribute's qualified name."""
        module = getattr(self.owner, "__module__", None)
        where = _name_of(self.owner)
        return f"{module}.{where}.{self.name}" if module else f"{where}.{self.name}"


def _name_of(owner: LibraryObject) -> str:
    # A class, or a module; neither of them formats itself.
    return str(getattr(owner, "__qualname__", getattr(owner, "__name__", type(owner).__qualname__)))


_active: Final[list[Patch]] = []


def active_patches() -> tuple[str, ...]:
    """The qualified names of all attributes that are replaced now."""
    return tuple(str(patch) for patch in _active)


class Patcher:
    """The patches of one library, applied and reverted together, by one thread at a time, as `toggling` has it."""

    def __init__(self) -> None:
        self._patches: list[Patch] = []
        self._is_over = False

    def require(self, owner: object, names: Iterable[str]) -> None:
        """
        Make sure that a class or module has what is to be hooked.

        Args:
            owner: The class or module.
            names: Attributes that its own ``__dict__`` must hold.

        Raises:
            Refused: One is missing.
        """
        missing = [name for name in names if name not in vars(owner)]
        if missing:
            text = f"{_name_of(owner)} has no {', '.join(missing)}"
            raise Refused(text)

    def replace(self, owner: LibraryObject, name: str, make: Callable[[LibraryObject], LibraryObject]) -> None:
        """
        Put a plain function in a function's place. For hot paths.

        Args:
            owner: The class or module whose own ``__dict__`` holds it.
            name: Its name.
            make: Gets the plain function that was there and returns the new one; class and static methods are unwrapped
                before and wrapped again after.
        """
        original = vars(owner)[name]
        if isinstance(original, (classmethod, staticmethod)):
            function = original.__func__
            replacement: Any = type(original)(functools.wraps(function)(make(function)))
        else:
            replacement = functools.wraps(original)(make(original))
        self._apply(Patch(owner, name, original, replacement))

    def wrap(self, owner: LibraryObject, name: str, wrapper: Callable[..., LibraryObject]) -> None:
        """
        Wrap a function in a wrapt proxy, which is right for any kind of callable. For cold paths.

        Args:
            owner: The class or module whose own ``__dict__`` holds it.
            name: Its name.
            wrapper: Called with the wrapped function, the instance, and the call's arguments.
        """
        original = vars(owner)[name]
        self._apply(Patch(owner, name, original, wrapt.FunctionWrapper(original, wrapper)))

    def has(self, owner: LibraryObject, name: str) -> bool:
        """Whether this patcher replaced that attribute."""
        return any(patch.owner is owner and patch.name == name for patch in self._patches.copy())

    def revert(self) -> None:
        """
        Put every original back, the last patch first.

        Where other code has wrapped our replacement since, it stays: removing it would remove the other wrapper too. It
        then passes calls on and does nothing of its own. No patch is applied any more.
        """
        self._is_over = True
        while self._patches:
            patch = self._patches.pop()
            _active.remove(patch)
            if vars(patch.owner).get(patch.name) is patch.replacement:
                wrapt.apply_patch(patch.owner, patch.name, patch.original)
            else:
                _logger.info(
                    "%s was wrapped by other code after poolscope; poolscope's hook stays in place and does nothing",
                    patch,
                )

    def _apply(self, patch: Patch) -> None:
        if not self._is_over:
            wrapt.apply_patch(patch.owner, patch.name, patch.replacement)
            self._patches.append(patch)
            _active.append(patch)


_watched: Final[dict[str, list[_Action]]] = {}

# Seconds between two looks whether a module that was half imported is complete.
_SHORTEST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0

_Action = Callable[["ModuleType"], None]


def when_imported(module: str, action: _Action) -> Callable[[], None]:
    """
    Do something once a module is imported; at once if it is already.

    wrapt's import hooks cannot be taken back, so one is registered for each module and looks up what is to be done
    by then.

    Args:
        module: The module's name.
        action: Called with the module, once; its errors are caught.

    Returns:
        To be called when the action is not wanted any more.
    """
    known = module in _watched
    actions = _watched.setdefault(module, [])
    actions.append(action)
    is_watching = known

    def forget() -> None:
        if action in actions:
            actions.remove(action)

    def arrived(imported: ModuleType) -> None:
        for todo in tuple(actions) if is_watching else ():
            toggling.do(lambda todo=todo: _run(actions, todo, imported))  # type: ignore[misc]

    if not known:
        wrapt.register_post_import_hook(arrived, module)  # which calls it at once where the module is there, or half so
        is_watching = True
    there = sys.modules.get(module)
    if there is not None and is_being_imported(there):
        # By another thread, or by this one further out: there may be no notice of its end.
        threading.Thread(
            target=_when_complete, args=(module, actions, action), name="poolscope-import", daemon=True
        ).start()
    elif there is not None:
        _run(actions, action, there)
    return forget


def is_being_imported(module: LibraryObject) -> bool:
    """Whether a module is being imported now: it may lack anything."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _when_complete(name: str, actions: list[_Action], action: _Action) -> None:
    pause = _SHORTEST_PAUSE
    while action in actions:
        module = sys.modules.get(name)
        if module is not None and not is_being_imported(module):
            toggling.do(lambda module=module: _run(actions, action, module))  # type: ignore[misc]
            return
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _run(actions: list[_Action], action: _Action, imported: ModuleType) -> None:
    # Once, though there may be notice of a module twice; and not where it is not wanted any more.
    if action in actions:
        actions.remove(action)
        guard.run(f"import.{imported.__name__}", lambda: action(imported), None)
