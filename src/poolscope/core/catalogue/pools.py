"""Kinds of findings about pools that multiply, and about pools and connections that belong elsewhere."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

POOL_PER_REQUEST: Final = "pool_per_request"
FORKED_POOL: Final = "forked_pool"
FOREIGN_EVENT_LOOP: Final = "foreign_event_loop"
STRANDED_CONNECTIONS: Final = "stranded_connections"

#: The cases of which a fix is another one: not the pool itself is foreign, but connections of it.
OF_CONNECTIONS: Final = "connections"

_FOREIGN: Final = {
    **fields(Unit.COUNT, "connections_used"),
    **fields(Unit.NONE, "process", "backend_process_ids", checkout_stack=semconv.CODE_STACKTRACE),
    **REPEATED,
}

KINDS: Final = (
    FindingKind(
        POOL_PER_REQUEST,
        Source.DETECTOR,
        semconv.POOL_PER_REQUEST_EVENT,
        Severity.WARNING,
        "pools of one server and database are made again and again at one line",
        "make one pool or engine when the process starts (at import, in the application's start-up), and use it in "
        "every request",
        {
            **fields(Unit.COUNT, "pools_made", "pools_open", "connections_open", "units_of_work"),
            **fields(Unit.SECONDS, "seconds"),
            **fields(Unit.NONE, making_stack=semconv.CODE_STACKTRACE),
            **REPEATED,
        },
    ),
    FindingKind(
        STRANDED_CONNECTIONS,
        Source.DETECTOR,
        semconv.STRANDED_CONNECTIONS_EVENT,
        Severity.WARNING,
        "connections stay open that no thread or task will use again",
        "keep no connection for a thread that ends: CONN_MAX_AGE=0 where each request has a thread of its own (ASGI, a "
        'development server), or the option "pool"; in a thread or job, close the connection at its end',
        {
            **fields(Unit.COUNT, "stranded", "collected", "connections_made", "used_again"),
            **fields(Unit.NONE, "kept_by", "backend_process_ids"),
            **REPEATED,
        },
        of_pool=True,
    ),
    FindingKind(
        FORKED_POOL,
        Source.DETECTOR,
        semconv.FORKED_POOL_EVENT,
        Severity.CRITICAL,
        "a pool or connection is used that was opened in another process, before a fork",
        "open the pool after the fork, in each process (in the hook that the server or task queue calls there: "
        "post_fork, worker_process_init)",
        _FOREIGN,
        {
            OF_CONNECTIONS: "after the fork, before the first query, let go of the connections of the parent without "
            "closing them (engine.dispose(close=False) in post_fork or worker_process_init), or connect after the fork "
            "only"
        },
        of_pool=True,
    ),
    FindingKind(
        FOREIGN_EVENT_LOOP,
        Source.DETECTOR,
        semconv.FOREIGN_EVENT_LOOP_EVENT,
        Severity.CRITICAL,
        "a pool or connection is used in another event loop than the one that it was opened in",
        "open the pool in the event loop that uses it, and close it before that ends: one asyncio.run() for all",
        _FOREIGN,
        {
            OF_CONNECTIONS: "use the engine in one event loop only, and await engine.dispose() before that ends; or "
            "let it keep no connections (NullPool)"
        },
        of_pool=True,
    ),
)
