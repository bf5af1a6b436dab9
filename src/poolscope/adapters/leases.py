"""Leases in an adapter's hands: how a connection keeps its own, and what becomes of one when a hook of ours fails."""

from __future__ import annotations

import contextlib
import inspect
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.accounts import forget
from poolscope.core.failure import raised_by_a_signal
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.types import LibraryObject

#: By adapter: how the lease of a driver's connection is found, for a pool that sits on top of that adapter's.
LEASE_FINDERS: Final[dict[str, Callable[[LibraryObject], Lease | None]]] = {}


class ConnectionState:
    """
    What is known of one physical connection, for as long as it is open. An adapter that knows more derives from it.

    Args:
        pool: The pool that it belongs to; None once it left that.
    """

    __slots__ = ("backend_process_id", "lease", "pool")

    def __init__(self, pool: Pool | None) -> None:
        self.pool = pool
        #: Of whoever holds it now.
        self.lease: Lease | None = None
        #: The server's process for it, where the driver knows that.
        self.backend_process_id: int | None = None


def lease_below(connection: LibraryObject) -> Lease | None:
    """The lease of a driver's connection in the pool that it comes from, if it comes from one."""
    for find in LEASE_FINDERS.values():
        lease = find(connection)
        if lease is not None:
            return lease
    return None


def undo(lease: Lease) -> None:
    """
    The bookkeeping of a lease failed halfway: forget it, whatever it was by then. It neither waits nor is held.

    Of the core nothing is called that may fail in its turn, but for the end of a saturation, which is guarded. Nothing
    here logs: the garbage collector may be running.
    """
    forget(lease)
    if lease.pool.full_since:
        try:
            lease.pool.emptied()
        except Exception:  # noqa: BLE001 - ours
            guard.caught_quietly("adapters.undo")


def end_earlier(lease: Lease) -> None:
    """
    A connection that is checked out has a lease already: it was adopted while it was being returned, which was not
    seen. One of a session that has ended does not end any more.

    Args:
        lease: The earlier one.
    """
    if not lease.pool.ended:
        lease.released()


def keep_handed_over(leases: dict[int, Lease], lease: Lease) -> None:
    """
    A checkout failed. Should that have come after the handover, the library keeps the connection, which counts as held.
    Cold.

    Args:
        leases: Those of the pool's connections, by their ids.
        lease: The checkout.
    """
    for key in list(leases):
        if leases.get(key) is lease:
            leases[key] = kept = lease.pool.adopt(lease.pool.now())
            kept.packed_stack, kept.unit = lease.packed_stack, lease.unit


def recover(component: str, lease: Lease | None, *, quietly: bool = False, ended: bool = False) -> None:
    """
    A hook failed. To be called from the handler of what it raised.

    Args:
        component: What the error is counted as.
        lease: The lease that the hook was about; it is undone.
        quietly: Whether to log nothing, since the garbage collector may have called the hook.
        ended: Whether the session has ended meanwhile, where there is no lease that tells.

    Raises:
        BaseException: What a signal handler raised meanwhile, such as ``KeyboardInterrupt``: it is the application's.
    """
    if lease is not None:
        undo(lease)
    error = sys.exc_info()[1]
    if not isinstance(error, Exception) or raised_by_a_signal(error):
        raise  # noqa: PLE0704 - it is called from exception handlers
    if ended or (lease is not None and lease.pool.ended):
        return  # marks that the hook has just seen may be gone
    if quietly:
        guard.caught_quietly(component)
    else:
        guard.caught(component)


def settle(component: str, lease: Lease, give_back: Callable[[], object]) -> None:
    """
    What follows a checkout failed, though the caller is to get its connection. To be called from the handler of what it
    raised.

    An error of ours is counted, and the caller gets the connection. An interrupt ends the checkout instead: no caller
    will return the connection, so it goes back first.

    Args:
        component: What an error of ours is counted as.
        lease: The checkout.
        give_back: Returns the connection in the library's way.

    Raises:
        BaseException: What a signal handler raised meanwhile, such as ``KeyboardInterrupt``: it is the application's.
    """
    try:
        recover(component, lease)
    except BaseException:
        with contextlib.suppress(Exception):  # as where the pool was closed meanwhile
            give_back()
        raise


