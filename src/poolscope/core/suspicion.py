"""The suspicion that a pool, or connections of it, belong to another process or event loop than who uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from poolscope.core.lease import Lease
    from poolscope.core.listener import PoolListener
    from poolscope.core.pool_identity import Foreign, PoolSource

# In place of a wait in seconds: below each of them.
_SUSPECTED: Final = -1.0


class Suspicion:
    """
    The part of a pool that reports every checkout while it is suspected. The hot path takes no notice: the wait from
    which it reports a checkout is below 0 meanwhile.
    """

    #: The wait from which a checkout is reported to the listener, in seconds.
    slow_wait: float
    listener: PoolListener
    sources: list[PoolSource]
    # What `slow_wait` is while the pool is not suspected.
    _usual_slow_wait: float

    # Each is one store: threads and the garbage collector suspect and trust at the same time.

    def suspect(self) -> None:
        """A part of it may belong elsewhere: have each checkout reported until `trust`."""
        self.slow_wait = _SUSPECTED

    def trust(self) -> None:
        """None does, or it is known by now."""
        self.slow_wait = self._usual_slow_wait

    def is_only_suspected(self, lease: Lease) -> bool:
        """
        Report a checkout that failed or is suspected.

        Returns:
            Whether that is all: it is not slow.
        """
        is_suspected = self.slow_wait == _SUSPECTED
        if is_suspected or lease.outcome is not None:
            self.listener.suspected(lease)
        if not is_suspected or lease.acquired_at is None:
            return False
        return lease.acquired_at - lease.requested_at < self._usual_slow_wait

    def foreign(self, failed: Lease | None = None) -> Foreign | None:
        """
        How it belongs to another process or event loop than the one that uses it now; None where that is not known.

        Args:
            failed: A checkout that has failed, and counts as a use.
        """
        for source in self.sources:
            found = source.foreign(failed) if not source.retired else None
            if found is not None:
                return found
        return None

    def has_foreign(self) -> bool:
        """Whether a part of it belongs elsewhere, in use or not. It may run inside a garbage collection."""
        return any(source.is_suspicious() for source in self.sources if not source.retired)
