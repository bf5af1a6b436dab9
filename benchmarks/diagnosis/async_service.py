"""A service of tasks on one event loop: the usual load, and whoever holds connections by a planted cause."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg
import psycopg_pool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import poolscope
from benchmarks.diagnosis.scenarios import LONG_IDLE
from benchmarks.diagnosis.service import CALM, LAST, PATIENCE, Service
from poolscope.core.catalogue.exhaustion import BURST
from poolscope.core.catalogue.holds import FAN_OUT, IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.kept import LISTENER_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.diagnosis.scenarios import Scenario
    from examples.lab.postgres import Postgres


class Connections(Protocol):
    """A pool of any library."""

    async def checkout(self) -> Any:
        """A connection; raises where none is to be had in time."""

    async def run(self, connection: Any, statement: str) -> None:
        """Run a statement."""

    async def begin(self, connection: Any) -> None:
        """Begin a transaction, where a statement does not."""

    async def release(self, connection: Any) -> None:
        """Return a connection."""

    async def close(self) -> None:
        """End the pool."""


class Engine:
    """SQLAlchemy's pool."""

    def __init__(self, server: Postgres, size: int) -> None:
        self._engine = create_async_engine(server.url("asyncpg"), pool_size=size, max_overflow=0, pool_timeout=PATIENCE)

    async def checkout(self) -> Any:
        return await self._engine.connect()

    async def run(self, connection: Any, statement: str) -> None:
        await connection.execute(text(statement))

    async def begin(self, connection: Any) -> None:
        """Nothing: the first statement does."""

    async def release(self, connection: Any) -> None:
        await connection.close()

    async def close(self) -> None:
        await self._engine.dispose()


class Psycopg:
    """psycopg_pool's."""

    def __init__(self, pool: psycopg_pool.AsyncConnectionPool[Any]) -> None:
        self._pool = pool

    async def checkout(self) -> Any:
        return await self._pool.getconn()

    async def run(self, connection: Any, statement: str) -> None:
        await connection.execute(statement)

    async def begin(self, connection: Any) -> None:
        """Nothing: the first statement does."""

    async def release(self, connection: Any) -> None:
        await self._pool.putconn(connection)

    async def close(self) -> None:
        await self._pool.close(timeout=0.1)


