"""The holders of every pool on demand: at a signal."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.log_lines import log_lines
from poolscope.detectors.diagnosis.describe import thread_names
from poolscope.detectors.diagnosis.holders import LONGEST_REPORT, described
from poolscope.detectors.diagnosis.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.core.pool import Pool
    from poolscope.types import LibraryObject

_logger: Final = logging.getLogger("poolscope")
# What people read of the application's pools, as the findings are.
_findings: Final = logging.getLogger("poolscope.findings")


class Dump:
    """Writes the holders of every pool to the log, in the background, on demand."""

    def __init__(self) -> None:
        self._is_wanted = False

    def request(self) -> None:
        """Have it done soon. Safe in a signal handler."""
        self._is_wanted = True

    def tick(self, pools: Iterable[Pool]) -> None:
        """
        Do it, once, if it is wanted.

        Args:
            pools: Every pool of the process.
        """
        if self._is_wanted:
            self._is_wanted = False
            for pool in tuple(pools):
                log_lines.write(_findings, logging.WARNING, "%s", holders_report(pool))


def holders_report(pool: Pool) -> str:
    """All holders of a pool now, in lines for people."""
    limit = pool.limit if pool.limit is not None else "unlimited"
    head = f"pool {pool.identity.name}: {len(pool.leases)} in use, limit {limit}, {len(pool.pending)} waiting"
    holders = described(Picture.take(pool).held, len(pool.leases), thread_names(), LONGEST_REPORT - len(head))
    return "\n".join((head, *holders.report))


class DumpSignal:
    """
    Calls for a dump when the process gets a signal. An earlier handler of the signal is still called, after ours.

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
        """Begin to listen. Python allows that in the main thread only; elsewhere it says so and does nothing."""
        if not self._name:
            return
        if self._number is None or threading.current_thread() is not threading.main_thread():
            _logger.warning(
                "POOLSCOPE_DUMP_SIGNAL=%s has no effect: instrument() must run in the main thread, on a platform that "
                "has the signal",
                self._name,
            )
            return
        self._before = signal.signal(self._number, self._handle)
        self._installed = True

    def remove(self) -> None:
        """Listen no more, if the handler is still ours and this is the main thread."""
        if not self._installed or self._number is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(self._number) == self._handle:
            # Python does not know a handler that is not its own, and cannot put it back.
            signal.signal(self._number, self._before if self._before is not None else signal.SIG_DFL)
        self._installed = False

    def _handle(self, number: int, frame: LibraryObject) -> None:
        self._dump()
        if callable(self._before):
            self._before(number, frame)
