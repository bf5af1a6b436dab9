"""The line that waits for what asgiref runs in a thread: asynchronous Django has it for every query."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from poolscope.core.location import locate
from poolscope.core.origin import CALLED_FROM, Origins
from poolscope.core.pool_registry import PoolRegistry
from poolscope.frameworks.registry import Frameworks, load
from tests.support.pools import Source, identity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from poolscope.core.pool import Pool

BOUNDS = (1.0,)


def query_of(pool: Pool) -> Callable[[], tuple[Any, Any]]:
    """A library's function that checks out and queries: where either was asked for."""
    source = (
        "import sys\n"
        "def ask():\n    return pool.checkout()\n"
        "def query():\n    return ask().origin[0], pool.locate(sys._getframe())\n"
    )
    made: dict[str, Any] = {"__name__": "django.db.models.query", "pool": pool}
    exec(compile(source, json.__file__, "exec"), made)
    return made["query"]  # type: ignore[no-any-return]


@pytest.fixture
def pool_registry() -> Iterator[PoolRegistry]:
    """Asgiref, hooked."""
    made = PoolRegistry(BOUNDS, origins=Origins(3))
    boundaries = Frameworks(made, hooks=load(("asgiref",)))
    boundaries.start()
    yield made
    boundaries.stop()


@pytest.fixture
def query(pool_registry: PoolRegistry) -> Callable[[], tuple[Any, Any]]:
    """Asks a pool, without a frame of the application's."""
    return query_of(pool_registry.register(identity("shop"), Source(8)))


async def view(query: Callable[[], Any]) -> Any:
    """An asynchronous view."""
    return await sync_to_async(query)()  # here


async def wait(coroutine: Awaitable[Any]) -> Any:
    """A coroutine function around a coroutine."""
    return await coroutine


def the_line() -> tuple[str, int]:
    """Where the view waits."""
    lines, first = inspect.getsourcelines(view)
    (offset,) = [number for number, line in enumerate(lines) if "# here" in line]
    return __file__, first + offset


@pytest.mark.parametrize("run", [asyncio.run, async_to_sync(wait)])
def test_who_waits_is_the_place(query: Callable[[], Any], run: Callable[[Awaitable[Any]], Any]) -> None:
    """For checkouts and for queries; under ASGI, and under WSGI, where the thread is the request's own."""
    for code, index in run(view(query)):
        place = locate(code, index)
        assert (place.file, place.line) == the_line()


def test_what_the_application_runs_there_itself_is_the_place(query: Callable[[], Any]) -> None:
    """A frame of the application's in the thread is nearer."""

    def own() -> Any:
        return query()

    for code, _ in asyncio.run(view(own)):
        assert code is own.__code__


def test_dormant_or_not_hooked_it_is_not_looked_for(pool_registry: PoolRegistry, query: Callable[[], Any]) -> None:
    """The bad case: nothing leads from the thread to the view."""
    pool_registry.dormant = True
    assert all(locate(*place).file != __file__ for place in asyncio.run(view(query)))


def test_nothing_is_kept_after_the_call(query: Callable[[], Any]) -> None:
    """Neither in the context of the coroutine nor of anything that it holds; nor where the call fails."""

    class Thing:
        pass

    def fail() -> None:
        query()
        raise ArithmeticError

    async def holds() -> tuple[Any, weakref.ref[Thing]]:
        thing = Thing()
        await sync_to_async(query)()
        with pytest.raises(ArithmeticError):
            await sync_to_async(fail)()
        await sync_to_async(int)()  # the one thread is done with what failed, and with its traceback
        return CALLED_FROM.get(), weakref.ref(thing)

    asked, thing = asyncio.run(holds())
    gc.collect()
    assert asked == ()
    assert thing() is None
    assert CALLED_FROM.get() == ()
