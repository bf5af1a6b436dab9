"""
What an asyncpg pool can tell of itself, and why it closes a connection.

An asyncpg pool can neither be held weakly nor carry marks; its queue can, and lives as long as the pool does.
"""

from __future__ import annotations

import re
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from poolscope.adapters.common import WeakSource, first_of, identity, is_torn
from poolscope.adapters.marks import LEASES_KEY, LIBRARY_POOL_KEY, SERVER_KEY
from poolscope.core.guard import guard
from poolscope.core.types import LibraryObject, override

if TYPE_CHECKING:
    from poolscope.core.lease import Lease
    from poolscope.core.pool_identity import Identity

# The references to a proxy that nobody but the library holds: the holder's, the connection's, and the counting itself.
_LIBRARY_REFERENCES: Final = 3

_MOST_FRAMES: Final = 15

_HOST: Final = re.compile(r"(\[.*\]|[^:]*)(?::(\d+))?")


class AsyncpgSource(WeakSource):
    """
    One asyncpg pool, held weakly by its queue.

    Args:
        queue: The pool's queue, with the pool in its ``__dict__``.
    """

    def __init__(self, queue: LibraryObject) -> None:
        super().__init__(queue)
        self._leases: dict[int, Lease] = queue.__dict__[LEASES_KEY]

    def pool(self) -> LibraryObject:
        """
        The pool; None when it is no more.
        """
        queue = self.reference()
        return queue.__dict__.get(LIBRARY_POOL_KEY) if queue is not None else None

    def alive(self) -> bool:
        """
        See `PoolSource.alive`. A closed pool cannot be opened again.
        """
        pool = self.pool()
        return pool is not None and not pool._closed

    @override
    def limit(self) -> int | None:
        pool = self.pool()
        return int(pool._maxsize) if pool is not None else None

    @override
    def idle_limits(self) -> tuple[int | None, int | None]:
        pool = self.pool()
        return (pool._minsize, pool._maxsize) if pool is not None else (None, None)

    @override
    def idle(self) -> int:
        return sum(1 for holder in self._holders() if holder._in_use is None and holder.is_connected())

    @override
    def in_use(self) -> int | None:
        return sum(1 for holder in self._holders() if holder._in_use is not None)

    def unheld(self) -> list[Lease]:
        """
        The leases whose connection nobody holds: it will never be given back.

        The pool itself keeps what it hands out alive, so the garbage collector never finds it; its references are
        counted instead (CPython only).
        """
        found = []
        for holder in self._holders():
            lease = self._leases.get(id(holder))
            if lease is not None and not lease.running and _nobody_holds(holder):
                found.append(lease)
        return found

    def _holders(self) -> list[Any]:
        pool = self.pool()
        return list(pool._holders) if pool is not None else []


def _nobody_holds(holder: LibraryObject) -> bool:
    return holder._proxy is not None and sys.getrefcount(holder._proxy) <= _LIBRARY_REFERENCES


def identify(pool: LibraryObject) -> Identity:
    """
    What a pool is, from its connect arguments, else from a connection of it.
    """
    dsn = pool._connect_args[0] if pool._connect_args else pool._connect_kwargs.get("dsn")
    parsed: dict[str, Any] = guard.run("asyncpg.dsn", lambda: _parse(dsn), {})
    told: dict[str, Any] = pool._queue.__dict__.get(SERVER_KEY, {})
    given = [pool._connect_kwargs, parsed]
    address = _joined(first_of([*given, told], "host"))
    port = first_of([*given, told], "port") if address else None
    namespace = first_of([*given, told], "database")
    return identity("postgresql", namespace=namespace, address=address, port=port)


def tell_server(queue: LibraryObject, connection: LibraryObject) -> None:
    """
    Keep what a connection knows of its server, for a pool whose arguments left it to the environment.
    """
    address = connection._addr
    host, port = (address, None) if isinstance(address, str) else (address[0], address[1])
    queue.__dict__[SERVER_KEY] = {"host": host, "port": port, "database": connection._params.database}


def end_all(leases: dict[int, Lease]) -> None:
    """
    A pool is no more: whoever held a connection of it has dropped it.
    """
    while leases:
        _, lease = leases.popitem()
        lease.end(abandoned=True)


def watch_death(queue: LibraryObject, leases: dict[int, Lease]) -> None:
    """
    End the leases of a pool when it is collected.
    """
    weakref.finalize(queue, end_all, leases).atexit = False


def close_reason(connection: LibraryObject, queue: LibraryObject) -> str:  # noqa: PLR0911 - one for each reason
    """
    Why a pool's connection is closed: told by who asks for it, since asyncpg passes no reason along. Cold.
    """
    pool = queue.__dict__.get(LIBRARY_POOL_KEY) if queue is not None else None
    if pool is None or pool._closing or pool._closed:
        return "disposed"
    frame: Any = sys._getframe(1)
    names = set()
    for _ in range(_MOST_FRAMES):
        if frame is None:
            break
        name = frame.f_code.co_name
        if name == "release" and type(frame.f_locals.get("self")).__name__ == "PoolConnectionHolder":
            return _reason_in_release(frame.f_locals)
        if name in {"close", "terminate"} and frame.f_locals.get("self") is pool:
            return "disposed"
        if name == "acquire" and type(frame.f_locals.get("self")).__name__ == "PoolConnectionHolder":
            return "failed_validation"
        names.add(name)
        frame = frame.f_back
    if "_deactivate_inactive_connection" in names:
        return "idle"
    if "close" in names and connection._proxy is None:
        return "recycled"
    return "closed" if names & {"close", "terminate"} else "invalidated"


def _reason_in_release(variables: dict[str, Any]) -> str:
    holder = variables["self"]
    if "budget" in variables:  # it had begun to reset the connection
        return "reset_failed"
    aged = holder._generation != holder._pool._generation
    used_up = holder._con is not None and _queries(holder._con) >= holder._max_queries
    return "recycled" if aged or used_up else "invalidated"


def _queries(connection: LibraryObject) -> int:
    return int(getattr(connection._protocol, "queries_count", 0))


def _parse(dsn: str | None) -> dict[str, Any]:
    if not dsn or is_torn(dsn):
        return {}
    url = urlsplit(dsn)
    query = dict(parse_qsl(url.query))
    hosts = url.netloc.rpartition("@")[2]
    names, ports = [], []
    for host in hosts.split(",") if hosts else []:
        match = _HOST.fullmatch(host)
        if match is not None:
            names.append(unquote(match[1].strip("[]")))
            ports.append(match[2])
    return {
        "host": query.get("host") or ",".join(names) or None,
        "port": query.get("port") or (ports if any(ports) else None),
        "database": query.get("dbname") or query.get("database") or unquote(url.path.lstrip("/")) or None,
    }


def _joined(host: LibraryObject) -> str | None:
    if isinstance(host, (list, tuple)):
        return ",".join(map(str, host))
    return str(host) if host is not None else None
