"""Kinds of findings about connects to the server."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.catalogue.evidence import REPEATED, fields
from poolscope.core.finding_kind import FindingKind, Severity, Source, Unit

TOO_MANY_CONNECTIONS: Final = "too_many_connections"

_LOGIN: Final = (
    "let the pools of all processes that use this login or database open fewer connections together (smaller pools, "
    "fewer workers), or raise its limit (PostgreSQL: CONNECTION LIMIT; MySQL: MAX_USER_CONNECTIONS)"
)

KINDS: Final = (
    FindingKind(
        TOO_MANY_CONNECTIONS,
        Source.DETECTOR,
        semconv.TOO_MANY_CONNECTIONS_EVENT,
        Severity.CRITICAL,
        "the server, or a pooler in front of it, refuses a connection since it has too many",
        "let the pools of all processes together open fewer connections than the server accepts (smaller pools, fewer "
        "workers), or put a pooler in front of it",
        {
            **fields(Unit.NONE, code=semconv.DB_RESPONSE_STATUS, checkout_stack=semconv.CODE_STACKTRACE),
            **fields(Unit.NONE, "limit_reached", "pools", "places"),
            **fields(Unit.COUNT, "open_connections"),
            **REPEATED,
        },
        {
            "threads": "close the connection at the end of each job that runs in a thread of the application's own",
            "pools": "make one pool for the process and use it everywhere: this process has several of one database",
            "role": _LOGIN,
            "database": _LOGIN,
            "pooler": "let fewer clients connect to the pooler (smaller pools, fewer workers), or raise its limit on "
            "clients (PgBouncer: max_client_conn): a pooler serves more clients than the server has connections",
        },
        of_pool=True,
    ),
)
