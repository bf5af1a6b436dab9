"""A report from recorded telemetry files; `tests/data/otlp/record.py` records them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION
from poolscope.core.catalogue.leaks import LEAK
from poolscope.detectors.leak import ABANDONED, OVERDUE, OWNER_FINISHED
from poolscope.report import CallSite, PoolReport, ReportError, build_report
from poolscope.report.distribution import NO_QUANTILES, Distribution, Quantiles
from poolscope.report.pools import over_all_waits
from tests.data.otlp.truth import HOLDS, ROUTES, TRUTH, WAITS

DATA = Path(__file__).parent.parent / "data" / "otlp"
TRACES = DATA / "traces.jsonl"
LOGS = DATA / "logs.jsonl"
METRICS = ("cumulative", "delta", "exponential")


def waits(*, short: int = 0, medium: int = 0, long: int = 0) -> Distribution:
    """A histogram of waits below 1 ms, between 1 ms and 100 ms, and above."""
    return Distribution((0.0005, 0.001, 0.1, 100.0), (short, 0, medium, long, 0))


def only_pool(*paths: Path) -> PoolReport:
    """The one pool that the files name."""
    (pool,) = build_report(paths).pools
    return pool


@pytest.mark.parametrize("recording", METRICS)
def test_every_temporality_and_aggregation_gives_the_same_figures(recording: str) -> None:
    """What was counted is counted once, however it was sent."""
    pool = only_pool(DATA / f"{recording}.jsonl")

    figures = {
        "limit": pool.limit,
        "waits": pool.waits.count,
        "holds": pool.holds.count,
        "used": pool.used,
        "peak": pool.peak,
        "timeouts": pool.timeouts,
    }
    assert figures == TRUTH
    assert pool.waits.seconds == pytest.approx(sum(map(sum, WAITS)))
    assert pool.holds.seconds == pytest.approx(sum(map(sum, HOLDS)))


@pytest.mark.parametrize("recording", METRICS)
def test_quantiles_are_near_those_of_the_values(recording: str) -> None:
    """The shape that was recorded can be read off."""
    pool = only_pool(DATA / f"{recording}.jsonl")

    assert pool.waits.quantiles.p50 == pytest.approx(0.0002, rel=0.2)
    assert 0.5 < (pool.waits.quantiles.p99 or 0) <= 0.7
    assert pool.holds.quantiles.p95 == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("GET cart/<int:id>/", "GET /cart/<int:id>/"),
        ("POST /cart/{id}", "POST /cart/{id}"),
        ("GET <unmatched>", "GET <unmatched>"),
        ("HTTP GET", "HTTP GET"),
        ("shop.Shop/Get", "shop.Shop/Get"),
        ("GET", "GET"),
    ],
)
def test_routes_begin_with_a_slash(tmp_path: Path, recorded: str, shown: str) -> None:
    """Also those of an instrumentation that leaves it out."""
    file = tmp_path / "traces.jsonl"
    file.write_text(TRACES.read_text().replace('"POST /checkout/{id}"', json.dumps(recorded)))

    pool = only_pool(DATA / "cumulative.jsonl", file)

    assert shown in {holder.call_site.route for holder in pool.holders}


def test_identity_of_the_pool() -> None:
    """The pool says whose it is and where its server is."""
    pool = only_pool(DATA / "cumulative.jsonl")

    assert (pool.service, pool.instance, pool.name) == ("shop", "one", "shop")
    assert (pool.system, pool.server) == ("postgresql", "db.example:5432")


def test_holders_are_named_by_route_and_line() -> None:
    """A hold is laid at the door of the request around it, however deep inside."""
    (holder,) = only_pool(DATA / "delta.jsonl", TRACES).holders

    assert holder.call_site == CallSite("POST /checkout/{id}", "checkout", "/srv/shop/app.py", 42)
    assert (holder.count, holder.queries, holder.share) == (1, 3, 1.0)
    assert holder.longest == pytest.approx(2.0)
    assert max(holder.phases, key=lambda phase: holder.phases[phase]) == "idle_in_transaction"


def test_who_waited_for_whom_follows_the_links() -> None:
    """The wait's link leads to the request that held."""
    (starvation,) = only_pool(DATA / "delta.jsonl", TRACES).starvations

    assert (starvation.waiter, starvation.holder) == ("GET /users/{id}", "POST /checkout/{id}")
    assert starvation.seconds == pytest.approx(1.0)


def test_phase_quantiles_count_the_waits_too_short_for_a_span() -> None:
    """
    16 of 100 waits are long enough for a span: the median of their queueing is 0, the 99th of a
    hundred is the span's.
    """
    queue = only_pool(DATA / "cumulative.jsonl", TRACES).waits.phases[0]

    assert queue.name == "queue"
    assert (queue.quantiles.p50, queue.quantiles.p99) == (0.0, 0.7)


