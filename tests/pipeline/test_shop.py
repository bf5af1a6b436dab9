"""
The shop itself under load, each cause in a process of its own next to the repaired shop, through the whole pipeline.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import grafana.alerts
from examples.lab.pipeline import CONFIG, ROOT, Addresses, Alertmanager, Collector, Prometheus
from examples.lab.postgres import postgres
from examples.lab.processes import wait_until
from examples.lab.shop import database, payments, shop
from examples.lab.webhook import Webhook, webhook
from examples.shop.traffic import REPAIRED, Traffic
from grafana.alerts.model import Pace
from grafana.collector import SERVICE
from grafana.pictures import draw, serve
from grafana.prometheus import bucket, family, label
from poolscope.signals import names
from tests.pipeline.sink import Sink
from tests.support.skips import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from examples.lab.postgres import Postgres

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("pipeline-load")]

# To open a connection takes long on a machine that has other work, but neither limit; what the small pool's customers
# wait, as long as SMALL_POOL_TIMEOUT, is beyond both.
PACE = Pace(60, wait_limit=1.0, slow_checkout=2.5)
SMALL_POOL_TIMEOUT = 3.5  # seconds
LOAD_SECONDS = 45.0
# What counts as a long hold here: no repaired request comes near it, not even on a machine that has other work; each
# payment lasts longer.
LONG_HOLD, PAYMENT_SECONDS = 3.0, 3.5
# So young that every shop replaces connections while customers are there.
RECYCLE_SECONDS = 20
LONG_WAIT = 0.1  # seconds; a trace that waited longer is kept


@dataclass(frozen=True)
class Cause:
    """
    One shop: what its customers ask for, how large its pool is, and the alerts about it.
    """

    rates: Mapping[str, float]
    pool: int
    alerts: frozenset[str]


# Ordinary requests beside the faulty ones: without them the few check-outs that open a connection weigh too much.
ORDINARY = {"GET /users/{user}": 6.0}


def cause(rates: Mapping[str, float], pool: int, *alerts: str) -> Cause:
    """
    A cause in one line.
    """
    return Cause(rates, pool, frozenset(alerts))


CAUSES = {
    "too-small": cause(
        {"GET /reports/sales": 12.0}, 3,
        "PoolSaturated", "PoolTimeouts", "PoolWaitBurnsFast", "PoolWaitBurnsSlowly", "CheckoutSpansFail",
        "CheckoutSpansSlow", "TracesWithFindings",
    ),
    "leaking": cause({"GET /cart/{user}": 0.5, **ORDINARY}, 40, "ConnectionLeak", "TracesWithFindings"),
    "looping": cause({"GET /feed": 1.0, **ORDINARY}, 30, "NPlusOneFound", "TracesWithFindings"),
    "nesting": cause({"GET /profile/{user}": 2.0, **ORDINARY}, 30, "NestedCheckout", "TracesWithFindings"),
    "dawdling": cause({"POST /checkout/{user}": 3.0, **ORDINARY}, 24, "HeldIdleInTransaction", "TracesWithFindings"),
    "repaired": cause({request: rate / 6 for request, rate in REPAIRED.items()}, 30),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """
    What there is to look at once the customers have gone.
    """

    told: Webhook
    prometheus: Prometheus
    store: Sink
    began: float
    ended: float


@pytest.fixture(scope="module")
def outcome(
    collector: Path, prometheus: Path, alertmanager: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcome]:
    """
    All shops under load at once, on one PostgreSQL, into one pipeline.
    """
    folder = tmp_path_factory.mktemp("shop")
    rules = folder / "rules.yaml"
    rules.write_text(grafana.alerts.generate(PACE)[f"{grafana.alerts.FOLDER}/prometheus.yaml"])
    began = time.time()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres(max_connections=200))
        filled = stack.enter_context(database(server))
        told = stack.enter_context(webhook())
        store = stack.enter_context(Sink(folder / "store"))
        otel = stack.enter_context(_collector(folder / "collector", server, store))
        manager = stack.enter_context(Alertmanager(folder / "alertmanager", told.url, patience="1s"))
        jobs = {
            "poolscope-processes": otel.address("processes"),
            "poolscope-counted": otel.address("counted"),
            "poolscope-collector": otel.address("self"),
        }
        prom = stack.enter_context(Prometheus(folder / "prometheus", Addresses(jobs, manager.address), [rules]))
        _open_the_shops(stack, otel, filled, prom)
        yield Outcome(told, prom, store, began, time.time())


def _collector(folder: Path, server: Postgres, store: Sink) -> Collector:
    env = {
        "POOLSCOPE_PG_HOST": server.host,
        "POOLSCOPE_PG_PORT": str(server.port),
        "POOLSCOPE_PG_USERNAME": server.user,
        "POOLSCOPE_PG_PASSWORD": server.password,
        "POOLSCOPE_PG_INTERVAL": "1s",
        "POOLSCOPE_FLUSH_INTERVAL": "1s",
        "POOLSCOPE_DECISION_WAIT": "5s",
        "POOLSCOPE_TRACES_ENDPOINT": store.address("otlp_grpc"),
        "POOLSCOPE_LONG_WAIT_SECONDS": str(LONG_WAIT),
    }
    return Collector(folder, CONFIG / "collector.yaml", env=env)


def _open_the_shops(stack: contextlib.ExitStack, otel: Collector, filled: Postgres, prom: Prometheus) -> None:
    payment_url = stack.enter_context(payments(PAYMENT_SECONDS))
    doors = [shop("flask", filled, payment_url, _settings(name, each, otel)) for name, each in CAUSES.items()]
    # Together: each takes seconds to start.
    with ThreadPoolExecutor() as pool:
        opened = list(pool.map(stack.enter_context, doors))
    customers = [
        Traffic(running.address, LOAD_SECONDS, rates=each.rates)
        for running, each in zip(opened, CAUSES.values(), strict=True)
    ]
    threads = [threading.Thread(target=asyncio.run, args=[each.run(lambda _gone, _tally: None)]) for each in customers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = f"count by ({SERVICE}) ({family(names.CONNECTION_MAX)})"
    wait_until(lambda: {sample.labels[SERVICE] for sample in prom.query(seen)} == set(CAUSES), 60, "all shops")


def _settings(name: str, each: Cause, otel: Collector) -> dict[str, str]:
    exporters = {f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS", "LOGS")}
    return {
        **exporters,
        "SHOP_POOL_SIZE": str(each.pool - 1),
        "SHOP_MAX_OVERFLOW": "1",
        "SHOP_POOL_RECYCLE": str(RECYCLE_SECONDS),
        "SHOP_POOL_TIMEOUT": str(SMALL_POOL_TIMEOUT) if "PoolTimeouts" in each.alerts else "10.0",
        "POOLSCOPE_LONG_HOLD_THRESHOLD": str(LONG_HOLD),
        "POOLSCOPE_EXHAUSTED_WAIT": str(LONG_HOLD),
        "OTEL_SERVICE_NAME": name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": otel.otlp,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


def arrived(told: Webhook, name: str) -> set[str]:
    """
    The names of the alerts that fired about a shop.
    """
    labels = [alert["labels"] for alert in list(told.alerts) if alert["status"] == "firing"]
    return {each["alertname"] for each in labels if each.get(SERVICE) == name}


@pytest.mark.parametrize("name", CAUSES)
def test_each_cause_brings_exactly_its_alerts(outcome: Outcome, name: str) -> None:
    """
    About a shop with that cause these alerts arrive, and about the repaired shop none.
    """
    expected = CAUSES[name].alerts
    # The last may still be on its way.
    wait_until(lambda: arrived(outcome.told, name) >= expected, 60, f"{sorted(expected)}")
    assert arrived(outcome.told, name) == expected


def test_nothing_else_is_reported(outcome: Outcome) -> None:
    """
    The fleet and the pipeline itself are well; of the server it is said that leaked connections stand in transactions.
    """
    labels = [alert["labels"] for alert in outcome.told.alerts]
    assert {each["alertname"] for each in labels if each.get(SERVICE) not in CAUSES} == {"ServerIdleInTransaction"}


def test_exemplars_of_long_waits_lead_to_kept_traces(outcome: Outcome) -> None:
    """
    A point of the wait histogram beyond the sampler's threshold names a trace that is in the trace store.
    """
    query = f'{bucket(names.WAIT_TIME)}{{{SERVICE}="too-small"}}'
    # A trace is stored once its decision is made.
    before = time.time() - 10
    exemplars = [
        exemplar["labels"]["trace_id"]
        for exemplar in outcome.prometheus.exemplars(query, outcome.began, before)
        if float(exemplar["value"]) > LONG_WAIT
    ]
    assert exemplars
    wait_until(lambda: set(exemplars) <= set(outcome.store.traces()), 60, "the traces that the exemplars name")


def test_the_ledger_agrees_with_the_pools(outcome: Outcome) -> None:
    """
    Under all that load no instance's ledger drifted for longer than a moment, and poolscope caught no error of its own.
    """
    assert [s for s in outcome.prometheus.query(f"min_over_time(abs({family(names.DRIFT)})[10s:1s])") if s.value] == []
    assert [s for s in outcome.prometheus.query(family(names.ERRORS)) if s.value] == []


DASHBOARDS = sorted((ROOT / "grafana" / "generated" / "dashboards").glob("*.json"))
LABELS = {label(value) for value in vars(names).values() if isinstance(value, str)}
SERIES = re.compile(r"\b((?:db_client|poolscope|traces_span|postgresql)_[a-z_]+)\b(?=[\[{)])")
VARIABLE = re.compile(r"\$\{?([a-zA-Z_]\w*)\}?")
# That counter begins with the first error of poolscope's own, of which there is none here.
UNSEEN = family(names.ERRORS)
# Windows that Grafana fills in; every other variable is set to "all".
WINDOWS = {"__rate_interval": "20s", "__range": "2m", "__interval": "5s"}


def queries(board: Path) -> list[tuple[str, str]]:
    """
    Title and expression of every query of a dashboard, its variables filled in.
    """
    panels = [panel for panel in json.loads(board.read_text())["panels"] if panel["type"] != "row"]
    return [
        (panel["title"], VARIABLE.sub(lambda found: WINDOWS.get(found[1], ".*"), target["expr"]))
        for panel in panels
        for target in panel.get("targets", [])
        if "expr" in target
    ]


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.stem)
def test_every_query_has_data(outcome: Outcome, board: Path) -> None:
    """
    Every query of every panel is accepted by Prometheus and has had an answer while the shops ran.
    """
    asked = queries(board)
    assert asked
    at_any_time = {one: f"last_over_time(({one[1]})[{time.time() - outcome.began:.0f}s:5s])" for one in asked}
    without = [one for one, expression in at_any_time.items() if not outcome.prometheus.query(expression)]
    assert [one for one in without if UNSEEN not in one[1]] == []


@pytest.fixture(scope="module")
def drawn(outcome: Outcome) -> dict[str, draw.Drawn]:
    """
    The dashboards of the time in which the shops ran, by the page and the browser.
    """
    require(shutil.which("node"), "Node.js is missing", "install version 20 or newer")
    require(any(map(shutil.which, draw.CHROMIUMS)), "Chromium is missing", "apt-get install chromium")
    page = serve.start(outcome.prometheus.url, scrape_seconds=1)
    try:
        shots = [draw.Shot(board.stem) for board in DASHBOARDS]
        return {one.uid: one for one in draw.draw(page.url, shots, outcome.began, outcome.ended)}
    finally:
        page.close()


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.stem)
def test_every_panel_is_drawn(drawn: dict[str, draw.Drawn], board: Path) -> None:
    """
    With the data of the running pipeline no panel is empty, in error or unpainted.
    """
    assert drawn[board.stem].panels
    assert drawn[board.stem].faults == []


def test_every_rule_is_evaluated(outcome: Outcome) -> None:
    """
    With what a running pipeline brings, no rule ends in an error: such an alert would never fire, and nobody be told.
    """
    rules = [rule for group in outcome.prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {alert.name for alert in grafana.alerts.alerts()}
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_every_alert_asks_for_series_that_exist(outcome: Outcome) -> None:
    """
    Each series that an alert names has been seen while the shops ran.
    """
    known = set(outcome.prometheus.api("label/__name__/values"))
    asked = {name for alert in grafana.alerts.alerts() for name in SERIES.findall(alert.expression)} - LABELS
    assert len(asked) > 10
    assert asked - known <= {UNSEEN}
