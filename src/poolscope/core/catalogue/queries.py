"""Kinds of findings about the queries of one unit of work."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

N_PLUS_ONE: Final = "n_plus_one"

KINDS: Final = (
    FindingKind(
        N_PLUS_ONE,
        Source.DETECTOR,
        semconv.N_PLUS_ONE_EVENT,
        Severity.WARNING,
        "one request runs the same query once per row",
        "run it once for all rows: eager loading, a join, or one WHERE ... IN",
        {
            **fields(Unit.NONE, "loader", statement=semconv.DB_QUERY_TEXT),
            **fields(Unit.COUNT, repetitions=semconv.STATEMENT_REPETITIONS),
            **fields(Unit.SECONDS, seconds=semconv.STATEMENT_TIME),
            **REPEATED,
        },
        title="N+1",
    ),
)
