"""A service of threads: the usual load, and whoever holds connections by a planted cause."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.to_thread
import psycopg_pool
from sqlalchemy import create_engine, text

import poolscope
from benchmarks.diagnosis.scenarios import LONG_IDLE
from benchmarks.diagnosis.service import CALM, LAST, PATIENCE, Service
from poolscope.core.catalogue.exhaustion import BURST
from poolscope.core.catalogue.holds import (
    FAN_OUT,
    IDLE_IN_TRANSACTION,
    LONG_HOLD,
    NESTED_CHECKOUT,
    THREAD_STARVATION,
)
from poolscope.core.catalogue.kept import LISTENER_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.diagnosis.scenarios import Scenario
    from examples.lab.postgres import Postgres


class Connections(Protocol):
    """A pool of any library."""

    def checkout(self) -> Any:
        """A connection; raises where none is to be had in time."""

    def run(self, connection: Any, statement: str) -> None:
        """Run a statement; a transaction is open afterwards."""

    def release(self, connection: Any) -> None:
        """Return a connection."""

    def close(self) -> None:
        """End the pool."""


class Engine:
    """SQLAlchemy's pool."""

    def __init__(self, server: Postgres, size: int, driver: str) -> None:
        self._engine = create_engine(server.url(driver), pool_size=size, max_overflow=0, pool_timeout=PATIENCE)

    def checkout(self) -> Any:
        return self._engine.connect()

    def run(self, connection: Any, statement: str) -> None:
        connection.execute(text(statement))

    def release(self, connection: Any) -> None:
        connection.close()

    def close(self) -> None:
        self._engine.dispose()


class Psycopg:
    """psycopg_pool's."""

    def __init__(self, server: Postgres, size: int) -> None:
        self._pool = psycopg_pool.ConnectionPool(server.dsn, min_size=size, max_size=size, timeout=PATIENCE, open=False)
        self._pool.open(wait=True)

    def checkout(self) -> Any:
        return self._pool.getconn()

    def run(self, connection: Any, statement: str) -> None:
        connection.execute(statement)

    def release(self, connection: Any) -> None:
        self._pool.putconn(connection)

    def close(self) -> None:
        self._pool.close(timeout=0.1)


def connect(scenario: Scenario, server: Postgres) -> Connections:
    """The pool of a scenario."""
    library, _, driver = scenario.driver.partition("+")
    if library == "psycopg_pool":
        return Psycopg(server, scenario.size)
    return Engine(server, scenario.size, driver)


