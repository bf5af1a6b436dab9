"""Poolscope starts, stops and is configured anew amid whatever an application does, which is interrupted and forks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.machines import PoolMachine, try_sequences
from tests.contract.sequences import kinds, run
from tests.support.scale import WHOLE, times
from tests.support.seeds import is_drawn
from tests.support.skips import require

if TYPE_CHECKING:
    from examples.lab.postgres import Postgres
    from tests.contract.drivers.base import Driver

ROOT = Path(__file__).resolve().parents[2]
#: Kinds of pool that each run tries.
ALWAYS = ("sqlalchemy-QueuePool-sqlite",)
#: The budget: sequences for each kind of pool.
SEQUENCES = int(os.environ.get("SEQUENCES", times(8, whole=300)))


#: Sequences that once broke a law.
FOUND = (
    ("sqlalchemy-QueuePool-sqlite", "check_out 0; dispose; start 0; query 0 0"),
    ("sqlalchemy-QueuePool-sqlite", "check_out 0; check_out 1; dispose; check_out 0; start 0; query 2 0"),
    ("django-CONN_MAX_AGE=0", "open impatient; check_out 0; start 0; amid 36 restart check_out 0; query 1; return 1"),
    ("psycopg2-ThreadedConnectionPool", "start 0; amid 21 restart check_out 0; query 0 0"),
    (
        "psycopg_pool-ConnectionPool",
        "start 0; check_out 0; return 0 0; stop; start 1; amid 6 restart check_out 0; query 0 0",
    ),
)


def _kinds() -> list[type[Driver]]:
    return [kind for kind in kinds() if WHOLE or kind.label in ALWAYS or is_drawn(f"machine {kind.label}", 6)]


def _label(kind: type[Driver]) -> str:
    return kind.label


def _where(kind: type[Driver], request: pytest.FixtureRequest) -> Postgres | None:
    require(kind.missing() is None, str(kind.missing()), "make env (and make matrix for other versions)")
    return request.getfixturevalue("database") if kind.on_postgres else None


@pytest.mark.stateful
@pytest.mark.reliability(
    fault="any sequence of starts, stops and other configurations of poolscope, interrupts, and uses of a pool",
    application="the same values and exceptions, and no connection lost that is not lost without poolscope too",
    lost="the figures of what is interrupted or under way at a start; accounts are right after one repair",
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
# The SDK draws ids in a background thread, also while hypothesis draws.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", _kinds(), ids=_label)
def test_in_any_order_with_starts_and_interrupts(kind: type[Driver], request: pytest.FixtureRequest) -> None:
    """
    After each step what is in use is what the application holds and what the library says; nothing is pending that no
    caller waits for, no context and no error of ours is left, and the hooks are all in or all out. At the end all
    connections can be checked out, and the application has seen what it sees without poolscope.
    """
    try_sequences(kind, _where(kind, request), PoolMachine, SEQUENCES)


@pytest.mark.stateful
@pytest.mark.reliability(
    fault="a fork amid any such sequence",
    application="the same in parent and child",
    lost="nothing of the parent; the child starts at nothing and is exact",
)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [one for one in _kinds() if WHOLE or one.label in ALWAYS], ids=_label)
def test_forks_in_any_order(kind: type[Driver], request: pytest.FixtureRequest) -> None:
    """In each child the laws hold from nothing on, and the parent goes on as if nothing had been."""
    where = _where(kind, request)
    program = subprocess.run(
        [
            *(sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.contract.machines"),
            *(kind.label, str(SEQUENCES), where.dsn if where is not None else ""),
        ],
        capture_output=True,
        text=True,
        timeout=3500,
        check=False,
        cwd=ROOT,
    )
    assert program.returncode == 0, program.stderr[-8000:]


@pytest.mark.parametrize(("label", "steps"), FOUND)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_once_broke_a_law(label: str, steps: str, request: pytest.FixtureRequest) -> None:
    """It does not any more, however many sequences are made up."""
    (kind,) = [one for one in kinds() if one.label == label]
    run(kind, _where(kind, request), f"open; {steps}; end")
