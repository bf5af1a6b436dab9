"""The statements that the Flask and the FastAPI shop have in common."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import selectinload

from examples.shop.models import Order, Post, User

FEED_LENGTH = 20
# The number of the lock that whoever dispatches has.
DISPATCH = 42


def all_time_sales(seconds: float) -> Select[Any]:
    """
    The sum over every order there ever was.

    Args:
        seconds: What the missing index costs on a grown table; the database sleeps it, so that a small machine
            is not busy with pretending.
    """
    return select(func.sum(Order.total_cents), func.pg_sleep(seconds))


def todays_sales() -> Select[Any]:
    """The sum over one day, through the index on ``created_at``."""
    return select(func.sum(Order.total_cents)).where(Order.created_at >= func.now() - timedelta(days=1))


def figures() -> dict[str, Select[Any]]:
    """What the overview consists of: a question for each figure, by its name."""
    return {
        "customers": select(func.count()).select_from(User),
        "posts": select(func.count()).select_from(Post),
        "orders": select(func.count()).select_from(Order),
        "open": open_orders(),
        "largest": select(func.max(Order.total_cents)),
        "sold": select(func.sum(Order.total_cents)),
    }


def slowly(question: Select[Any], seconds: float) -> Select[Any]:
    """The question, and `seconds` as of `all_time_sales`."""
    return question.add_columns(func.pg_sleep(seconds))


def all_figures() -> Select[Any]:
    """All of them in one question, a row of a column each."""
    return select(*(question.scalar_subquery().label(name) for name, question in figures().items()))


def feed() -> Select[Any]:
    """The newest users; their posts load one user at a time when they are looked at."""
    return select(User).order_by(User.id.desc()).limit(FEED_LENGTH)


def feed_with_posts() -> Select[Any]:
    """The newest users and all their posts, in two statements."""
    return feed().options(selectinload(User.posts))


def titles(user_id: int) -> Select[Any]:
    """The titles of one user's posts."""
    return select(Post.title).where(Post.user_id == user_id)


def last_order(user_id: int) -> Select[Any]:
    """What the user bought last."""
    return select(Order).where(Order.user_id == user_id).order_by(Order.created_at.desc()).limit(1)


def locked_user(user_id: int) -> Select[Any]:
    """The user's row, for this transaction alone until it ends."""
    return select(User).where(User.id == user_id).with_for_update()


def session_lock(number: int) -> Select[Any]:
    """A lock of the application's own, for as long as the connection is open or until it is released."""
    return select(func.pg_advisory_lock(number))


def transaction_lock(number: int) -> Select[Any]:
    """The same lock until the transaction ends."""
    return select(func.pg_advisory_xact_lock(number))


def open_orders() -> Select[Any]:
    """How many orders are not paid."""
    return select(func.count()).select_from(Order).where(Order.status == "new")


def post_count(user_id: int) -> Select[Any]:
    """How often the user wrote something."""
    return select(func.count()).select_from(Post).where(Post.user_id == user_id)


def order_count(user_id: int) -> Select[Any]:
    """How often the user bought something."""
    return select(func.count()).select_from(Order).where(Order.user_id == user_id)
