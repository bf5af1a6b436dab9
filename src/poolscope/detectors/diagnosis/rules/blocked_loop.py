"""The event loop of the holders' tasks is blocked: by a synchronous checkout on it, a cycle, or by other work."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP, BY_CHECKOUT
from poolscope.core.watched_loop import loop_of
from poolscope.detectors.diagnosis.describe import place_of, seconds
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.core.blocks import Overlap
    from poolscope.detectors.diagnosis.picture import Held, Picture


def blocked_loop(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """
    Leases of tasks that could not go on for half of the hold or more, since others blocked their event loop; and a
    checkout that could not receive a connection that was there.
    """
    event_loops = picture.pool.event_loops
    if event_loops is None:
        return
    checkouts = [block for block in map(event_loops.by_checkout, picture.waiting) if block is not None]
    groups: dict[object, list[tuple[Held, Overlap]]] = defaultdict(list)
    own: list[tuple[Held, Overlap]] = []
    for held in leases:
        thread, task = loop_of(held.lease)
        if thread is None:
            continue
        began = held.lease.acquired_at if held.lease.acquired_at is not None else held.lease.requested_at
        overlap = event_loops.overlap(thread, began, began + held.age, task, checkouts)
        if overlap.explains:
            groups[overlap.stack[:1]].append((held, overlap))
        else:
            own.append((held, event_loops.overlap(thread, began, began + held.age, None, checkouts)))
    for held, overlap in own:  # who blocks others and holds a connection meanwhile
        if overlap.explains and overlap.stack[:1] in groups:
            groups[overlap.stack[:1]].append((held, overlap))
    for group in groups.values():
        yield _blocked(
            picture, [held for held, _ in group], max((one for _, one in group), key=lambda one: one.seconds)
        )
    waiter = picture.waiter
    if waiter is not None and not picture.full:
        began = waiter.requested_at
        overlap = event_loops.overlap_of(waiter, began, began + picture.waited, checkouts)
        if overlap.explains:
            yield _not_resumed(picture, overlap)


def blocked_wait(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """
    Leases of the event loop that was blocked for half of the wait or more, and that are held for no other reason: the
    connections that waiters queue for are used again now, and the queue is what the block has left.
    """
    event_loops, waiter = picture.pool.event_loops, picture.waiter
    if event_loops is None or waiter is None:
        return
    thread, task = loop_of(waiter)
    theirs = [held for held in leases if loop_of(held.lease)[0] == thread]
    if thread is None or not theirs:
        return
    overlap = event_loops.overlap(thread, waiter.requested_at, waiter.requested_at + picture.waited, task)
    if overlap.explains:
        yield _blocked(picture, theirs, overlap)


def _blocked(picture: Picture, group: Sequence[Held], longest: Overlap) -> Explained:
    share = f"{len(group)} of {picture.capacity} connections"
    what = _what(longest)
    # While holders elsewhere return theirs, the checkout that blocks the loop gets one in the end.
    is_deadlock = longest.is_checkout and len(group) >= picture.capacity
    cycle = "a deadlock through the event loop" if is_deadlock else "a blocked event loop"
    return Explained(
        BLOCKED_EVENT_LOOP,
        tuple(group),
        f"{cycle}: {share} are held by tasks that could not go on, since {what} blocked their event loop for "
        f"{seconds(longest.seconds)}, at {place_of(longest.stack)}",
        (
            f"which {names_of(group)} holds, in tasks that cannot go on",
            f"as {what} blocks their event loop at {place_of(longest.stack)}",
        ),
        root=longest.stack,
        case=BY_CHECKOUT if longest.is_checkout else "",
    )


def _not_resumed(picture: Picture, overlap: Overlap) -> Explained:
    what = _what(overlap)
    return Explained(
        BLOCKED_EVENT_LOOP,
        (),
        f"a blocked event loop: for {seconds(overlap.seconds)} of the {seconds(picture.waited)} nothing could be "
        f"received, since {what} blocked it at {place_of(overlap.stack)}",
        (f"whose event loop {what} blocks at {place_of(overlap.stack)}",),
        root=overlap.stack,
        case=BY_CHECKOUT if overlap.is_checkout else "",
        whole=True,
    )


def _what(overlap: Overlap) -> str:
    return "a synchronous checkout" if overlap.is_checkout else "synchronous work"
