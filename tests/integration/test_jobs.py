"""
Work that no framework knows: a script's main program, an executor's jobs, bare threads. What is found of them, beside
the repaired twin of which nothing is.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import poolscope
from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.sql.repetition import EXPECTED_REPETITION, PAUSE
from poolscope.core.work import EXPECTED_LONG_HOLD
from poolscope.detectors import leak
from tests.support.telemetry import Telemetry
from tests.support.units import Queries, queries_by_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease

PATIENCE = 60
PROGRAM = Path(__file__).parent / "programs" / "script.py"
REPEATED = "select * from t where id = 1"


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    """Poolscope, on; every finding is reported, and leaks without grace."""
    for name in ("OWNER_GRACE", "UNIT_GRACE"):
        monkeypatch.setattr(leak, name, 0.0)
    telemetry = Telemetry(finding_interval=0, long_hold_threshold=60, exhaustion_threshold=0)
    telemetry.start()
    yield telemetry
    telemetry.shutdown()


@pytest.fixture
def queries(telemetry: Telemetry) -> Queries:
    """A pool."""
    return Queries()


@pytest.fixture(params=["job", "thread"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Runs a function as a job of an executor, whose thread lives on, or as a thread's target."""
    with ThreadPoolExecutor(1) as executor:

        def run_it(function: Callable[..., Any], *args: Any) -> None:
            if request.param == "job":
                executor.submit(function, *args).result(PATIENCE)
            else:
                thread = threading.Thread(target=function, args=args)
                thread.start()
                thread.join(PATIENCE)

        yield run_it


def told(telemetry: Telemetry, found: list[Finding]) -> list[tuple[str, str]]:
    """What was found of which unit of work."""
    telemetry.instrumentor.flush()
    return [(one.id, f"{one.unit.kind} {one.unit.name}" if one.unit else "") for one in found]


def repeats(queries: Queries) -> None:
    """A query for each row."""
    queries(12, REPEATED)


def joins(queries: Queries) -> None:
    """One query for all."""
    queries(1, "select * from t where id in (1, 2)")


def test_repeated_queries_of_a_job(
    telemetry: Telemetry, found: list[Finding], queries: Queries, run: Callable[..., None]
) -> None:
    """Found under its function's name as soon as it is over; its twin is not."""
    run(repeats, queries)
    run(joins, queries)
    assert told(telemetry, found) == [(N_PLUS_ONE, "job repeats")]
    collected = telemetry.collect()
    assert queries_by_unit(collected) == {"job repeats": (1, 12.0), "job joins": (1, 1.0)}
    assert collected.value(semconv.UNATTRIBUTED, "shop") == 0


def test_a_leak_of_a_job(
    telemetry: Telemetry, found: list[Finding], queries: Queries, run: Callable[..., None]
) -> None:
    """By the end of the job, also in a thread that lives on; its twin, which returns the connection, is none."""
    kept: list[Lease] = []

    def forgets() -> None:
        kept.append(queries.pool.checkout())
        kept[0].acquired()

    run(forgets)
    run(joins, queries)
    name = "job test_a_leak_of_a_job.<locals>.forgets"
    wait_until(lambda: told(telemetry, found) == [(LEAK, name)], PATIENCE)
    assert found[0].evidence["leak_kind"] == leak.OWNER_FINISHED
    kept[0].released()


def test_a_connection_that_a_job_fetches_for_others_is_no_leak(telemetry: Telemetry, queries: Queries) -> None:
    """A job may return what it has checked out, in whatever it returns; not in data alone."""

    def fetches() -> Lease:
        lease = queries.pool.checkout()
        lease.acquired()
        return lease

    def forgets(result: object) -> object:
        fetches()
        return result

    results = (
        (None, True),
        ([(1, "a", {"b": 2.0})], True),
        ({"connection": object()}, False),
        (list(range(2000)), False),
    )
    expected = 0
    with ThreadPoolExecutor(1) as executor:
        for function, args, leaks in [(fetches, (), False), *[(forgets, (one,), leaks) for one, leaks in results]]:
            executor.submit(function, *args).result(PATIENCE)
            leak.new_leaks(queries.pool, 60.0)  # where the background thread has not looked at them first
            expected += leaks
            assert sum(lease.leak is not None for lease in telemetry.leases()) == expected, args
    for lease in queries.pool.leases.copy():
        lease.released()


def test_a_loop_that_polls_is_no_finding(telemetry: Telemetry, found: list[Finding], queries: Queries) -> None:
    """A thread that polls, on a connection that it holds on purpose, also once it has to stop; nothing grows."""
    over = threading.Event()
    polls = threading.Semaphore(0)

    def poll() -> None:
        lease = queries.pool.checkout()
        lease.acquired()
        while not over.is_set():
            lease.statement_begins(REPEATED)
            lease.call_ends(in_transaction=False)
            polls.release()
            time.sleep(PAUSE * 1.2)
        lease.released()

    thread = threading.Thread(target=poll)
    thread.start()
    for _ in range(12):
        polls.acquire()
    assert leak.new_leaks(queries.pool, 60.0) == []
    over.set()
    thread.join(PATIENCE)
    assert told(telemetry, found) == []
    ((_, (count, total)),) = queries_by_unit(telemetry.collect()).items()
    assert (count, total >= 12) == (1, True)


def test_a_job_is_no_part_of_the_request_that_its_thread_was_started_in(telemetry: Telemetry, queries: Queries) -> None:
    """An executor starts a thread when it needs one, in the middle of a request that goes on."""
    with ThreadPoolExecutor(1) as executor:
        with poolscope.unit_of_work("request"):
            executor.submit(queries, 1).result(PATIENCE)
            contextvars.Context().run(executor.submit, joins, queries).result(PATIENCE)
        assert queries_by_unit(telemetry.collect()) == {"job request": (1, 1.0), "job joins": (1, 1.0)}


