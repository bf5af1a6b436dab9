"""
Causes of exhaustion side by side, through the real Collector, Prometheus and Alertmanager, to a webhook.

Each cause is a service of its own, next to its repaired twin. The rules are those of operation, sixty times as fast.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import grafana.alerts
from examples.lab.pipeline import CONFIG, Addresses, Alertmanager, Collector, Prometheus, monitoring_role
from examples.lab.postgres import postgres
from examples.lab.processes import wait_until
from examples.lab.webhook import Webhook, webhook
from grafana.alerts.model import Pace
from grafana.collector import SERVICE
from grafana.prometheus import family
from poolscope import semconv
from poolscope.core.catalogue.holds import NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.pools import FORKED_POOL
from poolscope.core.catalogue.queries import N_PLUS_ONE
from tests.pipeline.emitter import Process
from tests.pipeline.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from examples.lab.postgres import Postgres

pytestmark = pytest.mark.timeout(300)

PACE = Pace(60)
STEP = 0.2  # seconds between two things that happen in a service; longer where the machine has much else to do
UNIT = {semconv.UNIT_OF_WORK_KIND: "http", semconv.UNIT_OF_WORK_NAME: "GET /orders"}


def healthy(process: Process, seconds: float) -> None:
    """Short waits, short holds."""
    process.record(semconv.WAIT_TIME, 0.0004)
    process.record(semconv.USE_TIME, 0.02)
    process.add(semconv.HOLD_PHASE_TIME, 0.02, {semconv.HOLD_PHASE: "query"})
    process.request(wait=0.0004)


def starved(process: Process, seconds: float) -> None:
    """All connections in use for all of these seconds, every request waits."""
    process.add(semconv.SATURATION_TIME, seconds)
    process.record(semconv.WAIT_TIME, 2)
    process.request(wait=2)


def exhausted(process: Process, seconds: float) -> None:
    """Starved until requests give up."""
    starved(process, seconds)
    process.add(semconv.TIMEOUTS, 1)
    process.request(wait=2, error="TimeoutError")


def refused(process: Process, seconds: float) -> None:
    """Connects that the server refuses."""
    healthy(process, seconds)
    process.add(
        semconv.FAILED_CHECKOUTS,
        1,
        {semconv.CHECKOUT_OUTCOME: "server_refused", semconv.ERROR_TYPE: "OperationalError"},
    )


def leaking(process: Process, seconds: float) -> None:
    """Exhausted because connections do not come back."""
    exhausted(process, seconds)
    process.add(semconv.LEAKS, 1, {semconv.LEAK_KIND: "owner_finished"})
    process.request(findings=[LEAK])


def overdue(process: Process, seconds: float) -> None:
    """A holder that takes too long."""
    healthy(process, seconds)
    process.add(semconv.LEAKS, 1, {semconv.LEAK_KIND: "overdue"})


def looping(process: Process, seconds: float) -> None:
    """The same query over and over."""
    healthy(process, seconds)
    process.add(semconv.REPEATED_QUERIES, 20, UNIT)
    process.request(findings=[N_PLUS_ONE])


def nesting(process: Process, seconds: float) -> None:
    """A second connection while holding one."""
    healthy(process, seconds)
    process.add(semconv.NESTED_CHECKOUTS, 1)
    process.request(findings=[NESTED_CHECKOUT])


def forked(process: Process, seconds: float) -> None:
    """A pool that was opened before a fork."""
    healthy(process, seconds)
    process.add(semconv.FINDING_COUNT, 1, {semconv.FINDING_ID: FORKED_POOL})
    process.request(findings=[FORKED_POOL])


def dawdling(process: Process, seconds: float) -> None:
    """Transactions held open over other work."""
    healthy(process, seconds)
    process.add(semconv.HOLD_PHASE_TIME, seconds * 9, {semconv.HOLD_PHASE: "idle_in_transaction"})


def drifting(process: Process, seconds: float) -> None:
    """A pool registry that disagrees with the pool."""
    healthy(process, seconds)
    process.set(semconv.DRIFT, 1)


def erring(process: Process, seconds: float) -> None:
    """Faults of our own."""
    healthy(process, seconds)
    process.add(semconv.ERRORS, 1, {semconv.COMPONENT: "adapters.sqlalchemy"})


WAITING = {"PoolWaitBurnsFast", "PoolWaitBurnsSlowly", "CheckoutSpansSlow"}
# What each service does, and the alerts that reach the webhook about it: those and no others. A leaking pool is not
# reported as saturated as well: Alertmanager holds that back.
CAUSES: dict[str, tuple[Callable[[Process, float], None], set[str]]] = {
    "healthy": (healthy, set()),
    "too-small": (starved, {"PoolSaturated", *WAITING}),
    "exhausted": (exhausted, {"PoolSaturated", "PoolTimeouts", "CheckoutSpansFail", *WAITING}),
    "leaking": (leaking, {"ConnectionLeak", "PoolTimeouts", "CheckoutSpansFail", "TracesWithFindings", *WAITING}),
    "refused": (refused, {"TooManyConnections"}),
    "overdue": (overdue, {"LeaseOverdue"}),
    "looping": (looping, {"NPlusOneFound", "TracesWithFindings"}),
    "nesting": (nesting, {"NestedCheckout", "TracesWithFindings"}),
    "forked": (forked, {"ForkedPool", "TracesWithFindings"}),
    "dawdling": (dawdling, {"HeldIdleInTransaction"}),
    "drifting": (drifting, {"PoolscopeDrift"}),
    "erring": (erring, {"PoolscopeErrors"}),
}
GONE = "gone"
SERVER = {"ServerNearMaxConnections", "FleetOverBudget", "ServerIdleInTransaction"}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A small PostgreSQL with connections for the monitoring role."""
    with postgres(max_connections=25, settings={"reserved_connections": "5"}) as server:
        yield server


