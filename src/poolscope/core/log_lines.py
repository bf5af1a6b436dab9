"""
Log lines of poolscope's own, for which no thread waits.

A handler that writes into a pipe whose reader is stuck waits for ever, and has its lock all the while: then an exit
waits, too (`logging.shutdown`). A line is therefore written only where it can be, and kept otherwise: the background
thread tries again. Of what others log in that thread, as an exporter does, an exit lets go.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.failure import raised_by_a_signal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# Lines that wait to be written, at most; an exhaustion report may have 4,000 characters.
_MOST_KEPT: Final = 100
# What a pipe that can be written to takes without waiting, in bytes (POSIX' least is less; Linux' is a page).
_PAGE: Final = 4096
# What a handler adds to a text, in bytes.
_AROUND: Final = 512


class LogLines:
    """What poolscope says in the log."""

    def __init__(self) -> None:
        self._kept: deque[tuple[logging.Logger, int, str]] = deque()
        #: How many lines were dropped.
        self.dropped = 0

    def write(self, logger: logging.Logger, level: int, text: str, *values: object) -> None:
        """
        Write a line, or keep it where that could make this thread wait.

        Args:
            logger: The logger.
            level: The level, as of `logging`.
            text: The text, with places for the values as of `logging`.
            values: The values.
        """
        if not logger.isEnabledFor(level):
            return
        if self._kept:
            self.tick()
        if not self._kept and self._written(logger, level, text, values):
            return
        if len(self._kept) < _MOST_KEPT:
            self._kept.append((logger, level, text % values if values else text))
        else:
            self.dropped += 1

    def tick(self) -> None:
        """Write what was kept, as far as it can be."""
        while self._kept:
            try:
                logger, level, text = kept = self._kept.popleft()
            except IndexError:  # another thread has written it
                return
            if not self._written(logger, level, "%s", (text,)):
                self._kept.appendleft(kept)
                return

    def _written(self, logger: logging.Logger, level: int, text: str, values: tuple[object, ...]) -> bool:
        # Whether it is done with. What a handler, a filter or a stream of the application raises would have come up at
        # no line of its own: it is not passed on.
        try:
            if not _takes(logger, level, text, values):
                return False
            logger.log(level, text, *values, stacklevel=4)
        except Exception as error:
            if raised_by_a_signal(error):
                raise
            self.dropped += 1
        return True

    def forget(self) -> None:
        """In a child process after a fork: what was kept is the parent's to write."""
        self._kept.clear()


#: The one of the process.
log_lines: Final = LogLines()


def let_go(stuck: Collection[object]) -> None:
    """
    The process ends, and a thread of ours is stuck for good: leave out what the exit would wait for.

    That is a log handler in which the thread is, whose lock it has, and a standard stream that cannot be written to,
    whose buffer's lock it may have. The stream is opened anew, so that whatever waits for it does so as without us.

    Args:
        stuck: The objects whose methods the thread executes.
    """
    full = [stream for stream in _standard() if not _has_room(stream, 0)]
    for reference in tuple(logging._handlerList):  # type: ignore[attr-defined]  # noqa: SLF001 - what `logging.shutdown` goes through
        handler = reference()
        if any(handler is one for one in stuck) or any(getattr(handler, "stream", None) is one for one in full):
            with suppress(ValueError):
                logging._handlerList.remove(reference)  # type: ignore[attr-defined]  # noqa: SLF001 - the same
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if any(stream is one for one in full):
            anew = os.fdopen(stream.fileno(), "w", 1, stream.encoding, stream.errors, closefd=False)
            setattr(sys, name, anew)
            setattr(sys, f"__{name}__", anew)


def _standard() -> list[Any]:
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def _takes(logger: logging.Logger, level: int, text: str, values: tuple[object, ...]) -> bool:
    # As JSON it is about as long as with escapes.
    size = len(ascii(text)) + sum(len(ascii(value)) for value in values) + _AROUND
    return all(
        _is_free(handler) and all(_has_room(one, size) for one in _streams(handler))
        for handler in _handlers(logger)
        if level >= handler.level
    )


def _handlers(logger: logging.Logger) -> Iterator[logging.Handler]:
    found = False
    current: logging.Logger | None = logger
    while current is not None:
        for handler in tuple(current.handlers):
            found = True
            yield handler
        current = current.parent if current.propagate else None
    if not found and logging.lastResort is not None:
        yield logging.lastResort


def _is_free(handler: logging.Handler) -> bool:
    lock: Any = handler.lock
    if lock is None:
        return True
    if not lock.acquire(blocking=False):
        return False
    lock.release()
    return True


def _streams(handler: logging.Handler) -> list[Any]:
    stream = getattr(handler, "stream", None)
    if stream is not None or type(handler).__module__.partition(".")[0] == "logging":
        return [stream]
    return _standard()  # whatever else it is may write there


def _has_room(stream: Any, size: int) -> bool:  # noqa: ANN401 - whatever a handler writes to
    try:
        descriptor = stream.fileno()
        waiting = select.poll()
        waiting.register(descriptor, select.POLLOUT)
        events = waiting.poll(0)
    except (AttributeError, TypeError, ValueError, OSError):  # no file, or closed: it does not wait
        return True
    if not events:
        return False
    return size <= _PAGE or _pipe_has_room(descriptor, size)


def _pipe_has_room(descriptor: int, size: int) -> bool:
    try:
        import fcntl  # noqa: PLC0415 - not everywhere
        import termios  # noqa: PLC0415 - the same

        room = fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
        unread = int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4), sys.byteorder)
    except (ImportError, AttributeError, OSError):  # no Linux, or no pipe
        return True
    # Its pages may be half full, since a line that does not fit begins another one.
    return room - 2 * unread - 2 * _PAGE >= size
