"""Dormant until an SDK is configured, and after the end of the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core import clock


class Dormancy:
    """
    Whether hooks record anything.

    Args:
        now: The clock.
    """

    def __init__(self, now: clock.Clock) -> None:
        self.now = now
        #: Dormant: while no SDK is configured, adapters pass calls on and do nothing else. It may be so for
        #: a moment longer: `still_dormant` knows.
        self.dormant = False
        #: Called about once a second while `dormant` and awake: whether the background thread runs.
        self.is_served: Callable[[], bool] = lambda: True
        self._awake = False
        #: Called about once a second while dormant: whether an SDK is configured by now.
        self.has_listeners: Callable[[], bool] = lambda: False
        #: Whether its session has ended: no pool is entered any more.
        self.ended = False
        self._looking: dict[str, object] = {}
        self._check_listeners_at = now()

    def still_dormant(self) -> bool:
        """Whether there is no configured SDK yet; it looks at most once a second."""
        now = self.now()
        if self.dormant and now >= self._check_listeners_at:
            mine = object()
            try:
                if self._looking.setdefault("thread", mine) is mine:  # atomic: of several threads one looks
                    self._look(now)
                    self._looking.clear()
            except BaseException:  # an interrupt may come as soon as this thread is the one
                if self._looking.get("thread") is mine:
                    self._looking.clear()
                raise
            if self.ended:  # just now
                self.sleep()
        return self.is_dormant()

    def _look(self, now: float) -> None:
        self._check_listeners_at = now + 1.0
        if not self._awake:
            self._awake = guard.run("pool_registry.wake", self.has_listeners, default=False)
        self.dormant = not (self._awake and guard.run("pool_registry.wake", self.is_served, default=False))

    def is_dormant(self) -> bool:
        """Whether it is dormant, as far as is known."""
        return self.dormant and not self._awake

    def sleep(self) -> None:
        """Be dormant until there is an SDK."""
        self._awake, self.dormant = False, True

    def unserved(self) -> None:
        """The background thread has ended: the next hook that is called starts it again."""
        if self._awake:
            self._check_listeners_at = self.now()
            self.dormant = True

    def check_listeners(self) -> None:
        """An SDK may have been configured: look at once, and not only after a second."""
        self._check_listeners_at = self.now()
        self.still_dormant()
