"""Causes that only tasks, worker threads and event loops bring about, each followed by its repaired form."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Engine, Select, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from examples.shop import queries
from examples.shop.fastapi_state import engine, news, payments, settings, synchronous_engine
from examples.shop.models import Order, User
from examples.shop.news import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]
PRICE_CENTS = 1999

routes = APIRouter()


async def ask(request: Request, question: Select[Any]) -> Any:  # noqa: ANN401 - whatever the question is about
    """One answer, by a session of its own."""
    async with AsyncSession(engine(request)) as session:
        return await session.scalar(question)


@routes.get("/reports/overview")
async def overview(request: Request) -> Json:
    """A fan-out: six questions at the same time, each with a session of its own."""
    figures, seconds = queries.figures(), settings(request).slow_seconds
    answers = await asyncio.gather(*(ask(request, queries.slowly(one, seconds)) for one in figures.values()))
    return dict(zip(figures, answers, strict=True))


@routes.get("/fixed/reports/overview")
async def overview_fixed(request: Request) -> Json:
    """One question for all of them."""
    question = queries.slowly(queries.all_figures(), settings(request).slow_seconds)
    async with AsyncSession(engine(request)) as session:
        answer = (await session.execute(question)).one()
    return {name: answer._mapping[name] for name in queries.figures()}  # noqa: SLF001 - SQLAlchemy's public name


@routes.get("/account/{user_id}")
async def account(request: Request, user_id: int) -> Json:
    """Tasks that check out connections, awaited by a request that holds one."""
    async with AsyncSession(engine(request)) as session:
        name = await session.scalar(select(User.name).where(User.id == user_id))
        counts = (queries.order_count(user_id), queries.post_count(user_id))
        orders, posts = await asyncio.gather(*(ask(request, count) for count in counts))
        return {"name": name, "orders": orders, "posts": posts}


@routes.get("/fixed/account/{user_id}")
async def account_fixed(request: Request, user_id: int) -> Json:
    """All questions on the connection that the request has."""
    async with AsyncSession(engine(request)) as session:
        name = await session.scalar(select(User.name).where(User.id == user_id))
        orders = await session.scalar(queries.order_count(user_id))
        posts = await session.scalar(queries.post_count(user_id))
        return {"name": name, "orders": orders, "posts": posts}


@routes.post("/refund/{user_id}")
async def refund(request: Request, user_id: int) -> Json:
    """A synchronous call in the event loop: until the payment provider answers, no other request goes on."""
    receipt = payments(request).charge(-PRICE_CENTS)
    async with AsyncSession(engine(request)) as session, session.begin():
        session.add(Order(user_id=user_id, total_cents=-PRICE_CENTS, status="refunded"))
    return {"receipt": receipt}


@routes.post("/fixed/refund/{user_id}")
async def refund_fixed(request: Request, user_id: int) -> Json:
    """An awaited call: the others go on."""
    receipt = await payments(request).charge_async(-PRICE_CENTS)
    async with AsyncSession(engine(request)) as session, session.begin():
        session.add(Order(user_id=user_id, total_cents=-PRICE_CENTS, status="refunded"))
    return {"receipt": receipt}


def open_session(engine: Annotated[Engine, Depends(synchronous_engine)]) -> Iterator[Session]:
    """A session for a request, checked out in a worker thread."""
    with Session(engine) as session:
        session.connection()
        yield session


@routes.get("/invoices/{user_id}")
def invoices(user_id: int, session: Annotated[Session, Depends(open_session)]) -> Json:
    """Needs a worker thread for the second time, with a connection in hand."""
    return {"invoices": session.scalar(queries.order_count(user_id))}


@routes.get("/fixed/invoices/{user_id}")
def invoices_fixed(user_id: int, engine: Annotated[Engine, Depends(synchronous_engine)]) -> Json:
    """Checks out and returns in one function, which one worker thread runs."""
    with Session(engine) as session:
        return {"invoices": session.scalar(queries.order_count(user_id))}


@routes.get("/news")
async def next_news(request: Request) -> Json:
    """Each customer who waits for news holds a connection of the pool for it."""
    async with engine(request).connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(f"LISTEN {CHANNEL}"))
        driver: Any = (await connection.get_raw_connection()).driver_connection
        async with contextlib.aclosing(driver.notifies()) as heard:
            said = await anext(heard)
        await connection.execute(text(f"UNLISTEN {CHANNEL}"))
        return {"news": said.payload}


@routes.get("/fixed/news")
async def next_news_fixed(request: Request) -> Json:
    """One connection of the process listens, for all who wait."""
    return {"news": await news(request).next()}
