"""The report reads what the real Collector's file exporter writes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from examples.lab.processes import wait_until
from poolscope.report import Report, build_report
from poolscope.report.model import NO_CALL_SITE
from tests.data.otlp.collect import HERE, SIGNALS, through_the_collector
from tests.support.shops import CAUSES, HEALTHY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.shops import Shops

SERVICE_NAME = re.compile(r'"service\.name","value":{"stringValue":"([^"]+)"')
METRICS = '{"resourceMetrics"'
TIME = re.compile(r'"timeUnixNano":"(\d+)"')
TAIL = 4_000_000  # bytes, some hundred exports
RESOURCE = 3000  # characters at the start of an export that have its resource


@pytest.mark.usefixtures("collector")
def test_a_collectors_file_says_what_went_in(tmp_path: Path) -> None:
    """Nothing is lost or counted twice on the way through the Collector, whatever lines it makes of it."""
    through_the_collector(tmp_path / "collector.jsonl")

    assert build_report([tmp_path]) == build_report([HERE / file for file in SIGNALS])


@pytest.fixture(scope="module")
def report(shops: Shops, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report on all shops under load, from the one file of their Collector."""
    # Each shop reports twice a second; what it last did is in the file once it has done so after the last customer.
    wait_until(
        lambda: reported_since(shops.telemetry, shops.ended) == CAUSES.keys(), 60, "the last export of each shop"
    )
    kept = tmp_path_factory.mktemp("report") / "kept.jsonl"
    # Of metrics the first and the last export of each shop, as they are cumulative; the others are a hundred megabytes.
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    with shops.telemetry.open() as lines, kept.open("w") as file:
        for line in filter(whole, lines):
            if line.startswith(METRICS):
                (name,) = SERVICE_NAME.findall(line[:RESOURCE])
                first.setdefault(name, line)
                last[name] = line
            else:
                file.write(line)
        file.writelines([*first.values(), *last.values()])
    return build_report([kept])


def whole(line: str) -> bool:
    """Whether a line is not half written."""
    return line.endswith("\n")


def reported_since(telemetry: Path, moment: float) -> set[str]:
    """The services whose metrics in the end of the file are of a time after that moment, in seconds of the epoch."""
    with telemetry.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        _, *lines = file.read().decode().splitlines(keepends=True)
    exports = [line for line in filter(whole, lines) if line.startswith(METRICS)]
    return {
        name
        for line in exports
        for name in SERVICE_NAME.findall(line[:RESOURCE])
        if max(map(int, TIME.findall(line))) > moment * 1e9
    }


@pytest.mark.timeout(400)
@pytest.mark.xdist_group("scene")
@pytest.mark.parametrize("name", CAUSES)
def test_each_shop_s_findings_are_its_cause(report: Report, name: str) -> None:
    """
    Six services in one file: of each shop the report names the cause and the route that it is in, of the repaired one
    nothing.
    """
    causes = {
        (one.id, "" if one.call_site == NO_CALL_SITE else one.call_site.route)
        for one in report.findings
        if one.service == name
    }
    assert causes == CAUSES[name].findings


@pytest.mark.timeout(400)
@pytest.mark.xdist_group("scene")
@pytest.mark.parametrize("name", CAUSES)
def test_each_shop_s_figures_are_those_of_its_customers(report: Report, shops: Shops, name: str) -> None:
    """
    Every customer who was turned away is a timeout of that shop's pool and of no other one, every lease is known, and
    the figures agree with one another.
    """
    (pool,) = (one for one in report.pools if one.service == name)
    tally = shops.tallies[name]
    assert (pool.limit, pool.drift) == (CAUSES[name].pool, 0)
    # Who went away before the answer came may have been turned away as well.
    gone = tally.statuses[0]
    assert pool.timeouts == pool.waits.failed
    assert tally.rejected <= pool.timeouts <= tally.rejected + gone
    assert pool.waits.count - pool.waits.failed == pool.holds.count + pool.used
    assert (pool.used > 0) == (sum(pool.leaks.values()) > 0) == (name == "leaking")
    assert (tally.rejected > 0) == (name == "too-small")
    assert tally.failed == gone
    assert name == "too-small" or not gone
    if name == HEALTHY:
        assert pool.nested_checkouts == 0
