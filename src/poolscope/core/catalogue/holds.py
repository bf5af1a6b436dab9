"""Kinds of findings about how connections are held."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

LONG_HOLD: Final = "long_hold"
IDLE_IN_TRANSACTION: Final = "idle_in_transaction"
NESTED_CHECKOUT: Final = "nested_checkout"

_HOLD: Final = {
    **fields(Unit.SECONDS, "held", "query", "idle_in_transaction", "idle"),
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
)
