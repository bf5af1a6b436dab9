"""`make demo`: what it shows is what was planted, what leaves the process holds no secret, and nothing stays behind."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from examples.lab.processes import Child, wait_until
from poolscope import semconv
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.report import Report, build_report
from poolscope.report.model import NO_CALL_SITE
from poolscope.report.reader import read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres

ROOT = Path(__file__).parent.parent.parent
SHOP = ROOT / "examples" / "shop" / "flask_app.py"
MARK = "POOLSCOPE_TEST_MARK"
USER, PASSWORD, PARAMETER = "customer_of_ours", "hunter2-and-more", "whispered"
# For a machine that has much else to do.
DEADLINE_SECONDS = 240
pytestmark = pytest.mark.timeout(2 * DEADLINE_SECONDS)

# Every planted cause: its finding, its route, and the function that does it.
CAUSES = {
    (LEAK, "GET /cart/<int:user_id>", "cart"),
    (NESTED_CHECKOUT, "GET /profile/<int:user_id>", "profile"),
    (IDLE_IN_TRANSACTION, "POST /checkout/<int:user_id>", "checkout"),
    (LONG_HOLD, "GET /reports/sales", "sales"),
    (N_PLUS_ONE, "GET /feed", "feed"),
}
# Of these, the routes that hold for long.
PLANTED = {
    "GET /reports/sales": "sales",
    "POST /checkout/<int:user_id>": "checkout",
    "GET /profile/<int:user_id>": "profile",
    "GET /cart/<int:user_id>": "cart",
}
LONGEST = 3


@dataclasses.dataclass
class Run:
    """One finished demo."""

    output: str
    exit_code: int
    telemetry: Path
    mark: str


@pytest.fixture(scope="module")
def secretive(postgres: Postgres) -> Iterator[Postgres]:
    """The server, by a role whose name and password are found nowhere else."""
    with postgres.connect() as connection:
        connection.execute(f"CREATE ROLE {USER} LOGIN CREATEDB")
    yield dataclasses.replace(postgres, user=USER, password=PASSWORD, parameters={"application_name": PARAMETER})
    with postgres.connect() as connection:
        connection.execute(f"DROP ROLE {USER}")


@pytest.fixture(scope="module")
def demo(secretive: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short demo."""
    folder, mark = tmp_path_factory.mktemp("demo"), uuid.uuid4().hex
    done = subprocess.run(
        command(folder),
        env=environment(secretive, mark),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return Run(done.stdout + done.stderr, done.returncode, folder / "shop.jsonl", mark)


@pytest.fixture(scope="module")
def report(demo: Run) -> Report:
    """What the demo's telemetry says."""
    return build_report([demo.telemetry])


def command(folder: Path) -> list[str]:
    """The demo, keeping its telemetry."""
    return [sys.executable, "-m", "examples.demo", "--keep", str(folder)]


def environment(server: Postgres, mark: str) -> dict[str, str]:
    """
    Ours, with the server for the demo and a mark that all its processes inherit.

    What is slow in the shop takes 0.7 s. A healthy request of a machine that has much else to do comes near the default
    of what counts as such, and a connection may take a second to open.
    """
    thresholds = {"POOLSCOPE_LONG_HOLD_THRESHOLD": "0.65", "POOLSCOPE_EXHAUSTION_THRESHOLD": "0"}
    demo = {"DEMO_DSN": server.dsn, "DEMO_SECONDS": "10", "COLUMNS": "100", MARK: mark}
    return {**os.environ, **thresholds, **demo}


def running(mark: str) -> list[str]:
    """The processes that carry the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
            found += [" ".join(process.cmdline())] if marked else []
        except psutil.Error:
            continue
    return found


def databases(server: Postgres) -> list[str]:
    """The demo's databases on the server."""
    with server.connect() as connection:
        return [row[0] for row in connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'shop_%'")]


def test_it_ends_well_and_says_so(demo: Run) -> None:
    """The exit code is 0 and the last word is the result."""
    assert demo.exit_code == 0, demo.output
    assert "The pool shop ran out of connections: 15 of 15 in use" in demo.output
    assert ", 0 failed" in demo.output


def test_the_pool_is_exhausted(report: Report) -> None:
    """Every allowed connection was in use, a checkout timed out, and the shop went on serving."""
    (pool,) = report.pools

    assert (pool.limit, pool.peak) == (15, 15)
    assert pool.timeouts > 0
    assert pool.saturation > 0.1
    assert pool.holds.count > pool.limit
    assert pool.drift == 0


def test_the_figures_agree_with_one_another(report: Report) -> None:
    """Every checkout is one wait; those that got a connection hold it still or are one hold."""
    (pool,) = report.pools

    assert pool.waits.failed == pool.timeouts
    assert pool.waits.count - pool.waits.failed == pool.holds.count + pool.used
    assert sum(phase.seconds for phase in pool.holds.phases) == pytest.approx(pool.holds.seconds, rel=0.01)
    assert sum(phase.seconds for phase in pool.waits.phases) == pytest.approx(pool.waits.seconds, rel=0.01)


def test_those_who_hold_longest_are_the_planted_ones(report: Report) -> None:
    """The first three places are the planted routes, each at a line of its own function."""
    (pool,) = report.pools
    functions = functions_by_line(SHOP.read_text())

    first = pool.holders[:LONGEST]

    assert {holder.call_site.route for holder in first} <= set(PLANTED)
    for holder in first:
        assert Path(holder.call_site.file) == SHOP
        assert functions[holder.call_site.line] == PLANTED[holder.call_site.route]


def functions_by_line(source: str) -> dict[int, str]:
    """The function that each line of a module belongs to."""
    found, current = {}, ""
    for number, line in enumerate(source.splitlines(), 1):
        if match := re.match(r"def (\w+)", line):
            current = match[1]
        found[number] = current
    return found


def test_each_planted_cause_holds_by_its_own_phase(report: Report) -> None:
    """The slow query holds by querying; the outside call holds idle in transaction."""
    holders = [holder for holder in report.pools[0].holders if holder.call_site.route in PLANTED]
    mostly = {h.call_site.route: max(h.phases, key=lambda phase, h=h: h.phases[phase]) for h in holders}

    assert mostly["GET /reports/sales"] == "query"
    assert mostly["POST /checkout/<int:user_id>"] == "idle_in_transaction"


def test_the_leaking_route_stands_in_the_way(report: Report) -> None:
    """The carts never return theirs; the links of those who wait for them name them."""
    (pool,) = report.pools

    assert pool.used > 0
    assert sum(holder.not_returned for holder in pool.holders) == sum(pool.leaks.values()) > 0
    assert "GET /cart/<int:user_id>" in {starvation.holder for starvation in pool.starvations}


def test_every_planted_route_and_line_is_on_the_terminal(demo: Run, report: Report) -> None:
    """A person reads route and line without asking for more."""
    for holder in report.pools[0].holders[:LONGEST]:
        assert holder.call_site.route in demo.output
        assert f"flask_app.py:{holder.call_site.line}" in demo.output


def test_each_planted_cause_is_found_once_and_nothing_else(report: Report) -> None:
    """One finding for each cause, at a line of its own function; none for a healthy route or a repaired twin."""
    functions = functions_by_line(SHOP.read_text())
    causes = [one for one in report.findings if one.call_site != NO_CALL_SITE]

    found = [(one.id, one.call_site.route, functions[one.call_site.line]) for one in causes]

    assert sorted(found) == sorted(CAUSES)
    assert all(Path(one.call_site.file) == SHOP and one.fix and one.evidence for one in causes)


def test_the_cause_is_the_leak(report: Report, demo: Run) -> None:
    """At constant load the carts eat the pool: exhaustion is put down to the leak, and the demo ends with that."""
    (exhausted,) = (one for one in report.findings if one.id == POOL_EXHAUSTED)

    assert exhausted.evidence[semconv.CAUSE] == LEAK
    assert "Cause: connection leak in GET /cart/<int:user_id>, shop/flask_app.py:" in demo.output


def test_a_finding_is_on_the_span_that_surrounds_it(demo: Run) -> None:
    """A tail sampler sees the finding on the request's own span; a healthy one is marked at most as turned away."""
    spans = [span for span in read([demo.telemetry]).spans if span.kind == "SERVER"]
    marked = {(span.name, one) for span in spans for one in span.attributes.get(semconv.FINDINGS, ())}

    assert ("GET /reports/sales", LONG_HOLD) in marked
    assert ("GET /feed", N_PLUS_ONE) in marked
    assert {one for name, one in marked if "/fixed/" in name or "/users/" in name} <= {POOL_EXHAUSTED}


@pytest.mark.parametrize("secret", [USER, PASSWORD, PARAMETER, "postgresql://"])
def test_no_secret_of_the_dsn_leaves_the_process(demo: Run, secret: str) -> None:
    """Neither user nor password nor query string of the DSN is in any exported byte, and the export is not empty."""
    exported = demo.telemetry.read_bytes()

    assert b"resourceMetrics" in exported
    assert b"resourceSpans" in exported
    assert secret.encode() not in exported
    assert PASSWORD not in demo.output


def test_every_line_that_left_is_one_export(demo: Run) -> None:
    """Three signals share one file and no line is torn."""
    for line in demo.telemetry.read_text().splitlines():
        assert len(json.loads(line).keys() & {"resourceMetrics", "resourceSpans", "resourceLogs"}) == 1


def test_nothing_is_left(demo: Run, secretive: Postgres) -> None:
    """No process and no database survives the demo."""
    assert running(demo.mark) == []
    assert databases(secretive) == []


@pytest.mark.parametrize("part", ["run", "show"])
def test_wherever_it_is_interrupted_the_exit_code_is_the_same(tmp_path: Path, part: str) -> None:
    """Also where Ctrl-C strikes while a library makes its classes from text."""
    (tmp_path / "interrupted.py").write_text(
        "import sys\nfrom examples import demo\n"
        "demo.run = demo.build_report = demo.show = lambda *_: None\n"
        f"demo.{part} = lambda *_: exec('raise KeyboardInterrupt')\n"
        "sys.exit(demo.main())\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (130, "Stopped; nothing is left running."), done.stderr


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(secretive: Postgres, tmp_path: Path, word: signal.Signals) -> None:
    """Ctrl-C under load ends everything that was started, and the exit code says that it was interrupted."""
    mark = uuid.uuid4().hex
    # Long enough that it does not end by itself before the word comes, however busy the machine is.
    variables = {**environment(secretive, mark), "DEMO_SECONDS": str(DEADLINE_SECONDS)}
    with Child(command(tmp_path), env=variables, cwd=ROOT) as demo:
        demo.wait_ready(lambda: "The shop at" in demo.log.read_text(), DEADLINE_SECONDS)
        assert len(running(mark)) > 1
        demo.signal(word)
        assert demo.wait(DEADLINE_SECONDS) == 130
        assert "nothing is left running" in demo.log.read_text()
        wait_until(lambda: running(mark) == [], 60, "the demo's processes to end")

    assert databases(secretive) == []
