"""
Where in the application a connection was checked out: the packed stack, resolved only when it is read.

On the hot path a frame is kept as its code object and the index of its current instruction (``f_lasti``); looking up
the line number there would cost five times as much. Frames of libraries between the pool and the application are
skipped by file name, and each file is classified once.
"""

from __future__ import annotations

import inspect
import os
import site
import sys
import sysconfig
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.files import absolute
from poolscope.core.libraries import KNOWN, is_within
from poolscope.core.location import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType

    from poolscope.types import LibraryObject

#: Frames from the innermost application frame outwards, each a code object and an instruction index.
RawStack = tuple[tuple["CodeType", int], ...]

#: A packed stack, as the hot path keeps it: code object, index, code object, index ... One tuple in place of one for
#: each frame costs a third less to make, and leaves the garbage collector less to look at.
PackedStack = tuple[Any, ...]

# Frames walked in search of the first application frame before it is given up.
_SEARCH: Final = 80
_STEPS: Final = (None,) * _SEARCH
# The depth that is the default of the settings, for which `capture` has a way of its own.
_USUAL_DEPTH: Final = 5
_TYPED: Final = ("<stdin>", "<console>")
# Whose `ContextDecorator` makes a decorator of a context manager.
_DECORATORS: Final = "contextlib"

# What a file is. A loop runs the jobs of others: the code that started it has nothing to do with them.
LIBRARY, APPLICATION, LOOP = range(3)
_LOOPS: Final = ("/asyncio/events.py", "/asyncio/runners.py")
# Where a thread begins: what is outside of that wants nothing of the database.
_THREADS: Final = frozenset({"threading", "concurrent.futures.thread"})
# Of a stack without a frame of the application, these say nothing: whatever waits, waits in them.
_WAITING: Final = frozenset({"asyncio", "concurrent.futures", "contextlib", "queue", "selectors", "threading"})
# Names of files whose kind is remembered.
_MOST_FILES: Final = 10_000
_SOURCES: Final = (".pyx", ".pxd", ".pxi")
_SCRIPTS: Final = absolute(sysconfig.get_path("scripts"))

#: What the application executes that waits for what this thread runs on its behalf; empty where that is not known.
CALLED_FROM: Final[ContextVar[PackedStack]] = ContextVar("poolscope_called_from", default=())


