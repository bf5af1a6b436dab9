"""The shop in Flask. Each way to run out of connections is followed by its repaired form (``/fixed/...``)."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, current_app
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from examples.shop import queries
from examples.shop.models import Order, User
from examples.shop.payments import Payments
from examples.shop.settings import Settings

Json = dict[str, Any]
PRICE_CENTS = 1999

shop = Blueprint("shop", __name__)


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application and its engine."""
    settings = settings or Settings.from_environment()
    app = Flask("shop")
    app.config["SETTINGS"] = settings
    app.extensions["engine"] = create_engine(
        settings.sqlalchemy_url,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout=settings.pool_timeout,
        pool_recycle=settings.pool_recycle,
        pool_logging_name="shop",
    )
    app.extensions["payments"] = Payments(settings.payment_url)
    app.extensions["carts"] = {}
    app.register_blueprint(shop)
    app.register_error_handler(PoolTimeoutError, busy)
    return app


def busy(_error: Exception) -> tuple[Json, int]:
    """Answer a request that got no connection."""
    return {"error": "busy"}, 503


def engine() -> Engine:
    """The engine of the running application."""
    return current_app.extensions["engine"]  # type: ignore[no-any-return]


def payments() -> Payments:
    """The payment provider of the running application."""
    return current_app.extensions["payments"]  # type: ignore[no-any-return]


def settings() -> Settings:
    """The settings of the running application."""
    return current_app.config["SETTINGS"]  # type: ignore[no-any-return]


@shop.get("/users/<int:user_id>")
def show_user(user_id: int) -> Json:
    """Healthy: one short session, one indexed query."""
    with Session(engine()) as session:
        user = session.get_one(User, user_id)
        return {"name": user.name}


@shop.get("/reports/sales")
def sales() -> Json:
    """A slow query while a customer waits."""
    with Session(engine()) as session:
        cents = session.scalar(queries.all_time_sales(settings().slow_seconds))
        return {"cents": cents}


@shop.get("/fixed/reports/sales")
def sales_fixed() -> Json:
    """The part that the customer looks at, through an index."""
    with Session(engine()) as session:
        return {"cents": session.scalar(queries.todays_sales())}


@shop.get("/feed")
def feed() -> Json:
    """N+1: one query for the users, then one for the posts of each."""
    with Session(engine()) as session:
        users = session.scalars(queries.feed())
        return {user.name: [post.title for post in user.posts] for user in users}


@shop.get("/fixed/feed")
def feed_fixed() -> Json:
    """The same page from two queries."""
    with Session(engine()) as session:
        users = session.scalars(queries.feed_with_posts())
        return {user.name: [post.title for post in user.posts] for user in users}


@shop.post("/checkout/<int:user_id>")
def checkout(user_id: int) -> Json:
    """A transaction that stays open while the payment provider thinks."""
    with Session(engine()) as session, session.begin():
        order = Order(user_id=user_id, total_cents=PRICE_CENTS, status="new")
        session.add(order)
        session.flush()
        receipt = payments().charge(order.total_cents)
        order.status = "paid"
        return {"receipt": receipt}


@shop.post("/fixed/checkout/<int:user_id>")
def checkout_fixed(user_id: int) -> Json:
    """The provider first, then one short transaction."""
    receipt = payments().charge(PRICE_CENTS)
    with Session(engine()) as session, session.begin():
        session.add(Order(user_id=user_id, total_cents=PRICE_CENTS, status="paid"))
    return {"receipt": receipt}


@shop.post("/redeem/<int:user_id>")
def redeem(user_id: int) -> Json:
    """A customer's row stays locked while the payment provider thinks."""
    with Session(engine()) as session, session.begin():
        session.scalars(queries.locked_user(user_id)).one()
        receipt = payments().charge(-PRICE_CENTS)
        session.add(Order(user_id=user_id, total_cents=-PRICE_CENTS, status="redeemed"))
        return {"receipt": receipt}


@shop.post("/fixed/redeem/<int:user_id>")
def redeem_fixed(user_id: int) -> Json:
    """The provider first; the row is locked for as long as it takes to write."""
    receipt = payments().charge(-PRICE_CENTS)
    with Session(engine()) as session, session.begin():
        session.scalars(queries.locked_user(user_id)).one()
        session.add(Order(user_id=user_id, total_cents=-PRICE_CENTS, status="redeemed"))
    return {"receipt": receipt}


@shop.get("/cart/<int:user_id>")
def cart(user_id: int) -> Json:
    """A session kept for the customer's next visit; it is never closed when there is none."""
    session = current_app.extensions["carts"].setdefault(user_id, Session(engine()))
    order = session.scalars(queries.last_order(user_id)).one()
    return {"again": order.total_cents}


@shop.get("/fixed/cart/<int:user_id>")
def cart_fixed(user_id: int) -> Json:
    """The session ends with the block."""
    with Session(engine()) as session:
        order = session.scalars(queries.last_order(user_id)).one()
        return {"again": order.total_cents}


@shop.get("/profile/<int:user_id>")
def profile(user_id: int) -> Json:
    """A second connection, checked out while the first is held."""
    with Session(engine()) as session:
        name = session.scalar(select(User.name).where(User.id == user_id))
        with Session(engine()) as second:
            orders = second.scalar(queries.order_count(user_id))
        return {"name": name, "orders": orders}


@shop.get("/fixed/profile/<int:user_id>")
def profile_fixed(user_id: int) -> Json:
    """Both questions on one connection."""
    with Session(engine()) as session:
        name = session.scalar(select(User.name).where(User.id == user_id))
        orders = session.scalar(queries.order_count(user_id))
        return {"name": name, "orders": orders}


@shop.post("/dispatch")
def dispatch() -> Json:
    """One dispatch at a time: by a lock of the connection, which outlives the transaction and is not released."""
    with Session(engine()) as session, session.begin():
        session.execute(queries.session_lock(queries.DISPATCH))
        return {"open": session.scalar(queries.open_orders())}


@shop.post("/fixed/dispatch")
def dispatch_fixed() -> Json:
    """The same lock, which ends with the transaction."""
    with Session(engine()) as session, session.begin():
        session.execute(queries.transaction_lock(queries.DISPATCH))
        return {"open": session.scalar(queries.open_orders())}


@shop.get("/archive/<int:user_id>")
def archive(user_id: int) -> Json:
    """An engine for each request, with a pool and a connection of its own."""
    archived = create_engine(settings().sqlalchemy_url)
    with Session(archived) as session:
        return {"orders": session.scalar(queries.order_count(user_id))}


@shop.get("/fixed/archive/<int:user_id>")
def archive_fixed(user_id: int) -> Json:
    """The engine that there is."""
    with Session(engine()) as session:
        return {"orders": session.scalar(queries.order_count(user_id))}
