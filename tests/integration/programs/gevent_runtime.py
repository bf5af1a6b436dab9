"""
The program that `test_gevent.py` runs for what belongs to the process: psycopg2 under gevent, poolscope with an SDK.

Prints one JSON object. The first argument says what comes first: ``gevent``, which patches before poolscope is
imported, or ``poolscope``, as where an automatic start imports it, and the server patches later.
"""

from __future__ import annotations

import sys

FIRST, URL = sys.argv[1:3]

if FIRST == "gevent":
    from gevent import monkey

    monkey.patch_all()

import gc  # noqa: E402 - gevent first
import itertools  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from typing import Any  # noqa: E402

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor  # noqa: E402

from poolscope import semconv  # noqa: E402
from poolscope.core.guard import guard  # noqa: E402
from poolscope.core.lease import Lease  # noqa: E402
from poolscope.core.log_lines import log_lines  # noqa: E402
from poolscope.core.pool_registry import open_pool_registries  # noqa: E402
from tests.support.scale import times  # noqa: E402
from tests.support.telemetry import Collected, Telemetry  # noqa: E402

telemetry = Telemetry()
telemetry.start()

if FIRST == "poolscope":
    from gevent import monkey

    monkey.patch_all()

import gevent  # noqa: E402
import gevent.socket  # noqa: E402
import psycopg2.extensions  # noqa: E402
import sqlalchemy  # noqa: E402

from poolscope.core import worker  # noqa: E402

GREENLETS, EACH, TOGGLES = 30, 10, times(6, whole=200)


def wait(connection: Any) -> None:
    """Let other greenlets run, as psycopg2 asks."""
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        if state == psycopg2.extensions.POLL_READ:
            gevent.socket.wait_read(connection.fileno())
        else:
            gevent.socket.wait_write(connection.fileno())


class Hub:
    """How long gevent's hub lets a greenlet wait that is ready."""

    def __init__(self) -> None:
        self._waits: list[float] = []
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            before = time.perf_counter()
            gevent.sleep(0)
            self._waits.append(time.perf_counter() - before)
            gevent.sleep(0.002)

    def stop(self) -> float:
        """The median, in seconds."""
        self._greenlet.kill()
        return statistics.median(self._waits)


def engine_of(name: str) -> sqlalchemy.Engine:
    """An engine whose greenlets have to wait for one another."""
    return sqlalchemy.create_engine(URL, pool_size=3, max_overflow=1, pool_timeout=60, pool_logging_name=name)


def use(engine: sqlalchemy.Engine) -> None:
    """One checkout, query and return."""
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("select 1"))


def figures(name: str) -> dict[str, Any]:
    """What was exported of a pool."""
    collected: Collected = telemetry.collect()
    return {
        "used": collected.used(name),
        "drift": collected.value(semconv.DRIFT, name),
        "pending": collected.value(semconv.PENDING_REQUESTS, name),
        "waits": collected.counts(semconv.WAIT_TIME, name),
        "uses": collected.counts(semconv.USE_TIME, name),
    }


def load(engine: sqlalchemy.Engine, each: int = EACH) -> list[gevent.Greenlet]:
    """Start the greenlets."""

    def run() -> None:
        for _ in range(each):
            use(engine)

    return [gevent.spawn(run) for _ in range(GREENLETS)]


def ended(greenlets: list[gevent.Greenlet]) -> int:
    """How many came to their end well, once all have ended."""
    gevent.joinall(greenlets, timeout=60)
    return sum(greenlet.successful() for greenlet in greenlets)


def many_greenlets() -> dict[str, Any]:
    """Many greenlets use a pool, while the background thread runs and is asked for a run."""
    engine = engine_of("many")
    hub = Hub()
    greenlets = load(engine)
    began = time.perf_counter()
    while not all(greenlet.dead for greenlet in greenlets) and time.perf_counter() - began < 60:
        figures("many")  # asks for a run, and waits for it
        gevent.sleep(0.01)
    result = {"well": ended(greenlets), "waited": hub.stop(), **figures("many")}
    engine.dispose()
    return result


class OverError(Exception):
    """What the application wants its timeouts to raise."""


class Slow(logging.Handler):
    """A handler that waits in one greenlet, and lets others run."""

    greenlet: Any = None

    def emit(self, record: logging.LogRecord) -> None:
        """Wait."""
        if gevent.getcurrent() is self.greenlet:
            gevent.sleep(5)


def _fails(*_: object) -> None:
    raise LookupError


def _waits(*_: object) -> None:
    gevent.sleep(5)


