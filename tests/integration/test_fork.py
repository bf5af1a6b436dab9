"""Forks: bare, and those of a prefork server; each process is exact for itself."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from examples.lab.processes import LOOPBACK, Child, answers, free_port
from tests.support.skips import require

if TYPE_CHECKING:
    from examples.lab.postgres import Postgres

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = "tests.integration.programs"
WORKERS = 3


@pytest.fixture
def url(database: Postgres) -> str:
    """The database, for SQLAlchemy."""
    require(sqlalchemy.__version__ >= "2", "SQLAlchemy 1.4 has no dialect for psycopg", "make matrix")
    return database.url("psycopg")


@pytest.mark.parametrize("way", ["native", "ordinary"])
def test_a_bare_fork_with_a_connection_out(url: str, way: str) -> None:
    """
    The child starts at nothing: what is checked out is the parent's, sums begin with the fork, and spans of the parent
    are not reported again; then it is exact. The parent goes on as if nothing had been. So it is too where histograms
    are recorded into ordinary instruments, which the SDK does not empty in a child.
    """
    began = time.time_ns()
    program = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", f"{PROGRAMS}.forking", url, way],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=ROOT,
    )
    assert program.returncode == 0, program.stderr
    child, parent = (json.loads(line) for line in program.stdout.splitlines())
    before = child.pop("before")
    assert parent.pop("before") == before
    assert (before["used"], before["waits"], before["uses"]) == (1, 3, 2)

    fresh = child["child"]
    assert {key: fresh[key] for key in ("used", "drift", "waits", "uses", "closures")} == dict.fromkeys(
        ("used", "drift", "waits", "uses", "closures"), 0
    )
    one = child["child holds one"]
    assert (one["used"], one["waits"], one["uses"], one["threads"]) == (1, 6, 5, 1)
    rest = child["child at rest"]
    assert (rest["used"], rest["drift"], rest["waits"], rest["uses"], rest["holds"]) == (0, 0, 6, 6, 1)
    assert rest["began"] > before["began"] > began

    assert (parent["parent"]["used"], parent["parent"]["waits"], parent["parent"]["uses"]) == (1, 6, 5)
    rest = parent["parent at rest"]
    assert (rest["used"], rest["drift"], rest["waits"], rest["uses"], rest["idle"]) == (0, 0, 6, 6, 2)
    assert rest["began"] == before["began"]
    for report in (*child.values(), *parent.values()):
        assert report["errors"] == {}


def test_a_fork_with_connections_of_other_pools_out(database: Postgres) -> None:
    """
    The child starts at nothing with the pools of other libraries too, is exact for what it takes itself, and never
    counts what is the parent's, also when it gives that back.
    """
    for library in ("psycopg_pool", "psycopg2", "dbutils"):
        require(importlib.util.find_spec(library) is not None, f"{library} missing", "make env")
    program = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", f"{PROGRAMS}.forking_pools", database.dsn],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=ROOT,
    )
    assert program.returncode == 0, program.stderr
    child, parent = (json.loads(line) for line in program.stdout.splitlines())

    def each(*figures: int) -> dict[str, list[int]]:
        return {pool: list(figures) for pool in ("psycopg_pool", "psycopg2", "dbutils")}

    assert child == {
        "after the fork": each(0, 0, 0, 0),
        "one out": each(1, 0, 1, 0),
        "at rest": each(0, 0, 1, 1),
        "the parent's returned": each(0, 0, 1, 1),
        "errors": {},
    }
    assert parent == {"parent": each(1, 0, 1, 0), "errors": {}}


def get(url: str) -> Any:
    """What a worker answers, as JSON."""
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


def test_a_prefork_server_with_a_connection_out(url: str, tmp_path: Path) -> None:
    """
    A gunicorn of several workers and a preloaded application whose master holds a connection: each worker counts what
    was asked of it and nothing else, and is a series of its own; the master still holds its one.
    """
    require(_has_gunicorn(), "gunicorn missing", "make env")
    port, masters = free_port(), tmp_path / "master.json"
    settings = f"{PROGRAMS}.prefork"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", "--config", f"python:{settings}"]
    command += ["--bind", f"{LOOPBACK}:{port}", "--workers", str(WORKERS), f"{settings}:application"]
    environment = {**os.environ, "PREFORK_URL": url, "PREFORK_MASTER": str(masters)}
    with Child(command, env=environment, cwd=ROOT) as server:
        base = f"http://{LOOPBACK}:{port}"
        server.wait_ready(lambda: answers(f"{base}/figures"), 60)
        done: Counter[int] = Counter()
        deadline = time.monotonic() + 60
        while len(done) < WORKERS or sum(done.values()) < 40:
            assert time.monotonic() < deadline, done
            done[get(f"{base}/work")["pid"]] += 1
        figures: dict[int, Any] = {}
        while len(figures) < WORKERS:
            assert time.monotonic() < deadline, figures
            answer = get(f"{base}/figures")
            figures[answer["pid"]] = answer
        server.stop(60)
        log = server.log.read_text() if server.log.exists() else ""
    assert set(figures) == set(done), log
    for pid, answer in figures.items():
        assert answer["figures"]["waits"] == answer["figures"]["uses"] == done[pid], answer
        assert (answer["figures"]["used"], answer["figures"]["drift"]) == (0, 0), answer
        assert answer["figures"]["errors"] == {}
    assert len({answer["figures"]["began"] for answer in figures.values()}) == WORKERS
    instances = {answer["instance"] for answer in figures.values()}
    if None not in instances:
        assert len(instances) == WORKERS
    master = json.loads(masters.read_text())
    assert (master["used"], master["drift"], master["waits"], master["uses"]) == (1, 0, 1, 0)


def _has_gunicorn() -> bool:
    return importlib.util.find_spec("gunicorn") is not None
