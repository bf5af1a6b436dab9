"""N+1 through a real ORM: who loads lazily is found, with the application's line and the fix; eager loading is not."""
# ruff: noqa: D103 - what the ORM is made to do is named for it

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import httpx
import jinja2
import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, String, create_engine, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)

from poolscope.adapters.sqlalchemy.loaders import EAGER, EXPIRED, LAZY
from poolscope.api import expected_repetition, unit_of_work
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.location import locate
from tests.support.telemetry import instrumented

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding
    from tests.support.telemetry import Telemetry

AUTHORS, POSTS = 8, 3


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "orm_authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    biography: Mapped[str] = mapped_column(String, deferred=True, default="long")
    posts: Mapped[list[Post]] = relationship(back_populates="author")


class Post(Base):
    __tablename__ = "orm_posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("orm_authors.id"))
    title: Mapped[str]
    author: Mapped[Author] = relationship(back_populates="posts")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('orm') / 'shop.db'}"
    database: Postgres = request.getfixturevalue("database")
    return database.dsn.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """The authors and their posts."""
    made = create_engine(url)
    Base.metadata.drop_all(made)
    Base.metadata.create_all(made)
    with Session(made) as session, session.begin():
        session.add_all(
            Author(name=f"author {n}", posts=[Post(title=f"post {m}") for m in range(POSTS)]) for n in range(AUTHORS)
        )
    yield made
    made.dispose()


@pytest.fixture
def found(found: list[Finding]) -> Iterator[list[Finding]]:
    """Poolscope, on, and what it finds."""
    for telemetry in instrumented(finding_interval=0, long_hold_threshold=60, exhaustion_threshold=0):
        yield _Flushed(telemetry, found)


class _Flushed(list[Any]):
    """The findings; looked at, the background thread's work is done first."""

    def __init__(self, telemetry: Telemetry, findings: list[Finding]) -> None:
        self._telemetry = telemetry
        self._findings = findings

    def __iter__(self) -> Iterator[Finding]:
        self._telemetry.instrumentor.flush()
        return iter(list(self._findings))


# What must be found ---------------------------------------------------------------------------------------------------


def a_lazy_collection(session: Session) -> None:
    for author in session.scalars(select(Author)):
        str(author.posts)  # here


def a_lazy_object(session: Session) -> None:
    for post in session.scalars(select(Post)).all():
        post.author.name.upper()  # here


def a_deferred_column(session: Session) -> None:
    for author in session.scalars(select(Author)).all():
        author.biography.upper()  # here


def objects_that_expired(session: Session) -> None:
    authors = session.scalars(select(Author)).all()
    session.commit()
    for author in authors:
        author.name.upper()  # here


def eager_loading_in_small_chunks(session: Session) -> None:
    authors = select(Author).options(selectinload(Author.posts)).execution_options(yield_per=1)
    for author in session.scalars(authors):  # here
        str(author.posts)


def a_query_in_a_loop(session: Session) -> None:
    for number in range(AUTHORS):
        session.scalars(select(Post).where(Post.author_id == number)).all()  # here


def get_in_a_loop(session: Session) -> None:
    for number in range(AUTHORS):
        session.get(Author, number + 1)  # here


def text_in_a_loop(session: Session) -> None:
    for number in range(AUTHORS):
        session.execute(text(f"select title from orm_posts where author_id = {number}"))  # here


def a_commit_for_each_row(session: Session) -> None:
    for number in range(AUTHORS):
        session.execute(insert(Author).values(name=f"new {number}", biography=""))  # here
        session.commit()


