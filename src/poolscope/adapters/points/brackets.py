"""
How a function of a library is bracketed: plain, a coroutine function, or a plain function that
returns a coroutine.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.connects import PENDING_CHECKOUT
from poolscope.adapters.leases import defer, recover
from poolscope.core.libraries import is_within

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from types import FrameType

    from poolscope.adapters.base import PointAdapter
    from poolscope.types import LibraryObject

    Function = Callable[..., Any]
    Arguments = tuple[Any, ...]
    Before = Callable[[LibraryObject, Arguments, dict[str, Any]], Any]
    After = Callable[[Any, LibraryObject, BaseException | None], None]

# Frames walked in search of a library's function. Between it and a hook lie the library's own functions and whatever
# else wraps them.
_MOST_FRAMES: Final = 15


def fit(
    original: Function, plain: Callable[[Function], Function], coroutine: Callable[[Function], Function]
) -> Function:
    """
    The hook that fits a function. What the application sees of it stays as it was: a coroutine function is one, and a
    plain function that returns a coroutine refuses at the call what it refused at the call.

    Args:
        original: The library's function.
        plain: Makes the hook of a plain function.
        coroutine: Makes the hook of a coroutine function; its bracket begins when the coroutine is awaited.
    """
    if inspect.iscoroutinefunction(original):
        return coroutine(original)
    if not inspect.iscoroutinefunction(inspect.unwrap(original)):
        return plain(original)

    def call(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        awaitable = original(self_, *args, **kwargs)
        if not inspect.iscoroutine(awaitable):
            return awaitable
        return coroutine(lambda *_, **__: awaitable)(self_, *args, **kwargs)

    return call


def precede(original: Function, do: Callable[[LibraryObject], None]) -> Function:
    """
    Do something with the object before a function. For hot points.

    Args:
        original: The library's function.
        do: Gets the object; it guards itself. An interrupt that it passes on ends the call after the function.
    """
    return fit(original, lambda function: _preceded(function, do), lambda function: _preceded_coroutine(function, do))


def bracket(adapter: PointAdapter, component: str, original: Function, before: Before, after: After) -> Function:
    """
    Do something before and after a function. For cold points.

    Args:
        adapter: It does nothing any more once the adapter was released, though another library's wrapper may have kept
            it in place.
        component: What an error of ours is counted as.
        original: The library's function.
        before: Gets the object and the call's arguments; returns a state, or None to leave this call alone.
        after: Gets the state, the result and the exception; one of the two is None.
    """
    pool_registry = adapter.pool_registry

    def begin(hooked: LibraryObject, args: Arguments, kwargs: dict[str, LibraryObject]) -> LibraryObject:
        if adapter.pool_registry is not pool_registry:
            return None
        try:
            return before(hooked, args, kwargs)
        except Exception:  # noqa: BLE001 - ours
            failed()
            return None

    def end(state: LibraryObject, result: LibraryObject, error: BaseException | None) -> None:
        try:
            after(state, result, error)
        except BaseException:  # noqa: BLE001 - ours, or a signal handler's
            lease = PENDING_CHECKOUT.get() if error is None else None
            if lease is not None and lease.acquired_at is None and lease.ended_at is None:
                defer(component, lease)
            else:
                failed()

    def failed() -> None:  # where the adapter was released, the marks went with it
        recover(component, None, ended=adapter.pool_registry is not pool_registry)

    return fit(
        original, lambda function: _plain(function, begin, end), lambda function: _coroutine(function, begin, end)
    )


def _plain(original: Function, begin: Before, end: After) -> Function:
    def call(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        state = begin(self_, args, kwargs)
        if state is None:
            return original(self_, *args, **kwargs)
        try:
            result = original(self_, *args, **kwargs)
        except BaseException as error:
            end(state, None, error)
            raise
        end(state, result, None)
        return result

    return call


def _coroutine(original: Function, begin: Before, end: After) -> Function:
    async def call(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        state = begin(self_, args, kwargs)
        if state is None:
            return await original(self_, *args, **kwargs)
        try:
            result = await original(self_, *args, **kwargs)
        except BaseException as error:
            end(state, None, error)
            raise
        end(state, result, None)
        return result

    return call


def _preceded(original: Function, do: Callable[[LibraryObject], None]) -> Function:
    def call(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        try:
            do(self_)
        except BaseException:  # a signal handler's, perhaps before the first step: all is done, once, all the same
            with contextlib.suppress(BaseException):
                do(self_)
            original(self_, *args, **kwargs)
            raise
        return original(self_, *args, **kwargs) if args or kwargs else original(self_)

    return call


def _preceded_coroutine(original: Function, do: Callable[[LibraryObject], None]) -> Function:
    async def call(self_: LibraryObject, /, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        try:
            do(self_)
        except BaseException:
            with contextlib.suppress(BaseException):
                do(self_)
            await original(self_, *args, **kwargs)
            raise
        return await (original(self_, *args, **kwargs) if args or kwargs else original(self_))

    return call


def nothing(*_: object) -> None:
    """For a bracket with one end."""


def library_frames(modules: tuple[str, ...], names: Container[str] | None = None) -> Iterator[FrameType]:
    """
    The frames of a library that are running, the innermost first; other libraries' wrappers may lie between. Cold.

    Args:
        modules: The names of its packages, or modules.
        names: Those of the functions that are wanted; all when left out.
    """
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        if frame is None:
            return
        if (names is None or frame.f_code.co_name in names) and is_within(
            str(frame.f_globals.get("__name__", "")), modules
        ):
            yield frame
        frame = frame.f_back
