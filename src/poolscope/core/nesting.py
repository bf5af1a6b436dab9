"""
Nested checkouts: which connections are held until a checkout has got its own.

A connection that another thread or task of the unit of work holds counts where that one waits for the checkout
(`awaiting`): it awaits the task, or the thread's job. It counts as well if whoever has it has only fetched it for the
unit and has gone on since. Of what runs beside the checkout, each returns its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.awaiting import dependents_of
from poolscope.core.execution import stack_of_task, stack_of_thread

if TYPE_CHECKING:
    from collections.abc import Collection

    from poolscope.core.awaiting import Dependents
    from poolscope.core.execution import Frames
    from poolscope.core.lease import Lease
    from poolscope.core.origin import RawStack

# Frames of a thread or task looked at for the code that checked out.
_SEARCH: Final = 80


def held_meanwhile(
    checkout: Lease, leases: Collection[Lease], frames: Frames | None = None, *, every: bool = False
) -> list[Lease]:
    """
    Those of some leases whose connections are held until a checkout has got its own. Cold.

    Args:
        checkout: The checkout that begins, waits, or has just failed.
        leases: Leases of the same pool and unit of work; or of code that is in none, like the checkout.
        frames: The frames of all threads; read anew when not given.
        every: Whether to look for those of other threads and tasks as well where the checkout's own holds one.
    """
    own = [
        held
        for held in leases
        if (held.thread_reference is checkout.thread_reference and held.task is checkout.task)
        or _was_fetched(held, frames)
    ]
    if (own and not every) or not leases:
        return own
    task = checkout.task() if checkout.task is not None else None
    if task is None and checkout.task is not None:
        return own  # it is over
    dependents = dependents_of(task, checkout.thread, frames, checkout.pool.origins)
    return own + [held for held in leases if held not in own and _waits(held, dependents)]


def _waits(held: Lease, dependents: Dependents) -> bool:
    if held.task is None:
        return held.thread_reference() is not None and dependents.waits(None, held.thread)
    task = held.task()
    if task is None:
        return False
    if dependents.waits(task, held.thread):
        return True
    # What a task's code has left for the end of its work is held until the end of each group that the task has open.
    return dependents.is_parent(task) and not held.running and not is_on(held, stack_of_task(held.task, _SEARCH) or ())


def is_on(lease: Lease, stack: RawStack) -> bool:
    """
    Whether the code that checked out is on a stack; also where that code is not known.

    Args:
        lease: A lease.
        stack: What a thread or task executes now. Of a stack of libraries alone, only the innermost frame of the
            checkout counts: frames further out are the thread's own.
    """
    origins = lease.pool.origins
    codes = (origins.applications(lease.origin) if origins is not None else ()) or {
        code for code, _ in lease.origin[:1]
    }
    return not codes or any(code in codes for code, _ in stack)


def _was_fetched(held: Lease, frames: Frames | None) -> bool:
    # An asynchronous framework has synchronous dependencies run in a thread. Once the code that checked out is not on
    # that thread's stack any more, the connection waits for the end of the request.
    unit = held.unit
    if held.task is not None or unit is None or unit.task is None:
        return False
    return not is_on(held, stack_of_thread(held.thread, _SEARCH, frames) if held.thread_reference() is not None else ())
