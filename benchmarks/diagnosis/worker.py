"""A process that runs scenarios: one in each line of its input, as JSON; what poolscope says of each, likewise."""

from __future__ import annotations

import faulthandler
import json
import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

import poolscope
from benchmarks.diagnosis.async_service import AsyncService
from benchmarks.diagnosis.scenarios import ASYNC, Scenario
from benchmarks.diagnosis.sync_service import SyncService
from examples.lab.postgres import Postgres
from poolscope import semconv
from poolscope.config import Settings
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.instrumentor import PoolscopeInstrumentor

if TYPE_CHECKING:
    from collections.abc import Mapping

# How long a scenario runs at the most, in seconds; and one without anything wrong, which should see no finding for as
# long.
_MOST: Final = 9.0
_MOST_HEALTHY: Final = 4.0
# A pool is exhausted where a checkout waits for so long, in seconds, or fails.
_EXHAUSTED: Final = Settings().exhaustion_threshold
# A scenario that takes longer, in seconds, hangs; its process ends, and prints where.
_HANGS: Final = 60.0


class Reports:
    """What poolscope says, by pool."""

    def __init__(self) -> None:
        self._exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.loggers = LoggerProvider()
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))

    def of(self, pool: str) -> list[Mapping[str, Any]]:
        """The attributes of the events about a pool."""
        records = (one.log_record for one in self._exporter.get_finished_logs())
        found = (dict(record.attributes or {}) for record in records)
        return [attributes for attributes in found if attributes.get(semconv.POOL_NAME) == pool]

    def exhaustion(self, pool: str) -> Mapping[str, Any] | None:
        """The first exhaustion report of a pool."""
        return next((one for one in self.of(pool) if one.get(semconv.FINDING_ID) == POOL_EXHAUSTED), None)


def run(scenario: Scenario, server: Postgres, reports: Reports) -> dict[str, Any]:
    """
    Run a scenario until poolscope reports the pool, or long enough without.

    Returns:
        The scenario, the cause with its share and the summary, and whether the pool was exhausted at all. The cause is
        None where nothing was reported; where nothing is wrong, any finding stands for it.
    """
    name = f"scenario-{scenario.number}"
    with poolscope.pool_name(name):
        made = AsyncService(scenario, server) if scenario.driver in ASYNC else SyncService(scenario, server)
        made.run(lambda: reports.exhaustion(name) is not None, _MOST if scenario.plants else _MOST_HEALTHY)
    PoolscopeInstrumentor().flush()
    said = reports.exhaustion(name) or {}
    if not scenario.plants and not said:
        said = next(iter(reports.of(name)), {})
    return {
        "scenario": scenario.as_json(),
        "cause": said.get(semconv.CAUSE, said.get(semconv.FINDING_ID)),
        "share": said.get(semconv.EVIDENCE_PREFIX + "share", 0.0),
        "summary": said.get(semconv.FINDING_SUMMARY, ""),
        "exhausted": made.longest_wait >= _EXHAUSTED,
    }


def main() -> None:
    """Read scenarios, run them, and write what was said."""
    faulthandler.dump_traceback_later(_HANGS, exit=True)
    server = Postgres.from_dsn(sys.argv[1])
    reports = Reports()
    logging.getLogger("poolscope.findings").setLevel(logging.CRITICAL)
    PoolscopeInstrumentor().instrument(
        tracer_provider=TracerProvider(), meter_provider=MeterProvider(), logger_provider=reports.loggers
    )
    for line in sys.stdin:
        faulthandler.dump_traceback_later(_HANGS, exit=True)
        result = run(Scenario.from_json(json.loads(line)), server, reports)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