def defer(component: str, lease: Lease) -> None:
    """
    A hook amid a checkout failed, after what the library did there. To be called from the handler of what it raised: an
    interrupt ends the checkout once the library is done with it, and not where the library has half of it.

    Args:
        component: What an error of ours is counted as.
        lease: The checkout; its bookkeeping is undone.
    """
    try:
        recover(component, lease)
    except BaseException as error:  # noqa: BLE001 - the end of the checkout raises it
        lease.interrupt(error)


async def settle_async(component: str, lease: Lease, give_back: Callable[[], object]) -> None:
    """
    The same in an event loop.

    Args:
        component: See `settle`.
        lease: See `settle`.
        give_back: Returns the connection, or what has to be awaited for that.
    """
    try:
        recover(component, lease)
    except BaseException:
        with contextlib.suppress(Exception):
            given = give_back()
            if inspect.isawaitable(given):
                await given
        raise


def recover_return(
    component: str,
    lease: Lease | None,
    find: Callable[[], Lease | None],
    go_on: Callable[[], object] | None = None,
    *,
    quietly: bool = False,
) -> None:
    """
    The hook of a return failed: whatever the connection's lease is, it is undone. To be called from the handler of what
    the hook raised.

    Args:
        component: What the error is counted as.
        lease: The lease; None when it was not found yet.
        find: Finds it then, in another way than the one that failed.
        go_on: The library's part, which the hook would have come to: it is done before an interrupt ends the call.
        quietly: See `recover`.

    Raises:
        BaseException: What a signal handler raised meanwhile, such as ``KeyboardInterrupt``: it is the application's.
    """
    if lease is None:
        with contextlib.suppress(Exception):
            lease = find()
    try:
        recover(component, lease, quietly=quietly)
    except BaseException:
        if go_on is not None:
            go_on()
        raise


def recover_call(component: str, lease: Lease | None) -> None:
    """
    A hook around a call to the server failed: the lease goes on, and nothing runs on it. To be called from the handler
    of what the hook raised.

    Args:
        component: What the error is counted as.
        lease: The lease of the connection.

    Raises:
        BaseException: What a signal handler raised meanwhile, such as ``KeyboardInterrupt``: it is the application's.
    """
    if lease is not None:
        lease.running = False
        lease.repetition = None
    recover(component, None)


def begin_fetch(component: str, find: Callable[[], Lease | None]) -> Lease | None:
    """
    A further fetch of a server-side cursor begins, which is a call to the server.

    Args:
        component: What an error of ours is counted as.
        find: Finds the lease of its connection; None for none.

    Returns:
        The lease, for `end_fetch`; None where there is none, or where this is part of a call that is counted.
    """
    lease = None
    try:
        lease = find()
        if lease is None or lease.running or lease.ended_at is not None:
            return None
        lease.call_begins()
        return lease
    except BaseException:  # noqa: BLE001 - ours, or a signal handler's
        recover_call(component, lease)
        return None


def end_fetch(component: str, lease: Lease | None) -> None:
    """
    It ends, well or not; the transaction is what it was.

    Args:
        component: What an error of ours is counted as.
        lease: What `begin_fetch` returned.
    """
    if lease is None:
        return
    try:
        lease.call_ends(in_transaction=lease.in_transaction)
    except BaseException:  # noqa: BLE001 - ours, or a signal handler's
        recover_call(component, lease)


class LeaseReference(weakref.ref[Any]):
    """
    Ends a lease, as abandoned, when what the caller held of it is collected.

    Whoever makes one keeps it; where it is dropped first, nothing happens. An adapter that has more to do then derives
    from it.

    Args:
        connection: What the caller holds.
        lease: Its lease.
        component: What an error of ours is counted as.
    """

    __slots__ = ("component", "lease")

    def __new__(cls, connection: LibraryObject, *_: object) -> LeaseReference:  # noqa: PYI034
        """A reference that calls `_collected`."""
        return weakref.ref.__new__(cls, connection, _collected)  # super() would cost as much again

    def __init__(self, connection: LibraryObject, lease: Lease, component: str) -> None:  # noqa: ARG002 - see __new__
        self.lease = lease
        self.component = component

    def collected(self) -> None:
        """
        What the caller held is no more. The garbage collector may be running: nothing here may log
        or wait for a lock.
        """
        self.lease.released(abandoned=True)


def _collected(reference: LeaseReference) -> None:
    # Python prints what a callback raises to the application's standard error.
    try:
        reference.collected()
    except BaseException:  # noqa: BLE001 - ours, or a signal handler's
        recover(reference.component, reference.lease, quietly=True)
