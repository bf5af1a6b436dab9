"""psycopg2 under gevent, in a process of its own: monkey patching is for ever."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.skips import require

if TYPE_CHECKING:
    from examples.lab.postgres import Postgres

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def told(database: Postgres) -> dict[str, Any]:
    """What the program printed."""
    require(importlib.util.find_spec("gevent") is not None, "gevent missing", "make env")
    require(importlib.util.find_spec("psycopg2") is not None, "psycopg2 missing", "make env")
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.gevent_pools"]
    result = subprocess.run(
        [*command, database.url("psycopg2"), database.dsn],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_sqlalchemys_pool_is_exact_under_kills_and_timeouts(told: dict[str, Any]) -> None:
    """Every checkout ends as the program saw it end: served, killed, cut by gevent, timed out by the pool."""
    result = told["sqlalchemy"]
    truth = result["truth"]
    assert min(truth.values()) > 0
    assert result["outcomes"] == {
        "": truth["granted"],
        _exit_name(result): truth["killed"],
        "gevent.timeout.Timeout": truth["gevent"],
        "sqlalchemy.exc.TimeoutError": truth["pool"],
    }
    assert result["timeouts"] == truth["pool"]
    assert result["pool"] == 0
    assert told["errors"] == {}


def test_psycopg2s_own_pool_is_exact_under_kills(told: dict[str, Any]) -> None:
    """Likewise for psycopg2's pool, which turns asks away instead of letting them wait."""
    result = told["psycopg2"]
    truth = result["truth"]
    expected = {"": truth["granted"], "psycopg2.pool.PoolError": truth["rejected"]}
    if truth["killed"]:
        expected[_exit_name(result)] = truth["killed"]
    assert truth["rejected"] > 0
    assert result["outcomes"] == expected
    assert result["timeouts"] == 0
    assert result["pool"] == 0


def _exit_name(result: dict[str, Any]) -> str:
    # gevent moves its exception between its compiled modules from version to version.
    (name,) = [name for name in result["outcomes"] if name.endswith("GreenletExit")]
    return name
