"""A process under gevent, patched before or after poolscope is imported: exact, never in the hub's way, and it ends."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.skips import require

if TYPE_CHECKING:
    from examples.lab.postgres import Postgres

ROOT = Path(__file__).resolve().parents[2]
#: Seconds: ten times what anything here waits for, and far from for ever.
HANGS = 10.0
#: Seconds between two runs of the background thread: as long as the hub would be blocked if it waited there.
INTERVAL = 0.2


@pytest.fixture(scope="module", params=["gevent", "poolscope"])
def told(request: pytest.FixtureRequest, database: Postgres) -> dict[str, Any]:
    """What the program printed, by what came first."""
    for library in ("gevent", "psycopg2"):
        require(importlib.util.find_spec(library) is not None, f"{library} missing", "make env")
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.programs.gevent_runtime"]
    result = subprocess.run(
        [*command, request.param, database.url("psycopg2")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    ended_at = time.time()
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    answer["exit"] = ended_at - answer["ends_at"]
    return answer


def _is_exact(figures: dict[str, Any], checkouts: int) -> bool:
    at_rest = [figures[one] for one in ("used", "drift", "pending")]
    return (at_rest, figures["waits"], figures["uses"]) == ([0, 0, 0], {"": checkouts}, {"": checkouts})


def test_many_greenlets_are_exact(told: dict[str, Any]) -> None:
    """Each of many greenlets' checkouts is one point of wait and one of use; nothing of ours fails."""
    many = told["many"]
    assert many["well"] == 30
    assert _is_exact(many, 300), many
    assert told["errors"] == {}


def test_the_hub_is_not_blocked(told: dict[str, Any]) -> None:
    """The background thread is a greenlet here; where it waits, the others run."""
    assert told["many"]["waited"] < INTERVAL / 2


def test_start_and_stop_beside_greenlets(told: dict[str, Any]) -> None:
    """Every greenlet goes on, a start and a stop end in time, and the account is exact afterwards."""
    toggled = told["toggles"]
    assert toggled["well"] == 30
    assert toggled["longest"] < HANGS
    (checkouts,) = toggled["waits"].values()
    assert checkouts > 0
    assert _is_exact(toggled, checkouts), toggled


def test_a_fork_is_exact(told: dict[str, Any]) -> None:
    """Parent and child each count what is their own."""
    child, parent = told["forks"]["child"], told["forks"]["parent"]
    assert (child["well"], parent["well"]) == (30, 60)
    assert _is_exact(child, 30), child
    assert _is_exact(parent, 91), parent


@pytest.mark.reliability(
    fault="gevent kills a greenlet, or its timeout ends, while a hook waits, or fails and waits for the log",
    application="the same exception, be it an error of the application's; its connection is back",
    lost="the figures of that checkout",
)
def test_what_ends_a_greenlet_in_a_hook_reaches_it(told: dict[str, Any]) -> None:
    """`GreenletExit`, `gevent.Timeout`, and the application's own error in its place; and no connection stays out."""
    cut = told["cut"]
    assert cut["seen"] == {"timeout: Timeout": 6, "error: OverError": 6, "kill: GreenletExit": 6}
    assert (cut["out"], cut["leases"]) == (0, 0)


@pytest.mark.reliability(
    fault="under gevent, the background thread is stuck in an exporter whose endpoint does not answer",
    application="greenlets work on; a fork and the exit take at most two seconds more",
    lost="what was not exported by then",
)
def test_a_stuck_exporter_holds_nothing_up(told: dict[str, Any]) -> None:
    """It is given up after a second, at the fork and at the exit."""
    assert told["stuck"]["well"] == 30
    assert told["stuck"]["fork"] < HANGS
    assert told["exit"] < HANGS