@pytest.fixture(scope="module")
def told(
    collector: Path, prometheus: Path, alertmanager: Path, server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Webhook]:
    """What the webhook was told once every rule had its time."""
    folder = tmp_path_factory.mktemp("alerts")
    rules = folder / "rules.yaml"
    rules.write_text(grafana.alerts.generate(PACE)[f"{grafana.alerts.FOLDER}/prometheus.yaml"])
    with contextlib.ExitStack() as stack:
        hook = stack.enter_context(webhook())
        sink = stack.enter_context(Sink(folder / "sink"))
        role = monitoring_role(server, "not-a-secret")
        env = {
            "POOLSCOPE_PG_HOST": role.host,
            "POOLSCOPE_PG_PORT": str(role.port),
            "POOLSCOPE_PG_USERNAME": role.user,
            "POOLSCOPE_PG_PASSWORD": role.password,
            "POOLSCOPE_PG_DATABASE": role.database,
            "POOLSCOPE_PG_INTERVAL": "1s",
            "POOLSCOPE_FLUSH_INTERVAL": "1s",
            "POOLSCOPE_SERIES_EXPIRE": "10s",
            "POOLSCOPE_DECISION_WAIT": "1s",
            "POOLSCOPE_TRACES_ENDPOINT": sink.address("otlp_grpc"),
        }
        otel = stack.enter_context(Collector(folder / "collector", CONFIG / "collector.yaml", env=env))
        manager = stack.enter_context(Alertmanager(folder / "alertmanager", hook.url, patience="1s"))
        jobs = {f"poolscope-{job}": otel.address(port) for job, port in JOBS.items()}
        prom = stack.enter_context(Prometheus(folder / "prometheus", Addresses(jobs, manager.address), [rules]))
        _crowd(stack, server)
        _live(stack, otel, prom, (server.host, server.port))
        yield hook


JOBS = {"processes": "processes", "counted": "counted", "collector": "self"}


