"""
Physical connections: whose checkout a connect belongs to, how long it took, and what a pool's limit
is afterwards.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from poolscope.adapters.identity import error_name
from poolscope.adapters.refusals import refusal_of
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool

#: The checkout that the running code is part of: physical connects inside it count as its connect phase.
PENDING_CHECKOUT: Final[ContextVar[Lease | None]] = ContextVar("poolscope_pending_checkout", default=None)


def connect_begins(pool: Pool, lease: Lease | None = None) -> tuple[Lease | None, float]:
    """
    A physical connect begins.

    Args:
        pool: The pool that it is made for.
        lease: The checkout that the running code is part of, if any; that of `PENDING_CHECKOUT` when not given.

    Returns:
        The checkout that it is made for, if the running code is part of one of this pool that still waits; and the
        moment, in seconds of the pool's clock.
    """
    lease = lease or PENDING_CHECKOUT.get()
    # A task that the library started in a checkout for itself has that checkout's context for ever.
    if lease is not None and (lease.pool is not pool or lease.acquired_at is not None or lease.ended_at is not None):
        lease = None
    if lease is not None:
        lease.connecting = True
    return lease, pool.now()


def connect_ends(pool: Pool, lease: Lease | None, began: float) -> None:
    """
    The physical connect ended in a connection.

    Args:
        pool: The pool that it was made for.
        lease: The checkout that it was made for, if any.
        began: When it began, in seconds of the pool's clock.
    """
    seconds = pool.now() - began
    if lease is not None:
        lease.connecting = lease.connect_failed = False
        lease.refusal = None  # of an earlier try
        lease.connected(seconds)
    pool.created(seconds, lease)


def connect_fails(pool: Pool, lease: Lease | None, began: float, error: BaseException) -> None:
    """
    The physical connect ended without a connection: by itself, or cut short by the checkout's own timeout or
    cancellation.

    Args:
        pool: The pool that it was made for.
        lease: The checkout that it was made for, if any.
        began: When it began, in seconds of the pool's clock.
        error: What it raised.
    """
    if lease is not None:
        lease.connecting = False
        lease.connect_failed = isinstance(error, Exception)
        lease.connected(pool.now() - began)
    if isinstance(error, Exception):
        if lease is not None:
            lease.refusal = None  # of an earlier try
        pool.failed_connect = (pool.now(), error_name(error))
        refusal = guard.run("connects.refusal", lambda: refusal_of(error), None)
        if refusal is not None:
            pool.refused(*refusal, lease)


def limit_changed(pool: Pool) -> None:
    """A pool was resized, or lost a slot."""
    pool.refresh_limit()
    if pool.limit is not None and len(pool.leases) >= pool.limit:
        pool.filled(pool.now())
    else:
        pool.emptied()
