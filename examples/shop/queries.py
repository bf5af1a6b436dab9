"""The statements that the Flask and the FastAPI shop have in common."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import selectinload

from examples.shop.models import Order, Post, User

FEED_LENGTH = 20


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


def order_count(user_id: int) -> Select[Any]:
    """How often the user bought something."""
    return select(func.count()).select_from(Order).where(Order.user_id == user_id)
