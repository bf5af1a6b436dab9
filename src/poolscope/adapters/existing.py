"""Finding the objects of a library that were made before poolscope came."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, TypeVar

from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.types import LibraryObject

    Request = tuple[tuple[type, ...], str, Callable[[list[LibraryObject]], None]]

_Result = TypeVar("_Result")

# What adapters that start together look for; None while none of them is starting.
_requests: list[Request] | None = None


def find_existing(kinds: tuple[type, ...], component: str, found: Callable[[list[LibraryObject]], None]) -> None:
    """
    Hand over all objects of these classes and of those that inherit from them: now, or at the end of `one_walk`.

    Args:
        kinds: The classes.
        component: What an error of ours is counted as.
        found: Gets the objects.
    """
    if _requests is not None:
        _requests.append((kinds, component, found))
    else:
        _walk([(kinds, component, found)])


@contextlib.contextmanager
def one_walk() -> Iterator[None]:
    """While it runs, the requests of all adapters are put off; at its end one walk over all objects serves them."""
    global _requests  # noqa: PLW0603 - one process starts its adapters once
    requests: list[Request] = []
    _requests = requests
    try:
        yield
    finally:
        _requests = None
    if requests:
        _walk(requests)


def existing(kinds: tuple[type, ...]) -> list[LibraryObject]:
    """
    All objects of these classes and those that inherit from them: one walk, 0.1 s for 700,000 objects.

    Only for an adapter that comes after its library was imported.
    """
    matching: dict[type, bool] = {}
    found: list[LibraryObject] = []
    for thing in gc.get_objects():
        kind = type(thing)
        matches = matching.get(kind)
        if matches is None:
            matches = matching[kind] = any(base in kind.__mro__ for base in kinds)
        if matches:
            found.append(thing)
    return found


def unless_half_made(meet: Callable[[LibraryObject], _Result], thing: LibraryObject) -> _Result | None:
    """
    Call a function with an object, unless its ``__init__`` still runs in another thread: then it lacks what the
    function reads, and becomes known when it is made, or used.
    """
    try:
        return meet(thing)
    except AttributeError:
        return None


def _walk(requests: list[Request]) -> None:
    things = existing(tuple({kind for kinds, _, _ in requests for kind in kinds}))
    for kinds, component, found in requests:
        wanted = [thing for thing in things if any(base in type(thing).__mro__ for base in kinds)]
        guard.run(component, lambda found=found, wanted=wanted: found(wanted), None)  # type: ignore[misc]
