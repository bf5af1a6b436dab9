"""What breaks between a process and its dashboards, and what must still hold then."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from typing import TYPE_CHECKING

import pytest

from examples.lab.pipeline import CONFIG, PLAIN_TEXT, Addresses, Collector, Prometheus
from examples.lab.processes import wait_until
from grafana import collector as made
from grafana.collector import INSTANCE
from grafana.prometheus import family
from poolscope import semconv
from poolscope.core.catalogue.queries import N_PLUS_ONE
from tests.pipeline.sink import Sink, figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.pipeline.emitter import Process

pytestmark = pytest.mark.timeout(300)

QUEUED = "otelcol_exporter_queue_size"  # in spans, points, log records
SPANS_PER_TRACE = 2
# Stores stand in for gateways here, and processes for agents: neither has a token.
PLAIN_AGENT = (CONFIG / "agent.yaml", PLAIN_TEXT / "agent.yaml")
PLAIN_GATEWAY = (CONFIG / "gateway.yaml", PLAIN_TEXT / "gateway.yaml")


@pytest.fixture(autouse=True)
def quiet_exporters() -> Iterator[None]:
    """The SDK's exporters log what they cannot deliver, which is what these tests are about."""
    logger = logging.getLogger("opentelemetry")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def traces_with_findings(process: Process, number: int) -> set[str]:
    """Requests of an application; none of them waits for an export."""
    ids = {process.request(findings=[N_PLUS_ONE]) for _ in range(number)}
    assert len(ids) == number
    assert process.in_requests == 0
    return ids


def test_traces_outlive_a_crash_of_the_collector_and_an_outage_of_their_store(
    collector: Path, tmp_path: Path, processes: Callable[..., Process]
) -> None:
    """
    What the Collector queued on disk while the trace store was away arrives, though the Collector
    was killed meanwhile.
    """
    sink = Sink(tmp_path / "sink")
    env = {"POOLSCOPE_TRACES_ENDPOINT": sink.address("otlp_grpc"), "POOLSCOPE_DECISION_WAIT": "1s"}
    with Collector(tmp_path / "collector", CONFIG / "collector.yaml", env=env) as otel, sink:
        process = processes(otel.otlp)
        sink.stop()
        sent = traces_with_findings(process, 50)
        assert process.flush()
        # Decisions are made each second, and batches of what is decided: some may be queued while others are not.
        wait_until(lambda: figure(otel, QUEUED) == 50 * SPANS_PER_TRACE, 60, "the queue to hold the traces")
        otel.kill()
        traces_with_findings(process, 10)
        otel.start()
        sink.start()
        wait_until(lambda: sent <= set(sink.traces()), 60, "the traces from before the crash")


def test_counters_go_on_after_a_restart_of_the_collector(
    collector: Path, prometheus: Path, tmp_path: Path, processes: Callable[..., Process]
) -> None:
    """After a restart a process's counter is where it was, so that nothing looks like an event that was none."""
    with contextlib.ExitStack() as stack:
        otel = stack.enter_context(Collector(tmp_path / "c", CONFIG / "collector.yaml"))
        jobs = {"poolscope-processes": otel.address("processes")}
        prom = stack.enter_context(Prometheus(tmp_path / "p", Addresses(jobs)))
        process = processes(otel.otlp, interval=500)
        process.add(semconv.TIMEOUTS, 7)
        counter = family(semconv.TIMEOUTS)
        wait_until(lambda: [s for s in prom.query(counter) if s.value == 7], 60, "the counter")
        otel.stop()
        wait_until(lambda: prom.query("up == 0"), 60, "Prometheus to see that the Collector is away")
        traces_with_findings(process, 100)
        otel.start()
        wait_until(lambda: prom.query("up == 1") and prom.query(counter), 60, "the counter after the restart")
        wait_until(lambda: [sample.value for sample in prom.query(counter)] == [7], 60, "its value")
        assert [sample.value for sample in prom.query(f"resets({counter}[5m])")] == [0]
        increase = f"increase({counter}[30s])"
        wait_until(lambda: prom.query(increase), 60, "two samples within its window")
        assert [sample.value for sample in prom.query(increase)] == [0]


