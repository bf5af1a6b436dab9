"""Kinds of findings about how connections are held."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.catalogue.exhaustion import EXHAUSTION
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

LONG_HOLD: Final = "long_hold"
IDLE_IN_TRANSACTION: Final = "idle_in_transaction"
NESTED_CHECKOUT: Final = "nested_checkout"
THREAD_STARVATION: Final = "thread_starvation"
FAN_OUT: Final = "fan_out"

_HOLD: Final = {
    **fields(Unit.SECONDS, "held", "query", "idle_in_transaction", "idle", "event_loop_blocked"),
    **fields(Unit.NONE, "event_loop_blocked_at"),
    **fields(Unit.COUNT, queries=semconv.LEASE_QUERIES),
    **fields(Unit.NONE, statement=semconv.DB_QUERY_TEXT, checkout_stack=semconv.CODE_STACKTRACE),
    **REPEATED,
}

KINDS: Final = (
    FindingKind(
        LONG_HOLD,
        Source.DETECTOR,
        semconv.LONG_HOLD_EVENT,
        Severity.WARNING,
        "a connection is held for a long time, by slow queries or by other work outside of a transaction",
        "make the query faster (an index, fewer rows), or move it to a background task or a replica",
        _HOLD,
        {"idle": "check out as late and return as early as the queries allow; do other work without a connection"},
    ),
    FindingKind(
        IDLE_IN_TRANSACTION,
        Source.DETECTOR,
        semconv.LONG_HOLD_EVENT,
        Severity.WARNING,
        "a transaction stays open for a long time without running a query",
        "do other work (a call to another service, rendering) before the first query or after the commit",
        _HOLD,
    ),
    FindingKind(
        NESTED_CHECKOUT,
        Source.DETECTOR,
        semconv.NESTED_CHECKOUT_EVENT,
        Severity.WARNING,
        "a second connection is checked out while one of the same pool is held",
        "use the connection or session that is already open, or return it before the next checkout",
        {
            **fields(Unit.NONE, "first_checkout", "second_checkout"),
            **fields(Unit.COUNT, "connections", "workers", "safe_size"),
            **REPEATED,
        },
    ),
    FindingKind(
        THREAD_STARVATION,
        Source.CAUSE,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "requests that hold connections wait for a worker thread, and the worker threads wait for connections",
        "allow fewer worker threads than the pool has connections, or check out and return within one function",
        EXHAUSTION,
        of_pool=True,
    ),
    FindingKind(
        FAN_OUT,
        Source.CAUSE,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "one unit of work asks for many connections at once",
        "run one query for all of them (a data loader, WHERE ... IN), or limit how many run at once with a semaphore "
        "inside the unit of work",
        EXHAUSTION,
        of_pool=True,
    ),
)
