"""
The shop in Flask, FastAPI and Django: each cause does what its repaired twin does, with the same answer.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from examples.lab import shop as lab
from examples.lab.processes import wait_until
from poolscope.core import finding
from poolscope.report import PoolReport, build_report
from tests.integration.test_shop_findings import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres
    from examples.lab.shop import Shop

# Twice as long as what counts as slow, so that a busy machine makes nothing else slow.
SLOW, THRESHOLD = 1.6, 0.8
SETTINGS = {
    "SHOP_POOL_SIZE": "4",
    "SHOP_MAX_OVERFLOW": "2",
    "SHOP_POOL_TIMEOUT": "1.0",
    "SHOP_SLOW_SECONDS": str(SLOW),
    "POOLSCOPE_LONG_HOLD_THRESHOLD": str(THRESHOLD),
    "POOLSCOPE_EXHAUSTED_WAIT": "0",
}
LIMIT = 6
# Every cause and whether its answer is its twin's word for word (a receipt and two spans of time never are).
CAUSES = {
    "GET /feed": True,
    "GET /cart/7": True,
    "GET /profile/7": True,
    "GET /reports/sales": False,
    "POST /checkout/7": False,
}

# What each cause is found as; its twin as nothing.
FINDINGS = (
    (finding.N_PLUS_ONE, "GET /feed"),
    (finding.LEAK, "GET /cart"),
    (finding.NESTED_CHECKOUT, "GET /profile"),
    (finding.LONG_HOLD, "GET /reports/sales"),
    (finding.IDLE_IN_TRANSACTION, "POST /checkout"),
)
# The frameworks whose pool has an adapter.
WATCHED = ("flask", "fastapi")


@pytest.fixture(scope="module")
def filled(postgres: Postgres) -> Iterator[Postgres]:
    """
    A database with the shop's rows.
    """
    with lab.database(postgres) as database:
        yield database


@pytest.fixture(scope="module")
def payment_url() -> Iterator[str]:
    """
    A payment provider that takes longer than a connection may be held.
    """
    with lab.payments(SLOW) as url:
        yield url


@pytest.fixture(params=lab.FRAMEWORKS)
def running(
    request: pytest.FixtureRequest, filled: Postgres, payment_url: str, telemetry: Path
) -> Iterator[tuple[str, Shop]]:
    """
    The shop in each framework, under ``opentelemetry-instrument``.
    """
    with lab.shop(request.param, filled, payment_url, SETTINGS, telemetry) as shop:
        yield request.param, shop


@pytest.fixture
def telemetry(tmp_path: Path) -> Path:
    """
    The file for what leaves the process.
    """
    return tmp_path / "shop.jsonl"


def ask(client: httpx.Client, request: str) -> httpx.Response:
    """
    Send what a cause's line says.
    """
    method, path = request.split(" ")
    return client.request(method, path)


def path_of(route: str) -> str:
    """
    A route without its parameter, which each framework spells in its own way.
    """
    return re.sub(r"/[<{].*", "", route)


def twin(request: str) -> str:
    """
    The repaired route of a cause.
    """
    return request.replace(" /", " /fixed/")


def test_each_cause_is_its_finding_and_its_repaired_twin_none(running: tuple[str, Shop], telemetry: Path) -> None:
    """
    The repair changes how a connection is held, not what the customer gets: every cause is found as what it is, once,
    and no twin as anything.
    """
    framework, shop = running
    with httpx.Client(base_url=shop.address, timeout=10) as client:
        assert client.get("/users/7").json() == {"name": "user 7"}
        for cause, same in CAUSES.items():
            broken, repaired = ask(client, cause), ask(client, twin(cause))
            assert (broken.status_code, repaired.status_code) == (200, 200), (cause, broken.text, repaired.text)
            assert broken.json().keys() == repaired.json().keys()
            if same:
                assert broken.json() == repaired.json()
    if framework in WATCHED:
        wait_until(lambda: Telemetry(telemetry).has(finding.LEAK), 30, "the leak to be told of")
    shop.close()

    if framework in WATCHED:
        report = build_report([telemetry])
        (pool,) = report.pools
        assert (pool.limit, pool.used, pool.drift) == (LIMIT, 1, 0), "the cart alone is still out"
        assert sorted((one.id, path_of(one.place.route)) for one in report.findings) == sorted(FINDINGS)
        assert {Path(holder.place.file).name for holder in pool.holders} == {f"{framework}_app.py"}


def test_a_leak_turns_customers_away_and_the_rest_goes_on(running: tuple[str, Shop], telemetry: Path) -> None:
    """
    Each cart takes a connection for good: with as many as the pool has, the next customer gets 503; no repaired twin
    ever does that.
    """
    framework, shop = running
    with httpx.Client(base_url=shop.address, timeout=10) as client:
        repaired = [ask(client, f"GET /fixed/cart/{user}").status_code for user in range(1, LIMIT + 2)]
        leaking = [ask(client, f"GET /cart/{user}").status_code for user in range(1, LIMIT + 1)]
        turned_away = ask(client, "GET /users/7").status_code
    shop.close()

    assert set(repaired) == {200}
    assert set(leaking) == {200}
    assert turned_away == 503
    if framework in WATCHED:
        pool = only_pool(telemetry)
        assert (pool.used, pool.peak, pool.timeouts) == (LIMIT, LIMIT, 1)


def only_pool(telemetry: Path) -> PoolReport:
    """
    The one pool that the shop has.
    """
    for line in telemetry.read_text().splitlines():
        json.loads(line)
    (pool,) = build_report([telemetry]).pools
    return pool