def _crowd(stack: contextlib.ExitStack, server: Postgres) -> None:
    """Hold most of the server's connections, one in a transaction that does nothing."""
    for _ in range(15):
        stack.enter_context(server.connect(application_name="crowd"))
    idle = stack.enter_context(server.connect(application_name="dawdler"))
    idle.execute("BEGIN")


def _live(stack: contextlib.ExitStack, otel: Collector, prom: Prometheus, server: tuple[str, int]) -> None:
    """Let all services live until every rule has had the time that it waits for."""
    alive: dict[str, Process] = {}
    stack.callback(lambda: _close(alive))
    for name in (*CAUSES, GONE):
        alive[name] = Process(otel.otlp, name, instance=f"{name}-1", limit=10, server=server, interval=500)
    ended = threading.Event()

    def act() -> None:
        last = time.monotonic()
        while not ended.wait(STEP):
            now = time.monotonic()
            for name, (behave, _) in CAUSES.items():
                behave(alive[name], now - last)
            last = now

    actor = threading.Thread(target=act, name="services", daemon=True)
    actor.start()
    stack.callback(actor.join)
    stack.callback(ended.set)
    wait_until(lambda: prom.query(f'{family(semconv.CONNECTION_MAX)}{{{SERVICE}="{GONE}"}}'), 60, "the first service")
    alive.pop(GONE).close()
    healthy_series = f'count_over_time({family(semconv.CONNECTION_MAX)}{{{SERVICE}="healthy"}}[5m])'
    # The slowest of all: 15 s of holding on 30 s windows, and alerts are sent once a second.
    wait_until(lambda: [s for s in prom.query(healthy_series) if s.value >= 45], 90, "45 scrapes")


def _close(alive: dict[str, Process]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(Process.close, alive.values()))


def about(hook: Webhook, label: str, value: str) -> set[str]:
    """The names of the alerts that arrived about something."""
    fired = [alert["labels"] for alert in list(hook.alerts) if alert["status"] == "firing"]
    return {labels["alertname"] for labels in fired if labels.get(label) == value}


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_brings_exactly_its_alerts(told: Webhook, cause: str) -> None:
    """About a service with that cause these alerts arrive, and about the healthy one none."""
    expected = CAUSES[cause][1]
    wait_until(lambda: about(told, SERVICE, cause) >= expected, 60, f"{sorted(expected)}")
    assert about(told, SERVICE, cause) == expected


def test_a_service_that_fell_silent_is_reported(told: Webhook) -> None:
    """A service that stops reporting is reported once its last series is gone."""
    wait_until(lambda: about(told, SERVICE, GONE), 60, "an alert about the silent service")
    assert about(told, SERVICE, GONE) == {"PoolscopeNoData"}


def test_the_server_s_side_is_reported(told: Webhook, server: Postgres) -> None:
    """A server that is nearly full, pools that exceed it together, and an idle transaction on it."""
    wait_until(lambda: about(told, "server_address", server.host) >= SERVER, 60, "the server's alerts")
    assert about(told, "server_address", server.host) == SERVER


def test_nothing_else_arrives(told: Webhook) -> None:
    """No alert is about anything else: the pipeline itself is well."""
    subjects = {*CAUSES, GONE}
    others: list[Any] = [
        alert["labels"]
        for alert in told.alerts
        if alert["labels"].get(SERVICE) not in subjects and alert["labels"]["alertname"] not in SERVER
    ]
    assert others == []


def test_messages_say_where_to_look(told: Webhook) -> None:
    """
    What arrives has the summary, the links to the dashboard and to the finding's page, and no label
    made for these.
    """
    for alert in told.alerts:
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["dashboard"].startswith("http://127.0.0.1:3000/d/poolscope-")
        assert not {"grafana_url", "docs_url"} & set(alert["labels"])
        if "finding" in alert["labels"]:
            assert alert["annotations"]["runbook_url"] == f"docs/findings/{alert['labels']['finding']}.md"
