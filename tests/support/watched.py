"""Adapters at work without the signals: a pool registry of their own, read directly."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from poolscope.adapters.registry import Registry, State, load
from poolscope.core.guard import guard
from poolscope.core.pool_registry import PoolRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.origin import Origins
    from poolscope.core.pool import Pool

BOUNDS = (0.001, 0.01, 0.1, 1.0)


class Watched:
    """
    What the adapters entered.

    Args:
        pool_registry: Where they did.
    """

    def __init__(self, pool_registry: PoolRegistry) -> None:
        self.pool_registry = pool_registry

    def pool(self, name: str) -> Pool:
        """The pool of that name."""
        return self.pool_registry.pools[name]

    def only(self) -> Pool:
        """The one pool that there is."""
        (pool,) = self.pool_registry.pools.values()
        return pool


@contextlib.contextmanager
def watched(*adapters: str, origins: Origins | None = None) -> Iterator[Watched]:
    """
    Hook these adapters' libraries for as long as the block runs; none of our own errors may be caught meanwhile.

    Args:
        adapters: Their modules' names.
        origins: Captures where connections are checked out, where that is wanted.
    """
    before = guard.counts()
    pool_registry = PoolRegistry(BOUNDS, origins=origins)
    registry = Registry(pool_registry, adapters=load(adapters))
    registry.start()
    try:
        refused = [status.reason for status in registry.statuses.values() if status.state is State.REFUSED]
        assert refused == []
        yield Watched(pool_registry)
    finally:
        registry.stop()
    assert guard.counts() == before


def outcomes(pool: Pool) -> dict[str, int]:
    """How many asks ended in what: ``""`` in a lease, else in that error."""
    counts = {name: waits.read().count for name, waits in pool.failed_waits.items()}
    acquired = pool.waits.read().count
    return {"": acquired, **counts} if acquired else counts


def closures(pool: Pool) -> dict[str, int]:
    """How many connections were closed for what reason."""
    return {reason: int(total.read()) for reason, total in pool.closures.items()}


def at_rest(pool: Pool) -> None:
    """The laws that hold when no connection is held and no checkout is pending."""
    assert pool.leases == set()
    assert pool.pending == set()
    accounts = [source.in_use() for source in pool.live_sources()]
    assert [account for account in accounts if account] == []
    waits = [one.read().total for one in (pool.waits, *pool.failed_waits.values())]
    assert sum(pool.wait_phase_times().values()) == pytest.approx(sum(waits), abs=1e-6)
    uses = pool.holds.read()
    assert sum(uses.phases.values()) == pytest.approx(uses.total, abs=1e-6)
