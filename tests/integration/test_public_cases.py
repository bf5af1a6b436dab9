"""Public reports of services without connections, rebuilt in small: the cause is named, and nothing where repaired."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

import poolscope
from examples.lab.processes import wait_until
from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.kept import LISTENER_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP
from poolscope.core.catalogue.pools import FOREIGN_EVENT_LOOP, FORKED_POOL, POOL_PER_REQUEST, STRANDED_CONNECTIONS
from poolscope.core.sql.repetition import PAUSE
from tests.integration.programs import engines, listeners, row_locks, sessions, tiles
from tests.support.pages import run_block
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = "tests.integration.programs"


@pytest.fixture
def telemetry(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, on; no hold is long enough to be found."""
    yield from instrumented(long_hold_threshold=600)


def test_an_engine_for_each_request(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """
    The function that makes a session makes an engine too (milwil-2/climb-elo#183, ethyca/fidesops#1107,
    hackforla/311-data#550, mlflow#4489). One engine for all is none.
    """
    pytest.importorskip("psycopg2")
    url = sqlalchemy.engine.make_url(database.url("psycopg2"))

    def requests(answer: Callable[[], int]) -> None:
        for _ in range(7):
            with poolscope.unit_of_work("GET /athletes/{athlete_id}", kind="http"):
                assert answer() == 7
        telemetry.instrumentor.flush()

    shared = sqlalchemy.create_engine(url)
    requests(lambda: engines.athletes_of_one_engine(shared))
    shared.dispose()
    assert found == []
    requests(lambda: engines.athletes_of_an_engine_each(url))
    finding = found[0]
    assert finding.id == POOL_PER_REQUEST
    assert finding.origin is not None
    assert finding.origin[0].co_name == "athletes_of_an_engine_each"
    assert str(finding.unit) == "http GET /athletes/{athlete_id}"
    assert finding.evidence["units_of_work"] == finding.evidence["pools_made"]


def run(program: str, *arguments: str) -> list[dict[str, Any]]:
    """What a program prints, of each line."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", f"{PROGRAMS}.{program}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_persistent_connections_under_asgi(database: Postgres) -> None:
    """
    Each request has a thread of its own, and its connection stays open (gyrinx-app/gyrinx#2083, Django's ticket 33497,
    pennlabs/penn-clubs#879, ajslater/codex#838, daphne#442). With the page's other settings, each is closed or shared.
    """
    pytest.importorskip("django")
    pytest.importorskip("psycopg")
    (said,) = run("django_threads", database.dsn)
    assert [(one["id"], one["pool"]) for one in said["found"]] == [(STRANDED_CONNECTIONS, "kept")]
    summary = said["found"][0]["summary"]
    assert "for threads that have finished (CONN_MAX_AGE=60): 7 of 7 open ones; 7 connections were made" in summary
    assert "none was used a second time" in summary
    assert "CONN_MAX_AGE=0" in said["found"][0]["fix"]
    assert said["idle"] == 7


def test_what_was_opened_before_a_fork(database: Postgres) -> None:
    """
    The child has a pool of psycopg's without its workers (dannyvfilms/Floppy#341, celery/celery#9953, psycopg#544), and
    connections that are the parent's too (nautobot/nautobot#127, fecgov/openFEC#922, gc3pie#550). What is opened,
    disposed of or first used after the fork is none; nor is what the child does not use. The code of the page is among
    them.
    """
    for library in ("psycopg_pool", "psycopg2", "dbutils", "playhouse.pool", "asyncpg", "django"):
        pytest.importorskip(library)
    (said,) = run("forked", database.dsn)
    foreign = {one["pool"]: one for one in said["found"] if one["id"] == FORKED_POOL}
    pools = {"preloaded", "asyncpg"}
    connections = {"engine", "psycopg2", "dbutils", "peewee", "django"}
    assert set(foreign) == pools | connections
    for name, one in foreign.items():
        assert ("the pool was opened in another process" in one["summary"]) == (name in pools)
        assert ("dispose(close=False)" in one["fix"]) == (name in connections)
        assert one["unit"] == f"http GET /{name}"
    rest = [one for one in said["found"] if one["id"] != FORKED_POOL]
    assert [(one["id"], one["pool"], one["cause"]) for one in rest] == [("pool_exhausted", "preloaded", FORKED_POOL)]
    assert "after the fork" in rest[0]["fix"]


def test_what_was_opened_in_another_event_loop(database: Postgres) -> None:
    """
    An engine, and pools, over several asyncio.run(), as of jobs (skypilot-org/skypilot#8725, yalding8/uhomesjob#204).
    An engine that is disposed of by each is none; nor are psycopg's connections, which work in any loop. Both engines
    are those of the page.
    """
    for library in ("psycopg_pool", "asyncpg", "sqlalchemy.ext.asyncio", "greenlet"):
        pytest.importorskip(library)
    (said,) = run("event_loops", database.dsn)
    foreign = {one["pool"]: one for one in said["found"] if one["id"] == FOREIGN_EVENT_LOOP}
    # Whoever fails to get a connection of asyncpg's pool in the other loop reads the same cause.
    rest = {(one["id"], one["cause"]) for one in said["found"] if one["id"] != FOREIGN_EVENT_LOOP}
    assert rest <= {(POOL_EXHAUSTED, FOREIGN_EVENT_LOOP)}
    assert set(foreign) == {"engine", "asyncpg", "psycopg"}
    for name, one in foreign.items():
        assert one["unit"] == f"task {name}"
        assert "in an event loop that is closed" in one["summary"]
        assert ("engine.dispose()" in one["fix"]) == (name == "engine")


def test_a_synchronous_checkout_on_the_event_loop(telemetry: Telemetry, found: list[Finding], tmp_path: Path) -> None:
    """
    The handler awaits a broker while it holds a connection of the synchronous engine (xorbitsai/xagent#935): one
    request more than connections blocks the loop of those that hold them. With the asynchronous engine it waits. The
    code is the page's.
    """
    pytest.importorskip("aiosqlite")
    given = {"begin": lambda _: sqlalchemy.text("select 1"), "finish": lambda _: sqlalchemy.text("select 2")}
    step, step_repaired = (run_block(BLOCKED_EVENT_LOOP, number, **given)["step"] for number in (1, 3))

    async def publish(_: int) -> None:
        await asyncio.sleep(0.02)  # a message to a broker

    async def at_once(step: Any, engine: Any, number: int) -> list[BaseException | None]:
        return await asyncio.gather(*(step(engine, one, publish) for one in range(number)), return_exceptions=True)

    limits: dict[str, Any] = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 0.5}

    async def repaired() -> list[BaseException | None]:
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{tmp_path / 'steps.db'}",
            **{**limits, "pool_timeout": 60},
            poolclass=AsyncAdaptedQueuePool,
        )
        answers = await at_once(step_repaired, engine, 6)
        await engine.dispose()
        return answers

    assert asyncio.run(repaired()) == [None] * 6
    telemetry.instrumentor.flush()
    assert found == []
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'steps.db'}", **limits, poolclass=QueuePool)
    answers = asyncio.run(at_once(step, engine, 3))
    engine.dispose()
    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", "NoneType", "TimeoutError"]
    telemetry.instrumentor.flush()
    finding = next(one for one in found if one.id == POOL_EXHAUSTED)
    assert {one.id for one in found} <= {POOL_EXHAUSTED, BLOCKED_EVENT_LOOP}
    assert finding.evidence["shares"] == [f"{BLOCKED_EVENT_LOOP} 100%"]
    assert "a deadlock through the event loop: 2 of 2 connections" in finding.summary
    assert "async driver" in finding.fix
    assert finding.origin is not None
    assert finding.origin[0].co_name == "step"


def test_a_row_lock_that_everybody_waits_for(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """
    A row is selected for update, and locked while a page is rendered (anishathalye/gavel#128): whoever wants it waits
    in the database, and the next request for the pool. Where the page is rendered before, the pool is never exhausted.
    """

    def three_wait_for_a_lock() -> bool:
        return sum(lease.lock_wait is not None for lease in telemetry.leases()) == 3

    engine = sqlalchemy.create_engine(database.url("psycopg"), pool_size=4, max_overflow=0, pool_timeout=0.3)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table annotator (id int primary key)"))
        connection.execute(sqlalchemy.text("insert into annotator values (1)"))
    for vote in (row_locks.vote_repaired, row_locks.vote):
        page = row_locks.Page()
        with ThreadPoolExecutor(4) as threads:
            votes = [threads.submit(vote, engine, page) for _ in range(4)]
            assert page.renders.wait(60)
            try:
                if vote is row_locks.vote:
                    wait_until(three_wait_for_a_lock, 60, "three to wait")
                    with pytest.raises(sqlalchemy.exc.TimeoutError):
                        row_locks.about(engine)
                else:
                    assert row_locks.about(engine) == 1
            finally:
                page.done.set()
            assert [one.result() for one in votes] == [1] * 4
        telemetry.instrumentor.flush()
    engine.dispose()
    (finding,) = found
    assert (finding.id, finding.evidence["cause"]) == (POOL_EXHAUSTED, LOCK_WAIT)
    assert "3 of 4 connections likely wait for a row lock of table annotator" in finding.summary
    assert "render" in str(finding.evidence["current_location"])


@pytest.fixture
def impatient(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, on; holds of 0.3 s are long."""
    yield from instrumented(long_hold_threshold=0.3)


def client_of(app: Any) -> httpx.AsyncClient:
    """Asks an application, which answers 500 to what it raises."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), base_url="http://shop")


def asked(app: Any, *rounds: list[str], method: str = "GET", after: Callable[[], None]) -> list[int]:
    """
    The statuses of an application's answers.

    Args:
        app: The application.
        rounds: Paths; those of one round are asked for at once.
        method: Of the requests.
        after: Called after each round.
    """

    async def ask() -> list[int]:
        statuses = []
        async with client_of(app) as client:
            for paths in rounds:
                answers = await asyncio.gather(*(client.request(method, path) for path in paths))
                statuses += [answer.status_code for answer in answers]
                await asyncio.to_thread(after)
        return statuses

    return asyncio.run(ask())


async def chatted(app: Any, path: str, messages: int) -> int:
    """The status of the page /health while a websocket is open on which so many messages came, one after the other."""
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
    socket = asyncio.create_task(app({**scope, "subprotocols": []}, inbox.get, outbox.put))
    inbox.put_nowait({"type": "websocket.connect"})
    assert (await outbox.get())["type"] == "websocket.accept"
    for _ in range(messages):
        inbox.put_nowait({"type": "websocket.receive", "text": "hello"})
        assert (await outbox.get())["text"] == "hello"
        await asyncio.sleep(1.2 * PAUSE)  # longer than between the runs of a loop
    async with client_of(app) as client:
        health = await client.get("/health")
    inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await socket
    return health.status_code


@pytest.mark.parametrize("repaired", [False, True])
def test_a_session_in_a_middleware_around_that_of_the_route(
    telemetry: Telemetry, found: list[Finding], database: Postgres, *, repaired: bool
) -> None:
    """
    The route runs in a task of its own, for which the middleware waits with a connection (IBM/mcp-context-forge#3467):
    found with the first request, though no request waits; and the cause once all wait.
    """
    url = database.url("psycopg")
    engine = create_async_engine(url, pool_size=2, max_overflow=0, pool_timeout=0.8, poolclass=AsyncAdaptedQueuePool)
    calm: list[tuple[str, str, Any]] = []

    def look() -> None:
        telemetry.instrumentor.flush()
        if not calm:
            calm.extend((one.id, str(one.unit), one.origin and one.origin[0].co_name) for one in found)

    statuses = asked(sessions.traced(engine, repaired=repaired), ["/tools/1"], ["/tools/1"] * 6, after=look)
    assert statuses[0] == 200
    first = (NESTED_CHECKOUT, "http GET /tools/{tool_id}", "tool")
    assert calm[:1] == ([] if repaired else [first])
    causes = {one.evidence["cause"] for one in found if one.id == POOL_EXHAUSTED}
    assert causes == (set() if repaired else {NESTED_CHECKOUT})
    assert (set(statuses) == {200}) is repaired
    assert {one.id for one in found} == (set() if repaired else {NESTED_CHECKOUT, POOL_EXHAUSTED})


@pytest.mark.parametrize("repaired", [False, True])
def test_a_session_that_a_websocket_keeps(
    impatient: Telemetry, found: list[Finding], database: Postgres, *, repaired: bool
) -> None:
    """Idle in a transaction between messages (bluesky/tiled#1172); what each message runs is no N+1."""
    with database.connect() as connection:
        connection.execute("create table if not exists messages (n int)")
    url = database.url("psycopg")
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.4, poolclass=AsyncAdaptedQueuePool)
    health = asyncio.run(chatted(sessions.chat(engine, repaired=repaired), "/ws/one", messages=8))
    assert health == (200 if repaired else 500)
    impatient.instrumentor.flush()
    exhausted = [one.evidence["cause"] for one in found if one.id == POOL_EXHAUSTED]
    assert exhausted == ([] if repaired else [IDLE_IN_TRANSACTION])
    assert {one.id for one in found} == (set() if repaired else {POOL_EXHAUSTED, IDLE_IN_TRANSACTION})


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # psycopg's own, of what is left open
@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        (sessions.grid, "/ui/grid/etl", "http GET /ui/grid/{dag_id}", "rows"),
        (sessions.trusts, "/trusts/9/metrics", "http POST /trusts/{trust_id}/metrics", "trust"),
    ],
)
def test_a_session_that_is_never_closed(
    telemetry: Telemetry,
    found: list[Finding],
    database: Postgres,
    case: tuple[Any, str, str, str],
    *,
    repaired: bool,
) -> None:
    """
    A stream begins a closed session anew (apache/airflow#65010), a dependency has no `finally`
    (londonaicentre/FLIP#775): its request has finished, and no code will return the connection.
    """
    make, path, route, function = case

    def look() -> None:
        if not repaired:
            wait_until(lambda: any(one.id == LEAK for one in found), 60, "a leak")
        telemetry.instrumentor.flush()

    engine = sqlalchemy.create_engine(database.url("psycopg"), pool_size=1, max_overflow=0, pool_timeout=0.3)
    gc.collect()
    gc.disable()  # at the reporters' none came for minutes
    try:
        statuses = asked(make(engine, repaired=repaired), [path], [path], method=route.split()[1], after=look)
    finally:
        gc.enable()
    assert (500 in statuses) is not repaired
    leaks = {(one.id, str(one.unit), one.origin and one.origin[0].co_name) for one in found if one.id == LEAK}
    assert leaks == (set() if repaired else {(LEAK, route, function)})
    assert {one.evidence["cause"] for one in found if one.id == POOL_EXHAUSTED} == (set() if repaired else {LEAK})
    engine.dispose()
    gc.collect()  # while what is left open may be warned of
    gc.collect()


@pytest.mark.parametrize("at_the_server", [True, False])
def test_an_export_whose_work_is_in_the_fetches(
    impatient: Telemetry, found: list[Finding], database: Postgres, *, at_the_server: bool
) -> None:
    """
    A server-side cursor's statement is only declared when it is executed (apache/superset#35478): the fetches are the
    database's work. Where the application works between them, its transaction is idle.
    """
    engine = sqlalchemy.create_engine(database.url("psycopg"), pool_size=1, max_overflow=0, pool_timeout=0.3)
    with poolscope.unit_of_work("GET /export.csv", kind="http"):
        rows = sessions.exported(engine, at_the_server=at_the_server, work=lambda: time.sleep(0.1))
    assert rows == [1, 2, 3, 4, 5, 6]
    impatient.instrumentor.flush()
    engine.dispose()
    (finding,) = found
    assert finding.id == (LONG_HOLD if at_the_server else IDLE_IN_TRANSACTION)
    assert finding.origin is not None
    assert finding.origin[0].co_name == "exported"


def test_a_pool_that_keeps_none(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """Connections of a NullPool are counted like any other (plastic-labs/honcho#1054), and nothing is found."""
    engine = sqlalchemy.create_engine(
        database.url("psycopg"), poolclass=sqlalchemy.pool.NullPool, pool_logging_name="null"
    )
    held = [engine.connect() for _ in range(3)]
    assert telemetry.collect().used("null") == 3
    for connection in held:
        connection.close()
    assert telemetry.collect().used("null") == 0
    telemetry.instrumentor.flush()
    assert found == []


def test_connections_that_threads_of_an_executor_keep(database: Postgres) -> None:
    """
    Jobs use Django's ORM, and each thread keeps its connection (dimagi/open-chat-studio#2553,
    jcass77/django-apscheduler#172, codingjoe/django-health-check#178), until the server refuses one. Where each job
    closes its own, none is refused. The code is the page's.
    """
    pytest.importorskip("django")
    pytest.importorskip("psycopg")
    with database.connect() as connection:
        connection.execute("drop role if exists of_jobs")
        connection.execute("create role of_jobs login password 'of_jobs' connection limit 3")
        connection.execute("create table items (id int primary key, name text)")
        connection.execute("insert into items values (1, 'tea')")
        connection.execute("grant select on items to of_jobs")
    (said,) = run("django_jobs", replace(database, user="of_jobs", password="of_jobs").dsn)
    assert (said["names"], said["before"]) == ([["tea"], None, None, None], 0)
    (finding,) = [one for one in said["found"] if one["id"] == TOO_MANY_CONNECTIONS]
    assert finding["function"] == "lookup"
    assert "this process has 3 of them: 3 of default checked out at" in finding["summary"]
    assert "by the limit of its role (SQLSTATE 53300)" in finding["summary"]
    assert "in lookup by " in finding["summary"]
    assert "threads pipeline_*: 3 idle, unused for up to" in finding["summary"]
    assert "connection.close() or close_old_connections()" in finding["fix"]


def test_a_pool_that_refuses_at_once(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """
    A tile is drawn while its transaction is open, and psycopg2's pool refuses the next request (stac-utils/
    titiler-pgstac#18, addok#327, malthe/pq#41, Oslandia/lopocs#36). Where it is drawn afterwards, none is refused.
    """
    pools = pytest.importorskip("psycopg2.pool")
    pool = pools.ThreadedConnectionPool(1, 2, database.dsn)
    for tile in (tiles.tile_repaired, tiles.tile):
        drawing = tiles.Drawing()
        with ThreadPoolExecutor(2) as threads:
            answers = [threads.submit(tile, pool, drawing) for _ in range(2)]
            try:
                wait_until(lambda: drawing.begun == 2, 60, "both to draw")  # noqa: B023 - waited for at once
                if tile is tiles.tile:
                    with pytest.raises(pools.PoolError):
                        tiles.tile(pool, drawing)
                    wait_until(lambda: found, 60, "the finding")
                else:
                    assert tiles.look(pool) == 7
            finally:
                drawing.done.set()
            assert [one.result() for one in answers] == [7, 7]
    pool.closeall()
    telemetry.instrumentor.flush()
    (finding,) = found
    assert (finding.id, finding.evidence["cause"]) == (POOL_EXHAUSTED, IDLE_IN_TRANSACTION)
    assert "was refused at once" in finding.summary
    holders = finding.evidence["holders"]
    assert isinstance(holders, list)
    assert len([holder for holder in holders if "draw; last ran select" in holder]) == len(holders) == 2


def test_a_listener_for_each_client(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """
    Each stream of events listens on a connection of the pool (MagicStack/asyncpg#97 and #813,
    anna-money/asyncpg-listen#153): a request beside them gets none. One listener for the process leaves it the pool.
    """

    async def serve(stream: Callable[[Any, asyncio.Semaphore], Coroutine[Any, Any, None]]) -> int:
        pool = await asyncpg.create_pool(database.dsn, min_size=1, max_size=3)
        listening = asyncio.Semaphore(0)
        streams = [asyncio.create_task(stream(pool, listening)) for _ in range(3)]
        try:
            for _ in streams:
                await listening.acquire()
            return await listeners.me(pool)
        finally:
            connection = await asyncpg.connect(database.dsn)
            await connection.execute("notify news, 'hello'")
            await connection.close()
            await asyncio.wait_for(asyncio.gather(*streams), 60)
            await pool.close()

    async def repaired() -> int:
        fan = listeners.Fan(database.dsn)
        async with fan.open():
            return await serve(fan.stream)

    assert asyncio.run(repaired()) == 1
    telemetry.instrumentor.flush()
    assert found == []
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(serve(listeners.stream))
    telemetry.instrumentor.flush()
    (finding,) = found
    assert (finding.id, finding.evidence["cause"]) == (POOL_EXHAUSTED, LISTENER_HOLD)
    assert str(finding.unit) == "http GET /me"
    assert "outside of the pool" in finding.fix
    assert "3 of 3 connections are subscribed to notifications" in finding.summary
    assert "in stream" in str(finding.evidence["current_location"])
