"""
Pools and connections that belong to another process or another event loop than the one that uses them.

A forked child has a copy of its parent's pools: of their threads and tasks none runs there, and their connections are
sockets of both. What is open at a fork is remembered in the child; whether it is used there is found out later, by
looking. An event loop that is closed, or is another one, never resumes who waits for what belongs to it.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from poolscope.adapters.marks import KEY
from poolscope.core.guard import guard
from poolscope.core.pool_identity import Foreign

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poolscope.adapters.pools import Pools
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.types import LibraryObject


class Inherited(NamedTuple):
    """
    What a pool had open when this process forked off.

    Args:
        tokens: One for each connection.
        is_bound: Whether it had threads or tasks at work, which do not run here.
        parent: The process that forked.
        moment: When, in seconds of the clock.
    """

    tokens: frozenset[object]
    is_bound: bool
    parent: int
    moment: float


#: By anchor: what is inherited. Empty but in a child.
INHERITED: Final[weakref.WeakKeyDictionary[LibraryObject, Inherited]] = weakref.WeakKeyDictionary()

#: The adapters whose pools are looked at after a fork.
HOOKED: Final[weakref.WeakSet[Pools]] = weakref.WeakSet()


def foreign(adapter: Pools, library_pool: LibraryObject, failed: Lease | None) -> Foreign | None:
    """
    How a pool that is in use belongs elsewhere; None where it does not, or where nothing of that is in use.

    Args:
        adapter: Its adapter.
        library_pool: The pool.
        failed: A checkout that has failed, and counts as a use.
    """
    pool, inherited = adapter.pool_of(library_pool), _inherited(adapter, library_pool)
    if pool is None:
        return None
    leases = [*pool.leases.copy(), *pool.pending.copy()]
    if failed is not None and failed not in leases:
        leases.append(failed)
    loop = adapter.loop_of(library_pool)
    if adapter.is_stopped(library_pool) or (inherited is not None and inherited.is_bound):
        return Foreign("process", True, tuple(leases)) if leases else None
    users = list(adapter.users(library_pool)) if inherited is not None or loop is None else []
    if inherited is not None:
        used = [
            lease
            for connection, lease in users
            if lease is not None
            and _token(adapter.physical(connection)) in inherited.tokens
            and max(lease.requested_at, lease.last_used) > inherited.moment
        ]
        if used:
            return Foreign("process", False, tuple(used))
    if loop is not None:
        elsewhere = [lease for lease in leases if _is_other(loop, lease)]
        return Foreign("loop", True, tuple(elsewhere), bool(loop.is_closed())) if elsewhere else None
    bound = [(adapter.loop_of_connection(connection), lease) for connection, lease in users]
    strangers = [(made_in, lease) for made_in, lease in bound if lease is not None and _is_other(made_in, lease)]
    if not strangers:
        return None
    is_closed = bool(strangers[0][0].is_closed())
    return Foreign("loop", False, tuple(lease for _, lease in strangers), is_closed)


def is_suspicious(adapter: Pools, library_pool: LibraryObject) -> bool:
    """Whether a pool has something that belongs elsewhere, in use or not."""
    if _inherited(adapter, library_pool) is not None or adapter.is_stopped(library_pool):
        return True
    loop = adapter.loop_of(library_pool)
    if loop is not None:
        return bool(loop.is_closed())
    loops = [adapter.loop_of_connection(connection) for connection in adapter.open_ones(library_pool)]
    return any(one is not None and one.is_closed() for one in loops)


def _inherited(adapter: Pools, library_pool: LibraryObject) -> Inherited | None:
    anchor = adapter.anchor(library_pool) if INHERITED else None
    inherited = INHERITED.get(anchor) if anchor is not None else None
    # Where the parent has finished, as when a service becomes a daemon, nothing is shared.
    is_shared = inherited is not None and (inherited.is_bound or os.getppid() == inherited.parent)
    return inherited if is_shared else None


def _is_other(loop: LibraryObject, lease: Lease) -> bool:
    task = lease.task() if lease.task is not None else None
    return loop is not None and task is not None and task.get_loop() is not loop


def _token(physical: LibraryObject) -> object:
    # What it is compared by, without keeping it alive; an identifier of the server's stands for itself.
    if physical is None or isinstance(physical, int):
        return physical
    try:
        return weakref.ref(physical)
    except TypeError:
        return None


def _tokens(adapter: Pools, connections: Iterable[LibraryObject]) -> frozenset[object]:
    return frozenset(_token(adapter.physical(connection)) for connection in connections) - {None}


def _inherit(adapter: Pools, anchor: LibraryObject, moment: float) -> None:
    library_pool = adapter.library_pool(anchor)
    if library_pool is None or not adapter.is_open(library_pool):
        return
    is_bound = adapter.is_stopped(library_pool) or adapter.loop_of(library_pool) is not None
    tokens = _tokens(adapter, adapter.open_ones(library_pool))
    if tokens or is_bound:
        INHERITED[anchor] = Inherited(tokens, is_bound, os.getppid(), moment)
        pool: Pool | None = anchor.__dict__.get(KEY)
        if pool is not None:
            pool.suspect()


def _after_fork() -> None:
    INHERITED.clear()
    for adapter in list(HOOKED):
        pool_registry = adapter.pool_registry
        if pool_registry is not None:
            now = pool_registry.now()
            for anchor in list(adapter.anchors):
                guard.run(f"{adapter.name}.inherit", lambda: _inherit(adapter, anchor, now), None)  # noqa: B023 - run at once


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
