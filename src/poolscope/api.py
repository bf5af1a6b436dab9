"""
What applications declare to poolscope: where a unit of work begins and ends, which long holds and repetitions are
intended, and what pools are called.

Everything here works without `instrument()`, and then does nothing.
"""

from __future__ import annotations

import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from poolscope.core.execution import running_task, running_thread
from poolscope.core.guard import guard
from poolscope.core.pool_identity import POOL_NAME
from poolscope.core.pool_registry import open_pool_registries
from poolscope.core.sql.repetition import EXPECTED_REPETITION
from poolscope.core.stepping import async_stepping, stepping
from poolscope.core.work import EXPECTED_LONG_HOLD
from poolscope.core.work_scope import begin
from poolscope.names import safe

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar, Token
    from types import TracebackType

    from poolscope.core.work_scope import WorkScope
    from poolscope.types import LibraryObject

_logger: Final = logging.getLogger("poolscope")

_Function = TypeVar("_Function", bound="Callable[..., Any]")

KINDS: Final = ("http", "task", "rpc", "job")


class unit_of_work:  # noqa: N801 - it reads as a statement
    """
    A unit of work: leases and queries inside belong to it.

    ``with unit_of_work("nightly-import"):``, ``async with``, or as a decorator of functions, coroutine functions and
    generators of both kinds; of those, only the steps are inside. Inside another unit of work it is a unit of its own:
    what runs inside it does not belong to the outer one.

    Args:
        name: The job's name, never with an id in it: the number of different names is limited. One that may hold a
            login, as a URL may, is not used.
        kind: `http`, `task`, `rpc` or `job`; anything else counts as `job`, with a warning.
    """

    def __init__(self, name: str, kind: str = "job") -> None:
        self._name = safe(str(name))
        self._kind = kind
        self._work_scopes: list[WorkScope | None] = []
        if kind not in KINDS:
            _logger.warning(
                "unit_of_work(%r, kind=%r): unknown kind, using 'job'; the kinds are: %s",
                self._name,
                safe(kind) if type(kind) is str else type(kind),
                ", ".join(KINDS),
            )
            self._kind = "job"

    def __enter__(self) -> None:
        self._work_scopes.append(self._begin())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        work_scope = self._work_scopes.pop()
        if work_scope is None:
            return
        if kind is GeneratorExit:  # a coroutine is dropped half-way, perhaps by the garbage collector
            work_scope.end_in_collection()
        else:
            work_scope.end()

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: _Function) -> _Function:
        """Make each call of a function a unit of work."""
        if inspect.isasyncgenfunction(function):
            call = async_stepping(self._begin, function)
        elif inspect.isgeneratorfunction(function):
            call = stepping(self._begin, function)
        elif inspect.iscoroutinefunction(function):
            call = self._coroutine(function)
        else:
            call = self._function(function)
        return cast("_Function", functools.wraps(function)(call))

    def _begin(self) -> WorkScope | None:
        return (
            begin(open_pool_registries[-1], self._kind, self._name, outermost=False) if open_pool_registries else None
        )

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            with unit_of_work(self._name, self._kind):
                return function(*args, **kwargs)

        return call

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            with unit_of_work(self._name, self._kind):
                return await function(*args, **kwargs)

        return call


class _Within:
    """
    A text that is in effect inside a block; of nested blocks the inner one counts.

    Args:
        variable: Holds the text inside.
        text: The text.
        on_enter: Called on entry with the text.
    """

    def __init__(self, variable: ContextVar[str | None], text: str, on_enter: Callable[[str], None]) -> None:
        self._variable = variable
        self._text = str(text)
        self._on_enter = on_enter
        self._tokens: list[Token[str | None]] = []

    def __enter__(self) -> None:
        guard.run("api.enter", lambda: self._on_enter(self._text), None)
        self._tokens.append(self._variable.set(self._text))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._variable.reset(self._tokens.pop())
        except ValueError:  # entered in another context
            self._variable.set(None)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


def expected_long_hold(why: str) -> _Within:
    """
    Declares that connections held inside a ``with`` block are no leaks, however long it takes: those checked out
    inside, and those that the running thread or task holds already.

    Args:
        why: The reason, for the reader of the code.
    """
    return _Within(EXPECTED_LONG_HOLD, why, _excuse_what_is_held)


def expected_repetition(why: str) -> _Within:
    """
    Declares that statements repeated inside a ``with`` block are no N+1: a polling loop, an import in chunks.

    Args:
        why: The reason, for the reader of the code.
    """
    return _Within(EXPECTED_REPETITION, why, _nothing)


def pool_name(name: str) -> _Within:
    """
    Names the pools that are made inside a ``with`` or ``async with`` block.

    It takes precedence over the library's own name for the pool. It distinguishes two pools to one database, as for
    reports and for orders, and two servers that are reached through one address. Of nested blocks the inner one counts.
    A second live pool of the same name gets ``#2``.

    Args:
        name: The pool's name; beyond `POOLSCOPE_MAX_POOLS` names further pools share one. One that may hold a login, as
            a URL may, is not used.
    """
    return _Within(POOL_NAME, name, _nothing)


def _excuse_what_is_held(why: str) -> None:
    thread, task = running_thread().reference, running_task()
    for pool_registry in open_pool_registries:
        for pool in tuple(pool_registry.pools.values()):
            for lease in pool.leases.copy():
                if lease.thread_reference is thread and lease.task is task and lease.excuse is None:
                    lease.excuse = why


def _nothing(_: str) -> None:
    pass
