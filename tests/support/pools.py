"""A pool of the core's own, without a library behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolscope.core.pool_identity import Identity, Stranded

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Foreign


class Source:
    """
    A library's pool, as far as the pool registry reads it.

    Args:
        limit: The most connections; None without a limit.
        in_use: How many are in use by its own account; None when it keeps none.
        idle: How many wait to be used.
    """

    def __init__(self, limit: int | None = None, in_use: int | None = 0, idle: int = 0) -> None:
        self.retired = False
        self.lives = True
        self._limit = limit
        self._in_use = in_use
        self._idle = idle
        #: Connects to the server; None where that is not known.
        self.server: Callable[[], Any] | None = None
        #: Open connections of threads that have finished.
        self.left: list[Stranded] = []
        #: How it belongs to another process or event loop, by who uses it, where it does.
        self.elsewhere: Callable[[tuple[Lease, ...]], Foreign] | None = None
        self.uses: Callable[[], set[Lease]] = set

    def alive(self) -> bool:
        return self.lives

    def limit(self) -> int | None:
        return self._limit

    def idle_limits(self) -> tuple[int | None, int | None]:
        return (None, self._limit)

    def idle(self) -> int:
        return self._idle

    def in_use(self) -> int | None:
        return self._in_use

    def held(self) -> list[Lease | None] | None:
        return None

    def adopt(self, pool: Pool) -> None:
        """Nothing: no connection is known."""

    def held_ids(self) -> list[int]:
        return []

    def aside(self, system: str) -> Callable[[], Any] | None:
        return self.server

    def unheld(self) -> list[Lease]:
        return []

    def lost(self) -> int:
        return 0

    def clears_connections(self) -> bool:
        return False

    def stranded(self) -> list[Stranded]:
        return self.left

    def foreign(self, failed: Lease | None) -> Foreign | None:
        leases = self.uses() | ({failed} if failed is not None else set())
        return self.elsewhere(tuple(leases)) if self.elsewhere is not None and leases else None

    def is_suspicious(self) -> bool:
        return self.elsewhere is not None


def identity(name: str = "db:5432/shop") -> Identity:
    """The identity of a PostgreSQL pool."""
    return Identity(name, "postgresql", "shop", "db", 5432)