class Importer(threading.Thread):
    """A thread of a class of its own."""

    def __init__(self, queries: Queries) -> None:
        super().__init__()
        self.queries = queries

    def run(self) -> None:
        """As its target."""
        self.queries(1)


@pytest.mark.parametrize("where", ["thread", "submit", "to_thread", "run_in_executor", "task"])
def test_what_is_declared_is_declared_for_what_is_started(telemetry: Telemetry, where: str) -> None:
    """In threads, jobs of an executor and tasks that a block starts, and not in those that are started after it."""
    seen: list[tuple[str | None, str | None]] = []

    def look() -> None:
        seen.append((EXPECTED_LONG_HOLD.get(), EXPECTED_REPETITION.get()))

    async def task() -> None:
        look()

    async def start(executor: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        if where == "to_thread":
            await asyncio.to_thread(look)
        elif where == "run_in_executor":
            await loop.run_in_executor(executor, look)
        elif where == "task":
            await asyncio.create_task(task())
        elif where == "submit":
            executor.submit(look).result(PATIENCE)
        else:
            thread = threading.Thread(target=look)
            thread.start()
            thread.join(PATIENCE)

    with ThreadPoolExecutor(1) as executor:
        with poolscope.expected_long_hold("a"), poolscope.expected_repetition("b"):
            asyncio.run(start(executor))
        asyncio.run(start(executor))
    assert seen == [("a", "b"), (None, None)]


def test_an_error_of_a_job_that_is_kept_does_not_keep_what_the_job_was_given(telemetry: Telemetry) -> None:
    """As without poolscope: the application's function may let go of it."""
    del telemetry

    class Given:
        pass

    def breaks(given: Given) -> None:
        del given
        raise ValueError

    given = Given()
    kept = weakref.ref(given)
    with ThreadPoolExecutor(1) as executor:
        job = executor.submit(breaks, given)
        del given
        assert isinstance(job.exception(PATIENCE), ValueError)
    assert kept() is None


def test_names_of_jobs(telemetry: Telemetry, queries: Queries) -> None:
    """The application's function, however it is handed over; a library's loop is none."""
    with ThreadPoolExecutor(1, initializer=queries, initargs=(1,)) as executor:
        executor.submit(functools.partial(joins, queries)).result(PATIENCE)
        list(executor.map(joins, [queries, queries]))
        executor.submit(queries, 5).result(PATIENCE)
    timer = threading.Timer(0.0, joins, (queries,))
    for thread in (Importer(queries), timer):
        thread.start()
        thread.join(PATIENCE)
    collected = telemetry.collect()
    assert queries_by_unit(collected) == {
        "job joins": (4, 4.0),
        "job Queries": (1, 5.0),
        "job Importer.run": (1, 1.0),
    }
    assert collected.value(semconv.UNATTRIBUTED, "shop") == 1, "the executor's own thread runs the initializer"


def test_each_part_can_be_left_out() -> None:
    """By its name; what runs there is unattributed then."""
    telemetry = Telemetry(disabled_frameworks="threads,executors,script")
    before = (threading.Thread.start, threading.Thread._bootstrap_inner, ThreadPoolExecutor.submit)  # type: ignore[attr-defined]
    telemetry.start()
    assert before == (threading.Thread.start, threading.Thread._bootstrap_inner, ThreadPoolExecutor.submit)  # type: ignore[attr-defined]
    queries = Queries()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(joins, queries).result(PATIENCE)
    collected = telemetry.collect()
    assert queries_by_unit(collected) == {}
    assert collected.value(semconv.UNATTRIBUTED, "shop") == 1
    telemetry.shutdown()


def script(what: str, *before: str) -> tuple[str, dict[str, tuple[int, float]]]:
    """Run the script; what its log says, and its units of work as they were exported when it ended."""
    done = subprocess.run(
        [sys.executable, *(before or (str(PROGRAM),)), what],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROGRAM.parents[3],
        timeout=PATIENCE,
    )
    units = {}
    for scope in json.loads(done.stdout)["resource_metrics"][0]["scope_metrics"]:
        for metric in scope["metrics"]:
            if metric["name"] == semconv.UNIT_QUERIES.name:
                for point in metric["data"]["data_points"]:
                    attributes = point["attributes"]
                    name = f"{attributes[semconv.UNIT_OF_WORK_KIND]} {attributes[semconv.UNIT_OF_WORK_NAME]}"
                    units[name] = (point["count"], point["sum"])
    return done.stderr, units


@pytest.mark.parametrize(
    ("what", "before", "name", "queries"),
    [
        ("engine", (), "job script.py", 14.0),
        ("task", ("-m", "tests.integration.programs.script"), "job tests.integration.programs.script", 13.0),
        ("process", (), "job one_by_one", None),  # a child process, which sends no metrics
    ],
    ids=["script", "module", "child process"],
)
def test_repeated_queries_of_a_script(what: str, before: tuple[str, ...], name: str, queries: float | None) -> None:
    """
    Reported before it exits, under its name without a path, and nothing of its repaired twin; of an event loop the main
    task alone is part of it, and a child process has its target's name.
    """
    log, units = script(what, *before)
    assert log.startswith(f"[{N_PLUS_ONE}] {name} ran one statement 12 times")
    assert log.count(f"[{N_PLUS_ONE}]") == 1
    if queries is not None:
        assert units == {name: (1, queries)}