@pytest.mark.parametrize(
    ("work", "loader", "fix"),
    [
        (a_lazy_collection, LAZY.name, "selectinload"),
        (a_lazy_object, LAZY.name, "joinedload"),
        (a_deferred_column, LAZY.name, "undefer"),
        (objects_that_expired, EXPIRED.name, "expire_on_commit=False"),
        (eager_loading_in_small_chunks, EAGER.name, "yield_per"),
        (a_query_in_a_loop, None, "WHERE ... IN"),
        (get_in_a_loop, None, "WHERE ... IN"),
        (text_in_a_loop, None, "WHERE ... IN"),
        (a_commit_for_each_row, None, "executemany"),
    ],
)
def test_the_loop_is_found_with_its_line_and_its_fix(
    engine: Engine, found: list[Finding], work: Callable[[Session], None], loader: str | None, fix: str
) -> None:
    """The application's line, not the ORM's; exactly once."""
    with unit_of_work(work.__name__), Session(engine) as session:
        work(session)
    (finding,) = found
    assert finding.id == N_PLUS_ONE
    assert finding.evidence["repetitions"] == AUTHORS
    assert finding.evidence.get("loader") == loader
    assert fix in finding.fix
    lines, first = inspect.getsourcelines(work)
    (offset,) = [number for number, line in enumerate(lines) if "# here" in line]
    assert finding.origin is not None
    place = locate(*finding.origin)
    assert (place.file, place.line) == (__file__, first + offset)


def test_a_loop_in_a_template_has_the_templates_line(engine: Engine, found: list[Finding], tmp_path: Path) -> None:
    """Not the line of the code that Jinja compiles it to; and the fix is that for a lazy load."""
    source = "<ul>\n{% for author in authors %}\n\n<li>{{ author.posts | length }}</li>\n{% endfor %}\n</ul>\n"
    (tmp_path / "authors.html").write_text(source)
    template = jinja2.Environment(loader=jinja2.FileSystemLoader(tmp_path), autoescape=True).get_template(
        "authors.html"
    )
    with unit_of_work("page"), Session(engine) as session:
        assert template.render(authors=session.scalars(select(Author)).all()).count("<li>") == AUTHORS
    (finding,) = found
    assert finding.evidence["loader"] == LAZY.name
    assert finding.origin is not None
    place = locate(*finding.origin)
    assert (place.file, place.line) == (str(tmp_path / "authors.html"), 4)
    assert "authors.html:4" in finding.summary


