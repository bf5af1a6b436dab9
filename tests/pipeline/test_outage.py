"""
Prometheus is away for a minute while shops run: one behind an agent and a gateway, one behind a Collector that is
scraped, and that is killed and started again meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from examples.lab.pipeline import CONFIG, ROOT, Addresses, Collector, Prometheus
from examples.lab.postgres import postgres
from examples.lab.processes import wait_until
from examples.lab.shop import database, payments, shop
from examples.shop.traffic import REPAIRED, Tally, Traffic
from grafana import collector as made
from grafana.collector import SERVICE
from grafana.prometheus import bucket, count, family, label
from poolscope import semconv
from poolscope.semconv import Kind
from tests.pipeline.sink import Sink, figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from examples.lab.pipeline import Credentials
    from examples.lab.shop import Shop

pytestmark = pytest.mark.timeout(400)

BEFORE, OUTAGE, AFTER = 10.0, 60.0, 10.0  # seconds
WRITTEN, SCRAPED = "written", "scraped"
# Few enough to be no burden, with a finding now and then, so that every metric of traces has its series.
RATES = {"GET /feed": 0.5, **{request: rate / 6 for request, rate in REPAIRED.items()}}
# Where what was sent ends up: labels that the way adds, and those of the process, which the points do not repeat.
ADDED = {"job", "instance", "collector", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"}

# A series' name, its labels, Unix milliseconds, value.
Point: TypeAlias = "tuple[str, frozenset[tuple[str, str]], int, float]"


@dataclass(frozen=True)
class Outcome:
    """
    What there is to look at once Prometheus is back.

    Args:
        prometheus: It.
        store: The trace store.
        reference: Every point that the agent took.
        away: When Prometheus went and was back, in seconds of the epoch.
        tallies: What each shop's customers got: before, meanwhile and after.
    """

    prometheus: Prometheus
    store: Sink
    reference: Path
    away: tuple[float, float]
    tallies: Mapping[str, list[Tally]] = field(default_factory=lambda: {WRITTEN: [], SCRAPED: []})


@pytest.fixture(scope="module")
def outcome(
    collector: Path, prometheus: Path, credentials: Credentials, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcome]:
    """Two shops with customers, Prometheus away for the middle part."""
    folder = tmp_path_factory.mktemp("outage")
    with contextlib.ExitStack() as stack:
        filled = stack.enter_context(database(stack.enter_context(postgres(max_connections=100))))
        payment_url = stack.enter_context(payments(0.2))
        store = stack.enter_context(Sink(folder / "store"))
        env = {
            "POOLSCOPE_TRACES_ENDPOINT": store.address("otlp_grpc"),
            "POOLSCOPE_FLUSH_INTERVAL": "1s",
            "POOLSCOPE_DECISION_WAIT": "3s",
        }
        machine = stack.enter_context(Collector(folder / "machine", CONFIG / "collector.yaml", env=env))
        jobs = {f"poolscope-{job}": machine.address(job) for job in ("processes", "counted")}
        prom = stack.enter_context(Prometheus(folder / "prometheus", Addresses(jobs)))
        env |= {**credentials.env, "POOLSCOPE_REMOTE_WRITE_URL": f"{prom.url}/api/v1/write"}
        gateway = stack.enter_context(Collector(folder / "gateway", CONFIG / "gateway.yaml", env=env))
        reference = ROOT / "tests" / "pipeline" / "reference.yaml"
        gateways = {**credentials.env, "POOLSCOPE_GATEWAYS": f'["{gateway.address("otlp_grpc")}"]'}
        agent = stack.enter_context(Collector(folder / "agent", CONFIG / "agent.yaml", reference, env=gateways))
        shops = {
            name: stack.enter_context(shop("flask", filled, payment_url, settings(name, otel)))
            for name, otel in ((WRITTEN, agent), (SCRAPED, machine))
        }
        tallies: dict[str, list[Tally]] = {WRITTEN: [], SCRAPED: []}
        customers(shops, tallies, BEFORE)
        limit = family(semconv.CONNECTION_MAX)
        wait_until(lambda: {s.labels[SERVICE] for s in prom.query(limit)} == set(shops), 60, "both shops")
        prom.stop()
        gone = time.time()
        customers(shops, tallies, OUTAGE, halfway=lambda: crash(machine))
        # Scrapes begin while it starts.
        back = time.time()
        prom.start()
        customers(shops, tallies, AFTER)
        for each in shops.values():
            each.close()
        wait_until(lambda: figure(agent, "otelcol_exporter_queue_size") == 0, 60, "the agent's queue to empty")
        yield Outcome(prom, store, folder / "agent" / "points.jsonl", (gone, back), tallies)


def settings(name: str, otel: Collector) -> dict[str, str]:
    """The environment of a shop."""
    exporters = {f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS", "LOGS")}
    return {
        **exporters,
        "OTEL_SERVICE_NAME": name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": otel.otlp,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "SHOP_POOL_TIMEOUT": "10",
        "SHOP_POOL_RECYCLE": "20",
    }


def crash(otel: Collector) -> None:
    """Kill it and start it again."""
    otel.kill()
    otel.start()


def customers(
    shops: Mapping[str, Shop],
    tallies: Mapping[str, list[Tally]],
    seconds: float,
    halfway: Callable[[], None] | None = None,
) -> None:
    """Send customers to all shops for a time, and do something in the middle of it."""
    middle = threading.Event()

    def progress(gone: float, _tally: Tally) -> None:
        if gone >= seconds / 2:
            middle.set()

    every = [Traffic(each.address, seconds, rates=RATES) for each in shops.values()]
    threads = [threading.Thread(target=asyncio.run, args=[each.run(progress)]) for each in every]
    for thread in threads:
        thread.start()
    assert middle.wait(seconds * 2)
    if halfway is not None:
        halfway()
    for thread in threads:
        thread.join()
    for name, each in zip(shops, every, strict=True):
        tallies[name].append(each.tally)


@pytest.mark.parametrize("name", [WRITTEN, SCRAPED])
def test_the_application_never_notices(outcome: Outcome, name: str) -> None:
    """Before, during and after the outage every request gets its answer."""
    for tally in outcome.tallies[name]:
        assert tally.total > 0
        assert (tally.answered, tally.rejected, tally.failed) == (tally.total, 0, 0)


@pytest.mark.parametrize("name", [WRITTEN, SCRAPED])
def test_no_request_is_missing_from_the_counters(outcome: Outcome, name: str) -> None:
    """In the end the shop's counters in Prometheus have every request, those of the outage included."""
    answered = sum(tally.answered for tally in outcome.tallies[name])
    counted = f'sum({count(semconv.UNIT_QUERIES)}{{{SERVICE}="{name}"}})'
    at_any_time = f"max_over_time({counted}[5m:1s])"
    wait_until(lambda: [s.value for s in outcome.prometheus.query(at_any_time)] == [answered], 60, "every request")


