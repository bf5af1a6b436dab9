"""The handlers of signals: a test that leaves another one would have what runs next ended by it."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def handlers() -> dict[signal.Signals, Any]:
    """
    What handles each signal. Without those that Python did not install, which can neither be read nor put back, and
    without the alarm: it is pytest-timeout's, and comes and goes as a test fails.
    """
    signals = [one for one in signal.valid_signals() if isinstance(one, signal.Signals) and one is not signal.SIGALRM]
    found = {one: signal.getsignal(one) for one in signals}
    return {one: handler for one, handler in found.items() if handler is not None}


def put_back(before: dict[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    """
    Install again what handled the signals before.

    Args:
        before: What ``handlers()`` said then.

    Returns:
        What was there in place of it.
    """
    others = {one: handler for one, handler in handlers().items() if one in before and handler != before[one]}
    for one in others:
        signal.signal(one, before[one])
    return others


@contextlib.contextmanager
def handlers_put_back() -> Iterator[None]:
    """While a library that installs handlers, and leaves them, is at work."""
    before = handlers()
    try:
        yield
    finally:
        put_back(before)
