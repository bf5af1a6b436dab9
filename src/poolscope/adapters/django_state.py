"""What is known of Django's connections: of each alias, and of each thread's connection."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

from poolscope.adapters.leases import ConnectionState, recover
from poolscope.adapters.points.brackets import nothing

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
        self.reference: Callable[[], LibraryObject] = weakref.ref(wrapper, self.collected)
        states.add(self)

    def collected(self, _: object = None) -> None:
        """
        The wrapper is gone. The garbage collector calls this wherever it happens to run, so nothing here may log or
        wait for a lock; an interrupt may end it there at once, so whoever reads the states calls it again.
        """
        lease, pool = self.lease, self.pool
        try:
            self.states.remove(self)
        except KeyError:  # done, or another thread is at it
            return
        try:
            self.reference = nothing  # it refers to this state, which refers to the alias
            self.lease = self.pool = None
            if lease is not None:
                lease.released(abandoned=True)
            if pool is not None and self.alias is not None:
                pool.closed("abandoned")
                self.reported.append(self.alias)
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            recover("django.collected", lease, quietly=True)


def alias_of(pool: LibraryObject) -> str | None:
    """The alias whose connections a pool of psycopg's makes for Django; None for a pool of the application's own."""
    backend = sys.modules.get("django.db.backends.postgresql.base")
    pools: dict[str, Any] = getattr(getattr(backend, "DatabaseWrapper", None), "_connection_pools", {})
    return next((alias for alias, known in list(pools.items()) if known is pool), None)
