"""
Forks with a connection out; parent and child print what OpenTelemetry got, as one line of JSON each.

Usage:
    python -m tests.integration.programs.forking URL native|ordinary
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from typing import Any

import sqlalchemy

from poolscope import semconv
from poolscope.core.guard import guard
from tests.support.telemetry import Telemetry

POOL = "forking"


def figures(telemetry: Telemetry) -> dict[str, Any]:
    """What one collection says of the pool."""
    collected = telemetry.collect()
    waits = collected.points(semconv.WAIT_TIME, POOL)
    return {
        "used": collected.used(POOL),
        "idle": collected.idle(POOL),
        "drift": collected.value(semconv.DRIFT, POOL),
        "waits": sum(point.count for point in waits),
        "uses": sum(collected.counts(semconv.USE_TIME, POOL).values()),
        "began": min((point.start_time_unix_nano for point in waits), default=0),
        "closures": collected.total(semconv.CLOSURES, POOL),
        "threads": sum(thread.name == "poolscope" for thread in threading.enumerate()),
        "holds": sum(span.name.startswith("hold ") for span in telemetry.spans()),
        "errors": guard.counts(),
    }


def main(url: str, way: str) -> None:
    """Three leases before the fork, one of them out; then each process for itself."""
    telemetry = Telemetry(native_aggregation=way == "native")
    telemetry.start()
    engine = sqlalchemy.create_engine(url, pool_size=2, max_overflow=0, pool_logging_name=POOL)
    for _ in range(2):
        engine.connect().close()
    held = engine.connect()
    sys.stdout.flush()
    reports: dict[str, Any] = {"before": figures(telemetry)}
    child = os.fork()
    if child == 0:
        telemetry.exporter.clear()
        reports["child"] = figures(telemetry)
        engine.dispose(close=False)  # as SQLAlchemy's documentation asks for
        for _ in range(5):
            engine.connect().close()
        with telemetry.tracer.start_as_current_span("in the child"), engine.connect():
            reports["child holds one"] = figures(telemetry)
        held.detach()  # the parent's connection: not to be rolled back or closed here
        del held
        gc.collect()
        reports["child at rest"] = figures(telemetry)
        print(json.dumps(reports), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    for _ in range(3):
        engine.connect().close()
    reports["parent"] = figures(telemetry)
    held.close()
    reports["parent at rest"] = figures(telemetry)
    print(json.dumps(reports), flush=True)
    engine.dispose()
    telemetry.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
