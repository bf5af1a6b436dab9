"""Public reports of services without connections, rebuilt in small: the cause is named, and nothing where repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy

import poolscope
from poolscope.core.catalogue.pools import POOL_PER_REQUEST
from poolscope.otel.logs import Events
from tests.integration.programs import engines
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.lab.postgres import Postgres
    from poolscope.core.finding import Finding


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
