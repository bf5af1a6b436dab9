"""Waits for locks on a real server: the shop's route and its repaired twin, and what only looks like one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from examples.lab.processes import wait_until
from examples.shop import flask_app
from examples.shop.models import Base, User
from examples.shop.settings import Settings
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.otel.logs import Events
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask
    from sqlalchemy import Engine

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding

THRESHOLD = 0.4


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What is found from now on."""
    findings: list[Finding] = []
    monkeypatch.setattr(Events, "report", lambda _, finding: findings.append(finding))
    return findings


@pytest.fixture
def telemetry(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(long_hold_threshold=THRESHOLD, exhaustion_threshold=0)


@pytest.fixture
def engine(telemetry: Telemetry, database: Postgres) -> Iterator[Engine]:
    """An engine, and a table with one user."""
    made = create_engine(database.url("psycopg"), pool_size=4, max_overflow=0)
    Base.metadata.create_all(made)
    with made.begin() as connection:
        connection.execute(text("truncate users cascade"))
        connection.execute(User.__table__.insert(), [{"id": one, "name": "a", "email": str(one)} for one in (1, 2)])
    yield made
    made.dispose()


class Payments:
    """A provider that thinks until the test lets it answer."""

    def __init__(self) -> None:
        self.thinks = threading.Event()
        self.answers = threading.Event()

    def charge(self, cents: int) -> str:
        """Charge a card."""
        self.thinks.set()
        self.answers.wait(60)
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


def test_the_repaired_route_waits_for_no_lock(shop: Flask, found: list[Finding]) -> None:
    """The provider thinks while no connection is checked out."""
    payments = shop.extensions["payments"]
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(shop.test_client().post, "/fixed/redeem/1") for _ in range(4)]
        assert payments.thinks.wait(60)
        assert not payments.answers.wait(2 * THRESHOLD)
        payments.answers.set()
        assert {one.result().status_code for one in answers} == {200}
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
