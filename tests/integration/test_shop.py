"""
The shop in Flask, FastAPI and Django: each cause does what its repaired twin does, with the same answer; it triggers
exactly the finding that it was written for, and its twin none.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from examples.lab import shop as lab
from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.adapters.django_loaders import QUERY_SET
from poolscope.adapters.sqlalchemy.loaders import LAZY
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.kept import SESSION_LOCK_LEAK
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.report import PoolReport, build_report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.lab.postgres import Postgres
    from examples.lab.shop import Shop

# What is slow takes three seconds and counts as slow from two on, so that a busy machine makes nothing else slow.
SLOW, THRESHOLD = 3.0, 2.0
SETTINGS = {
    "SHOP_POOL_SIZE": "4",
    "SHOP_MAX_OVERFLOW": "2",
    "SHOP_POOL_TIMEOUT": "1.0",
    "SHOP_SLOW_SECONDS": str(SLOW),
    "POOLSCOPE_LONG_HOLD_THRESHOLD": str(THRESHOLD),
    "POOLSCOPE_BLOCKED_EVENT_LOOP_THRESHOLD": str(THRESHOLD),
    "POOLSCOPE_FINDING_INTERVAL": "0",
    "POOLSCOPE_EXHAUSTION_THRESHOLD": "0",
}
LIMIT = 6
COUNTERS = {
    metric.name
    for metric in (
        semconv.TIMEOUTS,
        semconv.LEAKS,
        semconv.NESTED_CHECKOUTS,
        semconv.UNATTRIBUTED,
        semconv.REPEATED_QUERIES,
    )
}
SERVER = 2  # a span's kind in OTLP
FOUND = {
    "GET /reports/sales": LONG_HOLD,
    "GET /feed": N_PLUS_ONE,
    "POST /checkout/7": IDLE_IN_TRANSACTION,
    "GET /cart/7": LEAK,
    "GET /profile/7": NESTED_CHECKOUT,
    "POST /dispatch": SESSION_LOCK_LEAK,
}
# What is known only when the request has long been over.
KNOWN_LATE = (LEAK, SESSION_LOCK_LEAK)
HEALTHY = "GET /users/7"
# Each cause follows its repaired twin, which would wait for a lock that the cause leaves behind: no request changes in
# between what both answer.
EVERYTHING = [HEALTHY, *(route for cause in FOUND for route in (cause.replace(" /", " /fixed/"), cause))]
# The causes whose answer is not their twin's word for word: a receipt, and a span of time.
ANSWERS_DIFFER = {"GET /reports/sales", "POST /checkout/7"}
# Who loads the posts of the feed: the relationship in Flask, SQL by hand in FastAPI, the query set in Django.
LOADERS = {"flask": LAZY.name, "fastapi": None, "django": QUERY_SET.name}
# The frameworks whose pool has a limit of its own.
LIMITED = ("flask", "fastapi")


@pytest.fixture(scope="module")
def filled(postgres: Postgres) -> Iterator[Postgres]:
    """A database with the shop's rows."""
    with lab.database(postgres) as database:
        yield database


@pytest.fixture(scope="module")
def payment_url() -> Iterator[str]:
    """A payment provider that takes longer than a connection may be held."""
    with lab.payments(SLOW) as url:
        yield url


class Telemetry:
    """
    What left a shop, from the file of its exporters.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def findings(self) -> list[dict[str, Any]]:
        """The attributes of each event that reports a finding, its name included."""
        return [
            {"event": record.get("eventName"), **attributes(record)}
            for scope in self._scopes("resourceLogs", "scopeLogs")
            for record in scope["logRecords"]
            if semconv.FINDING_ID in attributes(record)
        ]

    def by_request(self) -> dict[str, list[str]]:
        """The ids of the findings by the name of the unit of work, in order; of resolved ones no more is said."""
        found = defaultdict(list)
        for finding in self.findings():
            if finding["event"] != semconv.LEAK_RESOLVED_EVENT.name:
                found[plain(finding.get(semconv.UNIT_OF_WORK_NAME, ""))].append(finding[semconv.FINDING_ID])
        return dict(found)

    def has(self, identity: str) -> bool:
        """Whether a finding has been reported."""
        return any(finding[semconv.FINDING_ID] == identity for finding in self.findings())

    def on_spans(self) -> dict[str, list[str]]:
        """The ids on the spans around requests, by the span's name."""
        found = {}
        for scope in self._scopes("resourceSpans", "scopeSpans"):
            for span in scope["spans"]:
                of_span = attributes(span)
                if semconv.FINDINGS in of_span and span["kind"] == SERVER:
                    found[plain(span["name"])] = sorted(of_span[semconv.FINDINGS])
        return found

    def queries(self) -> dict[str, tuple[int, float]]:
        """Requests and their queries, by the name of the unit of work."""
        found = {}
        for scope in self._scopes("resourceMetrics", "scopeMetrics"):
            for metric in scope["metrics"]:
                if metric["name"] == semconv.UNIT_QUERIES.name:
                    for point in metric["histogram"]["dataPoints"]:
                        name = plain(attributes(point)[semconv.UNIT_OF_WORK_NAME])
                        found[name] = (int(point["count"]), point["sum"])
        return found

    def counted(self) -> dict[tuple[str, str], int]:
        """
        What does not depend on time: how many values each histogram holds, and what each integer counter of rare things
        has counted, by its attributes.
        """
        found: dict[tuple[str, str], int] = {}
        for scope in self._scopes("resourceMetrics", "scopeMetrics"):
            if scope["scope"]["name"] != semconv.SCOPE:
                continue
            for metric in scope["metrics"]:
                for point in metric.get("histogram", {}).get("dataPoints", ()):
                    found[metric["name"], series(point)] = int(point["count"])
                for point in metric["sum"]["dataPoints"] if metric["name"] in COUNTERS else ():
                    found[metric["name"], series(point)] = int(point["asInt"])
        return found

    def _scopes(self, resources: str, scopes: str) -> Iterator[dict[str, Any]]:
        text = self._path.read_text(encoding="utf-8")
        for line in text[: text.rfind("\n") + 1].splitlines():  # the last one may be half written
            for resource in json.loads(line).get(resources, ()):
                yield from resource[scopes]


