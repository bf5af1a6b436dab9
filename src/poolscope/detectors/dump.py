"""
The holders of every pool on demand: at a signal.
"""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_logger: Final = logging.getLogger("poolscope")


class DumpSignal:
    """
    Calls for a dump when the process gets a signal. Whoever handled the signal before still does, after us.

    Args:
        name: ``sigusr1`` or ``sigusr2``; nothing is installed for an empty one.
        dump: Called in the signal handler; it only takes a note.
    """

    def __init__(self, name: str, dump: Callable[[], None]) -> None:
        self._number = getattr(signal, name.upper(), None) if name else None
        self._name = name
        self._dump = dump
        self._before: Any = None
        self._installed = False

    def install(self) -> None:
        """
        Begin to listen. Python allows that in the main thread only; elsewhere it says so and does nothing.
        """
        if not self._name:
            return
        if self._number is None or threading.current_thread() is not threading.main_thread():
            _logger.warning("POOLSCOPE_DUMP_SIGNAL=%s needs the main thread of a platform that has it", self._name)
            return
        self._before = signal.signal(self._number, self._handle)
        self._installed = True

    def remove(self) -> None:
        """
        Listen no more, if the handler is still ours and this is the main thread.
        """
        if not self._installed or self._number is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(self._number) == self._handle:
            # Python does not know a handler that is not its own, and cannot put it back.
            signal.signal(self._number, self._before if self._before is not None else signal.SIG_DFL)
        self._installed = False

    def _handle(self, number: int, frame: Any) -> None:  # noqa: ANN401
        self._dump()
        if callable(self._before):
            self._before(number, frame)
