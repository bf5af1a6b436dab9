"""
Every line of poolscope as a moment: whatever may happen in another thread is made to happen while a thread is about to
execute that line. So each interleaving of one event is tried once, and none is left to chance.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import TimeoutError as NotYetError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import poolscope
from tests.support.beside import Beside

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import FrameType, TracebackType

_Answer = TypeVar("_Answer")

SOURCE: Final = str(Path(poolscope.__file__).parent)
#: Seconds that a thread is stopped at its line, where what happens meanwhile waits for that thread.
PATIENCE: Final = 0.3
#: Seconds after which what happens elsewhere is given up.
DEADLINE: Final = 60.0


class Place(NamedTuple):
    """
    A line of poolscope.

    Args:
        file: Below poolscope's folder.
        line: Its number.
    """

    file: str
    line: int


class Elsewhere:
    """A thread in which something happens; it is not traced."""

    def __init__(self) -> None:
        self._thread = Beside("elsewhere")  # before anything is traced
        self._begun: list[Future[Any]] = []

    def happens(self, what: Callable[[], Any]) -> None:
        """Let it happen, and come back when it has; or, where that waits for this thread, before."""
        future = self._thread.submit(what)
        self._begun.append(future)
        try:
            future.result(PATIENCE)
        except NotYetError:
            return

    def asks(self, what: Callable[[], _Answer]) -> _Answer:
        """What something returns there."""
        return self._thread.submit(what).result(DEADLINE)

    def settle(self) -> None:
        """Wait until all of it has happened; raise what it raised."""
        while self._begun:
            self._begun.pop(0).result(DEADLINE)

    def close(self) -> None:
        """End the thread."""
        self._thread.end(DEADLINE)


class Moments:
    """
    While it is entered, this thread and those that it starts are stopped at some lines of poolscope.

    Args:
        events: What happens at which place, when it is first come to.
        parts: Only files whose path below poolscope's folder starts so.
        but: Not in threads whose name starts so.
    """

    def __init__(
        self,
        events: dict[Place, Callable[[], Any]] | None = None,
        *,
        parts: tuple[str, ...] = ("",),
        but: tuple[str, ...] = ("poolscope", "elsewhere"),
    ) -> None:
        #: The places that were come to, in order.
        self.places: dict[Place, None] = {}
        self.pending = dict(events or {})
        self._parts = tuple(f"{SOURCE}/{part}" for part in parts)
        self._but = but
        self._before: Any = None

    def __enter__(self) -> Moments:  # noqa: PYI034 - no class derives from it
        self._before = sys.gettrace()
        threading.settrace(self._called)
        sys.settrace(self._called)
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        sys.settrace(self._before)
        threading.settrace(self._before)
        self.pending.clear()

    def _called(self, frame: FrameType, _: str, __: object) -> Any:
        if not frame.f_code.co_filename.startswith(self._parts):
            return None
        return None if threading.current_thread().name.startswith(self._but) else self._line

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            place = Place(frame.f_code.co_filename[len(SOURCE) + 1 :], frame.f_lineno)
            self.places.setdefault(place)
            happens = self.pending.pop(place, None)
            if happens is not None:
                happens()
        return self._line