class Origins:
    """
    Captures stacks, knowing what is a library and what the application.

    Args:
        depth: How many frames are kept.
        application_paths: Folders whose files count as the application though they lie in a library folder.
    """

    def __init__(self, depth: int = 5, application_paths: Iterable[str] = ()) -> None:
        self._depth = depth
        self._application = tuple(absolute(path) + os.sep for path in application_paths)
        self._library = _library_folders()
        self._classified: dict[str, int] = {}

    def capture(self, frame: FrameType | None) -> PackedStack:  # noqa: C901, PLR0911 - the hot path
        """
        Keep the stack from the first application frame outwards.

        Args:
            frame: The frame to search from.

        Returns:
            The stack (`stack_of` makes it one of pairs); where no application frame is near, that of whoever wanted
            something of the database.
        """
        classified = self._classified
        here = frame
        kind = LIBRARY
        for _ in _STEPS:  # `nearest` spelt out: its call and its care for greenlets cost a fifth
            if here is None:
                break
            file = here.f_code.co_filename
            try:
                kind = classified[file]
            except KeyError:
                kind = self._classify(file)
            if kind:  # no library
                break
            here = here.f_back
        if kind != APPLICATION:
            here = self._application_frame(frame)
            if here is None:
                return self._called_from(frame, self._depth)
        if here is None or self._depth != _USUAL_DEPTH:
            return packed_stack(here, self._depth)
        # `packed_stack` spelt out, which halves the cost.
        second = here.f_back
        if second is None:
            return (here.f_code, here.f_lasti)
        third = second.f_back
        if third is None:
            return (here.f_code, here.f_lasti, second.f_code, second.f_lasti)
        fourth = third.f_back
        if fourth is None:
            return (here.f_code, here.f_lasti, second.f_code, second.f_lasti, third.f_code, third.f_lasti)
        fifth = fourth.f_back
        if fifth is None:
            return (
                here.f_code, here.f_lasti, second.f_code, second.f_lasti, third.f_code, third.f_lasti,
                fourth.f_code, fourth.f_lasti,
            )  # fmt: skip
        return (
            here.f_code, here.f_lasti, second.f_code, second.f_lasti, third.f_code, third.f_lasti,
            fourth.f_code, fourth.f_lasti, fifth.f_code, fifth.f_lasti,
        )  # fmt: skip

    def nearest(self, frame: FrameType | None) -> tuple[CodeType, int] | None:
        """
        The innermost application frame. Where none is near, as when a framework makes the response out of rows that are
        loaded while it does, that of whoever wanted something of the database.

        Args:
            frame: The frame to search from.

        Returns:
            It, raw; None for none.
        """
        here = self._application_frame(frame)
        if here is None:
            caller = self._called_from(frame, 1)
            return (caller[0], caller[1]) if caller else None
        return here.f_code, here.f_lasti

    def of_application(self, frame: FrameType | None) -> PackedStack:
        """
        The stack from the innermost application frame outwards; empty when none is near.

        Args:
            frame: The frame to search from.
        """
        return packed_stack(self._application_frame(frame), self._depth)

    def _application_frame(self, frame: FrameType | None) -> FrameType | None:
        classified = self._classified
        stack = None
        for _ in range(_SEARCH):
            if frame is None:
                stack, frame = KNOWN.switches.outwards(stack)
                if frame is None:
                    return None
            file = frame.f_code.co_filename
            kind = classified.get(file)
            if kind is None:
                kind = self._classify(file)
            if kind != LIBRARY:
                return frame if kind == APPLICATION else None
            frame = frame.f_back
        return None

    def of_function(self, function: LibraryObject) -> PackedStack:
        """Where a function of the application begins, whatever decorates it; empty for a library's."""
        code: CodeType | None = getattr(inspect.unwrap(function), "__code__", None)
        if code is None or self._kind_of(code.co_filename) != APPLICATION:
            return ()
        return code, BEGINNING

    def _called_from(self, frame: FrameType | None, depth: int) -> PackedStack:
        # Who wanted something, where no frame of the application is near: the function that a context manager decorates
        # and that is yet to begin, where the application waits for this thread, or the nearest frame outside of what
        # carries queries.
        here, stack, last = frame, None, None
        for _ in range(_SEARCH):
            if here is None:
                stack, here = KNOWN.switches.outwards(stack)
                if here is None:
                    break
            module = str(here.f_globals.get("__name__", ""))
            if not KNOWN.carries(module):
                break
            last = here
            if module == _DECORATORS and here.f_code.co_name == "inner":
                decorated = self.of_function(here.f_locals.get("func"))
                if decorated:
                    return decorated + packed_stack(here.f_back, depth - 1)
            here = here.f_back
        caller = CALLED_FROM.get()
        if not caller and here is not None and last is not None and self._begins(here):
            return last.f_code, last.f_lasti  # a task or a thread that runs a function of the library
        return caller or packed_stack(here or frame, depth)

    def _begins(self, frame: FrameType) -> bool:
        # Whether a task or a thread begins in a frame.
        return self._kind_of(frame.f_code.co_filename) == LOOP or frame.f_globals.get("__name__") in _THREADS

    def decorated(self, frame: FrameType | None) -> PackedStack:
        """
        The function of the application that a context manager decorates and is yet to call, and what called that; else
        what waits for this thread. Empty where a frame of the application is nearer than the decorator.

        Args:
            frame: The frame to search from.
        """
        for _ in range(_SEARCH):
            if frame is None or self._kind_of(frame.f_code.co_filename) == APPLICATION:
                break
            if frame.f_globals.get("__name__") == _DECORATORS and frame.f_code.co_name == "inner":
                function = self.of_function(frame.f_locals.get("func"))
                around = self._application_frame(frame)
                return function + packed_stack(around, self._depth - 1) if function else CALLED_FROM.get()
            frame = frame.f_back
        return ()

    def is_of_application(self, file: str) -> bool:
        """Whether a file is the application's, and no library's."""
        return self._kind_of(file) == APPLICATION

    def trim(self, stack: RawStack) -> RawStack:
        """A raw stack from its innermost application frame outwards; the whole when it has none."""
        for place, (code, _) in enumerate(stack):
            if self._kind_of(code.co_filename) == APPLICATION:
                return stack[place:]
        return stack

    def shown(self, stack: RawStack) -> RawStack:
        """
        The frames of a stack that a person is to see: the application's; where it has none, those of libraries that
        neither carry queries nor only wait; else the outermost that carries one. No compiled ones: they have no lines.
        """
        applications = self.applications(stack)
        if applications:
            return tuple(frame for frame in stack if frame[0] in applications)
        named = [
            (frame, self._module_of(frame[0].co_filename))
            for frame in stack
            if not frame[0].co_filename.endswith(_SOURCES)
        ]
        moving = [(frame, module) for frame, module in named if not is_within(module, _WAITING)]
        wanting = tuple(frame for frame, module in moving if not KNOWN.carries(module))
        return wanting or tuple(frame for frame, _ in moving[-1:] or named)

    def _module_of(self, file: str) -> str:
        # The name of a library's module, by its file.
        path = absolute(file)
        folder = max((folder for folder in self._library if path.startswith(folder)), key=len, default="")
        return os.path.splitext(path[len(folder) :])[0].replace(os.sep, ".")

    def applications(self, stack: RawStack) -> set[CodeType]:
        """The code in a raw stack that is the application's."""
        return {code for code, _ in stack if self._kind_of(code.co_filename) == APPLICATION}

    def _kind_of(self, file: str) -> int:
        kind = self._classified.get(file)
        return self._classify(file) if kind is None else kind

    def _classify(self, file: str) -> int:
        path = absolute(file)
        compiled = file.endswith(_SOURCES)
        built_elsewhere = False
        if (compiled or not os.path.isabs(file)) and not (os.path.exists(path) or os.path.exists(file)):
            found = _compiled_from(file)
            if found is not None and not compiled and not os.path.exists(found):
                found = None  # a script whose folder has the name of a package, and was deleted
            path, built_elsewhere = found or path, compiled and found is None
        library = built_elsewhere or path.startswith(self._library) or _is_entry_point(path)
        library = library and not path.startswith(self._application)
        # Generated code ("<string>") and frozen modules have no file; what a person typed has none either, but is the
        # application.
        if not library and (not file.startswith("<") or file in _TYPED):
            kind = APPLICATION
        else:
            kind = LOOP if path.replace(os.sep, "/").endswith((*_LOOPS, *KNOWN.loops)) else LIBRARY
        if len(self._classified) >= _MOST_FILES:  # code that is generated may have another name each time
            self._classified.clear()
        self._classified[file] = kind
        return kind


