"""Kinds of findings about pools that multiply, and about pools and connections that belong elsewhere."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

POOL_PER_REQUEST: Final = "pool_per_request"
STRANDED_CONNECTIONS: Final = "stranded_connections"

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
)