class Asyncpg:
    """asyncpg's."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def checkout(self) -> Any:
        return await self._pool.acquire(timeout=PATIENCE)

    async def run(self, connection: Any, statement: str) -> None:
        await connection.execute(statement)

    async def begin(self, connection: Any) -> None:
        await connection.transaction().start()

    async def release(self, connection: Any) -> None:
        await self._pool.release(connection)

    async def close(self) -> None:
        self._pool.terminate()


async def connect(scenario: Scenario, server: Postgres) -> Connections:
    """The pool of a scenario."""
    if scenario.driver == "asyncpg":
        pool = await asyncpg.create_pool(server.url(), min_size=scenario.size, max_size=scenario.size)
        return Asyncpg(pool)
    if scenario.driver == "sqlalchemy+asyncpg":
        return Engine(server, scenario.size)
    psycopg = psycopg_pool.AsyncConnectionPool(
        server.dsn, min_size=scenario.size, max_size=scenario.size, timeout=PATIENCE, open=False
    )
    await psycopg.open(wait=True)
    return Psycopg(psycopg)


class AsyncService(Service):
    """
    A scenario at work in tasks.

    Args:
        scenario: The scenario.
        server: The database.
    """

    _connections: Connections

    def __init__(self, scenario: Scenario, server: Postgres) -> None:
        super().__init__(scenario)
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, until: Callable[[], bool], most: float) -> None:
        asyncio.run(self._run(until, most))

    async def _run(self, until: Callable[[], bool], most: float) -> None:
        self._connections = await connect(self._scenario, self._server)
        for plant in self._scenario.plants:
            self._plant(plant.cause, plant.connections)
        self._start(self._load())
        began = time.monotonic()
        while time.monotonic() - began < most and not until():  # noqa: ASYNC110 - it asks another thread's
            await asyncio.sleep(0.1)
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST)
        for connection in self._kept:
            with contextlib.suppress(Exception):
                await self._connections.release(connection)
        with contextlib.suppress(Exception):
            await self._connections.close()

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Awaitable[None]) -> None:
        # A request that gets no connection fails.
        with contextlib.suppress(Exception):
            await work

    async def _checkout(self) -> Any:
        with self._timed():
            return await self._connections.checkout()

    # The usual load -------------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        await asyncio.sleep(self._lead)
        rate = self._scenario.needed / self._scenario.hold
        while True:
            await asyncio.sleep(self._chance.expovariate(rate))
            self._start(self._usual())

    async def _usual(self) -> None:
        with poolscope.unit_of_work("GET /users", kind="http"):
            connection = await self._checkout()
            try:
                seconds = self._chance.uniform(0.5, 1.5) * self._scenario.hold
                await self._connections.run(connection, f"select pg_sleep({seconds})")
            finally:
                await self._connections.release(connection)

    # What is planted ------------------------------------------------------------------------------------------------

    def _plant(self, cause: str, connections: int) -> None:
        target: Callable[[], Awaitable[None]] | None = {
            LEAK: self._leaks,
            IDLE_IN_TRANSACTION: self._calls_in_a_transaction,
            LONG_HOLD: self._runs_a_long_query,
            LONG_IDLE: self._works_with_a_connection,
            NESTED_CHECKOUT: self._nests,
            LISTENER_HOLD: self._listens,
            LOCK_WAIT: self._locks,
        }.get(cause)
        if target is not None:
            for _ in range(connections if cause != NESTED_CHECKOUT else 2 * connections):
                self._start(target())
        elif cause == BLOCKED_EVENT_LOOP:
            for _ in range(3 * connections):
                self._start(self._steps())
            self._start(self._blocks())
        elif cause == FAN_OUT:
            self._start(self._fans_out())
        elif cause == BURST:
            self._start(self._bursts())

    async def _leaks(self) -> None:
        with poolscope.unit_of_work("GET /cart", kind="http"):
            connection = await self._checkout()
            self._kept.append(connection)
            await self._connections.run(connection, "select 1")

    async def _calls_in_a_transaction(self) -> None:
        while True:
            with poolscope.unit_of_work("POST /checkout", kind="http"):
                connection = await self._checkout()
                try:
                    await self._connections.begin(connection)
                    await self._connections.run(connection, "select 1")
                    await asyncio.sleep(self._chance.uniform(1.0, 4.0))  # a payment
                finally:
                    await self._connections.release(connection)

    async def _runs_a_long_query(self) -> None:
        while True:
            with poolscope.unit_of_work("GET /report", kind="http"):
                connection = await self._checkout()
                try:
                    await self._connections.run(connection, f"select pg_sleep({self._chance.uniform(1.0, 3.0)})")
                finally:
                    await self._connections.release(connection)

    async def _works_with_a_connection(self) -> None:
        while True:
            with poolscope.unit_of_work("GET /render", kind="http"):
                connection = await self._checkout()
                try:
                    await asyncio.sleep(self._chance.uniform(1.0, 4.0))  # nothing was read yet
                finally:
                    await self._connections.release(connection)

    async def _nests(self) -> None:
        while True:
            with contextlib.suppress(Exception), poolscope.unit_of_work("GET /profile", kind="http"):
                first = await self._checkout()
                try:
                    await self._connections.run(first, "select pg_sleep(0.05)")
                    second = await self._checkout()
                    try:
                        await self._connections.run(second, "select pg_sleep(0.01)")
                    finally:
                        await self._connections.release(second)
                finally:
                    await self._connections.release(first)

    async def _fans_out(self) -> None:
        async def part() -> None:
            connection = await self._checkout()
            try:
                await self._connections.run(connection, "select pg_sleep(0.3)")
            finally:
                await self._connections.release(connection)

        while True:
            with poolscope.unit_of_work("POST /graphql", kind="http"):
                parts = [part() for _ in range(6 * self._scenario.size)]
                await asyncio.gather(*parts, return_exceptions=True)

    async def _bursts(self) -> None:
        await asyncio.sleep(CALM)
        for _ in range(self._at_once):
            self._start(self._usual())

    async def _listens(self) -> None:
        with poolscope.unit_of_work("GET /events", kind="http"):
            connection = await self._checkout()
            try:
                await self._connections.run(connection, "listen news")
                await asyncio.sleep(60)  # for a notification
            finally:
                await self._connections.release(connection)

    async def _locks(self) -> None:
        while True:
            with poolscope.unit_of_work("POST /vote", kind="http"):
                connection = await self._checkout()
                try:
                    await self._connections.begin(connection)
                    await self._connections.run(
                        connection, f"select id from votes where id = {self._scenario.number} for update"
                    )
                    await asyncio.sleep(self._chance.uniform(1.0, 2.0))  # renders
                finally:
                    await self._connections.release(connection)

    async def _steps(self) -> None:
        while True:
            with poolscope.unit_of_work("GET /step", kind="http"):
                connection = await self._checkout()
                try:
                    for _ in range(3):
                        await self._connections.run(connection, "select 1")
                        await asyncio.sleep(0.02)
                finally:
                    await self._connections.release(connection)
            # All of them together need two thirds of the pool.
            await asyncio.sleep(self._chance.uniform(0.2, 0.3))

    async def _blocks(self) -> None:
        await asyncio.sleep(self._lead)
        while True:
            time.sleep(1.5)  # noqa: ASYNC251 - it blocks the loop, as an image library does
            await asyncio.sleep(0.05)
