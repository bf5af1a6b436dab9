"""The lab's PostgreSQL: private, as asked for, and gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import psycopg
import pytest
import sqlalchemy

from examples.lab import postgres as lab
from examples.lab.postgres import Postgres
from examples.lab.processes import ChildFailedError, listens, wait_until
from tests.support.skips import require


def test_the_server_is_as_wanted_and_gone_afterwards() -> None:
    """An embedded server has the limit and settings asked for, listens on loopback only, and leaves nothing behind."""
    with lab.postgres(max_connections=17, settings={"log_statement": "all"}) as server:
        with server.connect() as connection:
            show = {
                name: connection.execute(f"SHOW {name}").fetchone() for name in ("max_connections", "log_statement")
            }
            address = connection.execute("SHOW listen_addresses").fetchone()
        assert show == {"max_connections": ("17",), "log_statement": ("all",)}
        assert address == ("127.0.0.1",)
        assert server.child is not None
        data = server.child.log.parent
        assert "statement: SHOW max_connections" in server.child.log.read_text()
    assert server.child.exit_code() is not None
    assert not listens(server.port)
    assert not data.exists()


def test_every_client_gets_in(database: Postgres) -> None:
    """The spellings for psycopg, SQLAlchemy and asyncpg lead to the same database."""
    engine = sqlalchemy.create_engine(database.url("psycopg"))
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT current_database()")).scalar() == database.database
    engine.dispose()

    async def by_asyncpg() -> object:
        connection = await asyncpg.connect(database.dsn)
        try:
            return await connection.fetchval("SELECT current_database()")
        finally:
            await connection.close()

    assert asyncio.run(by_asyncpg()) == database.database


def test_a_dropped_database_is_gone_though_a_client_is_in_it(postgres: Postgres) -> None:
    """A database can be made and dropped again while a client that forgot to leave is still connected."""
    made = postgres.create_database("poolscope lab: drop")
    with psycopg.connect(made.dsn) as connection:
        postgres.drop_database(made.database)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        made.connect()


def test_a_database_is_dropped_though_the_server_gives_up_once(postgres: Postgres) -> None:
    """
    Whoever is in it may take longer to go than the five seconds that the server waits: here until the server has given
    up, as on a machine that has much else to do.
    """
    require(postgres.child, "the server is not ours to stop a part of", "unset POOLSCOPE_TEST_DSN")
    made = postgres.create_database("lab_slow")
    with made.connect(application_name="slow") as somebody:
        backend = psutil.Process(somebody.info.backend_pid)
        log = postgres.child.log if postgres.child else Path()
        backend.suspend()
        try:
            with ThreadPoolExecutor(1) as pool:
                dropped = pool.submit(postgres.drop_database, "lab_slow")
                gave_up = 'database "lab_slow" is being accessed by other users'
                wait_until(lambda: gave_up in log.read_text(errors="replace"), 60, "the server to give up")
                backend.resume()
                dropped.result(60)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                backend.resume()
    with postgres.connect() as connection:
        assert connection.execute("SELECT 1 FROM pg_database WHERE datname = 'lab_slow'").fetchone() is None


def test_a_dsn_in_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a DSN in the named variable no server is started, and its parts arrive, special characters included."""
    monkeypatch.setenv("SOME_DSN", "postgresql+psycopg://us%40er:p%2Fw%40@db.example:6432/shop?sslmode=require")
    with lab.postgres(variable="SOME_DSN") as server:
        assert server == Postgres("db.example", 6432, "us@er", "p/w@", "shop", {"sslmode": "require"})
        assert server.url("asyncpg") == "postgresql+asyncpg://us%40er:p%2Fw%40@db.example:6432/shop?sslmode=require"


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting ends in an error that carries the server's own words, and leaves nothing behind."""
    made: list[Path] = []
    make = lab.tempfile.mkdtemp

    def watched(*arguments: Any, **more: Any) -> str:
        made.append(Path(make(*arguments, **more)))
        return str(made[-1])

    monkeypatch.setattr(lab.tempfile, "mkdtemp", watched)
    with pytest.raises(ChildFailedError, match="no_such_setting"), lab.postgres(settings={"no_such_setting": "1"}):
        pass
    assert made
    assert not any(map(Path.exists, made))


def test_an_installation_that_the_server_may_not_read_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's private folders are no obstacle: the programs are copied to where the server's user can run them."""
    monkeypatch.setattr(lab, "_public", lambda path: False)
    with lab.postgres() as server, server.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