def test_a_tenth_of_all_waits_has_spans_whatever_share_of_them_was_sampled() -> None:
    """With a tenth of the waits slow, the 95th of a hundred waits is the median of the slow ones."""
    spans = [float(seconds) for seconds in range(1, 101)]

    assert over_all_waits(spans, waits(short=900, long=100), 0.001) == Quantiles(0.0, 50.0, 90.0)
    assert over_all_waits(spans[::-1], waits(long=100), 0.001) == Quantiles(50.0, 95.0, 99.0)
    assert over_all_waits([], waits(short=100), 0.001) == Quantiles(0.0, 0.0, 0.0)
    assert over_all_waits([], waits(short=500, long=500), 0.001) == Quantiles(0.0, None, None)
    assert over_all_waits([], None, None) == NO_QUANTILES


def test_a_threshold_of_spans_that_is_not_the_default_moves_no_quantile() -> None:
    """
    With spans from 0.1 s on, waits between 1 ms and there have none: they count, and what is below the threshold is not
    known. The same waits with spans from 1 ms on give the same quantiles where both know one.
    """
    medium, slow = [0.02] * 40, [number / 10 for number in range(1, 11)]
    every = waits(short=50, medium=40, long=10)

    from_a_tenth = over_all_waits(slow, every, 0.1)

    assert from_a_tenth == Quantiles(0.0, 0.5, 0.9)
    assert over_all_waits(medium + slow, every, 0.001) == from_a_tenth
    assert over_all_waits(slow, waits(medium=90, long=10), 0.1) == Quantiles(None, 0.5, 0.9)
    assert over_all_waits([0.0] * 10, every, 0.1) == Quantiles(0.0, None, None), "others may have connected for 90 ms"


@pytest.mark.parametrize(
    ("threshold", "p95"),
    [(0.1, 0.7), (0.001, 0.7), (None, None)],
)
def test_the_spans_say_from_which_wait_on_there_are_spans(
    tmp_path: Path, threshold: float | None, p95: float | None
) -> None:
    """The report takes the threshold from them; where they do not say it, what the phases took is not known."""
    file = tmp_path / "traces.jsonl"
    said = '{"key":"poolscope.checkout.span_threshold","value":{"doubleValue":0.001}}'
    text = TRACES.read_text()
    assert said in text
    saying = said.replace("0.001", str(threshold)) if threshold is not None else '{"key":"other","value":{}}'
    file.write_text(text.replace(said, saying))

    queue = only_pool(DATA / "cumulative.jsonl", file).waits.phases[0]

    assert (queue.quantiles.p50, queue.quantiles.p95) == (0.0, p95)


def test_without_hold_spans_the_units_of_work_are_the_holders() -> None:
    """With no trace sampled the route is known all the same; the line is not."""
    first, second = only_pool(DATA / "cumulative.jsonl").holders

    assert (first.call_site, second.call_site) == (CallSite(ROUTES[1]), CallSite(ROUTES[0]))
    assert first.share == pytest.approx(sum(HOLDS[1]) / sum(map(sum, HOLDS)))
    assert first.count == len(HOLDS[1])


def test_a_finding_on_a_span_alone_is_reported_too() -> None:
    """Without a log pipeline the ids on the spans are what is left; with the event the id is not repeated."""
    report = build_report([DATA / "cumulative.jsonl", TRACES])

    (found,) = report.findings
    assert (found.id, found.call_site.route) == (IDLE_IN_TRANSACTION, "POST /checkout/{id}")


def test_the_collectors_file_says_the_same() -> None:
    """What went through the Collector's file exporter reads as what came from the SDK's."""
    direct = build_report([DATA / "cumulative.jsonl", TRACES, LOGS])

    assert build_report([DATA / "collector.jsonl"]) == direct


@pytest.mark.parametrize(
    ("kind", "came_back", "not_returned"),
    [(OWNER_FINISHED, False, 1), (OVERDUE, False, 1), (OWNER_FINISHED, True, 0), (ABANDONED, False, 0)],
)
def test_a_leak_is_held_to_the_end_unless_it_came_back(
    tmp_path: Path, kind: str, *, came_back: bool, not_returned: int
) -> None:
    """
    The span of a leak ends where it was found; the hold goes on until it is resolved, and longer
    than any that ended.
    """
    exports = [json.loads(line) for line in TRACES.read_text().splitlines()]
    spans = [span for e in exports for r in e["resourceSpans"] for s in r["scopeSpans"] for span in s["spans"]]
    (hold,) = (span for span in spans if span["name"].startswith("hold "))
    hold["attributes"].append({"key": "poolscope.leak.kind", "value": {"stringValue": kind}})
    if came_back:
        event = {"eventName": "poolscope.connection.leak.resolved", "traceId": hold["traceId"], "attributes": []}
        exports.append({"resourceLogs": [{"resource": {}, "scopeLogs": [{"logRecords": [event]}]}]})
    file = tmp_path / "leak.jsonl"
    file.write_text("".join(f"{json.dumps(export)}\n" for export in exports))

    (holder,) = only_pool(file, DATA / "cumulative.jsonl").holders

    assert holder.not_returned == not_returned
    assert (holder.longest > 2.0) == bool(not_returned)