def attributes(thing: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a record, span or point."""
    return {one["key"]: value(one["value"]) for one in thing.get("attributes", ())}


def series(point: dict[str, Any]) -> str:
    """A point's attributes, without the names of what is another one in each run."""
    different = {semconv.SERVER_ADDRESS, semconv.SERVER_PORT, semconv.DB_NAMESPACE}
    return str(sorted((key, value) for key, value in attributes(point).items() if key not in different))


def value(wrapped: dict[str, Any]) -> Any:
    """An attribute's value."""
    ((kind, content),) = wrapped.items()
    if kind == "arrayValue":
        return [value(one) for one in content.get("values", ())]
    return int(content) if kind == "intValue" else content


def plain(name: str) -> str:
    """A route's name without what frameworks write differently: `<int:user_id>` and `{user_id}` are both `7`."""
    for parameter in ("<int:user_id>", "{user_id}"):
        name = name.replace(parameter, "7")
    method, _, path = name.partition(" ")
    return f"{method} /{path.lstrip('/')}" if path else name


@dataclass
class Visited:
    """A shop that customers were in, and that has closed."""

    framework: str
    file: Path
    answers: dict[str, httpx.Response] = field(default_factory=dict)

    @property
    def telemetry(self) -> Telemetry:
        """What left it."""
        return Telemetry(self.file)

    def visit(self, shop: Shop, requests: Sequence[str], *, well: bool = True) -> None:
        """Send requests, one after the other; each is answered well."""
        with httpx.Client(base_url=shop.address, timeout=60) as client:
            for request in requests:
                method, path = request.split(" ")
                answer = self.answers[request] = client.request(method, path)
                assert (answer.status_code == 200) == well, (request, answer.text)

    def only_pool(self) -> PoolReport:
        """The one pool that the shop has, as the report sees it."""
        (pool,) = build_report([self.file]).pools
        return pool


def everything(
    framework: str, filled: Postgres, payment_url: str, folder: Path, settings: dict[str, str] = SETTINGS
) -> Visited:
    """A shop in which a customer asked for every healthy route, every repaired twin and every cause, once."""
    visited = Visited(framework, folder / "shop.jsonl")
    with lab.shop(framework, filled, payment_url, settings, visited.file) as shop:
        visited.visit(shop, EVERYTHING)
        wait_until(lambda: all(map(visited.telemetry.has, KNOWN_LATE)), 60, "what is known late to be reported")
        shop.close()
    return visited


@pytest.fixture(scope="module", params=lab.FRAMEWORKS)
def visited(
    request: pytest.FixtureRequest, filled: Postgres, payment_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Visited:
    """Each shop after a visit to everything."""
    return everything(request.param, filled, payment_url, tmp_path_factory.mktemp("visited"))


@pytest.fixture(scope="module", params=lab.FRAMEWORKS)
def leaked(
    request: pytest.FixtureRequest, filled: Postgres, payment_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Visited:
    """Each shop after as many carts as its pool has connections, and one more customer."""
    shop_of = Visited(request.param, tmp_path_factory.mktemp("leaked") / "shop.jsonl")
    with lab.shop(request.param, filled, payment_url, SETTINGS, shop_of.file) as shop:
        shop_of.visit(shop, [f"GET /fixed/cart/{user}" for user in range(1, LIMIT + 2)])
        shop_of.visit(shop, [f"GET /cart/{user}" for user in range(1, LIMIT + 1)])

        def all_are_known() -> bool:
            findings = shop_of.telemetry.findings()
            return sum(finding[semconv.FINDING_ID] == LEAK for finding in findings) == LIMIT

        wait_until(all_are_known, 60, "the leaks to be reported")
        shop_of.visit(shop, [HEALTHY], well=False)
        shop.close()
    return shop_of


def path_of(route: str) -> str:
    """A route without its parameter, which each framework spells in its own way."""
    return re.sub(r"/[<{\d].*", "", route)


def test_the_repair_changes_no_answer(visited: Visited) -> None:
    """
    The repair changes how a connection is held, not what the customer gets: an answer of the same form, and but for
    receipts and spans of time of the same words.
    """
    assert visited.answers[HEALTHY].json() == {"name": "user 7"}
    for cause in FOUND:
        broken, repaired = (visited.answers[one].json() for one in (cause, cause.replace(" /", " /fixed/")))
        assert broken.keys() == repaired.keys()
        assert (broken == repaired) or cause in ANSWERS_DIFFER


def test_each_cause_is_its_finding_and_its_repaired_twin_none(visited: Visited) -> None:
    """In the report every cause is found as what it is, once, and no twin as anything; the cart alone is still held."""
    if visited.framework in LIMITED:
        report = build_report([visited.file])
        (pool,) = report.pools
        assert (pool.limit, pool.used, pool.drift) == (LIMIT, 1, 0)
        expected = sorted((finding, path_of(request)) for request, finding in FOUND.items())
        assert sorted((one.id, path_of(one.call_site.route)) for one in report.findings) == expected
        assert {Path(holder.call_site.file).name for holder in pool.holders} == {f"{visited.framework}_app.py"}


def test_each_route_triggers_exactly_the_finding_it_was_written_for(visited: Visited) -> None:
    """
    One event for each, on its route, and the same id on its span; the repaired twins and the
    healthy route have none.
    """
    telemetry = visited.telemetry
    assert telemetry.by_request() == {request: [finding] for request, finding in FOUND.items()}
    told_in_time = {request: [finding] for request, finding in FOUND.items() if finding not in KNOWN_LATE}
    assert telemetry.on_spans() == told_in_time
    (repeated,) = [one for one in telemetry.findings() if one[semconv.FINDING_ID] == N_PLUS_ONE]
    assert repeated.get(semconv.EVIDENCE_PREFIX + "loader") == LOADERS[visited.framework]
    assert repeated[semconv.STATEMENT_REPETITIONS] == 20
    for finding in telemetry.findings():
        assert "examples/shop" in finding[semconv.CODE_FILE]
        assert finding[semconv.CODE_LINE] > 0


def test_a_leak_turns_customers_away_and_the_rest_goes_on(leaked: Visited) -> None:
    """
    Each cart takes a connection for good: with as many as the pool has, the next customer gets 503; no repaired twin
    ever does that.
    """
    statuses = {path_of(request): answer.status_code for request, answer in leaked.answers.items()}
    assert statuses == {"GET /fixed/cart": 200, "GET /cart": 200, "GET /users": 503}
    if leaked.framework in LIMITED:
        pool = leaked.only_pool()
        assert (pool.used, pool.peak, pool.timeouts) == (LIMIT, LIMIT, 1)


def test_who_leaks_the_pool_away_is_blamed_when_it_is_empty(leaked: Visited) -> None:
    """The customer who is turned away is reported with every holder, and with a leak as the cause."""
    telemetry = leaked.telemetry
    reports = [one for one in telemetry.findings() if one[semconv.FINDING_ID] == POOL_EXHAUSTED]
    report = reports[-1]
    assert report["event"] == semconv.EXHAUSTED_EVENT.name
    assert plain(report[semconv.UNIT_OF_WORK_NAME]) == HEALTHY
    assert report[semconv.CAUSE] == LEAK
    assert (report[semconv.POOL_USED], report[semconv.POOL_LIMIT]) == (LIMIT, LIMIT)
    assert len(report[semconv.HOLDERS]) == LIMIT
    for holder in report[semconv.HOLDERS]:
        assert "/cart/" in holder or "cart/" in holder
        assert "in cart" in holder
        assert "leaked (owner_finished)" in holder
        assert "currently executing" not in holder
    assert telemetry.on_spans()[HEALTHY] == [POOL_EXHAUSTED]


@pytest.mark.parametrize("visited", ["flask"], indirect=True)
def test_sampling_makes_no_difference(visited: Visited, filled: Postgres, payment_url: str, tmp_path: Path) -> None:
    """With every trace and with none: the same findings, the same counts of every metric, and as many queries."""
    without = everything("flask", filled, payment_url, tmp_path, {**SETTINGS, "OTEL_TRACES_SAMPLER": "always_off"})
    seen = [
        (telemetry.by_request(), telemetry.queries(), telemetry.counted())
        for telemetry in (visited.telemetry, without.telemetry)
    ]
    assert seen[0] == seen[1]
    assert visited.telemetry.on_spans()
    assert not without.telemetry.on_spans()
    assert seen[0][1]["GET /feed"] == (1, 21)
    assert {name for name, _ in seen[0][2]} >= {semconv.WAIT_TIME.name, semconv.USE_TIME.name, *COUNTERS}
