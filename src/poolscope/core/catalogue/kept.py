"""Kinds of findings about what statements leave on a connection: subscriptions, and locks of the whole connection."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

LISTENER_HOLD: Final = "listener_hold"
SESSION_LOCK_LEAK: Final = "session_lock_leak"

KINDS: Final = (
    FindingKind(
        LISTENER_HOLD,
        Source.DETECTOR,
        semconv.LISTENER_HOLD_EVENT,
        Severity.WARNING,
        "a connection of the pool is held in order to listen for notifications",
        "listen on one connection of its own, outside of the pool, and pass its notifications on within the process",
        {
            **fields(Unit.SECONDS, "held", "listened"),
            **fields(Unit.NONE, "owner", checkout_stack=semconv.CODE_STACKTRACE),
            **fields(Unit.NONE, current_location=semconv.CURRENT_LOCATION),
            **REPEATED,
        },
    ),
    FindingKind(
        SESSION_LOCK_LEAK,
        Source.DETECTOR,
        semconv.SESSION_LOCK_LEAK_EVENT,
        Severity.WARNING,
        "a connection went back into the pool with a lock that it still has",
        "unlock on the same connection in a finally block, or use a lock that ends with the transaction "
        "(pg_advisory_xact_lock)",
        {
            **fields(Unit.COUNT, "locks"),
            **fields(Unit.NONE, "owner", statement=semconv.DB_QUERY_TEXT, checkout_stack=semconv.CODE_STACKTRACE),
            **fields(Unit.NONE, "unlocked_at", backend_process_id=semconv.BACKEND_PROCESS_ID),
            **REPEATED,
        },
    ),
)
