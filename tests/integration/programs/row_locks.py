"""Votes for one row of a table, which is locked while a page is rendered, and the repaired form."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from sqlalchemy import Engine

_LOCKS = text("select id from annotator where id = :one for update")


class Page:
    """A page whose rendering takes until the test lets it end."""

    def __init__(self) -> None:
        self.renders = threading.Event()
        self.done = threading.Event()

    def render(self) -> None:
        """Work on it."""
        self.renders.set()
        assert self.done.wait(60)


def vote(engine: Engine, page: Page) -> int:
    """The row is locked while the page is rendered."""
    with Session(engine) as session, session.begin():
        one: int = session.scalars(_LOCKS, {"one": 1}).one()
        page.render()
        return one


def vote_repaired(engine: Engine, page: Page) -> int:
    """The page first."""
    page.render()
    with Session(engine) as session, session.begin():
        one: int = session.scalars(_LOCKS, {"one": 1}).one()
        return one


def about(engine: Engine) -> int:
    """A page that reads."""
    with Session(engine) as session:
        return session.scalars(text("select count(*) from annotator")).one()
