"""Events: what carries findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Event:
    """
    One kind of event: a log record with an event name, and the severity of its finding.

    Args:
        name: The event's name.
        description: When it is emitted.
    """

    name: str
    description: str


LEAK_EVENT: Final = Event("poolscope.connection.leak", "A connection was found leaked before it was returned.")
LEAK_RESOLVED_EVENT: Final = Event(
    "poolscope.connection.leak.resolved", "A connection reported leaked was returned, or closed."
)
EXHAUSTED_EVENT: Final = Event(
    "poolscope.pool.exhausted",
    "A checkout timed out, was refused or cancelled, or waited too long: every holder, oldest first, with its call "
    "site and current location.",
)
TOO_MANY_CONNECTIONS_EVENT: Final = Event(
    "poolscope.connection.refused",
    "The server refused a connection since it has too many: who in this process has how many, by pool and place.",
)
N_PLUS_ONE_EVENT: Final = Event(
    "poolscope.unit_of_work.n_plus_one",
    "One unit of work ran the same statement from the same line again and again.",
)
NESTED_CHECKOUT_EVENT: Final = Event(
    "poolscope.unit_of_work.nested_checkout",
    "One unit of work checked out a second connection of a pool while it held one.",
)
LONG_HOLD_EVENT: Final = Event(
    "poolscope.connection.long_hold",
    "A connection was held for longer than the threshold: by slow queries, or by non-database work.",
)
BLOCKED_EVENT_LOOP_EVENT: Final = Event(
    "poolscope.event_loop.blocked",
    "Synchronous work kept an event loop from everything else: for how long, at which line, and what it held up.",
)
POOL_PER_REQUEST_EVENT: Final = Event(
    "poolscope.pool.per_request",
    "Pools of one server and database were made again and again at one line of the application.",
)
LOCK_WAIT_EVENT: Final = Event(
    "poolscope.connection.lock_wait",
    "A statement waited for longer than the threshold for a lock that another transaction holds.",
)
STRANDED_CONNECTIONS_EVENT: Final = Event(
    "poolscope.pool.stranded_connections",
    "Open connections belong to threads that have finished, and are not used again.",
)
LISTENER_HOLD_EVENT: Final = Event(
    "poolscope.connection.listener_hold",
    "A connection of a pool was held for longer than the threshold in order to listen for notifications.",
)
SESSION_LOCK_LEAK_EVENT: Final = Event(
    "poolscope.connection.session_lock_leak",
    "A connection was returned to its pool with a lock that lasts until the connection is closed.",
)
FORKED_POOL_EVENT: Final = Event(
    "poolscope.pool.forked",
    "A pool or a connection was used that was opened in another process, before a fork.",
)
FOREIGN_EVENT_LOOP_EVENT: Final = Event(
    "poolscope.pool.foreign_event_loop",
    "A pool or a connection was used in another event loop than the one that it was opened in.",
)
EVENTS: Final = (
    LEAK_EVENT, LEAK_RESOLVED_EVENT, EXHAUSTED_EVENT, TOO_MANY_CONNECTIONS_EVENT,
    N_PLUS_ONE_EVENT, NESTED_CHECKOUT_EVENT, LONG_HOLD_EVENT,
    BLOCKED_EVENT_LOOP_EVENT,
    POOL_PER_REQUEST_EVENT, LOCK_WAIT_EVENT, STRANDED_CONNECTIONS_EVENT,
    LISTENER_HOLD_EVENT, SESSION_LOCK_LEAK_EVENT,
    FORKED_POOL_EVENT, FOREIGN_EVENT_LOOP_EVENT,
)  # fmt: skip
