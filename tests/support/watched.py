"""
Adapters at work without the signals: a ledger of their own, read directly.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from poolscope.adapters.registry import Registry, State, load
from poolscope.core.guard import guard
from poolscope.core.pool_registry import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.pool import Pool

BOUNDS = (0.001, 0.01, 0.1, 1.0)


class Watched:
    """
    What the adapters entered.

    Args:
        ledger: Where they did.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def pool(self, name: str) -> Pool:
        """
        The pool of that name.
        """
        return self.ledger.pools[name]

    def only(self) -> Pool:
        """
        The one pool that there is.
        """
        (pool,) = self.ledger.pools.values()
        return pool


@contextlib.contextmanager
def watched(*adapters: str) -> Iterator[Watched]:
    """
    Hook these adapters' libraries for as long as the block runs; none of our own errors may be caught meanwhile.
    """
    before = guard.counts()
    ledger = Ledger(BOUNDS)
    registry = Registry(ledger, adapters=load(adapters))
    registry.start()
    try:
        refused = [status.reason for status in registry.statuses.values() if status.state is State.REFUSED]
        assert refused == []
        yield Watched(ledger)
    finally:
        registry.stop()
    assert guard.counts() == before


def outcomes(pool: Pool) -> dict[str, int]:
    """
    How many asks ended in what: ``""`` in a lease, else in that error.
    """
    counts = {name: waits.read().count for name, waits in pool.failed_waits.items()}
    granted = pool.waits.read().count
    return {"": granted, **counts} if granted else counts


def closures(pool: Pool) -> dict[str, int]:
    """
    How many connections were closed for what reason.
    """
    return {reason: int(total.read()) for reason, total in pool.closures.items()}


def at_rest(pool: Pool) -> None:
    """
    The laws that hold when nobody holds anything and nobody asks.
    """
    assert pool.leases == set()
    assert pool.asking == set()
    accounts = [source.in_use() for source in pool.live_sources()]
    assert [account for account in accounts if account] == []
    waits = [one.read().total for one in (pool.waits, *pool.failed_waits.values())]
    assert sum(pool.wait_phase_times().values()) == pytest.approx(sum(waits), abs=1e-6)
    uses = pool.uses.read()
    assert sum(uses.phases.values()) == pytest.approx(uses.total, abs=1e-6)
