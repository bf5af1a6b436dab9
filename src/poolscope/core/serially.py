"""One thing after the other without a lock: what is asked while another thread is at it, that thread does next."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_OWNER: Final = "thread"
_all: Final[weakref.WeakSet[Serially]] = weakref.WeakSet()


class Serially:
    """
    Does what it is asked in the order of asking, never two things at once, and holds no lock meanwhile: what it does
    may log, wait, or ask for more, in any thread.
    """

    def __init__(self) -> None:
        self._queue: deque[Callable[[], object]] = deque()
        self._at_it: dict[str, _Claim] = {}
        _all.add(self)

    def do(self, what: Callable[[], object]) -> None:
        """
        Do something: now, or, where something else is being done, after that; by whichever thread does that.

        Args:
            what: It guards itself.
        """
        self._queue.append(what)
        mine = _Claim()
        try:
            # Whoever has let go looks once more, so that nothing is left that was asked just before.
            while self._queue and self._at_it.setdefault(_OWNER, mine) is mine:
                while self._queue:  # only who is at it takes from it
                    self._queue.popleft()()
                del self._at_it[_OWNER]
        except BaseException:  # an interrupt may come as soon as this thread is at it
            if self._at_it.get(_OWNER) is mine:
                del self._at_it[_OWNER]
            raise

    def after_fork(self) -> None:
        """In the child: a thread that was at it did not come along."""
        claim = self._at_it.get(_OWNER)
        if claim is not None and claim.thread != threading.get_ident():
            self._at_it.clear()
            self._queue.clear()


class _Claim:
    def __init__(self) -> None:
        self.thread = threading.get_ident()


def _after_fork() -> None:
    for one in list(_all):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

#: Starts, stops, and libraries that are imported meanwhile.
toggling: Final = Serially()
