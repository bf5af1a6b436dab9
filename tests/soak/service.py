"""
One process of a soak: pools of many libraries under load, epoch after epoch with other faults, and the laws after each.

It appends a JSON line for each epoch to a file; the last line says what it took to exit.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import faulthandler
import gc
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from examples.lab.postgres import Postgres
from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.adapters.base import Capability
from poolscope.core import worker
from poolscope.core.guard import guard
from poolscope.core.pool_registry import open_pool_registries
from tests.contract.drivers import all_drivers
from tests.contract.drivers.base import Driver, Feature
from tests.soak.exporters import Backend, Metrics, Spans
from tests.soak.faults import FAULTS, Fault, Stage
from tests.soak.load import LIMIT, PATIENCE, Caller, Load
from tests.support.telemetry import Telemetry

#: Seconds within which threads have to end when the load stops: more than any wait of theirs.
END_SECONDS: Final = 60.0
#: Seconds that an account has to repair itself, once the pools are at rest.
REPAIR_SECONDS: Final = 10.0
#: What is counted where telemetry is more than is kept, as while exporters hang: no error.
DROPPED: Final = ".dropped"
#: Faults at a time.
AT_A_TIME: Final = 3
#: Threads that use each pool: more than it has connections.
THREADS: Final = LIMIT + 1

#: What the main thread uses, where signal handlers raise: a pool of its own, since an interrupt can lose a lock or a
#: connection of a library also without poolscope, and every other thread would wait for that.
IN_MAIN: Final = ("sqlalchemy-QueuePool-sqlite", "sqlalchemy-QueuePool-psycopg")


@dataclasses.dataclass(frozen=True)
class Order:
    """
    The order of a service.

    Args:
        dsn: The PostgreSQL database.
        seed: For what is drawn.
        seconds: How long to go on.
        leases: How many leases there have to be, however long that takes.
        epoch: Seconds between two looks at the laws.
        labels: The pools' drivers.
        faults: The faults; all when empty.
        out: The file for its lines.
    """

    dsn: str
    seed: str
    seconds: float
    leases: int
    epoch: float
    labels: tuple[str, ...]
    faults: tuple[str, ...]
    out: str


class Service:
    """
    The process.

    Args:
        order: What to do.
        folder: For the pools' files.
    """

    def __init__(self, order: Order, folder: Path) -> None:
        self._order = order
        self._folder = folder
        self._draw = random.Random(order.seed)
        self._where = Postgres.from_dsn(order.dsn)
        self._backend = Backend()
        self._telemetry = _telemetry(self._backend)
        self._kinds = [kind for kind in all_drivers() if kind.label in order.labels]
        self._faults = [one for one in FAULTS if not order.faults or one.name in order.faults]
        self._leases = 0

    def run(self) -> None:
        """All epochs."""
        try:
            self._run()
        except BaseException:
            self._say({"died": traceback.format_exc()})
            raise

    def _run(self) -> None:
        began = time.monotonic()
        number = 0
        while time.monotonic() - began < self._order.seconds or self._leases < self._order.leases:
            # The first epochs are without faults: what all later ones are compared with.
            faults = self._draw.sample(self._faults, min(AT_A_TIME, len(self._faults))) if number >= 2 else []
            self._say(self._epoch(number, faults))
            number += 1
        self._ends_stuck()

    def _epoch(self, number: int, faults: list[Fault]) -> dict[str, Any]:
        self._telemetry.start()
        in_main = self._draw.choice([kind for kind in self._kinds if kind.label in IN_MAIN])
        drivers = [self._started(kind) for kind in (*self._kinds, in_main)]
        inside = [False]
        stage = Stage(self._telemetry, self._backend, drivers, self._order.dsn, draw=self._draw, inside=inside)
        most = [0]
        load = Load(drivers[:-1], f"{self._order.seed} {number}", THREADS)
        watched = all(fault.within_limit for fault in faults)
        before = _resident()
        with _sampled(lambda: self._look(stage, most, is_watched=watched)), contextlib.ExitStack() as stack:
            for fault in faults:
                stack.enter_context(fault.happens(stage))
            caller = Caller(drivers[-1], f"{self._order.seed} {number} main")
            load.work_here(caller, time.monotonic() + self._order.epoch, inside)
            hung = load.stop(END_SECONDS)
            if hung:
                faulthandler.dump_traceback(sys.stderr)
                stage.broken.append(f"threads did not end: {', '.join(hung)}")
        gc.collect()
        counts = {driver.pool: load.count(driver) for driver in drivers}
        exact = all(fault.exact for fault in faults)
        self._check(stage, counts, exact=exact)
        acquired = sum(count.acquired for count in counts.values())
        self._leases += acquired
        for driver in drivers:
            with contextlib.suppress(Exception):  # a pool that an interrupt broke, bare as well
                driver.stop()
        self._telemetry.stop()
        counted, strikes = guard.counts(), stage.strikes
        guarded = {name: times for name, times in counted.items() if not name.endswith(DROPPED)}
        if guarded and exact:
            stage.broken.append(f"guarded errors: {guarded}")
        guard.reset()
        del load, caller, drivers, driver, stage.drivers
        _trim()
        return {
            "epoch": number,
            "faults": [fault.name for fault in faults],
            "strikes": strikes,
            "dropped": sum(counted.values()) - sum(guarded.values()),
            "leases": acquired,
            "failed": sum(sum(count.failed.values()) for count in counts.values()),
            "interrupted": sum(count.interrupted for count in counts.values()),
            "resident": _resident(),
            "grown": max(0, most[0] - before),
            "threads": threading.active_count(),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "broken": stage.broken,
        }

    def _started(self, kind: type[Driver]) -> Driver:
        driver = kind()
        driver.start(self._where if kind.on_postgres else None, self._folder, size=LIMIT, timeout=PATIENCE)
        return driver

    def _check(self, stage: Stage, counts: dict[str, Any], *, exact: bool) -> None:
        if not exact:  # what an interrupt or an error of ours has left is set right at rest
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: not any(self._drift(driver) for driver in stage.drivers), REPAIR_SECONDS)
        collected = self._telemetry.collect()
        for driver in stage.drivers:
            count, name = counts[driver.pool], driver.pool

            def law(what: str, is_so: object, found: object, label: str = driver.label) -> None:
                if not is_so:
                    stage.broken.append(f"{label}: {what}: {found}")

            used, drift = collected.used(name), collected.value(semconv.DRIFT, name)
            pending = collected.value(semconv.PENDING_REQUESTS, name)
            law("drift at rest", drift in (0, None), drift)
            law("pending at rest", pending in (0, None), pending)
            if exact:
                law("used at rest", used in (0, None), used)
                self._check_counts(collected, driver, count, law)

    def _drift(self, driver: Driver) -> float | None:
        return self._telemetry.collect().value(semconv.DRIFT, driver.pool)

    def _check_counts(self, collected: Any, driver: Driver, count: Any, law: Any) -> None:
        if Capability.WAIT in driver.capabilities:
            expected = Counter(count.failed)
            if count.acquired:
                expected[""] = count.acquired
            found = Counter(collected.counts(semconv.WAIT_TIME, driver.pool))
            law("waits", found == expected, f"{dict(found)} counted, {dict(expected)} made")
        if Capability.USE in driver.capabilities:
            uses = sum(collected.counts(semconv.USE_TIME, driver.pool).values())
            law("uses", uses == count.returned, f"{uses} counted, {count.returned} made")

    def _look(self, stage: Stage, most: list[int], *, is_watched: bool) -> None:
        most[0] = max(most[0], _resident())
        if not is_watched or not open_pool_registries:
            return
        pools = open_pool_registries[-1].pools
        for driver in stage.drivers:
            pool = pools.get(driver.pool)
            if pool is not None and driver.is_open and Feature.LIMIT in driver.features:
                used = pool.used()
                if not 0 <= used <= LIMIT:
                    stage.broken.append(f"{driver.label}: {used} used of {LIMIT}")

    def _ends_stuck(self) -> None:
        # The process ends while the exporters hang: the parent measures what that takes.
        self._telemetry.start()
        self._backend.hangs().__enter__()
        driver = self._started(self._kinds[-1])
        for _ in range(100):
            driver.release(driver.acquire())
        self._say({"ends": time.time()})

    def _say(self, line: dict[str, Any]) -> None:
        with Path(self._order.out).open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


def _telemetry(backend: Backend) -> Telemetry:
    telemetry = Telemetry(long_hold_threshold=0.2, max_pools=50, max_units=20)
    telemetry.patience = worker.PATIENCE  # an application's
    telemetry.meter_provider = MeterProvider(
        [
            reader := InMemoryMetricReader(),
            PeriodicExportingMetricReader(Metrics(backend), export_interval_millis=500),
        ],
        shutdown_on_exit=False,
    )
    telemetry.reader = reader
    telemetry.tracer_provider = TracerProvider(shutdown_on_exit=False)
    telemetry.tracer_provider.add_span_processor(BatchSpanProcessor(Spans(backend)))
    telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(Spans(backend)))
    return telemetry


@contextlib.contextmanager
def _sampled(look: Any) -> Any:
    ends = threading.Event()

    def run() -> None:
        while not ends.wait(0.05):
            look()

    thread = threading.Thread(target=run, name="sampler")
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _trim() -> None:
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    """Obey the order on the command line."""
    given = json.loads(sys.argv[1])
    order = Order(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    warnings.simplefilter("ignore")  # a fork beside threads, connections that are dropped: both are meant
    # What poolscope logs goes to standard error, and nothing else: where that is stuck, whoever logs is, bare as well.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("poolscope").addHandler(logging.StreamHandler())
    with tempfile.TemporaryDirectory() as folder:
        Service(order, Path(folder)).run()


if __name__ == "__main__":
    main()
