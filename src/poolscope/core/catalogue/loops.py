"""Kinds of findings about event loops."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

BLOCKED_EVENT_LOOP: Final = "blocked_event_loop"

#: Its case in which what blocks the loop is a checkout.
BY_CHECKOUT: Final = "checkout"

KINDS: Final = (
    FindingKind(
        BLOCKED_EVENT_LOOP,
        Source.DETECTOR,
        semconv.BLOCKED_EVENT_LOOP_EVENT,
        Severity.WARNING,
        "synchronous work blocks an event loop, and with it every task that holds or waits for a connection",
        "await an async library in its place, or run it in a thread: `await asyncio.to_thread(...)`",
        {
            **fields(Unit.SECONDS, "blocked"),
            **fields(Unit.NONE, "event_loop_thread", stack=semconv.CODE_STACKTRACE, holders=semconv.HOLDERS),
            **fields(Unit.COUNT, "held_up"),
            **REPEATED,
        },
        {
            BY_CHECKOUT: "use the async engine or pool of the library with an async driver, or run the whole function "
            "in a thread (`await asyncio.to_thread(...)`, or a handler that is a plain `def`, where the framework does "
            "that): a synchronous checkout keeps the tasks that hold the connections from returning them"
        },
    ),
)
