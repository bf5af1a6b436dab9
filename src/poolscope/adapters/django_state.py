"""What is known of Django's connections: of each alias, and of each thread's connection."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from poolscope.adapters.leases import ConnectionState, undo
from poolscope.adapters.points.brackets import nothing
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from poolscope.core.execution import ThreadReference
    from poolscope.types import LibraryObject


class Alias:
    """
    An alias of ``DATABASES``, which stands for the pool that Django does not have.

    Args:
        wrapper: A connection of it.
    """

    def __init__(self, wrapper: LibraryObject) -> None:
        self.name: str = wrapper.alias
        self.vendor: str = wrapper.vendor
        self.settings: dict[str, Any] = wrapper.settings_dict


class WrapperState(ConnectionState):
    """
    What is known of a thread's connection (Django's wrapper); its pool is None while it is closed.

    Args:
        wrapper: The wrapper.
        alias: Its alias; None when another adapter watches its pool.
        states: Holds this state for as long as the wrapper lives: one collection may take all wrappers, with whatever
            is reached only from them, and calls back only those who are not part of it.
        reported: Holds the aliases that are reported though a connection of theirs was lost.
    """

    __slots__ = ("alias", "is_django", "owner", "reference", "reported", "states")

    def __init__(
        self, wrapper: LibraryObject, alias: Alias | None, states: set[WrapperState], reported: deque[Alias]
    ) -> None:
        super().__init__(None)
        self.alias = alias
        #: The thread that connected it, and that alone uses it; None where that was not seen.
        self.owner: ThreadReference | None = None
        #: Whether Django itself uses it now: to connect, or at the end of a request.
        self.is_django = False
        self.states, self.reported = states, reported
        self.reference: Callable[[], LibraryObject] = weakref.ref(wrapper, self._collected)
        states.add(self)

    def _collected(self, _: object) -> None:
        # The garbage collector calls this wherever it happens to run: nothing here may log or wait for a lock.
        self.states.discard(self)
        self.reference = nothing  # it refers to this state, which refers to the alias
        (lease, self.lease), (pool, self.pool) = (self.lease, None), (self.pool, None)
        try:
            if lease is not None:
                lease.released(abandoned=True)
            if pool is not None and self.alias is not None:
                pool.closed("abandoned")
                self.reported.append(self.alias)
        except Exception:  # noqa: BLE001 - ours
            guard.caught_quietly("django.collected")
            if lease is not None:
                undo(lease)