def test_events_while_prometheus_is_away_are_seen_when_it_is_back(
    collector: Path, prometheus: Path, tmp_path: Path, processes: Callable[..., Process]
) -> None:
    """A counter that grew during an outage of the scraping Prometheus shows it afterwards."""
    with contextlib.ExitStack() as stack:
        otel = stack.enter_context(Collector(tmp_path / "c", CONFIG / "collector.yaml"))
        jobs = {"poolscope-processes": otel.address("processes")}
        prom = stack.enter_context(Prometheus(tmp_path / "p", Addresses(jobs)))
        process = processes(otel.otlp)
        counter = family(semconv.TIMEOUTS)
        assert process.flush()
        wait_until(lambda: [s for s in prom.query(f"count_over_time({counter}[1m])") if s.value >= 3], 60, "the series")
        prom.stop()
        process.add(semconv.TIMEOUTS, 3)
        assert process.flush()
        prom.start()
        wait_until(lambda: [s for s in prom.query(f"increase({counter}[1m])") if s.value > 2], 60, "the increase")


def test_remote_write_brings_what_happened_while_prometheus_was_away(
    collector: Path, prometheus: Path, tmp_path: Path, processes: Callable[..., Process]
) -> None:
    """Samples from the time of the outage arrive with their own times, though the gateway was killed meanwhile."""
    with contextlib.ExitStack() as stack:
        prom = stack.enter_context(Prometheus(tmp_path / "p", Addresses()))
        env = {"POOLSCOPE_REMOTE_WRITE_URL": f"{prom.url}/api/v1/write"}
        gateway = stack.enter_context(Collector(tmp_path / "g", *PLAIN_GATEWAY, env=env))
        process = processes(gateway.otlp)
        gauge = family(semconv.USED_PEAK)
        process.set(semconv.USED_PEAK, 1)
        assert process.flush()
        wait_until(lambda: [s for s in prom.query(gauge) if s.value == 1], 60, "the first sample")
        wrote = r"otelcol_exporter_prometheusremotewrite_wal_write_latency(?:_milliseconds)?_count"
        before = figure(gateway, wrote)
        prom.stop()
        process.set(semconv.USED_PEAK, 9)
        assert process.flush()
        wait_until(lambda: figure(gateway, wrote) > before, 60, "the log to have the samples")
        gateway.kill()
        prom.start()
        gateway.start()
        process.set(semconv.USED_PEAK, 2)
        assert process.flush()
        wait_until(lambda: [s for s in prom.query(gauge) if s.value == 2], 60, "the sample after the outage")
        assert [sample.value for sample in prom.query(f"max_over_time({gauge}[5m])")] == [9]


def test_a_full_queue_refuses_and_says_so_and_keeps_what_it_took(
    collector: Path, tmp_path: Path, processes: Callable[..., Process]
) -> None:
    """
    With the gateways away and the queue full the application goes on; the agent counts what it refuses, tells the
    sender so, and delivers exactly what it accepted.
    """
    gateway = Sink(tmp_path / "gateway")
    env = {"POOLSCOPE_GATEWAYS": f'["{gateway.address("otlp_grpc")}"]', "POOLSCOPE_QUEUE_SIZE": "2048"}
    with Collector(tmp_path / "agent", *PLAIN_AGENT, env=env) as agent, gateway:
        process = processes(agent.otlp)
        gateway.stop()
        sent: set[str] = set()
        deadline = time.monotonic() + 120
        while figure(agent, "otelcol_exporter_enqueue_failed_spans") == 0 and time.monotonic() < deadline:
            sent |= traces_with_findings(process, 200)
            process.flush()
        assert figure(agent, "otelcol_exporter_enqueue_failed_spans") > 0
        assert figure(agent, "otelcol_receiver_refused_spans") > 0
        gateway.start()
        # The sender tries again what was refused: what it tries with is over once a later flush has gone through.
        wait_until(lambda: figure(agent, QUEUED) == 0, 60, "the queue to empty")
        sent |= traces_with_findings(process, 20)
        wait_until(process.flush, 60, "the sender's tries to be over")
        accepted = figure(agent, "otelcol_receiver_accepted_spans")
        wait_until(lambda: sum(map(len, gateway.traces().values())) >= accepted, 60, "all that was accepted")
        assert sum(map(len, gateway.traces().values())) == accepted
        assert set(gateway.traces()) <= sent


