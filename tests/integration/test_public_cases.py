"""Public reports of services without connections, rebuilt in small: the cause is named, and nothing where repaired."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

import poolscope
from examples.lab.processes import wait_until
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.catalogue.pools import POOL_PER_REQUEST, STRANDED_CONNECTIONS
from poolscope.core.pool_registry import open_pool_registries
from poolscope.otel.logs import Events
from tests.integration.programs import engines, row_locks
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = "tests.integration.programs"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What is found from now on."""
    findings: list[Finding] = []
    monkeypatch.setattr(Events, "report", lambda _, finding: findings.append(finding))
    return findings


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
    pennlabs/penn-clubs#879, ajslater/codex#838, daphne#442). Without CONN_MAX_AGE, each is closed.
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


def three_wait_for_a_lock() -> bool:
    """Whether it is known of three connections of the process."""
    leases = [lease for pool in open_pool_registries[-1].pools.values() for lease in pool.leases.copy()]
    return sum(lease.lock_wait is not None for lease in leases) == 3


def test_a_row_lock_that_everybody_waits_for(telemetry: Telemetry, found: list[Finding], database: Postgres) -> None:
    """
    A row is selected for update, and locked while a page is rendered (anishathalye/gavel#128): whoever wants it waits
    in the database, and the next request for the pool. Where the page is rendered before, the pool is never exhausted.
    """
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
