"""
Shops under load: each cause in a process of its own next to the repaired shop, through the whole pipeline.

One scene for the whole run, at which every test looks that needs a pipeline with something to see: alerts, links, the
report, the drawn dashboards.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grafana.alerts
from examples.lab.pipeline import CONFIG, ROOT, Addresses, Alertmanager, Collector, Prometheus, monitoring_role
from examples.lab.postgres import postgres
from examples.lab.processes import LOOPBACK, free_port, wait_until
from examples.lab.shop import database, payments, shop
from examples.lab.webhook import Webhook, webhook
from examples.shop.traffic import REPAIRED, Tally, Traffic
from grafana.alerts.model import Pace
from grafana.collector import SERVICE
from grafana.pictures import serve
from grafana.prometheus import family
from poolscope import semconv
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.queries import N_PLUS_ONE
from tests.pipeline.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from examples.lab.postgres import Postgres

# To open a connection takes long on a machine that has other work, but neither limit; what the small pool's customers
# wait, as long as SMALL_POOL_TIMEOUT, is beyond both.
PACE = Pace(60, wait_limit=1.0, slow_checkout=2.5, loop_lag=2.5)
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
    One shop: what its customers ask for, how large its pool is, the alerts about it, and what its findings are, each
    with the place that is blamed, or "" for the pool as a whole.
    """

    rates: Mapping[str, float]
    pool: int
    alerts: frozenset[str]
    findings: frozenset[tuple[str, str]]


# Ordinary requests beside the faulty ones: without them the few checkouts that open a connection weigh too much.
ORDINARY = {"GET /users/{user}": 6.0}


def cause(rates: Mapping[str, float], pool: int, *alerts: str, found: tuple[tuple[str, str], ...] = ()) -> Cause:
    """A cause in one line."""
    return Cause(rates, pool, frozenset(alerts), frozenset(found))


CAUSES = {
    "too-small": cause(
        {"GET /reports/sales": 12.0}, 3,
        "PoolSaturated", "PoolTimeouts", "PoolWaitBurnsFast", "PoolWaitBurnsSlowly", "CheckoutSpansFail",
        "CheckoutSpansSlow", "TracesWithFindings", found=((POOL_EXHAUSTED, ""),),
    ),
    "leaking": cause(
        {"GET /cart/{user}": 0.5, **ORDINARY}, 40, "ConnectionLeak", "TracesWithFindings",
        found=((LEAK, "GET /cart/<int:user_id>"),),
    ),
    "looping": cause(
        {"GET /feed": 1.0, **ORDINARY}, 30, "NPlusOneFound", "TracesWithFindings",
        found=((N_PLUS_ONE, "GET /feed"),),
    ),
    "nesting": cause(
        {"GET /profile/{user}": 2.0, **ORDINARY}, 30, "NestedCheckout", "TracesWithFindings",
        found=((NESTED_CHECKOUT, "GET /profile/<int:user_id>"),),
    ),
    "dawdling": cause(
        {"POST /checkout/{user}": 3.0, **ORDINARY}, 24, "HeldIdleInTransaction", "TracesWithFindings",
        found=((IDLE_IN_TRANSACTION, "POST /checkout/<int:user_id>"),),
    ),
    "repaired": cause({request: rate / 6 for request, rate in REPAIRED.items()}, 30),
}  # fmt: skip
HEALTHY = "repaired"


@dataclass(frozen=True)
class Shops:
    """
    What there is to look at once the customers have gone.

    Args:
        told: What Alertmanager sent.
        prometheus: With all series and alerts.
        store: The trace store.
        page: Where the dashboards and the documentation are served; what alerts link to.
        telemetry: The file with all that left the shops.
        tallies: What the customers of each shop got.
        began: Before the first shop started, in seconds of the epoch.
        ended: When the customers had gone.
    """

    told: Webhook
    prometheus: Prometheus
    store: Sink
    page: str
    telemetry: Path
    tallies: Mapping[str, Tally]
    began: float
    ended: float