def test_with_one_gateway_away_nothing_is_lost_for_good(
    collector: Path, tmp_path: Path, processes: Callable[..., Process]
) -> None:
    """What belongs to the gateway that is away waits on the agent's disk, through a crash of the agent, and arrives."""
    gateways = [Sink(tmp_path / f"gateway-{n}") for n in (1, 2)]
    addresses = ", ".join(f'"{gateway.address("otlp_grpc")}"' for gateway in gateways)
    agent = Collector(tmp_path / "agent", *PLAIN_AGENT, env={"POOLSCOPE_GATEWAYS": f"[{addresses}]"})
    with gateways[0], gateways[1], agent:
        process = processes(agent.otlp)
        gateways[1].stop()
        sent = traces_with_findings(process, 100)
        assert process.flush()
        agent.kill()
        agent.start()
        gateways[1].start()
        wait_until(lambda: sent <= {trace for gateway in gateways for trace in gateway.traces()}, 60, "all traces")
        assert not set(gateways[0].traces()) & set(gateways[1].traces())


@pytest.mark.parametrize("config", [(CONFIG / "collector.yaml",), PLAIN_GATEWAY], ids=["collector", "gateway"])
def test_many_processes_of_one_service_are_all_counted(
    collector: Path, tmp_path: Path, processes: Callable[..., Process], config: tuple[Path, ...]
) -> None:
    """
    Findings that several workers of one service report at the same time make one count, with none
    of them dropped.
    """
    with Collector(tmp_path / "c", *config, env={"POOLSCOPE_FLUSH_INTERVAL": "1s"}) as otel:
        workers = [processes(otel.otlp, instance=f"worker-{n}") for n in range(4)]

        def work(process: Process) -> None:
            for _ in range(20):
                traces_with_findings(process, 10)
                process.flush()

        threads = [threading.Thread(target=work, args=[worker]) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        streams = "otelcol_deltatocumulative_streams_tracked"
        wait_until(lambda: figure(otel, streams) == 1, 60, "the count")
        wait_until(
            lambda: figure(otel, "otelcol_receiver_accepted_spans") == SPANS_PER_TRACE * 4 * 20 * 10, 60, "all spans"
        )
        points = "otelcol_deltatocumulative_datapoints"
        wait_until(lambda: figure(otel, points) > 0, 60, "the count's points")
        if config is not PLAIN_GATEWAY:
            counted = re.compile(rf"^{family(made.TRACE_FINDINGS)}{{.*}} (\S+)", re.MULTILINE)
            wait_until(lambda: sum(map(float, counted.findall(otel.page("counted")))) == 800, 60, "every finding")
        dropped = [line for line in otel.page("self").splitlines() if f"{points}{{error" in line]
        assert dropped == []


def test_a_dead_worker_leaves_the_fleet_s_sums(
    collector: Path, prometheus: Path, tmp_path: Path, processes: Callable[..., Process]
) -> None:
    """
    The limit of a worker that died no longer counts once its series expired; what the Collector
    counted of it stays.
    """
    with contextlib.ExitStack() as stack:
        env = {"POOLSCOPE_SERIES_EXPIRE": "10s", "POOLSCOPE_FLUSH_INTERVAL": "1s"}
        otel = stack.enter_context(Collector(tmp_path / "c", CONFIG / "collector.yaml", env=env))
        jobs = {"poolscope-processes": otel.address("processes"), "poolscope-counted": otel.address("counted")}
        prom = stack.enter_context(Prometheus(tmp_path / "p", Addresses(jobs)))
        first = processes(otel.otlp, instance="worker-1", interval=500)
        dying = processes(otel.otlp, instance="worker-2", interval=500)
        traces_with_findings(dying, 3)
        total = f"sum({family(semconv.CONNECTION_MAX)})"
        wait_until(lambda: [s for s in prom.query(total) if s.value == 20], 60, "both workers")
        counted = f"sum({family(made.TRACE_FINDINGS)})"
        wait_until(lambda: [s for s in prom.query(counted) if s.value == 3], 60, "the findings")
        dying.close()
        limits = family(semconv.CONNECTION_MAX)
        wait_until(lambda: {s.labels[INSTANCE] for s in prom.query(limits)} == {"worker-1"}, 60, "the dead to leave")
        wait_until(lambda: [s.value for s in prom.query(total)] == [10], 60, "the limit of the living")
        wait_until(lambda: [s.value for s in prom.query(counted)] == [3], 60, "the findings of the dead")
        assert first.flush()
