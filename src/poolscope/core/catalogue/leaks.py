"""Kinds of findings about connections that will not be returned."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

LEAK: Final = "connection_leak"

_LEAK: Final = {
    **fields(Unit.NONE, leak_kind=semconv.LEAK_KIND, ending=semconv.LEAK_ENDING),
    **fields(Unit.SECONDS, age=semconv.LEASE_AGE),
    **fields(Unit.NONE, "owner", "phase", "trace_id", checkout_stack=semconv.CODE_STACKTRACE),
    **fields(Unit.NONE, current_location=semconv.CURRENT_LOCATION, statement=semconv.DB_QUERY_TEXT),
    **fields(Unit.NONE, backend_process_id=semconv.BACKEND_PROCESS_ID),
    **REPEATED,
}

KINDS: Final = (
    FindingKind(
        LEAK,
        Source.DETECTOR,
        semconv.LEAK_EVENT,
        Severity.CRITICAL,
        "a connection is checked out and will not be returned",
        "return the connection on every path: a with block around its use, or close() in a finally block",
        _LEAK,
        # For one that is still held by code that runs; the other kinds of leak are certain.
        {
            "overdue": "if the long hold is intended, declare it with poolscope.expected_long_hold(why); if not, "
            "return the connection on every path"
        },
        resolved_event=semconv.LEAK_RESOLVED_EVENT,
    ),
)
