"""
Celery on a real Redis: workers that fork and workers that thread, with the upstream instrumentation
in either order.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import Child, wait_until
from poolscope import semconv
from poolscope.core.catalogue.queries import N_PLUS_ONE
from tests.support.redis import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery

ROOT = "tests.integration.celery_worker"


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """A Redis of our own; its address."""
    with redis_server() as address:
        yield address


class Worker:
    """A worker that runs, and what its processes measured."""

    def __init__(self, folder: Path, app: Celery) -> None:
        self.folder = folder
        self.app = app

    def send(self, task: str, *numbers: int) -> None:
        """Have a task run with each of the numbers; what becomes of them shows in `units`."""
        for number in numbers:
            self.app.send_task(task, args=[number], ignore_result=True)

    def units(self) -> dict[str, tuple[int, float]]:
        """Units of work and their queries, of all its processes together."""
        counts: Counter[str] = Counter()
        totals: Counter[str] = Counter()
        for path in self.folder.glob("*.units"):
            for unit, (count, total) in json.loads(path.read_text()).items():
                counts[unit] += count
                totals[unit] += total
        return {unit: (counts[unit], float(totals[unit])) for unit in counts}

    def spans_of(self, task: str) -> list[dict[str, Any]]:
        """What poolscope put on the CONSUMER spans of a task."""
        # The last line may still be written.
        texts = [path.read_text().rpartition("\n")[0] for path in self.folder.glob("*.spans")]
        lines = [json.loads(line) for text in texts for line in text.splitlines()]
        return [figures for kind, name, figures in lines if kind == "CONSUMER" and name.endswith(f"/{task}")]


@pytest.fixture(
    scope="module",
    params=[("prefork", "first"), ("prefork", "last"), ("threads", "first"), ("threads", "last")],
    ids=["prefork-upstream_first", "prefork-we_first", "threads-upstream_first", "threads-we_first"],
)
def worker(request: pytest.FixtureRequest, redis: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that forks, or one that threads; upstream's instrumentation started before ours, or after."""
    from celery import Celery

    pool, upstream = request.param
    folder = tmp_path_factory.mktemp(pool)
    app = Celery("client", broker=redis)
    command = [sys.executable, "-m", "celery", "-A", ROOT, "worker", "-P", pool, "-c", "3", "--without-mingle"]
    settings = {"WORKER_BROKER": redis, "WORKER_FOLDER": str(folder), "WORKER_UPSTREAM": upstream, "WORKER_POOL": pool}
    # No task holds or waits for so long, however busy the machine is: what is found is what a task does.
    settings |= {"POOLSCOPE_LONG_HOLD_THRESHOLD": "60", "POOLSCOPE_EXHAUSTION_THRESHOLD": "0"}
    with Child([*command, "--without-gossip", "-l", "info"], env={**os.environ, **settings}) as child:
        child.wait_ready(lambda: "ready." in child.log_tail(50), 90)
        yield Worker(folder, app)
    app.close()


def test_each_task_is_one(worker: Worker) -> None:
    """
    Whatever runs it, however it ends; each attempt of a retried one; a task inside a task is part
    of the outer one.
    """
    numbers = range(1, 31)
    worker.send("shop.send", *numbers)
    worker.send("shop.fails", 4, 5)
    worker.send("shop.retries", 7)
    worker.send("shop.outer", 6)
    expected = {
        "task shop.send": (30, float(sum(numbers))),
        "task shop.fails": (2, 9.0),
        "task shop.retries": (3, 21.0),
        "task shop.outer": (1, 7.0),
    }
    wait_until(lambda: sum(count for count, _ in worker.units().values()) >= 36, 60)
    assert worker.units() == expected


def test_the_consumer_span_of_the_upstream_instrumentation_has_the_figures(worker: Worker) -> None:
    """Whoever starts first; and the findings are there before the span ends."""
    worker.send("shop.repeat", 3, 8)
    wait_until(lambda: len(worker.spans_of("shop.repeat")) == 2, 60)
    found = {span[semconv.UNIT_OF_WORK_QUERIES]: span.get(semconv.FINDINGS) for span in worker.spans_of("shop.repeat")}
    assert found == {3: None, 8: [N_PLUS_ONE]}