def cut_in_hooks() -> dict[str, Any]:
    """
    A greenlet is killed, or its time is up, while it is in a hook: that gives way itself, or fails, which is logged,
    and the log gives way. What a timeout raises may be an error of the application's.
    """
    engine = engine_of("cut")
    use(engine)
    logger, handler = logging.getLogger("poolscope"), Slow()
    logger.addHandler(handler)
    logger.propagate = False
    seen: Counter[str] = Counter()

    def body(kind: str) -> None:
        try:
            with gevent.Timeout({"kill": None}.get(kind, 0.02), OverError if kind == "error" else None):
                use(engine)
        except BaseException as error:
            seen[f"{kind}: {type(error).__name__}"] += 1
        else:
            seen[f"{kind}: went on"] += 1

    for method, stand_in in itertools.product(("handed_over", "acquired", "released"), (_fails, _waits)):
        for kind in ("timeout", "error", "kill"):
            guard.reset()  # the first error of each place is logged
            original = getattr(Lease, method)
            setattr(Lease, method, stand_in)
            log_lines.forget()
            handler.greenlet = greenlet = gevent.spawn(body, kind)
            gevent.sleep(0.01)
            if kind == "kill":
                greenlet.kill()
            greenlet.join(60)
            setattr(Lease, method, original)
    logger.removeHandler(handler)
    guard.reset()
    gc.collect()
    result = {"seen": seen, "out": engine.pool.checkedout()}  # type: ignore[attr-defined]
    for pool in open_pool_registries[-1].pools.values():
        if pool.identity.name == "cut":  # `used` ends what was adopted while a hook waited for long
            result["leases"] = pool.used()
    engine.dispose()
    return result


def toggles() -> dict[str, Any]:
    """Start and stop while greenlets use a pool."""
    engine = engine_of("toggled")
    over = False

    def run() -> None:
        while not over:
            use(engine)

    greenlets = [gevent.spawn(run) for _ in range(GREENLETS)]
    longest = 0.0
    for _ in range(TOGGLES):
        gevent.sleep(0.02)
        began = time.perf_counter()
        telemetry.stop()
        gevent.sleep(0.005)
        telemetry.start()
        longest = max(longest, time.perf_counter() - began)
    over = True
    result = {"well": ended(greenlets), "longest": longest}
    use(engine)
    result |= figures("toggled")
    engine.dispose()
    return result


def forks() -> dict[str, Any]:
    """The child of a process that has a connection out is exact for itself, as is the parent."""
    engine = engine_of("forked")
    well = ended(load(engine, 2))
    held = engine.connect()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        engine.dispose(close=False)
        well = ended(load(engine, 1))
        os.write(writer, json.dumps({"well": well, **figures("forked")}).encode())
        os._exit(0)
    os.close(writer)
    answer = b""
    with gevent.Timeout(60):
        while part := gevent.os.tp_read(reader, 65536):
            answer += part
        os.waitpid(child, 0)
    os.close(reader)
    held.close()
    well += ended(load(engine, 1))
    result = {"child": json.loads(answer), "parent": {"well": well, **figures("forked")}}
    engine.dispose()
    return result


class Stuck(SpanProcessor):
    """Its endpoint does not answer."""

    def __init__(self) -> None:
        self.is_reached = False

    def on_end(self, span: ReadableSpan) -> None:
        """The background thread waits here for ever, and lets other greenlets run."""
        self.is_reached = True
        while True:
            gevent.sleep(3600)


def stuck() -> dict[str, Any]:
    """The background thread is stuck in an exporter: greenlets work on, and a fork does not wait for it."""
    engine, exporter = engine_of("stuck"), Stuck()
    telemetry.tracer_provider.add_span_processor(exporter)
    with gevent.Timeout(60), engine.connect():
        while not exporter.is_reached:
            use(engine)  # its span reaches the exporter through the background thread
            gevent.sleep(0.01)
    well = ended(load(engine, 2))
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        os._exit(0)
    took = time.perf_counter() - began
    os.waitpid(child, 0)
    return {"well": well, "fork": took}


if __name__ == "__main__":
    import gevent.os

    worker.PATIENCE = 60
    psycopg2.extensions.set_wait_callback(wait)
    logging.getLogger("poolscope").addHandler(logging.NullHandler())
    told: dict[str, Any] = {"many": many_greenlets(), "toggles": toggles(), "forks": forks()}
    told["errors"] = guard.counts()
    told["cut"] = cut_in_hooks()
    worker.PATIENCE = 1.0
    told["stuck"] = stuck()
    told["ends_at"] = time.time()
    print(json.dumps(told), flush=True)