class Scene:
    """
    The shops, opened for the first test that looks at them and closed after the last one.

    Args:
        folder: For everything that the programs keep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack: contextlib.ExitStack | None = None
        self._shops: Shops | None = None

    def open(self) -> Shops:
        """What there is to look at; takes a minute the first time."""
        if self._shops is None:
            self._stack = contextlib.ExitStack()
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            self._shops = self._stack.enter_context(shops_under_load(folder))
        return self._shops

    def close(self) -> None:
        """End all of it; may be called twice."""
        stack, self._stack, self._shops = self._stack, None, None
        if stack is not None:
            stack.close()


@contextlib.contextmanager
def shops_under_load(folder: Path) -> Iterator[Shops]:
    """
    All shops under load at once, on one PostgreSQL, into one pipeline.

    Args:
        folder: For everything that the programs keep.

    Yields:
        What there is to look at; the shops still stand, with no customer in them, so that no alert is about their
        silence.
    """
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
        port = free_port()
        page = f"http://{LOOPBACK}:{port}"
        addresses = Addresses(jobs, manager.address, page, f"{page}{serve.DOCS_PREFIX.rstrip('/')}")
        prom = stack.enter_context(Prometheus(folder / "prometheus", addresses, [rules]))
        pages = serve.PageServer(serve.Source(prom.url, scrape_seconds=1), port)
        stack.callback(pages.close)
        tallies = _open_the_shops(stack, otel, filled, prom)
        yield Shops(told, prom, store, page, folder / "collector" / "kept.jsonl", tallies, began, time.time())


def _collector(folder: Path, server: Postgres, store: Sink) -> Collector:
    role = monitoring_role(server, "not-a-secret")
    env = {
        "POOLSCOPE_PG_HOST": role.host,
        "POOLSCOPE_PG_PORT": str(role.port),
        "POOLSCOPE_PG_USERNAME": role.user,
        "POOLSCOPE_PG_PASSWORD": role.password,
        "POOLSCOPE_PG_DATABASE": role.database,
        "POOLSCOPE_PG_INTERVAL": "1s",
        "POOLSCOPE_FLUSH_INTERVAL": "1s",
        "POOLSCOPE_DECISION_WAIT": "5s",
        "POOLSCOPE_TRACES_ENDPOINT": store.address("otlp_grpc"),
        "POOLSCOPE_LONG_WAIT_SECONDS": str(LONG_WAIT),
    }
    return Collector(folder, CONFIG / "collector.yaml", ROOT / "tests" / "pipeline" / "kept.yaml", env=env)


def _open_the_shops(
    stack: contextlib.ExitStack, otel: Collector, filled: Postgres, prom: Prometheus
) -> Mapping[str, Tally]:
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
    seen = f"count by ({SERVICE}) ({family(semconv.CONNECTION_MAX)})"
    wait_until(lambda: {sample.labels[SERVICE] for sample in prom.query(seen)} == set(CAUSES), 60, "all shops")
    return {name: each.tally for name, each in zip(CAUSES, customers, strict=True)}


def _settings(name: str, each: Cause, otel: Collector) -> dict[str, str]:
    exporters = {f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS", "LOGS")}
    return {
        **exporters,
        "SHOP_POOL_SIZE": str(each.pool - 1),
        "SHOP_MAX_OVERFLOW": "1",
        "SHOP_POOL_RECYCLE": str(RECYCLE_SECONDS),
        "SHOP_POOL_TIMEOUT": str(SMALL_POOL_TIMEOUT) if "PoolTimeouts" in each.alerts else "10.0",
        "POOLSCOPE_LONG_HOLD_THRESHOLD": str(LONG_HOLD),
        "POOLSCOPE_BLOCKED_EVENT_LOOP_THRESHOLD": str(LONG_HOLD),
        "POOLSCOPE_EXHAUSTION_THRESHOLD": str(LONG_HOLD),
        "OTEL_SERVICE_NAME": name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": otel.otlp,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
