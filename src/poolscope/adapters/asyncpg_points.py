"""
What happens at asyncpg's hook points: taking and resetting a slot, why a connection is closed, and
where the server is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from poolscope.adapters.address import UNREADABLE, is_cut_off, is_torn
from poolscope.adapters.base import Point
from poolscope.adapters.connects import PENDING_CHECKOUT
from poolscope.adapters.identity import first_of, identity
from poolscope.adapters.leases import defer, recover_call
from poolscope.adapters.marks import KEY, LEASES_KEY
from poolscope.adapters.points import Handover
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poolscope.adapters.base import PointAdapter
    from poolscope.adapters.points.brackets import Function
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

_UNREADABLE: Final = {"host": UNREADABLE, "database": UNREADABLE}
_HOST: Final = re.compile(r"(\[.*\]|[^:]*)(?::(\d+))?")


class TakeSlot(Handover):
    """
    Inside a checkout, a slot was taken from the queue: its connect and the pool's ``setup`` follow, then it is handed
    over. Each checkout passes here.
    """

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        component, tie = f"{adapter.name}.slot", adapter.tie

        async def acquire(self_: LibraryObject) -> LibraryObject:
            lease = PENDING_CHECKOUT.get()
            if lease is None:
                return await original(self_)
            try:
                if lease.handed_over_at is None and self_._pool._queue.__dict__.get(KEY) is lease.pool:
                    lease.handed_over()
                else:
                    lease = None
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                if lease is not None:
                    defer(component, lease)
                lease = None
            proxy = await original(self_)
            if lease is not None:
                try:
                    tie(self_._pool, self_, lease)
                except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                    defer(component, lease)
            return proxy

        return acquire


class Reset(Point):
    """
    A connection is reset before its slot is put back: a call to the server, and no statement of the application's;
    further ones while it runs are part of it. The end of the hold ends it.
    """

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        component = f"{adapter.name}.call"

        async def release(self_: LibraryObject, timeout: float | None) -> LibraryObject:
            lease = None
            try:
                leases = self_._pool._queue.__dict__.get(LEASES_KEY)
                lease = leases.get(id(self_)) if leases else None
                if lease is not None:
                    lease.call_begins()
            except BaseException:  # noqa: BLE001 - ours, or a signal handler's
                recover_call(component, lease)
            return await original(self_, timeout)

        return release


# Why a connection is closed: asyncpg passes no reason along, so its functions that are running have to tell. The
# outermost of them knows.


def _is_closing(slot: LibraryObject) -> bool:
    return bool(slot._pool._closing or slot._pool._closed)


def _on_acquire(frame: FrameType) -> str:
    return "disposed" if _is_closing(frame.f_locals["self"]) else "failed_validation"


def _on_release(frame: FrameType) -> str:
    here = frame.f_locals
    slot = here["self"]
    if _is_closing(slot):
        return "disposed"
    if "budget" in here:  # it had begun to reset the connection
        return "reset_failed"
    connection = slot._con
    is_used_up = connection is not None and getattr(connection._protocol, "queries_count", 0) >= slot._max_queries
    return "recycled" if is_used_up or slot._generation != slot._pool._generation else "invalidated"


def _by_itself(frame: FrameType) -> str:
    # Of a pool, of a slot, which only the end of a pool calls by itself, or of a connection.
    hooked = frame.f_locals["self"]
    if not hasattr(hooked, "_protocol"):
        return "disposed"
    # What has expired the pool closes in a task of its own.
    return "recycled" if hooked._proxy is None and frame.f_code.co_name == "close" else "closed"


REASONS: Final[dict[str, str | Callable[[FrameType], str]]] = {
    "acquire": _on_acquire,
    "release": _on_release,
    "close": _by_itself,
    "terminate": _by_itself,
    "_maintain_min_size": "invalidated",
    "_deactivate_inactive_connection": "idle",
}


# Where the server is.


def identify(library_pool: LibraryObject, *more: dict[str, Any]) -> Identity:
    """
    What a pool is, by its connect arguments.

    Args:
        library_pool: The pool.
        more: What a connection of it knows, where they leave something open to the environment.
    """
    given = library_pool._connect_kwargs
    dsn = library_pool._connect_args[0] if library_pool._connect_args else given.get("dsn")
    if is_cut_off(given):
        return identity("postgresql")
    places = (given, _parse(dsn), *more)
    address = first_of(places, "host")
    port = first_of(places, "port") if address else None
    return identity("postgresql", namespace=first_of(places, "database"), address=address, port=port)


def parameters_of(connection: LibraryObject) -> dict[str, Any]:
    """What a connection knows of its server."""
    address = connection._addr
    host, port = (address, None) if isinstance(address, str) else (address[0], address[1])
    return {"host": host, "port": port, "database": connection._params.database}


def _parse(dsn: object) -> dict[str, Any]:
    if not dsn:
        return {}
    if not isinstance(dsn, str) or is_torn(dsn):
        return dict(_UNREADABLE)
    try:
        url = urlsplit(dsn)
    except ValueError:
        return dict(_UNREADABLE)
    query = dict(parse_qsl(url.query))
    hosts = url.netloc.rpartition("@")[2]
    matches = [match for host in hosts.split(",") if hosts and (match := _HOST.fullmatch(host)) is not None]
    if hosts and len(matches) < hosts.count(",") + 1:
        return dict(_UNREADABLE)
    ports = [match[2] for match in matches]
    return {
        "host": query.get("host") or ",".join(unquote(match[1].strip("[]")) for match in matches) or None,
        "port": query.get("port") or (ports if any(ports) else None),
        "database": query.get("dbname") or query.get("database") or unquote(url.path.lstrip("/")) or None,
    }
