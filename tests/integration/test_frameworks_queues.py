"""RQ, arq and dramatiq on a real Redis: each job is a unit of work."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import arq
import arq.worker
import dramatiq
import pytest
from arq.connections import RedisSettings
from dramatiq.brokers.redis import RedisBroker
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from redis import Redis
from rq import Queue, SimpleWorker, Worker

from examples.lab.processes import wait_until
from tests.integration import queue_jobs
from tests.support.handlers import handlers_put_back
from tests.support.redis import redis_server
from tests.support.telemetry import Telemetry, instrumented
from tests.support.units import Queries, queries_by_unit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """A Redis of our own; its address."""
    with redis_server() as address:
        yield address


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(hold_spans=False, checkout_spans="never")


@pytest.fixture
def _jobs(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs have a pool to query."""
    monkeypatch.setattr(queue_jobs, "run", Queries())


@pytest.mark.usefixtures("_jobs")
def test_rq_in_the_workers_own_process(telemetry: Telemetry, redis: str) -> None:
    """Named for the function; one that fails is one all the same."""
    connection = Redis.from_url(redis)
    queue = Queue("simple", connection=connection)
    for number in (2, 3):
        queue.enqueue(queue_jobs.send, number)
    queue.enqueue(queue_jobs.fails, 4)
    with handlers_put_back():
        SimpleWorker([queue], connection=connection).work(burst=True, logging_level="ERROR")
    connection.close()
    module = queue_jobs.__name__
    assert queries_by_unit(telemetry.collect()) == {f"task {module}.send": (2, 5.0), f"task {module}.fails": (1, 4.0)}


def test_rq_in_a_work_horse(redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child process that runs a job ends without notice; its figures are sent before."""
    written = tmp_path / "units"
    telemetry = Telemetry(hold_spans=False, checkout_spans="never")
    reader = PeriodicExportingMetricReader(queue_jobs.ToFile(written), export_interval_millis=3_600_000)
    telemetry.meter_provider = MeterProvider([reader], shutdown_on_exit=False)
    telemetry.start()
    monkeypatch.setattr(queue_jobs, "run", Queries())
    connection = Redis.from_url(redis)
    queue = Queue("forking", connection=connection)
    queue.enqueue(queue_jobs.send, 5)
    with handlers_put_back():
        Worker([queue], connection=connection).work(burst=True, logging_level="ERROR")
    connection.close()
    assert [json.loads(line) for line in written.read_text().splitlines()] == [
        {f"task {queue_jobs.__name__}.send": [1, 5.0]}
    ]
    telemetry.shutdown()


@pytest.mark.usefixtures("_jobs")
def test_arq(telemetry: Telemetry, redis: str) -> None:
    """Named for the function, concurrent jobs apart."""

    async def work() -> None:
        settings = RedisSettings.from_dsn(redis)
        settings.conn_timeout = 60  # seconds; by default one, for which a busy machine may hold up the event loop
        pool = await arq.create_pool(settings)
        for number in range(1, 6):
            await pool.enqueue_job("send_later", number)
        worker = arq.worker.Worker(
            [queue_jobs.send_later], redis_settings=settings, burst=True, handle_signals=False, poll_delay=0.05
        )
        await worker.async_run()
        await worker.close()
        await pool.aclose()

    asyncio.run(work())
    assert queries_by_unit(telemetry.collect()) == {"task send_later": (5, 15.0)}


@pytest.mark.usefixtures("_jobs")
def test_dramatiq(telemetry: Telemetry, redis: str) -> None:
    """Named for the actor; one that fails is one all the same."""
    broker = RedisBroker(url=redis)
    send: Any = dramatiq.actor(queue_jobs.send, actor_name="send", broker=broker)
    fails: Any = dramatiq.actor(queue_jobs.fails, actor_name="fails", broker=broker, max_retries=0)
    for number in (1, 2, 3):
        send.send(number)
    fails.send(4)
    worker = dramatiq.Worker(broker, worker_threads=3, worker_timeout=50)
    worker.start()
    expected = {"task send": (3, 6.0), "task fails": (1, 4.0)}
    try:
        wait_until(lambda: queries_by_unit(telemetry.collect()) == expected, 60)
    finally:
        worker.stop()
        broker.close()
