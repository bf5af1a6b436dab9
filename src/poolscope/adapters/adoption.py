"""Leases of connections that callers hold without one: checked out before poolscope came, or while a hook failed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from poolscope.adapters.leases import undo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poolscope.adapters.pools import Pools
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.types import LibraryObject


def adopt_held(adapter: Pools, library_pool: LibraryObject, pool: Pool, held: Iterable[LibraryObject]) -> None:
    """
    Give connections a lease, but for those that have one; other threads may check out and return meanwhile.

    Args:
        adapter: Its adapter.
        library_pool: The library's pool.
        pool: Ours.
        held: The connections that callers held a moment ago.
    """
    for connection in held:
        try:
            pool.adopt_held(pool.now(), id(connection), partial(adapter.claim, library_pool, connection))
        except BaseException:
            _undo_halfway(pool)
            raise


def adopt_again(adapter: Pools, library_pool: LibraryObject, pool: Pool) -> None:
    """
    Give connections that callers hold a lease where they have none, or one that does not count any more. A return may
    be under way in the library, whose hook is done: that lease ends once the library is done with it too.

    Args:
        adapter: Its adapter.
        library_pool: The library's pool.
        pool: Ours.
    """
    for connection in list(adapter.held(library_pool)):
        known = adapter.lost(library_pool, connection)
        if known is not None and _counts(known, pool):
            continue
        lease = None
        try:
            lease = pool.adopt(pool.now(), id(connection))
            adapter.tie(library_pool, connection, lease)
        except BaseException:
            if lease is not None:
                undo(lease)
            _undo_halfway(pool)
            raise


def _counts(lease: Lease, pool: Pool) -> bool:
    # Here, or in another pool. One of a session that has ended was put there by a checkout that outlived it.
    if lease.pool is not pool:
        return not lease.pool.ended
    return lease in pool.leases or lease in pool.inherited


def _undo_halfway(pool: Pool) -> None:
    for lease in pool.leases.copy():
        if lease.adopted and lease.acquired_at is None:
            undo(lease)
