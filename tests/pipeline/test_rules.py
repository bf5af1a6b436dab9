"""The alert rules in Prometheus's own test runner, at the pace of operation."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import grafana.alerts
from grafana import collector as made
from grafana.alerts.kinds import COUNTED
from grafana.prometheus import bucket, count, family, label
from poolscope import semconv
from poolscope.core.catalogue.locks import LOCK_WAIT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

POOL = {"service_name": "shop", "db_client_connection_pool_name": "orders", "service_instance_id": "worker-1"}
SERVER = {"server_address": "db", "server_port": "5432"}
UNIT = {label(semconv.UNIT_OF_WORK_NAME): "GET /orders"}
CHECKOUT = {"span_name": semconv.CHECKOUT_SPAN.named("orders"), **POOL}
MINUTE = 4  # samples, one each 15 s
DAY = 24 * 60 * MINUTE
DAY_OF_MINUTES = 24 * 60  # samples, one each minute: days of four each would take most of the time
# How often rules are evaluated: as in operation; and in cases of many hours, where each time costs as much again.
PACE = "1m"
SLOW_PACE = "5m"


def series(name: str, *labels: Mapping[str, str], **more: str) -> str:
    """A series in the notation of promtool."""
    merged = {key: text for part in (*labels, more) for key, text in part.items()}
    return f"{name}{{{','.join(f'{key}={text!r}'.replace(chr(39), chr(34)) for key, text in merged.items())}}}"


def samples(at: str) -> int:
    """How many samples a series has by a time such as ``24h5m``."""
    hours, minutes = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?", at).groups(default="0")  # type: ignore[union-attr]
    return (60 * int(hours) + int(minutes)) * MINUTE


def usual(at: str) -> dict[str, str]:
    """A pool at peace, until then and longer."""
    number = samples(at) + MINUTE
    return {
        series(family(semconv.CONNECTION_COUNT), POOL): f"0x{number}",
        series(family(semconv.CONNECTION_MAX), POOL, SERVER): f"10x{number}",
        series(family(made.SERVER_CONNECTIONS_MAX), SERVER): f"100x{number}",
        series(family(made.SERVER_CONNECTIONS_RESERVED), SERVER): f"3x{number}",
    }


def found(finding: str) -> str:
    """The count of a kind of finding."""
    return series(family(semconv.FINDING_COUNT), POOL, {label(semconv.FINDING_ID): finding})


# The counters of rare events by the alert that watches them. The last two are counted by the Collector.
RARE = {
    "PoolTimeouts": series(family(semconv.TIMEOUTS), POOL),
    "TooManyConnections": series(
        family(semconv.FAILED_CHECKOUTS), POOL, {label(semconv.CHECKOUT_OUTCOME): "server_refused"}
    ),
    "ConnectionLeak": series(family(semconv.LEAKS), POOL, {label(semconv.LEAK_KIND): "abandoned"}),
    "LeaseOverdue": series(family(semconv.LEAKS), POOL, {label(semconv.LEAK_KIND): "overdue"}),
    "NestedCheckout": series(family(semconv.NESTED_CHECKOUTS), POOL),
    "PoolscopeErrors": series(family(semconv.ERRORS), POOL, {label(semconv.COMPONENT): "adapters.sqlalchemy"}),
    "CheckoutSpansFail": series(family(made.SPAN_CALLS), CHECKOUT, status_code="STATUS_CODE_ERROR"),
    "TracesWithFindings": series(family(made.TRACE_FINDINGS), POOL, {label(semconv.FINDINGS): "[nested_checkout]"}),
}
# The same for kinds of findings: their rules differ in one word.
OF_KINDS = {one.name: found(one.finding) for one in COUNTED if one.fewest == 1}


@dataclass(frozen=True)
class Case:
    """Series over time and the alerts that fire then, all of them."""

    law: str
    series: Mapping[str, str]
    at: str
    firing: frozenset[str]
    interval: str

    @property
    def pace(self) -> str:
        """How often the rules are evaluated."""
        return SLOW_PACE if samples(self.at) >= 6 * 60 * MINUTE else PACE


def case(law: str, series: Mapping[str, str], at: str, *firing: str, interval: str = "15s") -> Case:
    """A case in one line: what it says, the series with a value each interval, and what fires at that time."""
    return Case(law, series, at, frozenset(firing), interval)


# What is no event of any counter, and is so for all of them at once.
NO_EVENTS = (
    ("a 0 that stays", "0x80", "15m"),
    ("old events that do not repeat", "7x600", "2h"),
    ("a counter that starts again at 0", "7x60 0x30", "20m"),
    ("a gap of ten minutes", "7x60 _x40 7x40", "26m"),
    ("an event an hour ago", "0x60 1x400", "80m"),
)
# What is one; for each counter alone, since no other alert may fire then.
EVENTS = (
    ("the first event of a known series", "0x60 1x20", "16m"),
    ("the first event of a new series", "_x60 1x20", "16m"),
    ("an event after a start at 0", "7x60 0x2 1x20", "17m"),
)


EVERY = (*RARE.values(), *OF_KINDS.values())


def rare_events() -> list[Case]:
    """What must hold for every counter of rare events."""
    return [
        *(case(f"{law} is no rare event", dict.fromkeys(EVERY, values), at) for law, values, at in NO_EVENTS),
        *(
            case(f"{alert}: {law}", {counter: values}, at, alert)
            for alert, counter in RARE.items()
            for law, values, at in EVENTS
        ),
        *(
            case(f"kinds of findings: {law}", dict.fromkeys(OF_KINDS.values(), values), at, *OF_KINDS)
            for law, values, at in EVENTS
        ),
    ]


def waits(good: float, bad: float, **more: str) -> dict[str, str]:
    """Checkouts per 15 s: within the objective, and beyond it."""
    return {
        series(bucket(semconv.WAIT_TIME), POOL, more, le="0.1"): f"0+{good}x{DAY}",
        series(bucket(semconv.WAIT_TIME), POOL, more, le="+Inf"): f"0+{good + bad}x{DAY}",
        series(count(semconv.WAIT_TIME), POOL, more): f"0+{good + bad}x{DAY}",
    }


def lag(good: float, bad: float) -> dict[str, str]:
    """Heartbeats per 15 s: in time, and late."""
    return {
        series(bucket(semconv.EVENT_LOOP_LAG), POOL, le="0.25"): f"0+{good}x{DAY}",
        series(count(semconv.EVENT_LOOP_LAG), POOL): f"0+{good + bad}x{DAY}",
    }


def use(phase: str, per_sample: float) -> dict[str, str]:
    """Time that connections are held, of one phase."""
    return {series(family(semconv.HOLD_PHASE_TIME), POOL, {label(semconv.HOLD_PHASE): phase}): f"0+{per_sample}x{DAY}"}


def spans(le: str) -> dict[str, str]:
    """Waiting checkouts, all of a duration that falls into one bucket."""
    bounds = ["0.5", "1", "2.5", "+Inf"]
    return {
        series(
            bucket(made.SPAN_DURATION), CHECKOUT, le=bound
        ): f"0+{9 if bounds.index(bound) >= bounds.index(le) else 0}x400"
        for bound in bounds
    }


def repeated(values: str, version: str = "2.0") -> dict[str, str]:
    """Queries spent in loops."""
    return {series(family(semconv.REPEATED_QUERIES), POOL, UNIT, service_version=version): values}


def connections(used: int) -> dict[str, str]:
    """What the server has in use."""
    return {series(family(made.SERVER_CONNECTIONS), SERVER, state="idle"): f"{used}x200"}


def limits(workers: int) -> dict[str, str]:
    """Workers with a pool of ten each."""
    name = family(semconv.CONNECTION_MAX)
    return {series(name, {**POOL, "service_instance_id": f"w{n}"}, SERVER): "10x200" for n in range(workers)}


def pool_at(address: str, system: str) -> dict[str, str]:
    """A pool to another server."""
    return {
        series(family(semconv.CONNECTION_MAX), POOL, SERVER, server_address=address, db_system_name=system): "5x200"
    }


SATURATION = series(family(semconv.SATURATION_TIME), POOL)
OLDEST = series(family(made.SERVER_OLDEST_IDLE_IN_TRANSACTION), SERVER)
DRIFT = series(family(semconv.DRIFT), POOL)
COLLECTOR = {"instance": "collector:8888"}
REFUSED = series("otelcol_receiver_refused_spans", COLLECTOR, receiver="otlp")
# Two counters with the same labels, as a Collector has them for every receiver.
REFUSED_POINTS = series("otelcol_receiver_refused_metric_points", COLLECTOR, receiver="otlp")
NOT_QUEUED = series("otelcol_exporter_enqueue_failed_spans_total", COLLECTOR, exporter="otlp/traces")
UP = series("up", job="poolscope-collector", instance="collector:8888")
CASES = [
    *rare_events(),
    case("saturated a third of the time", {SATURATION: "0+5x80"}, "15m", "PoolSaturated"),
    case("saturated a hundredth of the time", {SATURATION: "0+0.15x80"}, "15m"),
    case("saturated for a minute only", {SATURATION: "0x30 0+15x4 60x60"}, "9m"),
    case("every second checkout waits", waits(50, 50), "2h", "PoolWaitBurnsFast", "PoolWaitBurnsSlowly"),
    case("one checkout in ten waits", waits(90, 10), "8h", "PoolWaitBurnsSlowly", interval="1m"),
    case("the objective is met", waits(995, 5), "8h", interval="1m"),
    case("no request checks anything out", waits(0, 0), "2h"),
    case("a few slow checkouts an hour", {series(bucket(semconv.WAIT_TIME), POOL, le="0.1"): f"0x{DAY}",
         series(count(semconv.WAIT_TIME), POOL): "0x20 1x239 2x239 3x239 4x239"}, "125m"),
    case("every second checkout fails at once", {**waits(50, 0), **waits(50, 0, error_type="RejectedError")}, "2h",
         "PoolWaitBurnsFast", "PoolWaitBurnsSlowly"),
    case("every checkout fails at once", waits(50, 0, error_type="psycopg.OperationalError"), "2h",
         "PoolWaitBurnsFast", "PoolWaitBurnsSlowly"),
    case("callers go away before they wait", {**waits(50, 0), **waits(50, 0, error_type="asyncio.CancelledError")},
         "2h"),
    case("a loop is late for a third of the time", lag(2, 1), "15m", "EventLoopBlocked"),
    case("a loop is late once a minute", lag(59, 1), "15m"),
    case("half the pool is held idle in transaction", use("idle_in_transaction", 75), "15m", "HeldIdleInTransaction"),
    case("half the pool runs queries", use("query", 75), "15m"),
    case("loops after a deploy", {**repeated(f"_x{DAY_OF_MINUTES} 50x10"), **repeated(f"0x{DAY_OF_MINUTES}", "1.0")},
         "24h5m", "NPlusOneFound", interval="1m"),
    case("loops as many as yesterday", repeated(f"0+4x{DAY_OF_MINUTES + 25}"), "24h10m", interval="1m"),
    case("a handful of repeated queries", repeated("0x40 5x40"), "15m"),
    case("loops in a request of its own version", repeated("0+4x80"), "15m", "NPlusOneFound"),
    case("statements wait for locks", {found(LOCK_WAIT): "0x40 12x40"}, "15m", "LockWait"),
    case("a few statements wait for a lock", {found(LOCK_WAIT): "0x40 9x40"}, "15m"),
    case("the server is nearly full", connections(90), "15m", "ServerNearMaxConnections"),
    case("the server is half full", connections(50), "15m"),
    case("an old idle transaction", {OLDEST: "0+15x80"}, "15m", "ServerIdleInTransaction"),
    case("a young idle transaction", {OLDEST: "2x80"}, "15m"),
    case("workers times pool exceeds the server", limits(11), "20m", "FleetOverBudget"),
    case("workers times pool fits the server", limits(8), "20m"),
    case("pools at a server without monitoring", pool_at("replica", "postgresql"), "15m", "ServerUnwatched"),
    case("pools at a server that the Collector lost", {series(family(semconv.CONNECTION_MAX), POOL, SERVER,
         db_system_name="postgresql"): "5x400", series(family(made.SERVER_CONNECTIONS_MAX), SERVER): "100x40"}, "30m",
         "ServerUnwatched"),
    case("pools at a server of another kind", pool_at("cache", "redis"), "15m"),
    case("the pool registry disagrees for long", {DRIFT: "0x20 -2x80"}, "20m", "PoolscopeDrift"),
    case("the pool registry disagrees for a moment", {DRIFT: "0x20 1x4 0x80"}, "20m"),
    case("a service falls silent", {series(family(semconv.CONNECTION_COUNT), service_name="mail"): "0x40"}, "25m",
         "PoolscopeNoData"),
    case("a service is retired", {series(family(semconv.CONNECTION_COUNT), service_name="mail"): "0x40"}, "3h"),
    case("a worker of several goes", {series(family(semconv.CONNECTION_COUNT), POOL, state="used"): "0x40"}, "25m"),
    case("the Collector does not answer", {UP: "1x20 0x60"}, "15m", "CollectorDown"),
    case("the Collector answers", {UP: "1x80"}, "15m"),
    case("the Collector refuses spans", {REFUSED: "0+3x80"}, "15m", "CollectorLosesData"),
    case("the Collector refuses one signal of several", {REFUSED: "0x80", REFUSED_POINTS: "0x40 7x40"}, "15m",
         "CollectorLosesData"),
    case("the Collector's queue was full for a moment", {NOT_QUEUED: "_x40 40x40"}, "15m", "CollectorLosesData"),
    case("the Collector has refused nothing", {REFUSED: "0x80", REFUSED_POINTS: "0x80"}, "15m"),
    case("the Collector refused spans once, long ago", {REFUSED: "9x400"}, "90m"),
    case("waits of two seconds in traces", spans("2.5"), "15m", "CheckoutSpansSlow"),
    case("waits of half a second in traces", spans("0.5"), "15m"),
]  # fmt: skip


def run_promtool(promtool: Path, folder: Path, tests: list[dict[str, Any]], pace: str = PACE) -> str:
    """What promtool says, when it says no; the rules are evaluated at that pace."""
    rules = folder / "rules.yaml"
    rules.write_text(grafana.alerts.generate()[f"{grafana.alerts.FOLDER}/prometheus.yaml"])
    plan = folder / "tests.yaml"
    plan.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": pace, "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", plan], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def planned(scenario: Case) -> dict[str, Any]:
    """The case in the notation of promtool."""
    firing = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in scenario.firing]
    expression = 'group by (alertname) (ALERTS{alertstate="firing"})'
    everything = {**usual(scenario.at), **scenario.series}
    return {
        "interval": scenario.interval,
        "input_series": [{"series": each, "values": values} for each, values in everything.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": scenario.at, "exp_samples": firing}],
    }


@pytest.fixture(scope="module")
def all_at_once(promtool: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What promtool says about all cases in one run for each pace, which takes half as long as a run for each case."""
    folder = tmp_path_factory.mktemp("rules")
    return "".join(
        run_promtool(promtool, folder, [planned(one) for one in CASES if one.pace == pace], pace)
        for pace in (PACE, SLOW_PACE)
    )


