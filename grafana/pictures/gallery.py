"""
The pictures of the dashboards, from the running pipeline: ``make pictures``.

Two processes of the shop run out of connections for some minutes; then the same load uses the repaired routes.
PostgreSQL, the Collector and Prometheus are real (see ``tools/stack.py``). Each dashboard is drawn for both runs.

Usage:
    python -m grafana.pictures.gallery                      run everything, write docs/images/*.png
    python -m grafana.pictures.gallery --seconds 240        the duration of each run
    python -m grafana.pictures.gallery --out FOLDER         the folder for the pictures
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from examples.lab.pipeline import MissingBinaryError
from examples.lab.postgres import postgres
from examples.lab.processes import ChildFailedError, free_port, survive_interrupt
from examples.lab.shop import database, payments, shop
from examples.shop.traffic import RATES, REPAIRED, Tally, Traffic
from grafana.pictures import draw, serve
from tools import pipeline_build, stack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from examples.lab.pipeline import Collector

ROOT: Final = Path(__file__).resolve().parents[2]
PROCESSES: Final = 2
# The time until the last points of a run arrive: export, scrape, and the flush of the spans.
SETTLE: Final = 12.0
# Seconds between two progress lines.
TICK: Final = 10.0
AFTER: Final = "after"
RUNS: Final = {"before": RATES, AFTER: REPAIRED}
# Panels that are empty while nothing is wrong.
EMPTY_WHEN_HEALTHY: Final = {"Alerts"}


def main() -> int:
    """
    Run the command line.

    Returns:
        0 if every panel of every dashboard shows data, else 1.
    """
    parser = argparse.ArgumentParser(description="Pictures of the dashboards, before and after the repair.")
    parser.add_argument("--seconds", type=float, default=240.0, help="duration of each run (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder for the pictures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        draw.check_tools()
        serve.ensure_built()
        faults = [fault for name in RUNS for fault in picture(name, arguments.seconds, arguments.out)]
    except (ChildFailedError, MissingBinaryError, draw.MissingToolError, pipeline_build.BuildError) as error:
        stack.say(f"The pictures failed: {error}")
        return 1
    except subprocess.CalledProcessError as error:
        stack.say(f"The pictures failed: {error}\n{error.stderr or ''}")
        return 1
    except KeyboardInterrupt:
        survive_interrupt()
        stack.say("Stopped; nothing is left running.")
        return 130
    for fault in faults:
        stack.say(f"fault: {fault}")
    return 1 if faults else 0


def picture(name: str, seconds: float, out: Path) -> list[str]:
    """
    Run the pipeline once, and draw every dashboard at its end.

    Args:
        name: One of `RUNS`.
        seconds: How long customers send requests.
        out: The folder for the pictures.

    Returns:
        What is wrong with the pictures.
    """
    with tempfile.TemporaryDirectory(prefix="poolscope-pictures-") as folder, contextlib.ExitStack() as running:
        pipeline = stack.Stack(Path(folder), running, {}, [])
        stack.build(pipeline)
        server = running.enter_context(postgres(variable="DEMO_DSN"))
        filled = running.enter_context(database(server))
        collector = stack.start_collector(pipeline, stack.monitoring_role(pipeline, server))
        stack.start_prometheus(pipeline, collector, "", free_port())
        page = serve.start(pipeline.links["source of the dashboards"], scrape_seconds=stack.SCRAPE_SECONDS)
        running.callback(page.close)
        payment_url = running.enter_context(payments())
        settings = [_settings(collector, f"shop-{number}") for number in range(1, PROCESSES + 1)]
        shops = [running.enter_context(shop("flask", filled, payment_url, one)) for one in settings]
        begun = time.time()
        customers = [Traffic(one.address, seconds, seed, RUNS[name]) for seed, one in enumerate(shops, 1)]
        asyncio.run(_all_of(customers, _Ticker(name, seconds)))
        ended = time.time()
        time.sleep(SETTLE)
        stack.say(f"{name}: drawing")
        return list(_faults(name, draw.draw(page.url, draw.whole(out, f"-{name}"), begun, ended)))


def _faults(name: str, drawn: Iterable[draw.Drawn]) -> Iterator[str]:
    may_be_empty = EMPTY_WHEN_HEALTHY if name == AFTER else set()
    for one in drawn:
        for panel in one.panels:
            if panel.fault and panel.title not in may_be_empty:
                yield f"{name}, {one.uid}: {panel.fault}"
        yield from one.complaints


async def _all_of(customers: list[Traffic], ticker: _Ticker) -> None:
    await asyncio.gather(*(each.run(ticker) for each in customers))


def _settings(collector: Collector, instance: str) -> dict[str, str]:
    exporters = {f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS", "LOGS")}
    return {
        **stack.POOL,
        **exporters,
        "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={instance}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }


class _Ticker:
    """One progress line every few seconds, for all processes together."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name = name
        self._seconds = seconds
        self._next = 0.0

    def __call__(self, gone: float, tally: Tally) -> None:
        if gone >= self._next:
            self._next = gone + TICK
            text = f"{tally.total} requests to one process, {tally.rejected} rejected"
            stack.say(f"{self._name}: {gone:4.0f} of {self._seconds:.0f} s, {text}")


if __name__ == "__main__":
    sys.exit(main())