class SyncService(Service):
    """
    A scenario at work in threads.

    Args:
        scenario: The scenario.
        server: The database.
    """

    def __init__(self, scenario: Scenario, server: Postgres) -> None:
        super().__init__(scenario)
        self._connections = connect(scenario, server)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self, until: Callable[[], bool], most: float) -> None:
        for plant in self._scenario.plants:
            self._plant(plant.cause, plant.connections)
        self._start(self._load)
        waited = 0.0
        while waited < most and not until():
            self._over.wait(0.1)
            waited += 0.1
        self._over.set()
        for connection in self._kept:
            with contextlib.suppress(Exception):
                self._connections.release(connection)
        end = time.monotonic() + LAST
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with contextlib.suppress(Exception):
            self._connections.close()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=self._guarded, args=(target, *arguments), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, target: Callable[..., None], *arguments: Any) -> None:
        # A request that gets no connection fails; so does one whose pool is closed meanwhile.
        with contextlib.suppress(Exception):
            target(*arguments)

    def _sleep(self, seconds: float) -> None:
        self._over.wait(seconds)

    def _checkout(self) -> Any:
        with self._timed():
            return self._connections.checkout()

    # The usual load -------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        self._sleep(self._lead)
        rate = self._scenario.needed / self._scenario.hold
        while not self._over.is_set():
            self._sleep(self._chance.expovariate(rate))
            if threading.active_count() < 400:  # noqa: PLR2004 - a server's threads
                self._start(self._usual)

    def _usual(self) -> None:
        with poolscope.unit_of_work("GET /users", kind="http"):
            connection = self._checkout()
            try:
                self._connections.run(
                    connection, f"select pg_sleep({self._chance.uniform(0.5, 1.5) * self._scenario.hold})"
                )
            finally:
                self._connections.release(connection)

    # What is planted ------------------------------------------------------------------------------------------------

    def _plant(self, cause: str, connections: int) -> None:
        target = {
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
                self._start(target)
        elif cause == FAN_OUT:
            self._start(self._fans_out)
        elif cause == BURST:
            self._start(self._bursts)
        elif cause == THREAD_STARVATION:
            self._start(self._starves)
        elif cause == BLOCKED_EVENT_LOOP:
            self._start(self._checks_out_on_a_loop)

    def _leaks(self) -> None:
        with poolscope.unit_of_work("GET /cart", kind="http"):
            connection = self._checkout()
            self._kept.append(connection)
            self._connections.run(connection, "select 1")

    def _calls_in_a_transaction(self) -> None:
        while not self._over.is_set():
            with poolscope.unit_of_work("POST /checkout", kind="http"):
                connection = self._checkout()
                try:
                    self._connections.run(connection, "select 1")
                    self._sleep(self._chance.uniform(1.0, 4.0))  # a payment
                finally:
                    self._connections.release(connection)

    def _runs_a_long_query(self) -> None:
        while not self._over.is_set():
            with poolscope.unit_of_work("GET /report", kind="http"):
                connection = self._checkout()
                try:
                    self._connections.run(connection, f"select pg_sleep({self._chance.uniform(1.0, 3.0)})")
                finally:
                    self._connections.release(connection)

    def _works_with_a_connection(self) -> None:
        while not self._over.is_set():
            with poolscope.unit_of_work("GET /render", kind="http"):
                connection = self._checkout()
                try:
                    self._sleep(self._chance.uniform(1.0, 4.0))  # nothing was read yet
                finally:
                    self._connections.release(connection)

    def _nests(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(Exception), poolscope.unit_of_work("GET /profile", kind="http"):
                first = self._checkout()
                try:
                    self._connections.run(first, "select pg_sleep(0.05)")
                    second = self._checkout()
                    try:
                        self._connections.run(second, "select pg_sleep(0.01)")
                    finally:
                        self._connections.release(second)
                finally:
                    self._connections.release(first)

    def _fans_out(self) -> None:
        def part() -> None:
            connection = self._checkout()
            try:
                self._connections.run(connection, "select pg_sleep(0.3)")
            finally:
                self._connections.release(connection)

        while not self._over.is_set():
            with poolscope.unit_of_work("POST /graphql", kind="http"):
                before = len(self._threads)
                for _ in range(6 * self._scenario.size):
                    self._start(contextvars.copy_context().run, part)
                for thread in self._threads[before:]:
                    thread.join(30)

    def _bursts(self) -> None:
        self._sleep(CALM)
        for _ in range(self._at_once):
            self._start(self._usual)

    def _starves(self) -> None:
        threads = 2 * self._scenario.size

        async def request(limiter: anyio.CapacityLimiter) -> None:
            def work(connection: Any) -> None:
                self._connections.run(connection, "select 1")

            with contextlib.suppress(Exception), poolscope.unit_of_work("GET /me", kind="http"):
                connection = await anyio.to_thread.run_sync(self._checkout, limiter=limiter)
                try:
                    await anyio.to_thread.run_sync(work, connection, limiter=limiter)
                finally:
                    await anyio.to_thread.run_sync(self._connections.release, connection, limiter=limiter)

        async def requests() -> None:
            limiter = anyio.CapacityLimiter(threads)
            while not self._over.is_set():
                async with anyio.create_task_group() as group:
                    for _ in range(3 * threads):
                        group.start_soon(request, limiter)

        anyio.run(requests)

    def _listens(self) -> None:
        with poolscope.unit_of_work("GET /events", kind="http"):
            connection = self._checkout()
            try:
                self._connections.run(connection, "listen news")
                self._sleep(60)  # for a notification
            finally:
                self._connections.release(connection)

    def _locks(self) -> None:
        while not self._over.is_set():
            with poolscope.unit_of_work("POST /vote", kind="http"):
                connection = self._checkout()
                try:
                    self._connections.run(
                        connection, f"select id from votes where id = {self._scenario.number} for update"
                    )
                    self._sleep(self._chance.uniform(1.0, 2.0))  # renders
                finally:
                    self._connections.release(connection)

    def _checks_out_on_a_loop(self) -> None:
        async def step() -> None:
            with contextlib.suppress(Exception), poolscope.unit_of_work("GET /step", kind="http"):
                connection = self._checkout()
                try:
                    self._connections.run(connection, "select 1")
                    await asyncio.sleep(0.02)
                    self._connections.run(connection, "select 2")
                finally:
                    self._connections.release(connection)

        async def steps() -> None:
            while not self._over.is_set():
                await asyncio.gather(*(step() for _ in range(3 * self._scenario.size)))

        asyncio.run(steps())
