"""Names of HTTP requests: the method and the route's template, never the raw path."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from poolscope.core.work_scope import current

#: The route's name until one is known, and of requests that match none.
UNMATCHED: Final = "<unmatched>"

#: The method of websocket connections.
WEBSOCKET: Final = "WEBSOCKET"

#: The name of methods that HTTP does not define (semantic conventions, `http.request.method`).
OTHER_METHOD: Final = "_OTHER"

_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY", WEBSOCKET}
)

#: The templates of the mounts that the running code is inside.
MOUNTED_AT: Final[ContextVar[str]] = ContextVar("poolscope_mounted_at", default="")


def unmatched(method: object) -> str:
    """
    The name of a request whose route is not known.

    Args:
        method: As the client sent it.
    """
    return f"{method if method in _METHODS else OTHER_METHOD} {UNMATCHED}"


def matched(template: str) -> None:
    """
    The route is known now: the running request is named for it. The innermost of several names it.

    Args:
        template: The route's template, relative to the mounts it is inside.
    """
    unit = current()
    if unit is None or unit.kind != "http":
        return
    method, space, _ = unit.name.partition(" ")
    if space and (method in _METHODS or method == OTHER_METHOD):
        unit.name = f"{method} {MOUNTED_AT.get()}{template}"
