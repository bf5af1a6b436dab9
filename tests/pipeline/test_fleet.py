"""Agents, gateways and remote write: the fleet's form of the pipeline, on 20,000 traces."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from examples.lab.pipeline import CONFIG, Addresses, Collector, Prometheus
from examples.lab.processes import wait_until
from grafana import collector as made
from grafana.prometheus import family
from poolscope import semconv
from poolscope.core.catalogue.queries import N_PLUS_ONE
from tests.pipeline.emitter import Process
from tests.pipeline.sink import Sink, figure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.lab.pipeline import Credentials

pytestmark = pytest.mark.timeout(300)

TRACES = 20_000
SPANS_PER_TRACE = 2
KEPT_SHARE = 0.1
# One in each hundred is of these kinds; all other traces are ordinary.
SPECIAL = {
    0: {"findings": [N_PLUS_ONE]},
    25: {"error": "TimeoutError", "wait": 2.0},
    50: {"wait": 0.3},
}


@dataclass(frozen=True)
class Fleet:
    """What ran, and the ids of the traces that were sent, by kind."""

    sinks: tuple[Sink, Sink]
    prometheus: Prometheus
    special: dict[str, set[str]]
    ordinary: set[str]

    def stored(self) -> int:
        """How many spans are in the stores."""
        return sum(len(spans) for kept in self.kept() for spans in kept.values())

    def kept(self) -> list[dict[str, list[str]]]:
        """The spans that came out of each gateway, by trace."""
        return [sink.traces() for sink in self.sinks]


@pytest.fixture(scope="module")
def fleet(
    collector: Path, prometheus: Path, credentials: Credentials, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """An agent, two gateways, a store for each, Prometheus, and 20,000 traces through them."""
    folder = tmp_path_factory.mktemp("fleet")
    with contextlib.ExitStack() as stack:
        prom = stack.enter_context(Prometheus(folder / "prometheus", Addresses()))
        sinks = tuple(stack.enter_context(Sink(folder / f"sink-{n}")) for n in (1, 2))
        gateways = [
            stack.enter_context(
                Collector(
                    folder / f"gateway-{n}",
                    CONFIG / "gateway.yaml",
                    env={
                        **credentials.env,
                        "POOLSCOPE_GATEWAY_NAME": f"gateway-{n}",
                        "POOLSCOPE_REMOTE_WRITE_URL": f"{prom.url}/api/v1/write",
                        "POOLSCOPE_TRACES_ENDPOINT": sink.address("otlp_grpc"),
                        "POOLSCOPE_DECISION_WAIT": "3s",
                        "POOLSCOPE_FLUSH_INTERVAL": "1s",
                        "POOLSCOPE_KEEP_PERCENT": str(100 * KEPT_SHARE),
                    },
                )
            )
            for n, sink in enumerate(sinks, 1)
        ]
        addresses = ", ".join(f'"{gateway.address("otlp_grpc")}"' for gateway in gateways)
        env = {**credentials.env, "POOLSCOPE_GATEWAYS": f"[{addresses}]"}
        agent = stack.enter_context(Collector(folder / "agent", CONFIG / "agent.yaml", env=env))
        special, ordinary = _send(agent)
        fleet = Fleet((sinks[0], sinks[1]), prom, special, ordinary)
        wait_until(lambda: _decided(gateways) == TRACES, 60, "all decisions")
        # What is decided stays in a batch for a second, and in the queue: so it is compared with what was decided.
        wait_until(lambda: fleet.stored() == SPANS_PER_TRACE * _decided(gateways, "true"), 60, "the kept traces")
        yield fleet


def _decided(gateways: list[Collector], kept: str = "true|false") -> float:
    decisions = "otelcol_processor_tail_sampling_global_count_traces_sampled"
    return sum(figure(each, rf'{decisions}{{[^}}]*sampled="(?:{kept})"[^}}]*}}') for each in gateways)


def _send(agent: Collector) -> tuple[dict[str, set[str]], set[str]]:
    process = Process(agent.otlp)
    special: dict[str, set[str]] = {str(kind): set() for kind in SPECIAL}
    ordinary = set()
    try:
        for number in range(TRACES):
            kind = number % 100
            if kind in SPECIAL:
                special[str(kind)].add(process.request(**SPECIAL[kind]))  # type: ignore[arg-type]
            else:
                ordinary.add(process.request(wait=0.0005))
            if number % 5000 == 0:
                assert process.flush()
        assert process.flush()
    finally:
        process.close()
    return special, ordinary


def test_every_trace_is_counted_before_sampling(fleet: Fleet) -> None:
    """The two gateways together count every request and every finding, though they keep a tenth of the traces."""
    calls = f'sum({family(made.SPAN_CALLS)}{{span_name="GET /orders"}})'
    wait_until(lambda: [s for s in fleet.prometheus.query(calls) if s.value >= TRACES], 60, "all spans counted")
    assert [sample.value for sample in fleet.prometheus.query(calls)] == [TRACES]
    findings = f"sum({family(made.TRACE_FINDINGS)})"
    wait_until(lambda: [s for s in fleet.prometheus.query(findings) if s.value >= TRACES / 100], 60, "all findings")
    assert [sample.value for sample in fleet.prometheus.query(findings)] == [TRACES / 100]
    by_gateway = fleet.prometheus.query(f"count by (collector) ({family(made.SPAN_CALLS)})")
    assert {sample.labels["collector"] for sample in by_gateway} == {"gateway-1", "gateway-2"}


def test_all_traces_that_matter_are_kept(fleet: Fleet) -> None:
    """Every trace with a finding, a pool timeout or a long wait is kept, with all its spans, on one of the gateways."""
    wanted = set().union(*fleet.special.values())
    wait_until(lambda: wanted <= set().union(*(set(kept) for kept in fleet.kept())), 60, "the traces that matter")
    outcome = fleet.kept()
    for trace in wanted:
        assert [len(kept[trace]) for kept in outcome if trace in kept] == [SPANS_PER_TRACE]


def test_about_the_set_share_of_the_others_is_kept(fleet: Fleet) -> None:
    """Of the ordinary traces a tenth is kept, within five standard deviations."""
    kept = fleet.ordinary & set().union(*(set(kept) for kept in fleet.kept()))
    expected = KEPT_SHARE * len(fleet.ordinary)
    deviation = math.sqrt(expected * (1 - KEPT_SHARE))
    assert abs(len(kept) - expected) < 5 * deviation


def test_no_trace_is_torn_between_gateways(fleet: Fleet) -> None:
    """Both gateways keep traces, none of them the same, and each trace whole."""
    first, second = fleet.kept()
    assert first
    assert second
    assert not set(first) & set(second)
    assert {len(spans) for kept in (first, second) for spans in kept.values()} == {SPANS_PER_TRACE}


def test_series_of_processes_arrive_by_remote_write(fleet: Fleet) -> None:
    """What a process reports comes through agent, gateway and remote write under the names that dashboards ask for."""
    limits = family(semconv.CONNECTION_MAX)
    found = wait_until(lambda: fleet.prometheus.query(limits), 60, "the process's series")
    assert [(s.labels["service_name"], s.labels["service_instance_id"], s.value) for s in found] == [
        ("shop", "worker-1", 10)
    ]
