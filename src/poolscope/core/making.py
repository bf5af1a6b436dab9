"""A making: that the application makes a pool, where, and within what; kept apart from the pool's figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from poolscope.core.execution import running_task, running_thread
from poolscope.core.work import CURRENT_UNIT

if TYPE_CHECKING:
    from types import FrameType

    from poolscope.core.execution import TaskReference, ThreadReference
    from poolscope.core.origin import PackedStack
    from poolscope.core.pool_identity import Identity, PoolSource
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.core.work import UnitOfWork


@dataclass(frozen=True)
class Making:
    """
    The application made a pool.

    Args:
        identity: What the pool is, with the name that it should have.
        login: A number that differs between pools that connect as different users or with different options.
        source: The library's pool.
        packed_stack: Where the application made it; empty where no frame of it is near.
        moment: When, in seconds of the clock.
        unit: The unit of work that made it; None outside of one.
        thread: The thread that made it.
        task: The task that made it, where there is one.
    """

    identity: Identity
    login: int
    source: PoolSource
    packed_stack: PackedStack
    moment: float
    unit: UnitOfWork | None
    thread: ThreadReference
    task: TaskReference | None

    @classmethod
    def now(
        cls, pool_registry: PoolRegistry, frame: FrameType, identity: Identity, login: int, source: PoolSource
    ) -> Making:
        """
        The running code makes a pool. Cold: it walks the stack.

        Args:
            pool_registry: The pool registry, with the clock.
            frame: Where the search for the application begins.
            identity: See `Making`.
            login: See `Making`.
            source: See `Making`.
        """
        unit = CURRENT_UNIT.get()
        return cls(
            identity,
            login,
            source,
            pool_registry.called_from(frame),
            pool_registry.now(),
            unit if unit is not None and not unit.ended else None,
            running_thread().reference,
            running_task(),
        )

    def connections(self) -> int:
        """How many connections of it are open now, by its library's account."""
        return self.source.idle() + (self.source.in_use() or 0) if self.source.alive() else 0