def test_each_cause_is_one_finding() -> None:
    """Events of the same line are one finding; what was held back counts, what came back is distinguished."""
    (found,) = build_report([DATA / "cumulative.jsonl", LOGS]).findings

    assert (found.id, found.severity, found.count, found.resolved) == (LEAK, "critical", 5, 1)
    assert found.call_site == CallSite("GET /cart/{id}", "", "/srv/shop/app.py", 77)
    assert found.fix == "close the session"
    assert 2.5 in found.evidence.values()


def test_a_directory_is_read_whole(tmp_path: Path) -> None:
    """Every JSON file of a directory is read."""
    for source in (DATA / "cumulative.jsonl", TRACES, LOGS):
        (tmp_path / source.name).write_text(source.read_text())

    assert build_report([tmp_path]) == build_report(sorted(tmp_path.iterdir()))


def test_a_restarted_counter_keeps_what_it_had(tmp_path: Path) -> None:
    """A cumulative counter that begins again, with a new start or with the same, adds up."""
    file = tmp_path / "restart.jsonl"
    values = [(100, 5), (100, 7), (900, 2), (900, 1)]
    file.write_text("".join(f"{json.dumps(timeouts(start, value))}\n" for start, value in values))

    assert only_pool(file).timeouts == 7 + 2 + 1


def timeouts(start: int, value: int) -> dict[str, object]:
    """One export with a counter of timeouts."""
    pool = [{"key": "db.client.connection.pool.name", "value": {"stringValue": "p"}}]
    point = {
        "attributes": pool,
        "startTimeUnixNano": str(start),
        "timeUnixNano": str(start + value),
        "asInt": str(value),
    }
    counter = {"dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": True}
    used = {"dataPoints": [{**point, "asInt": "1"}], "aggregationTemporality": 2}
    metrics = [
        {"name": "db.client.connection.timeouts", "sum": counter},
        {"name": "db.client.connection.count", "sum": used},
    ]
    return {"resourceMetrics": [{"resource": {}, "scopeMetrics": [{"metrics": metrics}]}]}


def test_a_truncated_last_line_is_left_out_with_one_warning(tmp_path: Path) -> None:
    """What is complete is reported; one warning names the file and the line."""
    file = tmp_path / "cut.jsonl"
    text = (DATA / "delta.jsonl").read_text()
    file.write_text(text + text.splitlines()[0][:500])

    report = build_report([file])

    assert report.pools[0].waits.count == TRUTH["waits"]
    (warning,) = report.warnings
    assert "cut.jsonl" in warning
    assert "incomplete" in warning
    assert f"line {len(text.splitlines()) + 1}" in warning


def test_foreign_lines_are_left_out_with_one_warning(tmp_path: Path) -> None:
    """Whatever else a process printed between its exports is counted, not fatal."""
    file = tmp_path / "stdout.jsonl"
    file.write_text("starting\n" + (DATA / "delta.jsonl").read_text() + '{"message": "stopped"}\n')

    report = build_report([file])

    assert report.pools[0].waits.count == TRUTH["waits"]
    (warning,) = report.warnings
    assert "2 lines" in warning


@pytest.mark.parametrize(
    ("content", "problem", "fix"),
    [
        (b"", "is empty", "OTEL_METRIC_EXPORT_INTERVAL"),
        (b"hello\n", "contains no OTLP JSON lines", "resourceMetrics"),
        (b'{"resourceMetrics": 3}\n', "contains no OTLP JSON lines", "resourceMetrics"),
        (b"\x28\xb5\x2f\xfd\x00\xff", "is not text", "format: json"),
        (
            b'{"resourceSpans": [{"resource": {"attributes": []}}]}\n',
            "contains no connection pool",
            "opentelemetry-instrument",
        ),
    ],
)
def test_without_telemetry_the_error_names_the_file_and_the_fix(
    tmp_path: Path, content: bytes, problem: str, fix: str
) -> None:
    """There is one clear error, never an empty report."""
    file = tmp_path / "telemetry.jsonl"
    file.write_bytes(content)

    with pytest.raises(ReportError) as caught:
        build_report([file])

    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error names the path that was given."""
    with pytest.raises(ReportError, match=r"nowhere\.jsonl"):
        build_report([tmp_path / "nowhere.jsonl"])


def test_an_empty_file_beside_a_full_one_is_a_warning(tmp_path: Path) -> None:
    """A signal that nothing was sent for does not hide the others."""
    (tmp_path / "logs.jsonl").touch()
    (tmp_path / "metrics.jsonl").write_text((DATA / "delta.jsonl").read_text())

    report = build_report([tmp_path])

    assert report.pools
    assert "logs.jsonl is empty" in report.warnings[0]
