"""Services whose sessions live for longer than they should, and the repaired forms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator  # noqa: TC003 - FastAPI reads annotations
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection  # noqa: TC002

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

_ONE = text("select 1")


async def async_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """A session for a request or websocket."""
    async with AsyncSession(connection.app.state.engine) as session:
        yield session


def closed_early(request: Request) -> Iterator[Session]:
    """A session for a route."""
    with Session(request.app.state.engine) as session:
        yield session


def without_finally(request: Request) -> Iterator[Session]:
    """A session for a request; unless it is repaired, only one that raises nothing."""
    session = Session(request.app.state.engine)
    if not request.app.state.repaired:
        yield session
        session.close()
        return
    try:
        yield session
    finally:
        session.close()


def trust(trust_id: int, session: Annotated[Session, Depends(without_finally)]) -> int:
    """There are three."""
    if session.execute(text("select :t"), {"t": trust_id}).scalar_one() > 3:
        raise HTTPException(404)
    return trust_id


def application(engine: AsyncEngine | Engine, *, repaired: bool) -> FastAPI:
    """An application on an engine."""
    app = FastAPI()
    app.state.engine, app.state.repaired = engine, repaired
    return app


def traced(engine: AsyncEngine, *, repaired: bool) -> FastAPI:
    """A middleware keeps a session around the route, which has one of its own; repaired, the route uses that one."""
    app = application(engine, repaired=repaired)

    async def dispatch(request: Request, call_next: Callable[..., Any]) -> Any:
        async with AsyncSession(engine) as session:
            await session.execute(text("select 'begin'"))
            request.state.session = session
            response = await call_next(request)
            await session.execute(text("select 'end'"))
            return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)

    @app.get("/tools/{tool_id}")
    async def tool(tool_id: int, request: Request) -> Any:
        if repaired:
            return await request.state.session.scalar(_ONE) + tool_id
        async with AsyncSession(engine) as session:
            return await session.scalar(_ONE) + tool_id

    return app


async def _keep(session: AsyncSession) -> None:
    await session.execute(text("insert into messages values (1)"))
    await session.commit()
    await session.execute(text("select count(*) from messages"))


def chat(engine: AsyncEngine, *, repaired: bool) -> FastAPI:
    """A websocket has a session for as long as it is open; repaired, it has one for each message."""
    app = application(engine, repaired=repaired)

    @app.websocket("/ws/{room}")
    async def talk(websocket: WebSocket, session: Annotated[AsyncSession, Depends(async_session)]) -> None:
        if not repaired:
            await session.execute(text("select 'who is it'"))
        await websocket.accept()
        try:
            while True:
                words = await websocket.receive_text()
                if repaired:
                    async with AsyncSession(engine) as mine:
                        await _keep(mine)
                else:
                    await _keep(session)
                await websocket.send_text(words)
        except WebSocketDisconnect:
            pass

    @app.get("/health")
    async def health(session: Annotated[AsyncSession, Depends(async_session)]) -> Any:
        return await session.scalar(_ONE)

    return app


def grid(engine: Engine, *, repaired: bool) -> FastAPI:
    """A stream uses a session that was closed before it began; repaired, it opens one of its own."""
    app = application(engine, repaired=repaired)

    @app.get("/ui/grid/{dag_id}")
    def of(session: Annotated[Session, Depends(closed_early, scope="function")]) -> StreamingResponse:
        runs = session.execute(text("select generate_series(1, 3)")).scalars().all()

        def rows() -> Iterator[str]:
            if repaired:
                with Session(engine) as mine:
                    yield from (f"{mine.execute(text('select :r'), {'r': run}).scalar()}\n" for run in runs)
            else:
                for run in runs:
                    yield f"{session.execute(text('select :r'), {'r': run}).scalar()}\n"

        return StreamingResponse(rows())

    return app


def trusts(engine: Engine, *, repaired: bool) -> FastAPI:
    """A dependency closes its session after its ``yield``, unless the route raises; repaired, in any case."""
    app = application(engine, repaired=repaired)

    @app.post("/trusts/{trust_id}/metrics")
    def metrics(found: Annotated[int, Depends(trust)], session: Annotated[Session, Depends(without_finally)]) -> Any:
        return session.execute(text("select :t"), {"t": found}).scalar()

    return app


def exported(engine: Engine, *, at_the_server: bool, work: Callable[[], Any]) -> list[int]:
    """An export by a server-side cursor: the database works in the fetches, or the application between them."""
    seconds = 0.1 if at_the_server else 0
    statement = text("select n, pg_sleep(:seconds) from generate_series(1, 6) n")
    found = []
    with engine.connect() as connection:
        for row in connection.execution_options(yield_per=1).execute(statement, {"seconds": seconds}):
            found.append(row[0])
            if not at_the_server:
                work()
    return found
