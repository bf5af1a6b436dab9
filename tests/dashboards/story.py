"""
Two made-up half hours of the same small fleet: one in which a pool runs dry, one in which the causes are mended.

Not a simulation and no proof of anything about poolscope: it fills every series that the dashboards read with values
that fit each other, so that they can be drawn and looked at without the pipeline. What the running pipeline gives is
tested in ``tests/pipeline``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana import collector
from poolscope import semconv
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import NESTED_CHECKOUT
from poolscope.core.catalogue.queries import N_PLUS_ONE
from tests.dashboards.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STEP: Final = 15.0
LENGTH: Final = 1800.0
ONSET: Final = 540.0
SERVER: Final = {semconv.SERVER_ADDRESS: "db.example", semconv.SERVER_PORT: "5432"}
TIMEOUT: Final = 5.0
PHASES: Final = ("query", "idle_in_transaction", "idle")


@dataclass(frozen=True)
class Process:
    """One worker with one pool."""

    service: str
    instance: str
    pool: str
    limit: int
    sick: bool

    @property
    def labels(self) -> dict[str, str]:
        """What every series of the pool carries."""
        return {
            collector.SERVICE: self.service, collector.INSTANCE: self.instance, semconv.POOL_NAME: self.pool,
            semconv.DB_SYSTEM: "postgresql", semconv.DB_NAMESPACE: self.service, **SERVER,
        }  # fmt: skip


@dataclass(frozen=True)
class Route:
    """One route: calls per second and process, seconds held, queries, share of the hold by phase, and its line."""

    name: str
    pace: float
    hold: float
    queries: int
    usages: tuple[float, float, float]
    function: str
    line: int


PROCESSES: Final = (
    Process("shop", "shop-1", "orders", 10, sick=True),
    Process("shop", "shop-2", "orders", 10, sick=True),
    Process("billing", "billing-1", "ledger", 15, sick=False),
)
GOOD: Final = (
    Route("GET /orders", 6, 0.03, 3, (0.9, 0.06, 0.04), "list_orders", 41),
    Route("POST /checkout", 2, 0.06, 5, (0.85, 0.1, 0.05), "pay", 88),
    Route("GET /products/{id}", 9, 0.012, 1, (0.95, 0.0, 0.05), "product", 17),
    Route("GET /reports/sales", 0.3, 0.4, 4, (0.97, 0.0, 0.03), "sales", 120),
)
BAD: Final = (
    Route("GET /orders", 6, 0.21, 61, (0.8, 0.12, 0.08), "list_orders", 41),
    Route("POST /checkout", 2, 1.6, 5, (0.05, 0.9, 0.05), "pay", 88),
    *GOOD[2:],
)


def tell(*, exhausted: bool, end: float) -> Recorder:
    """
    The half hour that ends at this time.

    Args:
        exhausted: Whether the causes of exhaustion set in, or are mended.
        end: Seconds of the epoch.
    """
    recorder, dice = Recorder(), random.Random(6)
    leaked = dict.fromkeys(PROCESSES, 0)
    for step in range(int(LENGTH / STEP) + 1):
        elapsed = step * STEP
        open_connections = 0
        for process in PROCESSES:
            sick = exhausted and process.sick and elapsed >= ONSET
            if sick and step % 9 == 0 and leaked[process] < process.limit - 4:
                leaked[process] += 1
                _leak(recorder, process)
            open_connections += _pool(recorder, process, leaked[process], dice, sick=sick)
        _server(recorder, open_connections, idle=6 if exhausted and elapsed >= ONSET else 0, age=elapsed % 8 + 1)
        _around(recorder, firing=exhausted and elapsed >= ONSET + 120)
        recorder.tick(end - LENGTH + elapsed)
    return recorder


def _pool(recorder: Recorder, process: Process, leaked: int, dice: random.Random, *, sick: bool) -> int:
    labels = process.labels
    routes = BAD if sick else GOOD
    wanted = sum(route.pace * route.hold for route in routes) * (0.8 + 0.4 * dice.random())
    used = min(process.limit, leaked + round(wanted + dice.random()))
    full = used >= process.limit
    waiting = round(dice.uniform(2, 9)) if full else 0
    size = max(used, min(process.limit, 5))
    for state, connections in ((semconv.STATE_USED, used), (semconv.STATE_IDLE, size - used)):
        recorder.set(semconv.CONNECTION_COUNT, {**labels, semconv.CONNECTION_STATE: state}, connections)
    recorder.set(semconv.CONNECTION_MAX, labels, process.limit)
    recorder.set(semconv.CONNECTION_IDLE_MAX, labels, 5)
    recorder.set(semconv.CONNECTION_IDLE_MIN, labels, 1)
    recorder.add(semconv.UNATTRIBUTED, labels, 1)
    recorder.set(semconv.PENDING_REQUESTS, labels, waiting)
    recorder.set(semconv.USED_PEAK, labels, min(process.limit, used + (3 if sick else 1)))
    recorder.set(semconv.PENDING_PEAK, labels, waiting + (2 if full else 0))
    recorder.set(semconv.OLDEST_LEASE_AGE, labels, 20.0 * leaked + dice.uniform(0.1, 1))
    recorder.set(semconv.DRIFT, labels, 0)
    recorder.add(semconv.SATURATION_TIME, labels, STEP * (dice.uniform(0.6, 1) if full else 0.1 if sick else 0))
    timeouts = round(dice.uniform(1, 6)) if full and leaked > 4 else 0
    recorder.add(semconv.TIMEOUTS, labels, timeouts)
    failed = {**labels, semconv.CHECKOUT_OUTCOME: "timeout", semconv.ERROR_TYPE: "TimeoutError"}
    recorder.add(semconv.FAILED_CHECKOUTS, failed, timeouts)
    recorder.add(semconv.FINDING_COUNT, {**labels, semconv.FINDING_ID: POOL_EXHAUSTED}, timeouts)
    recorder.add(semconv.NESTED_CHECKOUTS, labels, round(dice.random()) if sick else 0)
    recorder.add(semconv.ERRORS, {**labels, semconv.COMPONENT: "checkout"})
    for kind in ("abandoned", "owner_finished", "overdue"):
        recorder.add(semconv.LEAKS, {**labels, semconv.LEAK_KIND: kind})
    for reason in ("recycled", "overflow", "invalidated"):
        recorder.add(semconv.CLOSURES, {**labels, semconv.CLOSE_REASON: reason}, dice.choice((0, 0, 3 if sick else 1)))
    recorder.observe(semconv.CREATE_TIME, labels, [dice.uniform(0.004, 0.02)] * dice.choice((0, 1)))
    lag = dice.uniform(0.2, 0.6) if sick and dice.random() < 0.1 else dice.uniform(0.0002, 0.004)
    recorder.observe(semconv.EVENT_LOOP_LAG, labels, [lag])
    for route in routes:
        _route(recorder, process, route, dice, full=full, sick=sick)
    return size


def _route(recorder: Recorder, process: Process, route: Route, dice: random.Random, *, full: bool, sick: bool) -> None:
    labels = {**process.labels, semconv.UNIT_OF_WORK_KIND: "http", semconv.UNIT_OF_WORK_NAME: route.name}
    calls = max(1, round(route.pace * STEP))
    holds = [route.hold * dice.lognormvariate(0, 0.4) for _ in range(calls)]
    waits = [
        dice.uniform(0.2, TIMEOUT) if full and dice.random() < 0.5 else dice.uniform(1e-4, 8e-4) for _ in range(calls)
    ]
    queries = [max(1, route.queries + dice.randint(-1, 1)) for _ in range(calls)]
    recorder.observe(semconv.WAIT_TIME, labels, waits)
    recorder.observe(semconv.USE_TIME, labels, holds)
    recorder.observe(semconv.UNIT_HOLD_TIME, labels, holds)
    recorder.observe(semconv.UNIT_WAIT_TIME, labels, waits)
    recorder.observe(semconv.UNIT_QUERIES, labels, queries)
    twice = sick and route.name == "POST /checkout"
    recorder.observe(semconv.UNIT_CONNECTIONS, labels, [2 if twice else 1] * calls)
    looped = sum(queries) - calls if route.queries > 20 else 0
    recorder.add(semconv.REPEATED_QUERIES, labels, looped)
    for phase, share in zip(PHASES, route.usages, strict=True):
        recorder.add(semconv.HOLD_PHASE_TIME, {**labels, semconv.HOLD_PHASE: phase}, sum(holds) * share)
    for phase, share in (("queue", 0.97), ("connect", 0.02), ("validate", 0.01), ("resume", 0.0)):
        recorder.add(semconv.WAIT_PHASE_TIME, {**labels, semconv.WAIT_PHASE: phase}, sum(waits) * share)
    _spans(recorder, labels, route, holds, waits)
    found = {"GET /orders": N_PLUS_ONE, "POST /checkout": NESTED_CHECKOUT}.get(route.name)
    if sick and found:
        kept = {collector.SERVICE: process.service, semconv.FINDINGS: f'["{found}"]'}
        recorder.add(collector.TRACE_FINDINGS, kept, calls)


def _spans(recorder: Recorder, labels: Mapping[str, str], route: Route, holds: list[float], waits: list[float]) -> None:
    place = {
        collector.SERVICE: labels[collector.SERVICE], semconv.CODE_FUNCTION: route.function,
        semconv.CODE_FILE: "shop/queries.py", semconv.CODE_LINE: str(route.line), "status.code": "STATUS_CODE_UNSET",
    }  # fmt: skip
    pool = labels[semconv.POOL_NAME]
    ended = {"status.code": "STATUS_CODE_ERROR" if max(waits) > TIMEOUT * 0.98 else "STATUS_CODE_UNSET"}
    slow = [wait for wait in waits if wait > 0.0005]
    every: tuple[tuple[dict[str, str], list[float]], ...] = (
        ({**place, "span.name": semconv.HOLD_SPAN.named(pool), semconv.POOL_NAME: pool}, holds),
        (
            {**place, "span.name": semconv.CHECKOUT_SPAN.named(pool), semconv.POOL_NAME: pool},
            slow,
        ),
        (
            {collector.SERVICE: labels[collector.SERVICE], "span.name": route.name, **ended},
            [wait + hold * 1.3 for wait, hold in zip(waits, holds, strict=True)],
        ),
    )
    for span, seconds in every:
        recorder.observe(collector.SPAN_DURATION, span, seconds)
        recorder.add(collector.SPAN_CALLS, span, len(seconds))


def _leak(recorder: Recorder, process: Process) -> None:
    recorder.add(semconv.LEAKS, {**process.labels, semconv.LEAK_KIND: "owner_finished"}, 1)


def _server(recorder: Recorder, connections: int, *, idle: int, age: float) -> None:
    active = min(4, connections - idle)
    for state, count in _states(connections, active, idle):
        labels = {**SERVER, "state": state, "application_name": "shop", "datname": "shop"}
        recorder.set(collector.SERVER_CONNECTIONS, labels, count)
    recorder.set(collector.SERVER_OLDEST_IDLE_IN_TRANSACTION, SERVER, age if idle else 0)
    recorder.set(collector.SERVER_CONNECTIONS_MAX, SERVER, 40)
    recorder.set(collector.SERVER_CONNECTIONS_RESERVED, SERVER, 3)
    labels = {**SERVER, "postgresql.database.name": "shop"}
    recorder.set(collector.POSTGRESQL_BACKENDS, labels, connections)
    recorder.set(collector.POSTGRESQL_CONNECTION_MAX, labels, 40)


def _states(connections: int, active: int, idle: int) -> Iterator[tuple[str, int]]:
    yield "active", active
    yield "idle", max(0, connections - active - idle)
    yield "idle in transaction", idle
    yield "idle in transaction (aborted)", 0


def _around(recorder: Recorder, *, firing: bool) -> None:
    recorder.plain(collector.COLLECTOR_QUEUE_SIZE, {"exporter": "otlp/traces"}, 0)
    if firing:
        alert = {"alertname": "PoolSaturated", "alertstate": "firing", "severity": "critical"}
        recorder.plain("ALERTS", {**alert, "service_name": "shop", "db_client_connection_pool_name": "orders"}, 1)
