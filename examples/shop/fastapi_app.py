"""The shop in FastAPI, asynchronous from end to end. Each cause is followed by its repaired form (``/fixed/...``)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from examples.shop import fastapi_tasks, queries
from examples.shop.fastapi_state import engine, payments, settings
from examples.shop.models import Order, User
from examples.shop.news import News
from examples.shop.payments import Payments
from examples.shop.settings import Settings

Json = dict[str, Any]
PRICE_CENTS = 1999

shop = APIRouter()


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application and its engine."""
    settings = settings or Settings.from_environment()
    app = FastAPI(title="shop")
    app.state.settings = settings
    app.state.engine = create_async_engine(
        settings.sqlalchemy_url,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout=settings.pool_timeout,
        pool_recycle=settings.pool_recycle,
        pool_logging_name="shop",
    )
    app.state.payments = Payments(settings.payment_url)
    app.state.carts = {}
    app.state.news = News(settings.dsn)
    app.include_router(shop)
    app.include_router(fastapi_tasks.routes)
    app.add_exception_handler(PoolTimeoutError, busy)
    return app


async def busy(_request: Request, _error: Exception) -> JSONResponse:
    """Answer a request that got no connection."""
    return JSONResponse({"error": "busy"}, 503)


@shop.get("/users/{user_id}")
async def show_user(request: Request, user_id: int) -> Json:
    """Healthy: one short session, one indexed query."""
    async with AsyncSession(engine(request)) as session:
        user = await session.get_one(User, user_id)
        return {"name": user.name}


@shop.get("/reports/sales")
async def sales(request: Request) -> Json:
    """A slow query while a customer waits."""
    async with AsyncSession(engine(request)) as session:
        cents = await session.scalar(queries.all_time_sales(settings(request).slow_seconds))
        return {"cents": cents}


@shop.get("/fixed/reports/sales")
async def sales_fixed(request: Request) -> Json:
    """The part that the customer looks at, through an index."""
    async with AsyncSession(engine(request)) as session:
        return {"cents": await session.scalar(queries.todays_sales())}


@shop.get("/feed")
async def feed(request: Request) -> Json:
    """N+1: one query for the users, then one for the posts of each."""
    async with AsyncSession(engine(request)) as session:
        page = {}
        for user in (await session.scalars(queries.feed())).all():
            titles = await session.scalars(queries.titles(user.id))
            page[user.name] = list(titles)
        return page


@shop.get("/fixed/feed")
async def feed_fixed(request: Request) -> Json:
    """The same page from two queries."""
    async with AsyncSession(engine(request)) as session:
        users = await session.scalars(queries.feed_with_posts())
        return {user.name: [post.title for post in user.posts] for user in users}


@shop.post("/checkout/{user_id}")
async def checkout(request: Request, user_id: int) -> Json:
    """A transaction that stays open while the payment provider thinks."""
    async with AsyncSession(engine(request)) as session, session.begin():
        order = Order(user_id=user_id, total_cents=PRICE_CENTS, status="new")
        session.add(order)
        await session.flush()
        receipt = await payments(request).charge_async(PRICE_CENTS)
        order.status = "paid"
        return {"receipt": receipt}


@shop.post("/fixed/checkout/{user_id}")
async def checkout_fixed(request: Request, user_id: int) -> Json:
    """The provider first, then one short transaction."""
    receipt = await payments(request).charge_async(PRICE_CENTS)
    async with AsyncSession(engine(request)) as session, session.begin():
        session.add(Order(user_id=user_id, total_cents=PRICE_CENTS, status="paid"))
    return {"receipt": receipt}


@shop.post("/redeem/{user_id}")
async def redeem(request: Request, user_id: int) -> Json:
    """A customer's row stays locked while the payment provider thinks."""
    async with AsyncSession(engine(request)) as session, session.begin():
        (await session.scalars(queries.locked_user(user_id))).one()
        receipt = await payments(request).charge_async(-PRICE_CENTS)
        session.add(Order(user_id=user_id, total_cents=-PRICE_CENTS, status="redeemed"))
        return {"receipt": receipt}


@shop.post("/fixed/redeem/{user_id}")
async def redeem_fixed(request: Request, user_id: int) -> Json:
    """The provider first; the row is locked for as long as it takes to write."""
    receipt = await payments(request).charge_async(-PRICE_CENTS)
    async with AsyncSession(engine(request)) as session, session.begin():
        (await session.scalars(queries.locked_user(user_id))).one()
        session.add(Order(user_id=user_id, total_cents=-PRICE_CENTS, status="redeemed"))
    return {"receipt": receipt}


@shop.get("/cart/{user_id}")
async def cart(request: Request, user_id: int) -> Json:
    """A session kept for the customer's next visit; it is never closed when there is none."""
    session = request.app.state.carts.setdefault(user_id, AsyncSession(engine(request)))
    order = (await session.scalars(queries.last_order(user_id))).one()
    return {"again": order.total_cents}


@shop.get("/fixed/cart/{user_id}")
async def cart_fixed(request: Request, user_id: int) -> Json:
    """The session ends with the block."""
    async with AsyncSession(engine(request)) as session:
        order = (await session.scalars(queries.last_order(user_id))).one()
        return {"again": order.total_cents}


@shop.get("/profile/{user_id}")
async def profile(request: Request, user_id: int) -> Json:
    """A second connection, checked out while the first is held."""
    async with AsyncSession(engine(request)) as session:
        name = await session.scalar(select(User.name).where(User.id == user_id))
        async with AsyncSession(engine(request)) as second:
            orders = await second.scalar(queries.order_count(user_id))
        return {"name": name, "orders": orders}


@shop.get("/fixed/profile/{user_id}")
async def profile_fixed(request: Request, user_id: int) -> Json:
    """Both questions on one connection."""
    async with AsyncSession(engine(request)) as session:
        name = await session.scalar(select(User.name).where(User.id == user_id))
        orders = await session.scalar(queries.order_count(user_id))
        return {"name": name, "orders": orders}


@shop.post("/dispatch")
async def dispatch(request: Request) -> Json:
    """One dispatch at a time: by a lock of the connection, which outlives the transaction and is not released."""
    async with AsyncSession(engine(request)) as session, session.begin():
        await session.execute(queries.session_lock(queries.DISPATCH))
        return {"open": await session.scalar(queries.open_orders())}


@shop.post("/fixed/dispatch")
async def dispatch_fixed(request: Request) -> Json:
    """The same lock, which ends with the transaction."""
    async with AsyncSession(engine(request)) as session, session.begin():
        await session.execute(queries.transaction_lock(queries.DISPATCH))
        return {"open": await session.scalar(queries.open_orders())}
