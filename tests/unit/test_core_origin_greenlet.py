"""The line of the application, from inside the greenlet that SQLAlchemy's asyncio runs its synchronous code in."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from poolscope.adapters.greenlets import Greenlets
from poolscope.core.location import Location, resolve
from poolscope.core.origin import Origins, stack_of
from tests.support.libraries import known


def test_the_origin_of_an_asynchronous_checkout_is_the_application() -> None:
    """The stack of the greenlet ends at its first frame; the application's coroutines are on the other side of it."""
    origins, found = Origins(2), list[tuple[Location, ...]]()
    engine = create_async_engine("sqlite+aiosqlite://")

    @event.listens_for(engine.sync_engine, "checkout")
    def checked_out(*_: object) -> None:
        found.append(resolve(stack_of(origins.capture(sys._getframe().f_back))))

    async def inner() -> AsyncConnection:
        return await engine.connect()

    async def outer() -> None:
        connection = await inner()
        await connection.execute(text("select 1"))
        await connection.close()
        await engine.dispose()

    with known(switches=Greenlets()):
        asyncio.run(outer())

    ((first, second),) = found
    assert Path(first.file) == Path(second.file) == Path(__file__)
    assert first.line == inner.__code__.co_firstlineno + 1
    assert second.line == outer.__code__.co_firstlineno + 1
