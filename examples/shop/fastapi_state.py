"""What the FastAPI shop has made when it started, as its routes get it."""

from __future__ import annotations

from fastapi import Request  # noqa: TC002 - FastAPI reads the annotations of dependencies
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine  # noqa: TC002

from examples.shop.news import News  # noqa: TC001
from examples.shop.payments import Payments  # noqa: TC001
from examples.shop.settings import Settings  # noqa: TC001


def engine(request: Request) -> AsyncEngine:
    """The engine of the running application."""
    return request.app.state.engine  # type: ignore[no-any-return]


def payments(request: Request) -> Payments:
    """The payment provider of the running application."""
    return request.app.state.payments  # type: ignore[no-any-return]


def settings(request: Request) -> Settings:
    """The settings of the running application."""
    return request.app.state.settings  # type: ignore[no-any-return]


def news(request: Request) -> News:
    """The listener of the running application."""
    return request.app.state.news  # type: ignore[no-any-return]


async def synchronous_engine(request: Request) -> Engine:
    """The engine for routes that are plain functions; made when the first one wants it, in the event loop: once."""
    state = request.app.state
    if not hasattr(state, "synchronous_engine"):
        made = settings(request)
        state.synchronous_engine = create_engine(
            made.sqlalchemy_url,
            pool_size=made.pool_size,
            max_overflow=made.max_overflow,
            pool_timeout=made.pool_timeout,
            pool_recycle=made.pool_recycle,
            pool_logging_name="invoices",
        )
    return state.synchronous_engine  # type: ignore[no-any-return]
