"""Leases in words: what every finding says of one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from poolscope.core.catalogue import KINDS
from poolscope.core.execution import stack_of_task, stack_of_thread
from poolscope.core.finding import Finding, UnitLabel
from poolscope.core.location import locate, resolve
from poolscope.core.nesting import is_on
from poolscope.core.sql.fingerprint import shape_of
from poolscope.names import safe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poolscope.core.execution import Frames, TaskReference
    from poolscope.core.finding import Evidence
    from poolscope.core.finding_kind import Severity
    from poolscope.core.lease import Lease
    from poolscope.core.origin import RawStack
    from poolscope.core.work import UnitOfWork
    from poolscope.types import LibraryObject

# Frames looked at to find the application's frame that a holder executes now.
_SEARCH: Final = 80


class Actor(NamedTuple):
    """
    Who goes on with a lease: a task or a thread.

    Args:
        task: The task; None for a thread.
        thread: The thread's identifier; of a task, that of the thread of its event loop.
        stack: What it executes, raw, innermost frame first; empty where no code goes on with the lease.
    """

    task: TaskReference | None
    thread: int
    stack: RawStack


def actor_of(lease: Lease, frames: Frames | None = None, waiter: Lease | None = None) -> Actor:
    """
    Who goes on with a lease: whoever checked it out, or the request that a dependency's thread fetched it for.

    Args:
        lease: A lease that is still held.
        frames: The current frame of each thread; looked up when not given.
        waiter: The checkout that has just failed: its thread's frames belong to it and to no holder.

    Returns:
        Its stack is empty when that says nothing: the task is done, the thread has finished or has gone on to
        something else, or a job has handed the connection on.
    """
    stack = stack_now(lease, frames)
    unit = lease.unit
    if unit is not None and not unit.ended and not _is_own(lease, unit) and _has_gone_on(lease, stack, waiter):
        # A dependency's thread has done its part: the request goes on.
        return Actor(unit.task, unit.thread, _stack(unit.task, unit.thread, frames))
    return Actor(lease.task, lease.thread, () if is_handed_on(lease) or _is_left(lease, stack) else stack)


def current_stack(lease: Lease, depth: int = 5, frames: Frames | None = None, waiter: Lease | None = None) -> RawStack:
    """
    What the holder of a lease executes now: the application's frames, innermost first.

    Args:
        lease: A lease that is still held.
        depth: How many frames to keep.
        frames: The current frame of each thread; looked up when not given.
        waiter: The checkout that has just failed: its thread's frames belong to it and to no holder.

    Returns:
        The raw stack; a library's frames where there are no others; empty where `actor_of` has none, or only compiled
        frames.
    """
    return of_application(lease, actor_of(lease, frames, waiter).stack)[:depth]


def of_application(lease: Lease, stack: RawStack) -> RawStack:
    """The application's frames of a stack; where it has none, those of libraries that say something."""
    return lease.pool.origins.shown(stack) if lease.pool.origins is not None else stack


def is_left(lease: Lease, frames: Frames | None = None) -> bool:
    """
    Whether no code is left that would return a lease: the request, task or thread that checked it out has finished, or
    has gone on to something else.

    Args:
        lease: A lease that is still held.
        frames: The current frame of each thread; looked up when not given.
    """
    return not is_handed_on(lease) and _is_left(lease, stack_now(lease, frames))


def is_handed_on(lease: Lease) -> bool:
    """Whether the job that checked a lease out returned something that its connection may be in: others may have it."""
    return lease.unit is not None and lease.unit.hands_on


def is_over(checkout: Lease) -> bool:
    """
    Whether a checkout is pending though the request, task or thread that waited has finished: an exception from
    outside, as a signal's, may end a wait unnoticed.
    """
    unit = checkout.unit
    if unit is not None and unit.ended and _is_own(checkout, unit):
        return True
    if checkout.task is not None:
        task = checkout.task()
        return task is None or bool(task.done())
    return checkout.thread_reference() is None


def _is_left(lease: Lease, stack: RawStack) -> bool:
    unit = lease.unit
    if unit is not None and (not unit.ended or _is_own(lease, unit)):
        return unit.ended
    return _has_gone_on(lease, stack)


def _is_own(lease: Lease, unit: UnitOfWork) -> bool:
    # Else a thread or task beside the unit of work checked out.
    return lease.thread == unit.thread and lease.task is unit.task


def _has_gone_on(lease: Lease, stack: RawStack, waiter: Lease | None = None) -> bool:
    # A thread or task still works on it while the code that checked out is on its stack.
    return bool(lease.packed_stack) and (not is_on(lease, stack) or _serves_others(lease, waiter))


