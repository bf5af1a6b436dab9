"""Waits for locks on a real server: the shop's route and its repaired twin, and what only looks like one."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine, text

from examples.lab.processes import wait_until
from examples.shop import flask_app
from examples.shop.models import Base, User
from examples.shop.settings import Settings
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.pool_registry import open_pool_registries
from poolscope.detectors.lock_wait import SAID_BY_SERVER
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask
    from sqlalchemy import Engine

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding

THRESHOLD = 0.4


@pytest.fixture
def telemetry(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(long_hold_threshold=THRESHOLD, exhaustion_threshold=0)


@pytest.fixture
def engine(telemetry: Telemetry, database: Postgres) -> Iterator[Engine]:
    """An engine, and a table with two users."""
    made = create_engine(database.url("psycopg"), pool_size=4, max_overflow=0)
    with filled(made):
        yield made


@contextlib.contextmanager
def filled(engine: Engine) -> Iterator[None]:
    """The shop's tables with two users, and the end of an engine."""
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("truncate users cascade"))
        connection.execute(User.__table__.insert(), [{"id": one, "name": "a", "email": str(one)} for one in (1, 2)])
    yield
    engine.dispose()


class Payments:
    """A provider that thinks until the test lets it answer."""

    def __init__(self) -> None:
        self.thinks = threading.Event()
        self.answers = threading.Event()

    def charge(self, cents: int) -> str:
        """Charge a card."""
        self.thinks.set()
        assert self.answers.wait(60)
        return f"r{cents}"


@pytest.fixture
def shop(engine: Engine) -> Flask:
    """The shop with that engine and provider."""
    app = flask_app.create_app(Settings("postgresql://nowhere"))
    app.extensions["engine"].dispose()
    app.extensions.update(engine=engine, payments=Payments())
    return app


def ids(found: list[Finding]) -> list[str]:
    """What was found, by id."""
    return [finding.id for finding in tuple(found)]


def test_customers_who_wait_for_one_row_are_found_with_the_line_that_keeps_it(
    shop: Flask, found: list[Finding]
) -> None:
    """The shop's route: three wait for the row, the fourth executes the provider's call."""
    payments = shop.extensions["payments"]
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(shop.test_client().post, "/redeem/1")
        assert payments.thinks.wait(60)
        others = [threads.submit(shop.test_client().post, "/redeem/1") for _ in range(3)]
        wait_until(lambda: LOCK_WAIT in ids(found), 60, "the wait to be found")
        payments.answers.set()
        assert {one.result().status_code for one in (first, *others)} == {200}
    finding = next(one for one in found if one.id == LOCK_WAIT)
    assert str(finding.unit) == "http POST /redeem/<int:user_id>"
    assert "likely waits for a row lock of table users" in finding.summary
    assert "idle in its transaction" in finding.evidence["blocker"]  # type: ignore[operator]
    assert finding.evidence["statement"].endswith("for update")  # type: ignore[union-attr]
    assert any("in Payments.charge" in line or "in charge" in line for line in finding.evidence["current_location"])  # type: ignore[union-attr]


def test_the_repaired_route_waits_for_no_lock(shop: Flask, telemetry: Telemetry, found: list[Finding]) -> None:
    """The provider thinks while no connection is checked out."""
    payments = shop.extensions["payments"]
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(shop.test_client().post, "/fixed/redeem/1") for _ in range(4)]
        assert payments.thinks.wait(60)
        assert not payments.answers.wait(2 * THRESHOLD)
        payments.answers.set()
        assert {one.result().status_code for one in answers} == {200}
    telemetry.instrumentor.flush()
    assert not {LOCK_WAIT, IDLE_IN_TRANSACTION} & set(ids(found))


def slow(engine: Engine, statement: str, **parameters: Any) -> None:
    """Run one statement in a transaction of its own."""
    with engine.begin() as connection:
        connection.execute(text(statement), parameters)


def test_a_slow_statement_beside_an_idle_transaction_is_slow(engine: Engine, found: list[Finding]) -> None:
    """An update of another row of the table takes long by itself: a long hold, and no wait for a lock."""
    with engine.begin() as connection:
        connection.execute(text("update users set name = 'b' where id = 1"))
        slow(engine, "update users set name = 'c' from (select pg_sleep(:s)) z where email = '2'", s=3 * THRESHOLD)
        wait_until(lambda: LONG_HOLD in ids(found), 60, "the long hold to be found")
    assert LOCK_WAIT not in ids(found)


@pytest.fixture
def probing(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, with the server probe."""
    yield from instrumented(
        long_hold_threshold=THRESHOLD, exhaustion_threshold=0, server_probe=True, finding_interval=1
    )


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_server_names_the_process_that_holds_the_lock(
    probing: Telemetry, found: list[Finding], database: Postgres, driver: str
) -> None:
    """A job outside of the pool keeps the row. The connection that asks goes, and is seen by no pool."""
    pytest.importorskip(driver)
    made = create_engine(database.url(driver), pool_size=2, max_overflow=0)
    with filled(made), psycopg.connect(database.dsn, application_name="nightly") as job:
        job.execute("update users set name = 'b' where id = 1")
        pools = len(open_pool_registries[-1].pools)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(slow, made, "update users set name = 'c' where id = 1")
            try:
                wait_until(lambda: LOCK_WAIT in ids(found), 60, "the wait to be found")
            finally:
                job.commit()
            waiting.result(60)
        backend = job.info.backend_pid
    finding = next(one for one in found if one.id == LOCK_WAIT)
    assert "waits for a row lock of table users, for " in finding.summary
    assert f"held by another process (application nightly, backend {backend}), idle in tr" in finding.summary
    assert "likely" not in finding.summary
    assert finding.evidence["known_by"] == SAID_BY_SERVER
    assert len(open_pool_registries[-1].pools) == pools
    with psycopg.connect(database.dsn) as other:
        left = "select count(*) from pg_stat_activity where application_name = 'poolscope'"
        wait_until(lambda: other.execute(left).fetchone() == (0,), 60, "the probe's connection to go")


def test_a_server_that_knows_of_no_wait_says_so(probing: Telemetry, found: list[Finding], database: Postgres) -> None:
    """It looks like one: an update by its key that takes long, beside a transaction that has changed another row."""
    made = create_engine(database.url("psycopg"), pool_size=2, max_overflow=0)
    with filled(made), made.begin() as connection:
        connection.execute(text("update users set name = 'b' where id = 1"))
        slow(made, "update users set name = 'c' from (select pg_sleep(:s)) z where id = 2", s=3 * THRESHOLD)
        wait_until(lambda: LONG_HOLD in ids(found), 60, "the long hold to be found")
    assert LOCK_WAIT not in ids(found)
