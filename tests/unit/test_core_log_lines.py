"""Lines of the log for which no thread waits."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.log_lines import LogLines

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("tests.log_lines")


@pytest.fixture
def pipe() -> Iterator[tuple[int, logging.StreamHandler[Any]]]:
    """A pipe whose reader does not read, and the handler that writes into it."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    handler = logging.StreamHandler(os.fdopen(writing, "w", buffering=1))
    logger.propagate = False
    logger.addHandler(handler)
    yield reading, handler
    logger.removeHandler(handler)
    logger.propagate = True
    os.set_blocking(writing, False)
    with contextlib.suppress(OSError):
        handler.stream.close()
    os.close(reading)


def fill(handler: logging.StreamHandler[Any]) -> None:
    """Fill the pipe."""
    writing = handler.stream.fileno()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 512)
    os.set_blocking(writing, True)


def read(reading: int) -> str:
    """All that is in the pipe."""
    text = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(reading, 1 << 20):
            text += part
    return text.decode()


def test_a_line_waits_until_its_stream_is_read(pipe: tuple[int, logging.StreamHandler[Any]]) -> None:
    """Lines into a full pipe are kept, in order, up to a bound, and written once there is room."""
    reading, handler = pipe
    lines = LogLines()
    lines.write(logger, logging.WARNING, "at once")
    fill(handler)
    for number in range(150):
        lines.write(logger, logging.WARNING, "line %d", number)
    lines.tick()
    assert lines.dropped == 50
    assert read(reading).startswith("at once\n.")
    lines.tick()
    assert read(reading).splitlines() == [f"line {number}" for number in range(100)]


def test_a_long_line_waits_for_as_much_room(pipe: tuple[int, logging.StreamHandler[Any]]) -> None:
    """What fits into no page is not begun where it might not come to its end."""
    reading, handler = pipe
    lines = LogLines()
    fill(handler)
    os.read(reading, 8192)
    lines.write(logger, logging.WARNING, "%s", "x" * 20_000)
    assert "x" not in read(reading)
    lines.tick()
    assert "x" * 20_000 in read(reading)


def test_a_line_waits_for_no_lock(pipe: tuple[int, logging.StreamHandler[Any]]) -> None:
    """A handler that is in use by another thread gets the line later."""
    reading, handler = pipe
    lines, held, done = LogLines(), threading.Event(), threading.Event()

    def hold() -> None:
        with handler.lock:  # type: ignore[union-attr]
            held.set()
            done.wait()

    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(60)
    lines.write(logger, logging.WARNING, "the line")
    done.set()
    holding.join()
    assert read(reading) == ""
    lines.write(logger, logging.WARNING, "and the next")
    assert read(reading).splitlines() == ["the line", "and the next"]


def test_what_is_not_logged_is_not_kept(pipe: tuple[int, logging.StreamHandler[Any]]) -> None:
    """A level that is off costs nothing; a handler of a higher level does not matter; a child keeps nothing."""
    reading, handler = pipe
    lines = LogLines()
    fill(handler)
    lines.write(logger, logging.DEBUG, "off")
    lines.write(logger, logging.WARNING, "kept")
    assert len(lines._kept) == 1
    lines.forget()
    assert not lines._kept
    handler.setLevel(logging.ERROR)
    lines.write(logger, logging.WARNING, "for no handler")
    assert not lines._kept
    read(reading)


class _RaisingHandler(logging.Handler):
    """A handler of an application that cannot write."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError(record.name)


class _StruckHandler(logging.Handler):
    """A handler that a signal interrupts."""

    def emit(self, record: logging.LogRecord) -> None:
        signal.raise_signal(signal.SIGUSR1)


class _OddStream(io.StringIO):
    """A stream whose file is none, as that of a mock."""

    def fileno(self) -> Any:
        return None


def test_what_a_handler_raises_comes_up_nowhere() -> None:
    """The application did not write this line: an error of its handler is not passed on, and the line is lost."""
    lines, handler = LogLines(), _RaisingHandler()
    logger.addHandler(handler)
    try:
        lines.write(logger, logging.WARNING, "the line")
        lines.tick()
    finally:
        logger.removeHandler(handler)
    assert (lines.dropped, len(lines._kept)) == (1, 0)


def test_a_time_limit_that_strikes_in_a_handler_passes() -> None:
    """What a signal handler raises meanwhile is the application's."""
    lines, handler = LogLines(), _StruckHandler()

    def strike(_number: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGUSR1, strike)
    logger.addHandler(handler)
    try:
        with pytest.raises(TimeoutError):
            lines.write(logger, logging.WARNING, "the line")
    finally:
        logger.removeHandler(handler)
        signal.signal(signal.SIGUSR1, before)


def test_a_stream_whose_file_is_none_gets_its_lines() -> None:
    """A stream in the place of the standard one may be anything: what is no file does not wait."""
    lines, stream = LogLines(), _OddStream()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        lines.write(logger, logging.WARNING, "the line")
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == "the line\n"
