"""Kinds of findings about pools that multiply, and about pools and connections that belong elsewhere."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

POOL_PER_REQUEST: Final = "pool_per_request"

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
)