def _compiled_from(file: str) -> str | None:
    # Compiled modules know their sources by a path from where they were compiled, such as "package/module.pyx": those
    # lie, or would lie, where the package was imported from.
    parts = file.replace("\\", "/").split("/")
    for place, package in enumerate(parts[:-1]):
        module = sys.modules.get(package)
        for folder in getattr(module, "__path__", ()):
            return os.path.join(absolute(folder), *parts[place + 1 :])
    return None


def _is_entry_point(path: str) -> bool:
    # What installing a package puts beside the interpreter to start it: uvicorn, gunicorn, celery.
    return os.path.dirname(path) == _SCRIPTS and not path.endswith(".py")


def packed_stack(frame: FrameType | None, depth: int) -> PackedStack:
    """
    Keep a frame and those that called it.

    Args:
        frame: The innermost frame.
        depth: How many frames to keep.
    """
    kept: list[Any] = []
    while frame is not None and depth:
        kept += (frame.f_code, frame.f_lasti)
        depth -= 1
        frame = frame.f_back
    return tuple(kept)


def stack_of(kept: PackedStack) -> RawStack:
    """The frames of a packed stack, each a pair."""
    return tuple(zip(kept[::2], kept[1::2], strict=True))


def keep(frame: FrameType | None, depth: int) -> RawStack:
    """
    Keep a frame and those that called it, each a pair.

    Args:
        frame: The innermost frame.
        depth: How many frames to keep.
    """
    return stack_of(packed_stack(frame, depth))


def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib") if key in paths}
    folders.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
    folders.add(os.path.dirname(os.path.dirname(absolute(__file__))))
    folders.update(path for path in sys.path if os.path.basename(path) in {"site-packages", "dist-packages"})
    return tuple(absolute(folder) + os.sep for folder in sorted(folders))
