"""What the page of `blocked_event_loop` shows: a synchronous checkout in a task, and an asynchronous one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine


async def step(engine: Engine) -> int:
    """A step of a task that another service hears of, with a session of the synchronous engine."""
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        await asyncio.sleep(0.02)  # a message to a broker
        return int(connection.execute(text("select 2")).scalar_one())


async def step_repaired(engine: AsyncEngine) -> int:
    """The same with the asynchronous engine."""
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
        await asyncio.sleep(0.02)
        return int((await connection.execute(text("select 2"))).scalar_one())


async def at_once(number: int, make: Callable[[], Coroutine[Any, Any, int]]) -> list[int | BaseException]:
    """So many steps at once: what each returned or raised."""
    return await asyncio.gather(*(make() for _ in range(number)), return_exceptions=True)
