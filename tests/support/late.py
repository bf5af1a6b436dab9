"""
What a busy machine does to threads, on purpose: it finds tests that pass because one thread happens to be first.

    make test ARGS="-p tests.support.late --late wakes"

A plugin of pytest, off unless named. What fails under it by anything but its own deadline is wrong: stalls of an event
loop's thread add up. A test that does one thing over and over is late the first times, and ends before its time is up.
Programs that tests start are left alone.
"""

from __future__ import annotations

import functools
import socket
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

#: Seconds: long enough for the other thread to end an event loop and collect all garbage.
STALL: Final = 0.2
#: Stalls of one test: the fault law, which has sixty tests that each start hundreds of threads, is to end in minutes.
MOST: Final = 30
_WAKES: Final = ((Future, "set_result"), (Future, "set_exception"), (threading.Event, "set"))
_STARTS: Final = ((threading.Thread, "start"), (ThreadPoolExecutor, "submit"))
_SENDS: Final = ((socket.socket, "send"), (socket.socket, "sendall"))
_RUNS: Final = ((threading.Thread, "run"),)

WAYS: Final[dict[str, Callable[[], None]]] = {
    # Whoever wakes another thread is stopped right after, or right before.
    "wakes": lambda: _stall(_WAKES, after=True),
    "wakes-late": lambda: _stall(_WAKES, after=False),
    # Whoever starts another thread, or gives it work, is stopped: the other one may be done first.
    "starts": lambda: _stall(_STARTS, after=True),
    # A server's thread is stopped when it has answered: the client, in the main one, is on before it is over.
    "answers": lambda: _stall(_SENDS, after=True, main=False),
    # A thread that was started does nothing yet.
    "begins": lambda: _stall(_RUNS, after=False),
    # A thread that is done is still there.
    "ends": lambda: _stall(_RUNS, after=True),
    # A thread that computes lets no other one in for long, or at every chance.
    "switches-seldom": lambda: sys.setswitchinterval(STALL),
    "switches-often": lambda: sys.setswitchinterval(1e-6),
}


# Declared a part of the library: a frame of it is not the application's code, which is what tests of origins look for.
_STALLED: Final = """
def stall():
    if next(left[0], None) is not None and next(left[1], None) is not None:
        sleep(seconds)

def stalled(*args, **kwargs):
    if not after:
        stall()
    try:
        return method(*args, **kwargs)
    finally:
        if after and (main or current() is not main_thread()):
            stall()
"""
# What the running test, and what the process, has left of its stalls.
_left: Final[list[Iterator[int]]] = [iter(range(MOST)), count()]


def _stall(methods: tuple[tuple[type, str], ...], *, after: bool, main: bool = True) -> None:
    code = compile(_STALLED, threading.__file__, "exec")
    for owner, name in methods:
        method = getattr(owner, name)
        made: dict[str, Any] = {
            "method": method, "after": after, "main": main, "sleep": time.sleep, "seconds": STALL, "left": _left,
            "current": threading.current_thread, "main_thread": threading.main_thread,
        }  # fmt: skip
        exec(code, made)
        setattr(owner, name, functools.wraps(method)(made["stalled"]))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The way to be late."""
    parser.addoption("--late", choices=sorted(WAYS), help="be late on purpose, in one of these ways")
    parser.addoption("--late-most", type=int, metavar="N", help="be late no more than N times in a process")


def pytest_runtest_setup() -> None:
    """Each test has its own."""
    _left[0] = iter(range(MOST))


def pytest_configure(config: pytest.Config) -> None:
    """Be late from here on, in this process and in each of pytest-xdist's."""
    if way := config.getoption("late"):
        WAYS[way]()
    if (most := config.getoption("late_most")) is not None:
        _left[1] = iter(range(most))
