"""The monotonic clock that all durations are measured with, and its place on the calendar."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]

#: Seconds of a monotonic clock; pools take it as an argument, so that tests put their own in its place.
monotonic: Clock = time.perf_counter

_NANOSECONDS = 1_000_000_000


def to_unix_nanoseconds(moment: float, clock: Clock = monotonic) -> int:
    """
    Place a moment of the clock on the calendar.

    The difference between the two clocks is taken anew at each call, so that a corrected system clock is followed.

    Args:
        moment: Seconds of `clock`.
        clock: The clock that the moment was read from.

    Returns:
        Nanoseconds since 1970-01-01T00:00:00Z.
    """
    return time.time_ns() - int((clock() - moment) * _NANOSECONDS)
