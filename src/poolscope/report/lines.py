"""Reads lines of bytes, with bounds: of a line's length, of what a growing file adds, of the wait for a pipe."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

#: Bytes of the longest line that is read: four times what gRPC takes in one message by default.
LONGEST_LINE: Final = 16 * 2**20
#: How long a pipe may bring nothing.
PATIENCE_SECONDS: Final = 10.0
_PART: Final = 2**20
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class Line(NamedTuple):
    """
    One line.

    Args:
        content: Its bytes; the first of them only where it is too long.
        length: Its length in bytes.
    """

    content: bytes
    length: int

    @property
    def is_long(self) -> bool:
        """Whether it is above the longest that is read."""
        return self.length > LONGEST_LINE


def lines(path: Path) -> Iterator[Line]:
    """
    The lines of a file or a pipe.

    A file is read up to the size that it has when it is opened, so that one which grows has an end.

    Raises:
        OSError: It cannot be read, is no file and no pipe, or a pipe brought nothing for `PATIENCE_SECONDS`.
    """
    with _opened(path) as (stream, size):
        left = size
        while left > 0:
            content = stream.readline(min(LONGEST_LINE + 1, left))
            if not content:
                return
            length = len(content)
            if length > LONGEST_LINE:
                content = content[:_PART]
                length += _skip(stream, left - length)
            left -= length
            yield Line(content, length)


def _skip(stream: BinaryIO, left: int) -> int:
    skipped = 0
    while left > skipped:
        part = stream.readline(min(_PART, left - skipped))
        skipped += len(part)
        if not part or part.endswith(b"\n"):
            break
    return skipped


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    # Without O_NONBLOCK opening a pipe without a writer waits for one.
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        stream: BinaryIO
        if stat.S_ISFIFO(status.st_mode):
            size, stream = _ENDLESS, io.BufferedReader(_Pipe(descriptor), _PART)
        elif stat.S_ISREG(status.st_mode):
            # Files of the kernel, as in /proc, have the size 0.
            size, stream = status.st_size or _ENDLESS, io.BufferedReader(io.FileIO(descriptor, closefd=False))
        elif stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        else:
            raise OSError(errno.EINVAL, "it is neither a file nor a pipe")
        with stream:
            yield stream, size
    finally:
        os.close(descriptor)


_ENDLESS: Final = 2**63


class _Pipe(io.RawIOBase):
    """A pipe that is read with patience, but not for ever."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - Python has no name for it before 3.12
        """
        Read what is there.

        Raises:
            TimeoutError: Nothing came for `PATIENCE_SECONDS`.
        """
        if not select.select([self._descriptor], [], [], PATIENCE_SECONDS)[0]:
            raise TimeoutError(errno.ETIMEDOUT, f"nothing came for {PATIENCE_SECONDS:.0f} s")
        view = memoryview(buffer)
        content = os.read(self._descriptor, len(view))
        view[: len(content)] = content
        return len(content)
