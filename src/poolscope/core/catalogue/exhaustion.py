"""Kinds of findings about pools that provide no connection, and about what is the cause."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

POOL_EXHAUSTED: Final = "pool_exhausted"
POOL_TOO_SMALL: Final = "pool_too_small"
BURST: Final = "burst"
SLOW_CONNECT: Final = "slow_connect"
MIXED: Final = "mixed"
UNKNOWN: Final = "unknown"
FLEET_BUDGET: Final = "fleet_budget"

#: What a pool that provides no connection is diagnosed from.
EXHAUSTION: Final = {
    **fields(Unit.NONE, "shares", "chain"),
    **fields(Unit.NONE, cause=semconv.CAUSE, outcome=semconv.CHECKOUT_OUTCOME, holders=semconv.HOLDERS),
    **fields(Unit.NONE, current_location=semconv.CURRENT_LOCATION),
    **fields(Unit.COUNT, holders_omitted=semconv.HOLDERS_OMITTED),
    **fields(Unit.COUNT, used=semconv.POOL_USED, limit=semconv.POOL_LIMIT, pending=semconv.POOL_PENDING),
    **fields(Unit.SECONDS, "waited"),
    **fields(Unit.PER_SECOND, "arrival_rate", "arrival_rate_now", "arrival_rate_before"),
    **fields(Unit.SECONDS, "mean_hold", "typical_hold"),
    **fields(Unit.COUNT, "connections_needed", "used_before", "leaked", "deadlocked"),
    **fields(Unit.SHARE, "share", "query_share", "idle_in_transaction_share", "idle_share"),
    **REPEATED,
}

# Where the pool lets no checkout wait, more requests at once than connections are errors, however short they are.
_NO_QUEUE: Final = (
    "run no more requests at once than the pool has connections (a semaphore, fewer threads), or use a pool that waits"
)

KINDS: Final = (
    FindingKind(
        POOL_EXHAUSTED,
        Source.DETECTOR,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "requests got no connection in time",
        "apply the fix of the cause that the report names",
        EXHAUSTION,
        of_pool=True,
    ),
    FindingKind(
        POOL_TOO_SMALL,
        Source.CAUSE,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "connections are held for a short time and are busy, but there are too few of them for the load",
        "raise the pool's size within the server's max_connections, or hold each connection for a shorter time",
        EXHAUSTION,
        {"rejected": _NO_QUEUE},
        of_pool=True,
    ),
    FindingKind(
        BURST,
        Source.CAUSE,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "the pool is large enough on average, but not for many requests at once",
        "limit how many requests run at once, or allow for the burst with max_overflow",
        EXHAUSTION,
        {"rejected": _NO_QUEUE},
        of_pool=True,
    ),
    FindingKind(
        SLOW_CONNECT,
        Source.CAUSE,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "the pool is not full, but opening or validating a connection takes a long time",
        "check the database and the network (is it up, at its max_connections, slow to resolve or to log in?); a "
        "larger pool does not help",
        EXHAUSTION,
        of_pool=True,
    ),
    FindingKind(
        MIXED,
        Source.CAUSE,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "several causes hold connections, and none of them explains half of the connections that are explained",
        "apply the fixes of the causes that the report names, the largest share first",
        EXHAUSTION,
        of_pool=True,
    ),
    FindingKind(
        UNKNOWN,
        Source.CAUSE,
        semconv.EXHAUSTED_EVENT,
        Severity.CRITICAL,
        "what the process has seen does not tell why the pool provides no connection",
        "read the holders and the figures of the report; look at the process itself (CPU, garbage collection, a "
        "blocked event loop)",
        EXHAUSTION,
        of_pool=True,
    ),
    FindingKind(
        FLEET_BUDGET,
        # A process knows its own pools only; an alert adds up those of all and compares with the server.
        Source.ALERT,
        None,
        Severity.WARNING,
        "all pools together may open more connections than the server accepts",
        "lower pool sizes or worker counts, or put a pooler in front of the server",
        of_pool=True,
    ),
)
