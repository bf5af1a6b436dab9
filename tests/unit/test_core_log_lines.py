"""Lines of the log for which no thread waits."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core import log_lines as module
from poolscope.core.log_lines import LogLines, let_go
from tests.support.likeness import Like

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


def test_a_line_takes_its_text_its_values_and_what_a_handler_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are with escapes; each stream of each handler of the level has to have so much room."""
    rooms: list[tuple[Any, int]] = []

    def has_room(stream: Any, size: int) -> bool:
        rooms.append((stream, size))
        return bool(stream.free)

    free, full = Like(free=True), Like(free=False)

    def handler(*streams: Any, level: int = logging.WARNING, is_free: bool = True) -> Any:
        return Like(streams=streams, level=level, is_free=is_free)

    given: list[Any] = []
    monkeypatch.setattr(module, "_has_room", has_room)
    monkeypatch.setattr(module, "_handlers", lambda _: given)
    monkeypatch.setattr(module, "_streams", lambda one: one.streams)
    monkeypatch.setattr(module, "_is_free", lambda one: one.is_free)
    for handlers, takes in (
        ([handler(free), handler(free)], True),
        ([handler(free, full)], False),
        ([handler(full)], False),
        ([handler(full, level=logging.ERROR)], True),
        ([handler(full, level=logging.INFO)], False),
        ([handler(free, is_free=False)], False),
        ([handler(free), handler(free, is_free=False)], False),
        ([], True),
    ):
        given[:] = handlers
        assert module._takes(logger, logging.WARNING, "ä" * 200, ("ö", 12)) is takes
    assert {size for _, size in rooms} == {4 * 200 + 2 + 4 + 2 + 2 + module._AROUND}


def test_a_line_goes_to_the_handlers_of_a_logger_and_of_those_above() -> None:
    """As far as these propagate; to the last resort where there is none."""
    above, own = logging.NullHandler(), logging.NullHandler()
    top: Any = Like(handlers=[above], parent=None, propagate=True)
    middle: Any = Like(handlers=[], parent=top, propagate=True)
    low: Any = Like(handlers=[own], parent=middle, propagate=True)
    assert list(module._handlers(low)) == [own, above]
    middle.propagate = False
    assert list(module._handlers(low)) == [own]
    assert list(module._handlers(middle)) == [logging.lastResort]


def test_where_no_handler_is_the_last_resort_may_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may have taken it away."""
    monkeypatch.setattr(logging, "lastResort", None)
    alone: Any = Like(handlers=[], parent=None, propagate=True)
    assert list(module._handlers(alone)) == []


def test_a_handler_is_free_where_its_lock_is() -> None:
    """One without a lock always is; looking does not keep the lock."""
    lock = threading.Lock()
    assert module._is_free(Like(lock=None))  # type: ignore[arg-type]
    assert module._is_free(Like(lock=lock))  # type: ignore[arg-type]
    assert lock.acquire(blocking=False)
    assert not module._is_free(Like(lock=lock))  # type: ignore[arg-type]


def test_a_handler_writes_to_its_stream_or_to_a_standard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of logging without a stream writes to none; whatever another one is may write to the standard ones."""
    out, stream = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", None)
    assert module._streams(logging.StreamHandler(stream)) == [stream]
    assert module._streams(logging.NullHandler()) == [None]
    assert module._streams(_RaisingHandler()) == [out]
    assert module._has_room(None, 1)


def test_a_page_fits_into_a_pipe_that_can_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer has to fit beside what is unread, with a page to spare at both ends, however full pages are."""
    asked: list[int] = []

    def pipe_has_room(_: int, size: int) -> bool:
        asked.append(size)
        return False

    reading, writing = os.pipe()
    with os.fdopen(writing, "w", buffering=1) as stream:
        monkeypatch.setattr(module, "_pipe_has_room", pipe_has_room)
        assert module._has_room(stream, module._PAGE)
        assert not module._has_room(stream, module._PAGE + 1)
        assert asked == [module._PAGE + 1]
        monkeypatch.undo()
        whole = 65_536 - 2 * module._PAGE
        assert module._pipe_has_room(writing, whole)
        assert not module._pipe_has_room(writing, whole + 1)
        os.write(writing, b"." * 100)
        assert module._pipe_has_room(writing, whole - 200)
        assert not module._pipe_has_room(writing, whole - 199)
        with Path(os.devnull).open() as no_pipe:
            assert module._pipe_has_room(no_pipe.fileno(), 10**9)
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"." * 512)
        assert not module._has_room(stream, 1)
    assert module._has_room(stream, 1)  # closed
    os.close(reading)


def test_at_the_end_what_is_stuck_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The handlers in which the thread is, and those of a standard stream that cannot be written to; the stream is opened
    anew. All others are flushed and closed as ever.
    """
    readings, streams = [], []
    for _ in range(2):
        reading, writing = os.pipe()
        readings.append(reading)
        streams.append(os.fdopen(writing, "w", 1, encoding="latin-1"))
    full, free = streams
    monkeypatch.setattr(module, "_has_room", lambda stream, size: stream is not full and size == 0)
    for name, stream in (("stdout", full), ("stderr", free)):
        monkeypatch.setattr(sys, name, stream)
        monkeypatch.setattr(sys, f"__{name}__", stream)
    stuck, on_full, on_free, other, gone = (
        logging.NullHandler(), logging.StreamHandler(full), logging.StreamHandler(free), logging.NullHandler(),
        logging.NullHandler(),
    )  # fmt: skip
    references = [weakref.ref(one) for one in (stuck, on_full, on_free, other)]
    dead = weakref.ref(gone)
    del gone
    monkeypatch.setattr(logging, "_handlerList", [*references, dead])
    let_go((object(), stuck))
    assert logging._handlerList == [references[2], references[3], dead]  # type: ignore[attr-defined]
    assert sys.stderr is sys.__stderr__ is free
    anew: Any = sys.stdout
    assert anew is sys.__stdout__ is not full
    assert (anew.fileno(), anew.encoding, anew.errors) == (full.fileno(), "latin-1", full.errors)
    assert anew.line_buffering
    anew.close()  # the descriptor stays open: others have it
    os.write(full.fileno(), b"x")
    assert os.read(readings[0], 1) == b"x"
    for stream in streams:
        stream.close()
    for reading in readings:
        os.close(reading)


def test_so_many_lines_are_kept() -> None:
    """What comes to more is counted; what is in line is written first, each as it is."""
    lines = LogLines()
    written: list[str] = []
    takes: list[int] = []

    def is_written(logger: Any, level: int, text: str, values: tuple[object, ...]) -> bool:
        if takes:
            takes.pop()
            written.append(text % values if values else text)
            return True
        return False

    lines._written = is_written  # type: ignore[method-assign]
    for number in range(module._MOST_KEPT + 3):
        lines.write(logger, logging.WARNING, "%d %%", number)
    assert (len(lines._kept), lines.dropped) == (module._MOST_KEPT, 3)
    takes += [1, 1]
    lines.write(logger, logging.WARNING, "100 %")
    assert written == ["0 %", "1 %"]
    assert lines._kept[0][2] == "2 %"
    assert lines._kept[-1][2] == "100 %"
    assert len(lines._kept) == module._MOST_KEPT - 1
    takes += [1] * 1_000
    lines.write(logger, logging.WARNING, "last: %s", "it")
    assert written[-2:] == ["100 %", "last: it"]
    assert not lines._kept