class Title(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    title: str


class Written(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    name: str
    posts: list[Title]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_loop_in_a_serializer_has_its_fix(engine: Engine, found: list[Finding], asynchronous: bool) -> None:
    """
    FastAPI makes the response after the route has returned, where no frame of the application is left: the place is the
    serializer's, never poolscope's own, and the fix is that for a lazy load.
    """
    application = FastAPI()

    def session() -> Iterator[Session]:
        with Session(engine) as made:
            yield made

    if asynchronous:

        @application.get("/authors", response_model=list[Written])
        async def authors(session: Session = Depends(session)) -> Any:  # noqa: B008, FAST002 - it is local
            return session.scalars(select(Author)).all()

    else:

        @application.get("/authors", response_model=list[Written])
        def authors(session: Session = Depends(session)) -> Any:  # noqa: B008, FAST002 - it is local
            return session.scalars(select(Author)).all()

    async def get() -> int:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return (await client.get("/authors")).status_code

    assert asyncio.run(get()) == 200
    (finding,) = found
    assert str(finding.unit) == "http GET /authors"
    assert finding.evidence["loader"] == LAZY.name
    assert "selectinload" in finding.fix
    assert finding.origin is not None
    if not asynchronous:  # the client's frames lie around an asynchronous route
        assert any(package in locate(*finding.origin).file for package in ("fastapi", "pydantic"))


# What must not --------------------------------------------------------------------------------------------------------


def eager_collections(session: Session) -> None:
    for author in session.scalars(select(Author).options(selectinload(Author.posts))):
        str(author.posts)


def joined_objects(session: Session) -> None:
    for post in session.scalars(select(Post).options(joinedload(Post.author))).all():
        post.author.name.upper()


def eager_loading_in_chunks(session: Session) -> None:
    session.execute(insert(Author), [{"name": "many", "biography": ""} for _ in range(4_000)])
    authors = session.scalars(select(Author).options(selectinload(Author.posts))).all()
    assert len(authors) == AUTHORS + 4_000


def objects_that_do_not_expire(session: Session) -> None:
    session.expire_on_commit = False
    authors = session.scalars(select(Author)).all()
    session.commit()
    for author in authors:
        author.name.upper()


def a_bulk_insert(session: Session) -> None:
    session.add_all(Author(name=f"new {number}", biography="") for number in range(10_000))
    session.flush()


def many_rows_in_chunks(session: Session) -> None:
    for _ in range(20):
        session.execute(insert(Author).values([{"name": "new", "biography": ""} for _ in range(50)]))


def many_parameters_in_chunks(session: Session) -> None:
    for _ in range(20):
        session.execute(insert(Author), [{"name": "new", "biography": ""} for _ in range(50)])


def a_stream(session: Session) -> None:
    rows = session.scalars(select(Post).execution_options(yield_per=2))
    assert len(list(rows)) == AUTHORS * POSTS


def pages(session: Session) -> None:
    for page in range(AUTHORS):
        session.scalars(select(Author).order_by(Author.id).limit(1).offset(page)).all()


def pages_by_key(session: Session) -> None:
    last = 0
    for _ in range(AUTHORS):
        last = session.scalars(select(Author.id).where(Author.id > last).order_by(Author.id).limit(2)).all()[0]


def savepoints(session: Session) -> None:
    for _ in range(20):
        with session.begin_nested():
            pass


def an_annotated_loop(session: Session) -> None:
    with expected_repetition("it waits for the provider"):
        for _ in range(20):
            session.execute(text("select name from orm_authors where id = 1"))


@pytest.mark.parametrize(
    "work",
    [
        eager_collections,
        joined_objects,
        eager_loading_in_chunks,
        objects_that_do_not_expire,
        a_bulk_insert,
        many_rows_in_chunks,
        many_parameters_in_chunks,
        a_stream,
        pages,
        pages_by_key,
        savepoints,
        an_annotated_loop,
    ],
)
def test_what_is_no_loop_over_queries_is_not_found(
    engine: Engine, found: list[Finding], work: Callable[[Session], None]
) -> None:
    """The repaired twins, batches, streams, pages, savepoints and what is annotated."""
    with unit_of_work(work.__name__), Session(engine) as session:
        work(session)
    assert [finding.summary for finding in found] == []


def test_asynchronous_sessions_too(url: str, engine: Engine, found: list[Finding]) -> None:
    """The line is that of the coroutine, on the other side of the greenlet; also for a lazy load inside it."""
    asynchronous = create_async_engine(url.replace("sqlite://", "sqlite+aiosqlite://"))

    async def main() -> None:
        with unit_of_work("loop"):
            async with AsyncSession(asynchronous) as session:
                for number in range(AUTHORS):
                    await session.scalars(select(Post).where(Post.author_id == number))  # the query
        with unit_of_work("lazy"):
            async with AsyncSession(asynchronous) as session:
                for author in (await session.scalars(select(Author))).all():
                    await session.run_sync(lambda _, author=author: list(author.posts))  # the load
        with unit_of_work("eager"):
            async with AsyncSession(asynchronous) as session:
                await session.scalars(select(Author).options(selectinload(Author.posts)))
        await asynchronous.dispose()

    asyncio.run(main())
    loop, lazy = found
    lines, first = inspect.getsourcelines(test_asynchronous_sessions_too)
    for finding, words, loader in ((loop, "# the query", None), (lazy, "# the load", LAZY.name)):
        (offset,) = [number for number, line in enumerate(lines) if words in line and "in (" not in line]
        assert finding.origin is not None
        assert locate(*finding.origin).line == first + offset
        assert finding.evidence.get("loader") == loader
