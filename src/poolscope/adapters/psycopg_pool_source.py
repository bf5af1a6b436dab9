"""
What a psycopg pool can tell of itself, and what ties its connections to our leases.
"""

from __future__ import annotations

import re
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters import libpq
from poolscope.adapters.common import DRIVER_KEY, WeakSource, first_of, limit_changed, name_by_framework
from poolscope.adapters.marks import SOURCE_KEY
from poolscope.core.calls import KEY
from poolscope.core.guard import guard
from poolscope.core.types import LibraryObject, override

if TYPE_CHECKING:
    from poolscope.core.lease import Lease
    from poolscope.core.pool_identity import Identity

# The name that the library gives a pool without one.
_UNNAMED: Final = re.compile(r"pool-\d+")

# libpq's CONNECTION_OK.
_OK: Final = 0

#: The function of the library that closes a connection -> why it does.
REASONS: Final = {
    "_return_connection": "recycled",
    "check": "recycled",
    "drain": "recycled",
    "_shrink_pool": "idle",
    "_reset_connection": "reset_failed",
    "close": "disposed",
    "_stop_workers": "disposed",
}


class Carrier:
    """
    What ties a psycopg connection to its lease; one for each connection, made once.

    Args:
        connection: The connection.
        source: Of the pool that it belongs to.
        began: When its connect began, in seconds of the clock; 0 when that was not seen.
        ended: When it ended.
    """

    __slots__ = ("__weakref__", "backend", "began", "closed", "ended", "lease", "pgconn", "reference", "source")

    def __init__(
        self, connection: LibraryObject, source: PsycopgSource, began: float = 0.0, ended: float = 0.0
    ) -> None:
        self.lease: Lease | None = None
        self.began = began
        self.ended = ended
        self.closed = False
        self.source = source
        self.pgconn = connection.pgconn
        self.backend: int | None = guard.run("psycopg_pool.backend", lambda: connection.pgconn.backend_pid, None)
        self.reference = weakref.ref(connection, self._gone)

    def close(self, reason: str | None) -> None:
        """
        The library's pool closes the connection.

        Args:
            reason: Why; None when it is somebody else who does.
        """
        pool = self.source.reference()
        tracked = pool.__dict__.get(KEY) if pool is not None else None
        if reason is not None and tracked is not None:
            self.closed = True
            tracked.closed(reason)

    def _gone(self, _: object) -> None:
        # The connection object is no more; this may run inside the garbage collector.
        try:
            self.source.carriers.discard(self)
            lease, self.lease = self.lease, None
            if not self.closed:
                # An open connection that vanishes never came back: its slot is lost, the library still counts it.
                lost = lease is not None or self.pgconn.status == _OK
                self.source.gone(lost=lost)
            if lease is not None:
                lease.end(abandoned=True)
        except Exception:  # noqa: BLE001 - ours
            guard.caught("psycopg_pool.gone")


class PsycopgSource(WeakSource):
    """
    One psycopg pool, held weakly.

    Args:
        pool: The pool.
        pooling: Whether it keeps idle connections, as all but the null pools do.
    """

    def __init__(self, pool: LibraryObject, *, pooling: bool) -> None:
        super().__init__(pool)
        self.carriers: set[Carrier] = set()
        #: Slots that the library never gets back, as it was not told that their connections are gone.
        self.lost = 0
        self._pooling = pooling

    @classmethod
    def of(cls, pool: LibraryObject) -> PsycopgSource:
        """
        The source of a pool; made when there is none.
        """
        source: PsycopgSource | None = pool.__dict__.get(SOURCE_KEY)
        if source is None:
            pooling = not any(kind.__name__ == "_BaseNullConnectionPool" for kind in type(pool).__mro__)
            source = pool.__dict__.setdefault(SOURCE_KEY, cls(pool, pooling=pooling))
        return source

    def tie(self, connection: LibraryObject, began: float = 0.0, ended: float = 0.0) -> Carrier:
        """
        Make a connection's carrier.
        """
        carrier = Carrier(connection, self, began, ended)
        self.carriers.add(carrier)
        connection.__dict__[DRIVER_KEY] = carrier
        return carrier

    def gone(self, *, lost: bool) -> None:
        """
        A connection vanished without being closed.

        Args:
            lost: Whether the library still counts it: it was dropped and never returned.
        """
        pool = self.reference()
        tracked = pool.__dict__.get(KEY) if pool is not None else None
        if tracked is not None:
            tracked.closed("abandoned" if lost else "invalidated")
        if lost:
            self.lost += 1
            if tracked is not None:
                limit_changed(tracked)

    def alive(self) -> bool:
        """
        See `PoolSource.alive`. A closed pool cannot be opened again; it stays until what was out by then is back, and
        leaves its name to the next.
        """
        pool = self.reference()
        if pool is None:
            return False
        if not pool._closed or not pool._opened:
            return True
        self.retired = True
        return any(carrier.lease is not None for carrier in self.carriers.copy())

    def limit(self) -> int | None:
        """
        See `PoolSource.limit`: without the slots that are lost for ever.
        """
        pool = self.reference()
        return max(0, pool._max_size - self.lost) if pool is not None and pool._max_size else None

    @override
    def idle_limits(self) -> tuple[int | None, int | None]:
        pool = self.reference()
        return (pool._min_size, pool._max_size) if pool is not None and self._pooling else (None, None)

    @override
    def idle(self) -> int:
        pool = self.reference()
        return len(pool._pool) if pool is not None else 0

    def in_use(self) -> int | None:
        """
        See `PoolSource.in_use`: the connections that the library has marked as out.

        Not ``_nconns - len(_pool)``, which also counts those that are being made, and those that are lost.
        """
        pool = self.reference()
        if pool is None:
            return None
        count = 0
        for carrier in self.carriers.copy():
            connection = carrier.reference()
            # A broken connection keeps its mark after its return: the library drops it as it is.
            if connection is not None and connection._pool is pool:
                count += carrier.lease is not None or not connection.closed
        return count


def identify(pool: LibraryObject) -> Identity:
    """
    What a pool is, from its arguments and what libpq takes in their place, else from a connection that it has.
    """
    named = name_by_framework(pool) if _UNNAMED.fullmatch(pool.name) else pool.name
    return libpq.identify([*_arguments(pool), *(libpq.told_by(one) for one in list(pool._pool)[:1])], named)


def close_reason() -> str:
    """
    Why the library closes a connection, told by who called its ``_close_connection``; the guard runs this in the hook.
    """
    caller = sys._getframe(3)
    name = caller.f_code.co_name
    if name in {"_maybe_close_connection", "_add_to_pool"}:
        pool = caller.f_locals.get("self")
        return "disposed" if pool is None or pool._closed else "not_pooled"
    return REASONS.get(name, "closed")


def _arguments(pool: LibraryObject) -> list[dict[str, LibraryObject]]:
    # They may be functions that make them (3.3): asking those could cost a network call.
    if callable(pool.conninfo) or callable(pool.kwargs):
        return []
    given = [pool.kwargs or {}, libpq.parse(pool.conninfo)]
    return given if first_of(given, "service") else [*given, guard.run("psycopg_pool.defaults", _defaults, {})]


def _defaults() -> dict[str, Any]:
    # libpq's own account of the environment.
    from psycopg.pq import Conninfo  # noqa: PLC0415 - only where it is in use

    told = {option.keyword: option.val for option in Conninfo.get_defaults()}
    return {key: (told.get(key.encode()) or b"").decode() for key in ("host", "hostaddr", "port", "dbname")}
