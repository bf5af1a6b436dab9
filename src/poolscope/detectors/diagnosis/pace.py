"""How often a snapshot of a pool is taken: it costs the thread that takes it, and the first of many is enough."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    from poolscope.core.clock import Clock
    from poolscope.core.pool import Pool


# What snapshots are remembered of; beyond that, one may be taken once more within its interval.
_MOST_KEYS: Final = 5_000


class Pace:
    """
    Allows one snapshot of each pool within an interval.

    Args:
        interval: The interval, in seconds.
        now: The clock.
    """

    def __init__(self, interval: float, now: Clock) -> None:
        self._interval = interval
        self._now = now
        self._taken_at: dict[Hashable, float] = {}
        self._deciding = Lock()

    def allows(self, pool: Pool, key: Hashable = None) -> bool:
        """
        Whether to take a snapshot now; if so, it counts as taken.

        Of several threads at once it allows one: none waits for the lock, and nothing that could log or run foreign
        code is called while it is held.

        Args:
            pool: The pool.
            key: What has one snapshot within the interval, where that is more than the one pool.
        """
        if not self._deciding.acquire(blocking=False):
            return False
        try:
            now = self._now()
            key = pool.identity.name if key is None else key
            last = self._taken_at.get(key)
            if last is not None and now - last < self._interval:
                return False
            if len(self._taken_at) >= _MOST_KEYS:
                self._taken_at.clear()
            self._taken_at[key] = now
            return True
        finally:
            self._deciding.release()
