"""Kinds of findings about locks of the database."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

LOCK_WAIT: Final = "lock_wait"

KINDS: Final = (
    FindingKind(
        LOCK_WAIT,
        Source.DETECTOR,
        semconv.LOCK_WAIT_EVENT,
        Severity.WARNING,
        "a statement waits for a lock that another transaction holds",
        "shorten the transaction that holds the lock: other work before its first statement or after its commit; or do "
        "not wait for it (NOWAIT, SKIP LOCKED, lock_timeout)",
        {
            **fields(Unit.SECONDS, "waited"),
            **fields(Unit.COUNT, "waiters"),
            **fields(Unit.NONE, "lock", "known_by", "blocker", statement=semconv.DB_QUERY_TEXT),
            **fields(Unit.NONE, current_location=semconv.CURRENT_LOCATION, checkout_stack=semconv.CODE_STACKTRACE),
            **REPEATED,
        },
        {
            "elsewhere": "end or shorten the transaction of the other process; bound the wait meanwhile (lock_timeout, "
            "NOWAIT, SKIP LOCKED)"
        },
    ),
)