def test_all_cases_hold(all_at_once: str) -> None:
    """No case fails; the next test says which one does."""
    assert all_at_once == ""


@pytest.mark.parametrize("scenario", CASES, ids=lambda scenario: scenario.law)
def test_exactly_the_named_alerts_fire(promtool: Path, tmp_path: Path, all_at_once: str, scenario: Case) -> None:
    """Under these series these alerts fire, and no other one."""
    # It does not say which case it means; a run of its own does.
    if all_at_once:
        assert run_promtool(promtool, tmp_path, [planned(scenario)], scenario.pace) == ""


def test_every_alert_is_seen_firing_and_silent() -> None:
    """No alert is without a case in which it fires; and of each the others are cases in which it does not."""
    fired = frozenset().union(*(each.firing for each in CASES))
    assert fired == {alert.name for alert in grafana.alerts.alerts()}


def test_links_carry_the_labels_in_the_form_of_addresses(promtool: Path, tmp_path: Path) -> None:
    """
    Summary, dashboard link and page are complete, also for a pool whose name has characters that
    addresses cannot hold.
    """
    pool = {"service_name": "shop", "db_client_connection_pool_name": "db:5432/shop #2"}
    expected = {
        "exp_labels": {**pool, "severity": "critical", "finding": "pool_exhausted"},
        "exp_annotations": {
            "summary": "1 requests got no connection from the pool db:5432/shop #2 of shop",
            "description": "Users see errors. The event `poolscope.pool.exhausted` lists every holder at that moment, "
            "longest hold first, with route, line and last statement.",
            "dashboard": "https://grafana/d/poolscope-pool?var-service=shop&var-pool=db%3A5432%2Fshop+%232",
            "runbook_url": "https://docs/findings/pool_exhausted.md",
        },
    }
    test = {
        "interval": "15s",
        "external_labels": {"grafana_url": "https://grafana", "docs_url": "https://docs"},
        "input_series": [{"series": series(family(semconv.TIMEOUTS), pool), "values": "_x40 1x20"}],
        "alert_rule_test": [{"alertname": "PoolTimeouts", "eval_time": "11m", "exp_alerts": [expected]}],
    }
    assert run_promtool(promtool, tmp_path, [test]) == ""
