"""Counters that many threads write without a lock and that lose nothing, in the way of `histogram`."""

from __future__ import annotations

from collections import deque
from itertools import count
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Sum:
    """A sum that many threads add to without a lock; for rare things, its cells are few."""

    def __init__(self) -> None:
        self._free: deque[list[float]] = deque()
        self._total = 0.0
        self._readers = RLock()

    def add(self, amount: float) -> None:
        """Add an amount, 0 or more."""
        try:
            cell = self._free.pop()
        except IndexError:
            cell = [0.0]
        cell[0] += amount
        self._free.append(cell)

    def read(self) -> float:
        """The sum so far; it never falls."""
        with self._readers:
            free = self._free
            for _ in range(len(free)):
                try:
                    cell = free.popleft()
                except IndexError:
                    break
                self._total += cell[0]
                cell[0] = 0.0
                free.append(cell)
            return self._total

    def reset(self) -> None:
        """Start anew at 0."""
        self._readers = RLock()
        self._free = deque()
        self._total = 0.0


class Tally:
    """A count that many threads add one to without a lock, at a third of what `Sum.add` costs; for the hot path."""

    def __init__(self) -> None:
        self.reset()

    def read(self) -> int:
        """How many times `add` was called so far."""
        with self._readers:
            total: int = self.add() - self._reads  # reading the counter counts too
            self._reads += 1
            return total

    def reset(self) -> None:
        """Start anew at 0."""
        self._readers = RLock()
        self._reads = 0
        #: Add one; a single atomic operation.
        self.add: Callable[[], int] = count().__next__


class Peak:
    """
    The highest of the last numbers seen, within a window.

    Numbers go into a set, which is atomic and loses none; sets are put away by time.

    Args:
        window: How far back it looks, in seconds.
    """

    def __init__(self, window: float = 60.0) -> None:
        self.seen: set[int] = set()
        self._window = window
        self._past: deque[tuple[float, set[int]]] = deque()

    def tick(self, now: float, current: int) -> None:
        """
        Put the numbers seen so far away as those up to now. To be called about every second, by one thread.

        Args:
            now: Seconds of the clock.
            current: The number at this moment: where the next set starts.
        """
        past, self.seen = self.seen, {current}
        if past:
            self._past.append((now, past))
        while self._past and self._past[0][0] < now - self._window:
            self._past.popleft()

    def highest(self, current: int) -> int:
        """The highest number within the window, the current one included. Any number of readers get the same."""
        return max(
            current,
            max(self.seen.copy(), default=0),
            max((max(seen.copy(), default=0) for _, seen in self._past.copy()), default=0),
        )

    def reset(self) -> None:
        """Forget all numbers."""
        self.seen = set()
        self._past = deque()
