"""Lines of the log for which no thread waits."""

from __future__ import annotations

import contextlib
import logging
import os
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
