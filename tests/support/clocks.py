"""A clock that does not move until it is set."""

from __future__ import annotations


class FakeClock:
    """
    Seconds, as a monotonic clock gives them.

    Args:
        now: Where it starts.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