def _serves_others(lease: Lease, waiter: Lease | None) -> bool:
    others = (*lease.pool.pending.copy(), *lease.pool.leases.copy(), *((waiter,) if waiter is not None else ()))
    return lease.task is None and any(
        other.thread == lease.thread and other.task is None and other.unit is not lease.unit
        for other in others
        if other.requested_at > lease.requested_at
    )


def stack_now(lease: Lease, frames: Frames | None = None) -> RawStack:
    """
    What the task or thread that checked a lease out executes now, the frames of libraries included, innermost first.

    Args:
        lease: The lease.
        frames: The current frame of each thread; looked up when not given.

    Returns:
        The raw stack; empty where the thread has finished.
    """
    if lease.task is None and lease.thread_reference() is None:
        return ()
    return _stack(lease.task, lease.thread, frames)


def _stack(task: TaskReference | None, thread: int, frames: Frames | None) -> RawStack:
    stack = stack_of_task(task, _SEARCH) if task is not None else None
    return stack if stack is not None else stack_of_thread(thread, _SEARCH, frames)


def owner_of(lease: Lease, threads: dict[int, str] | None = None) -> str:
    """
    The unit of work, task or thread that holds a lease, by name.

    Args:
        lease: The lease.
        threads: Names of threads by their identifiers; looked up when not given.
    """
    if lease.unit is not None:
        return str(lease.unit)
    if lease.adopted:
        return "code that checked it out before poolscope started"
    if lease.task is not None:
        task = lease.task()
        return f"task {safe(task.get_name())}" if task is not None else "a finished task"
    if lease.thread_reference() is None:
        return "a finished thread"
    names = thread_names() if threads is None else threads
    return f"thread {names.get(lease.thread, lease.thread)}"


def thread_names() -> dict[int, str]:
    """The names of the threads that run, by identifier."""
    return {thread.ident: safe(thread.name) for thread in threading.enumerate() if thread.ident is not None}


def place_of(stack: RawStack) -> str:
    """The innermost frame of a raw stack, as ``file:line in function``; ``unknown`` for an empty one."""
    return str(locate(*stack[0])) if stack else "unknown"


def lines_of(stack: RawStack) -> list[str]:
    """A raw stack, innermost first, as ``file:line in function``."""
    return [str(location) for location in resolve(stack)]


def statement_of(lease: Lease) -> str:
    """The shape of the last statement of a lease; empty when it ran none. No literal is in it."""
    return shape_of(lease.statement, lease.pool.identity.system) if lease.statement else ""


def slowest_of(lease: Lease) -> tuple[str, float]:
    """
    The shape of the statement of a lease that one call took longest for, and how long that was, in seconds; the last
    one and 0 where no call took long.
    """
    slowest, system = lease.slowest, lease.pool.identity.system
    return (shape_of(slowest, system), lease.slowest_time) if slowest else (statement_of(lease), 0.0)


def finding_about(
    lease: Lease,
    kind: str,
    summary: str,
    evidence: Mapping[str, Evidence],
    *,
    severity: Severity | None = None,
    fix: str = "",
    resolved: bool = False,
    report: str = "",
) -> Finding:
    """
    A finding about a lease, its pool, its unit of work and the line that checked it out.

    Args:
        lease: The lease, or the checkout that failed.
        kind: The finding's id.
        summary: One sentence that names the place.
        evidence: What proves it; empty texts and lists are left out.
        severity: How soon to look; as usual for its kind when not given.
        fix: What to change; as usual for its kind when not given.
        resolved: Whether an earlier finding is over.
        report: The whole of it, in lines for people.
    """
    known = KINDS[kind]
    return Finding(
        known,
        severity or known.severity,
        summary,
        fix or known.fix,
        pool=lease.pool.identity,
        evidence={name: value for name, value in evidence.items() if value not in ("", [])},
        unit=UnitLabel(lease.unit.kind, lease.unit.name) if lease.unit is not None else None,
        origin=lease.origin[0] if lease.origin else None,
        trace=trace_of(lease),
        resolved=resolved,
        report=report,
    )


def trace_of(lease: Lease) -> LibraryObject:
    """
    The span that a lease belongs to: the one around its checkout, else the one around its unit of work; None when
    neither is recorded.
    """
    return lease.trace if lease.trace is not None or lease.unit is None else lease.unit.span


def trace_id_of(lease: Lease) -> str:
    """The id of the trace that a lease belongs to, in hexadecimal; empty when it is in none that is recorded."""
    span = trace_of(lease)
    return format(span.get_span_context().trace_id, "032x") if span is not None else ""


def seconds(duration: float) -> str:
    """A duration for people: ``12.3 s``, ``45 ms``."""
    return f"{duration:.1f} s" if duration >= 1 else f"{duration * 1000:.0f} ms"
