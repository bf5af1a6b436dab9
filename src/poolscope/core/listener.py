"""How the hot path reports to the rest of poolscope what is worth a closer look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from poolscope.core.lease import Lease
    from poolscope.core.making import Making


class PoolListener(Protocol):
    """
    Receives the leases that matter.

    Called in the application's threads, possibly inside a garbage collection: an implementation only appends to a
    deque or adds to a set. It must not block, log, allocate much, call an SDK or take a lock.
    """

    def waited(self, lease: Lease, holders: Collection[Lease]) -> None:
        """
        A checkout waited longer than the threshold, or failed (then `lease.error_type` is set).

        Args:
            lease: The checkout.
            holders: The leases that were held when it began, if the pool was full then; else none. A lease does not
                keep them itself: each would hold the ones before it forever.
        """

    def nested(self, lease: Lease, held: Lease) -> None:
        """
        A unit of work checks out a connection while it holds one of the same pool; once for each unit and pool.

        Args:
            lease: The checkout.
            held: The lease that it holds longest.
        """

    def returned(self, lease: Lease) -> None:
        """
        A lease ended abandoned, or after a long hold, or after it was reported as leaked, or after it took or released
        a lock of the whole connection.
        """

    def traced(self, lease: Lease) -> None:
        """A lease ended inside a recorded span; after `returned`, where that is reported too."""

    def suspected(self, lease: Lease) -> None:
        """A checkout failed, or got a connection of a pool that may belong to another process or event loop."""

    def made(self, making: Making) -> None:
        """The application made a pool. Never inside a garbage collection."""


class NullListener:
    """Looks at nothing."""

    def waited(self, lease: Lease, holders: Collection[Lease]) -> None:
        """Nothing."""

    def nested(self, lease: Lease, held: Lease) -> None:
        """Nothing."""

    def returned(self, lease: Lease) -> None:
        """Nothing."""

    def traced(self, lease: Lease) -> None:
        """Nothing."""

    def suspected(self, lease: Lease) -> None:
        """Nothing."""

    def made(self, making: Making) -> None:
        """Nothing."""


class Listeners:
    """
    Passes events to several listeners, in order.

    Args:
        listeners: Those that receive them.
        traced: The only one that receives leases inside a recorded span; it receives each of them, so it is no list.
    """

    def __init__(self, *listeners: PoolListener, traced: PoolListener) -> None:
        self.listeners = listeners
        self.traced = traced.traced

    def waited(self, lease: Lease, holders: Collection[Lease]) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.waited(lease, holders)

    def nested(self, lease: Lease, held: Lease) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.nested(lease, held)

    def returned(self, lease: Lease) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.returned(lease)

    def suspected(self, lease: Lease) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.suspected(lease)

    def made(self, making: Making) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.made(making)