def test_by_remote_write_every_sample_arrives(outcome: Outcome) -> None:
    """Every point that the agent took is in Prometheus, with its own time, also those from the time of the outage."""
    expected = taken(outcome.reference)
    gone, back = (1000 * moment for moment in outcome.away)
    limit = {at for name, _, at, _ in expected if name == family(semconv.CONNECTION_MAX)}
    assert len([at for at in limit if gone < at < back]) > OUTAGE / 2
    asked = sorted({name for name, _, _, _ in expected})
    assert family(semconv.USED_PEAK) in asked
    wait_until(lambda: expected <= stored(outcome.prometheus, asked, WRITTEN), 90, "every sample")


def test_by_scraping_the_minute_is_a_gap(outcome: Outcome) -> None:
    """
    What is scraped has no sample of the outage: what docs/operate.md says, and the proof that
    Prometheus was away.
    """
    gone, back = (1000 * moment for moment in outcome.away)
    found = stored(outcome.prometheus, [family(semconv.CONNECTION_MAX)], SCRAPED)
    times = [at for _, _, at, _ in found]
    assert min(times) < gone
    assert max(times) > back
    assert [at for at in times if gone < at < back] == []


def test_every_request_is_counted_from_its_span(outcome: Outcome) -> None:
    """What the gateway counts of spans comes through the outage too."""
    answered = sum(tally.answered for tally in outcome.tallies[WRITTEN])
    checkouts = f"{semconv.CHECKOUT_SPAN.prefix} .*|{semconv.HOLD_SPAN.prefix} .*"
    counted = f'sum({family(made.SPAN_CALLS)}{{{SERVICE}="{WRITTEN}", span_name!~"{checkouts}"}})'
    at_any_time = f"max_over_time({counted}[5m:1s])"
    wait_until(lambda: [s.value for s in outcome.prometheus.query(at_any_time)] == [answered], 60, "every span")


