"""What the page of `pool_per_request` shows: an engine for each request, and one for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine


def athletes_of_an_engine_each(url: URL) -> int:
    """An engine for each request: each has a pool and a connection of its own."""
    sessions = sessionmaker(create_engine(url))
    with sessions() as session:
        return int(session.execute(text("select 7")).scalar_one())


def athletes_of_one_engine(engine: Engine) -> int:
    """The engine of the process, which was made at import."""
    with Session(engine) as session:
        return int(session.execute(text("select 7")).scalar_one())
