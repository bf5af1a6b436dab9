"""
Names of units of work: of HTTP requests the method and the route's template, never the raw path; of jobs the qualified
name of a function.
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from functools import partial
from typing import TYPE_CHECKING, Final

from poolscope.core.libraries import KNOWN
from poolscope.core.work_scope import current

if TYPE_CHECKING:
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.types import LibraryObject

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


# Functions that do nothing but call another one, inside one another.
_MOST_WRAPPED: Final = 10
_CALL: Final = "__call__"


def name_of_job(pool_registry: PoolRegistry, function: LibraryObject, args: tuple[LibraryObject, ...]) -> str | None:
    """
    The name of a job of an executor.

    Args:
        pool_registry: Knows what is the application's.
        function: What runs it. Where a library hands a function of the application's to one of its own, that is
            meant.
        args: What it is called with.

    Returns:
        A qualified name; None for a call to a pool or a driver, which fetches or returns a connection for others.
    """
    inner, given = _called(function, args)
    if not _is_of_application(pool_registry, inner):
        theirs = (one for one in given if callable(one) and _is_of_application(pool_registry, one))
        inner = next(theirs, inner)
        if KNOWN.carries(str(getattr(inner, "__module__", None) or type(inner).__module__)):
            return None
    return _qualified(inner)


def name_of_runner(pool_registry: PoolRegistry, runner: LibraryObject, base: type, target: LibraryObject) -> str | None:
    """
    The name of what a thread or a process runs.

    Args:
        pool_registry: Knows what is the application's.
        runner: The thread or process.
        base: The class whose ``run`` calls the target.
        target: The target.

    Returns:
        The qualified name of the target, or of the ``run`` of a class of the application's; None for a library's, which
        runs the jobs of others.
    """
    if "run" in vars(runner):
        inner = vars(runner)["run"]
    else:
        owner = next((one for one in type(runner).__mro__ if "run" in vars(one)), base)
        theirs = owner is not base and _is_of_application(pool_registry, vars(owner)["run"])
        inner = vars(owner)["run"] if theirs else target
    inner, _ = _called(inner, vars(runner).get("_args") or ())
    return _qualified(inner) if inner is not None and _is_of_application(pool_registry, inner) else None


def _called(
    function: LibraryObject, args: tuple[LibraryObject, ...]
) -> tuple[LibraryObject, tuple[LibraryObject, ...]]:
    for _ in range(_MOST_WRAPPED):
        if isinstance(function, partial):
            function, args = function.func, (*function.args, *args)
        elif isinstance(getattr(function, "__self__", None), Context) and args:
            function, args = args[0], args[1:]
        else:
            break
    return function, args


def _is_of_application(pool_registry: PoolRegistry, function: LibraryObject) -> bool:
    return bool(pool_registry.place_of(function) or pool_registry.place_of(getattr(type(function), _CALL, None)))


def _qualified(function: LibraryObject) -> str:
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__