def test_a_fleet_s_series_are_those_of_one_machine(outcome: Outcome) -> None:
    """
    By agent, gateway and remote write come the same names with the same labels as from one Collector that is scraped:
    dashboards and alerts need not know which it is.
    """
    one, fleet = (labels_by_name(outcome.prometheus, name) for name in (SCRAPED, WRITTEN))
    assert {*one} >= {family(made.SPAN_CALLS), family(made.TRACE_FINDINGS), family(semconv.CONNECTION_MAX)}
    assert label(semconv.CODE_LINE) in one[family(made.SPAN_CALLS)]
    assert fleet == one


@pytest.mark.parametrize("name", [WRITTEN, SCRAPED])
def test_exemplars_of_requests_with_findings_lead_to_kept_traces(outcome: Outcome, name: str) -> None:
    """Both ways bring exemplars, and those of requests with findings name traces that are in the trace store."""
    query = f'{bucket(made.SPAN_DURATION)}{{{SERVICE}="{name}", span_name="GET /feed"}}'
    gone, back = outcome.away
    found = outcome.prometheus.exemplars(query, gone - BEFORE, back + 2 * AFTER)
    named = {each["labels"]["trace_id"] for each in found}
    assert named
    wait_until(lambda: named <= set(outcome.store.traces()), 60, "the traces that the exemplars name")


def taken(reference: Path) -> set[Point]:
    """The points in the agent's file, as they are to be in Prometheus."""
    kinds = {metric.name: metric for metric in semconv.METRICS}
    found: set[Point] = set()
    # The last line may be half written.
    for line in reference.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            continue
        for resource in json.loads(line)["resourceMetrics"]:
            for scope in resource["scopeMetrics"]:
                for metric in scope["metrics"]:
                    if metric["name"] in kinds:
                        found.update(points(kinds[metric["name"]], metric))
    return found


def points(metric: semconv.Metric, told: Mapping[str, Any]) -> Iterator[Point]:
    """The points of one metric; of a histogram the number of what it saw."""
    (data,) = (told[kind]["dataPoints"] for kind in ("sum", "gauge", "histogram") if kind in told)
    name = count(metric) if metric.kind is Kind.HISTOGRAM else family(metric)
    for point in data:
        labels = {(label(each["key"]), str(*each["value"].values())) for each in point.get("attributes", [])}
        value = point["count"] if "count" in point else point["asInt"] if "asInt" in point else point["asDouble"]
        yield name, frozenset(labels), int(point["timeUnixNano"]) // 1_000_000, float(value)


def stored(prometheus: Prometheus, series: list[str], service: str) -> set[Point]:
    """The samples of a service's series."""
    found: set[Point] = set()
    for name in series:
        for each in prometheus.api("query", query=f'{name}{{{SERVICE}="{service}"}}[10m]')["result"]:
            added = {"__name__", *ADDED, *(key for key in each["metric"] if key.startswith("service_"))}
            labels = frozenset((key, text) for key, text in each["metric"].items() if key not in added)
            found.update((name, labels, round(1000 * float(at)), float(value)) for at, value in each["values"])
    return found


def labels_by_name(prometheus: Prometheus, service: str) -> dict[str, set[str]]:
    """The labels that a service's series have, by their name."""
    found: dict[str, set[str]] = {}
    for each in prometheus.api("series", **{"match[]": f'{{{SERVICE}="{service}"}}'}):
        found.setdefault(each["__name__"], set()).update(each.keys() - ADDED)
    return found
