"""The exhaustion report: who holds, where they checked out and what they execute, when a checkout times out."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from examples.lab.processes import wait_until
from poolscope.adapters.greenlets import Greenlets
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import NESTED_CHECKOUT
from poolscope.core.finding_kind import Severity
from poolscope.core.lease import Outcome
from poolscope.core.location import resolve
from poolscope.detectors.diagnosis import exhaustion_report
from poolscope.detectors.diagnosis.cause import Cause
from poolscope.detectors.diagnosis.describe import current_stack
from poolscope.detectors.diagnosis.holders import LONGEST_REPORT, MOST_HOLDERS, described
from poolscope.detectors.diagnosis.picture import Picture
from poolscope.detectors.dump import holders_report
from poolscope.detectors.pool_exhausted import PoolExhaustedDetector
from tests.support.libraries import known
from tests.support.scene import Scene, line

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease


@pytest.fixture
def scene() -> Scene:
    """A pool of two."""
    return Scene(2)


def line_of(function: Callable[..., Any], words: str) -> str:
    """Where in a function a line with these words stands, as reports say it."""
    lines, first = inspect.getsourcelines(function)
    (offset,) = [number for number, line in enumerate(lines) if words in line and "line_of" not in line]
    name = getattr(function.__code__, "co_qualname", function.__name__)
    return f"{function.__code__.co_filename}:{first + offset} in {name}"


def holders(finding: Finding) -> list[str]:
    """The lines about holders."""
    found = finding.evidence["holders"]
    assert isinstance(found, list)
    return found


# Both stacks ----------------------------------------------------------------------------------------------------------


def checks_out_and_calls(scene: Scene, handed_over: queue.Queue[Lease], answer: threading.Event) -> None:
    """Holds a connection while something else is waited for."""
    lease = scene.checkout("checkout")
    handed_over.put(lease)
    answer.wait(60)  # the call to another service
    lease.released()


def test_a_thread_is_seen_where_it_checked_out_and_where_it_stands(scene: Scene) -> None:
    """
    That it holds its connection across a call is read off the report; a moment later it stands elsewhere, and once it
    has returned it is not in it.
    """
    handed_over: queue.Queue[Lease] = queue.Queue()
    answer = threading.Event()
    thread = threading.Thread(target=checks_out_and_calls, args=(scene, handed_over, answer), name="payer")
    thread.start()
    lease = handed_over.get(timeout=60)
    call = line_of(checks_out_and_calls, "the call to another service")
    wait_until(lambda: call in map(str, resolve(current_stack(lease))), 60, "the call")
    scene.clock.advance(0.1)
    here = scene.checkout("view")
    scene.timeout()
    (finding,) = scene.found()
    answer.set()
    thread.join(60)

    first, second = holders(finding)
    assert "by thread payer, idle; checked out at /application/checkout.py:2 in checkout" in first
    assert f"currently executing {call}" in first
    assert "by thread MainThread" in second
    assert "      currently executing: " + call in finding.report
    assert "      checked out:         /application/checkout.py:2 in checkout" in finding.report

    again = Scene(1)
    again.checkout("view")
    again.timeout()
    (finding,) = again.found()
    assert len(holders(finding)) == 1
    here.released()


class Awaitable:
    """As a library's may be: asyncpg's and SQLAlchemy's return what a coroutine's ``__await__`` does."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, None, None]:
        return self._coroutine.__await__()


async def calls_a_service() -> None:
    """What a holder stands in."""
    await asyncio.sleep(100)  # the call


async def awaits_directly() -> None:
    """The plain way."""
    await calls_a_service()


async def awaits_an_object() -> None:
    """Through an object of a library's."""
    await Awaitable(calls_a_service())


async def streams() -> AsyncGenerator[int, None]:
    """Rows, or chunks of a response."""
    await calls_a_service()
    yield 1


async def awaits_a_generator() -> None:
    """Through an asynchronous generator."""
    async for _ in streams():
        pass


@pytest.mark.parametrize("way", [awaits_directly, awaits_an_object, awaits_a_generator])
def test_a_task_is_seen_where_it_awaits(scene: Scene, way: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The frames of whatever awaits one another, the library's left out."""

    async def view(handed_over: asyncio.Event) -> None:
        scene.checkout("view")
        handed_over.set()
        await way()

    async def main() -> Finding:
        handed_over = asyncio.Event()
        task = asyncio.create_task(view(handed_over), name="request 7")
        await handed_over.wait()
        scene.clock.advance(0.1)
        scene.checkout()
        scene.timeout()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return scene.found()[0]

    finding = asyncio.run(main())
    first = holders(finding)[0]
    assert "by task request 7, idle; checked out at /application/view.py:2 in view" in first
    assert f"currently executing {line_of(calls_a_service, 'the call')}" in first
    assert f"in {way.__name__}" in finding.report


def test_a_task_that_blocks_its_loop_is_seen_where_it_blocks(scene: Scene) -> None:
    """It awaits nothing while it runs: what it is executing is what its thread is."""
    handed_over: queue.Queue[Lease] = queue.Queue()
    answer = threading.Event()

    async def blocks() -> None:
        checks_out_and_calls(scene, handed_over, answer)

    thread = threading.Thread(target=lambda: asyncio.run(blocks()))
    thread.start()
    lease = handed_over.get(timeout=60)
    (place, *_) = Picture.take(scene.pool, scene.begin_checkout()).held[0].stack
    answer.set()
    thread.join(60)
    assert place[0] is checks_out_and_calls.__code__
    assert current_stack(lease) == ()


def test_sqlalchemys_asyncio_hides_neither_the_call_nor_the_line(scene: Scene) -> None:
    """
    A session held across an HTTP call is seen in the application's coroutine; synchronous code in the session's
    greenlet is seen in its own line.
    """
    engine = create_async_engine("sqlite+aiosqlite://")
    leases: list[Lease] = []

    @event.listens_for(engine.sync_engine, "checkout")
    def checked_out(*_: object) -> None:
        lease = scene.pool.checkout()
        lease.acquired()
        leases.append(lease)

    async def http_call(calling: asyncio.Event) -> None:
        calling.set()
        await asyncio.sleep(100)  # the payment

    async def pays(calling: asyncio.Event) -> None:
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))
            await http_call(calling)

    def synchronous(connection: Any) -> None:
        connection.execute(text("select 2"))  # in the greenlet

    async def runs(calling: asyncio.Event) -> None:
        async with engine.connect() as connection:
            calling.set()
            await connection.run_sync(synchronous)

    async def stand(view: Callable[[asyncio.Event], Any]) -> list[str]:
        calling = asyncio.Event()
        task = asyncio.create_task(view(calling))
        await calling.wait()
        for _ in range(3):  # into the call, or into the driver
            await asyncio.sleep(0)
        stood = current_stack(leases[-1])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return [code.co_name for code, _ in stood]

    async def main() -> tuple[list[str], list[str]]:
        first, second = await stand(pays), await stand(runs)
        await engine.dispose()
        return first, second

    with known(switches=Greenlets()):
        paying, running = asyncio.run(main())
    assert paying[:2] == ["http_call", "pays"]
    assert running[0] == "synchronous"


def test_where_a_holder_is_gone_nothing_is_said_about_where_it_stands(scene: Scene) -> None:
    """A unit of work, a thread and a task that have finished: whatever their threads do now is not theirs."""
    with scene.unit():
        of_unit = scene.checkout()
    with ThreadPoolExecutor(1) as executor:
        of_thread = executor.submit(scene.checkout).result(60)
    of_task = asyncio.run(asyncio.wait_for(asyncio.sleep(0, scene), 60)).checkout()
    assert (current_stack(of_unit), current_stack(of_thread)) == ((), ())
    assert current_stack(of_task) != ()


async def route(
    scene: Scene, thread: ThreadPoolExecutor, handed_over: asyncio.Queue[Lease], answer: asyncio.Event
) -> None:
    """
    As FastAPI runs an asynchronous route with a synchronous dependency: that checks out in a thread, and the thread
    goes on to the dependencies of others.
    """
    with scene.unit():
        checkout = functools.partial(contextvars.copy_context().run, scene.checkout, "dependency")
        lease = await asyncio.get_running_loop().run_in_executor(thread, checkout)
        await handed_over.put(lease)
        await answer.wait()  # the call to another service
        lease.released()


def test_a_request_whose_connection_a_thread_has_fetched_is_seen_where_it_stands(scene: Scene) -> None:
    """Not what that thread is executing now, as it waits in the same line for another request; and it is no leak."""

    async def requests() -> Finding:
        handed_over: asyncio.Queue[Lease] = asyncio.Queue()
        answer = asyncio.Event()
        with ThreadPoolExecutor(1) as thread:
            tasks = [asyncio.create_task(route(scene, thread, handed_over, answer)) for _ in range(2)]
            _ = [await asyncio.wait_for(handed_over.get(), 60) for _ in tasks]
            scene.clock.advance(30)
            await asyncio.get_running_loop().run_in_executor(thread, scene.timeout, "dependency")
            (finding,) = scene.found()
            answer.set()
            await asyncio.gather(*tasks)
        return finding

    finding = asyncio.run(requests())
    assert len(holders(finding)) == 2
    for holder in holders(finding):
        assert "checked out at /application/dependency.py:2" in holder
        assert f"currently executing {line_of(route, 'the call to another service')}" in holder
    assert finding.evidence["leaked"] == 0


# What is in it --------------------------------------------------------------------------------------------------------


def test_the_report_says_everything_about_each_holder(scene: Scene) -> None:
    """Age, phase, unit of work, both places, last statement as a shape, the server's process; oldest first."""
    with scene.unit("GET /old"):
        old = scene.checkout("first")
        scene.clock.advance(2)
        with scene.unit("GET /new"):
            new = scene.checkout("second")
            new.backend_process_id = 4711
            scene.query(new, "select * from t where name = 'secret'", seconds=0.25)
            lease = scene.timeout("other", 1.5, "GET /users")
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert (finding.severity, finding.pool, str(finding.unit)) == (
        Severity.CRITICAL,
        scene.pool.identity,
        str(lease.unit),
    )
    assert finding.summary.startswith(
        "pool shop is exhausted (2 of 2 in use, 1 waiting): http GET /users timed out after 1.5 s; "
    )
    first, second = holders(finding)
    assert first.startswith(
        "3.8 s by http GET /old, idle; checked out at /application/first.py:2 in first; currently executing "
    )
    assert first.endswith("; no query yet")
    assert second.startswith(
        "1.8 s by http GET /new, idle in a transaction; checked out at /application/second.py:2 in"
    )
    assert "last ran select * from t where name = ?; backend 4711" in second
    assert "secret" not in str(finding)
    evidence = {name: finding.evidence[name] for name in ("used", "pending", "limit", "waited", "holders_omitted")}
    assert evidence == {"used": 2, "pending": 1, "limit": 2, "waited": 1.5, "holders_omitted": 0}
    assert finding.report.endswith(f"fix: {finding.fix}")
    assert [one.unit is not None for one in (old, new)] == [True, True]


def test_the_report_is_bounded_in_holders() -> None:
    """Thirty, the oldest; the others are counted."""
    scene = Scene(40)
    for number in range(40):
        with scene.unit(f"GET /{number}"):
            scene.checkout()
            scene.clock.advance(0.01)
    scene.timeout(waited=0.1)
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert len(holders(finding)) == MOST_HOLDERS
    assert "by http GET /0, idle;" in holders(finding)[0]
    assert "by http GET /29, idle;" in holders(finding)[-1]
    assert finding.evidence["holders_omitted"] == 10
    assert "and 10 more" in finding.report


def test_the_report_is_bounded_in_size() -> None:
    """However long names and statements are; what has no room is counted."""
    scene = Scene(30)
    for number in range(30):
        with scene.unit(f"GET /{number}/" + "x" * 5_000):
            scene.query(scene.checkout(), "select " + ", ".join(f"column_{place}" for place in range(2_000)))
    scene.timeout(waited=0.1)
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert len(finding.report) <= LONGEST_REPORT + 20
    assert 0 < len(holders(finding)) < 30
    assert finding.evidence["holders_omitted"] == 30 - len(holders(finding))
    assert sum(map(len, holders(finding))) <= LONGEST_REPORT


def test_holders_have_the_room_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the summary, the fix and the chain."""
    rooms: list[int] = []

    def described_in(holders: Any, count: int, threads: Any, room: int) -> Any:
        rooms.append(room)
        return described(holders, count, threads, room)

    monkeypatch.setattr(exhaustion_report, "described", described_in)
    scene = Scene(1, exhaustion_threshold=0)
    with scene.unit("GET /cart"):
        scene.query(scene.checkout("cart"))
    scene.clock.advance(9.0)
    scene.timeout()
    (finding,) = scene.found(POOL_EXHAUSTED)
    parts = [finding.summary, finding.fix, str(finding.evidence["chain"])]
    assert all(parts)
    assert rooms == [LONGEST_REPORT - sum(map(len, parts))]


def test_a_report_has_the_figures_of_its_cause() -> None:
    """Its share to a thousandth; a pool without a limit has none among its figures."""
    figures: Any = {"arrival_rate": 1.0, "limit": 3, "used_before": 2}
    for limit in (3, None):
        scene = Scene(limit)
        picture = Picture.take(scene.pool)
        cause = Cause("unknown", "the summary", "the fix", share=0.12345, shares=("unknown 12%",), evidence=figures)
        waiter = scene.begin_checkout()
        evidence = exhaustion_report.report(picture, waiter, cause).evidence
        expected = figures if limit is not None else {"arrival_rate": 1.0, "used_before": 2}
        assert {name: evidence[name] for name in figures if name in evidence} == expected
        assert (evidence["share"], evidence["cause"]) == (0.123, "unknown")


def test_known_leaks_are_marked(scene: Scene) -> None:
    """Beside what is held by a request that works."""
    with scene.unit("GET /cart"):
        scene.checkout("cart")
    scene.pass_time(2)
    with scene.unit("GET /works"):
        scene.checkout()
        scene.timeout(waited=0.5)
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert ["leaked (owner_finished)" in holder for holder in holders(finding)] == [True, False]


def test_what_is_declared_to_be_intended_is_said_of_its_holder(scene: Scene) -> None:
    """It holds a connection all the same; the report has the reason that the application gave."""
    scene.checkout().excuse = "nightly export"
    scene.clock.advance(0.1)
    scene.checkout()
    scene.timeout()
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert ["expected (nightly export)" in holder for holder in holders(finding)] == [True, False]


def test_a_pool_without_a_limit_may_be_exhausted_too() -> None:
    """As when the server does not answer: it has none, and none is reported."""
    scene = Scene(None)
    scene.checkout()
    scene.timeout()
    (finding,) = scene.found()
    assert "(1 in use, no limit, 1 waiting)" in finding.summary
    assert "limit" not in finding.evidence


# Who takes it, and how often ------------------------------------------------------------------------------------------


def test_who_times_out_takes_it_at_that_moment(scene: Scene) -> None:
    """Not the background thread, which comes when the holders have gone on; and only a timeout is one."""
    lease = scene.checkout("culprit")
    scene.clock.advance(0.1)
    scene.checkout()
    scene.timeout()
    lease.released()
    asked = scene.begin_checkout()
    asked.failed(Outcome.ERROR, "OSError")
    asked = scene.begin_checkout()
    asked.failed(Outcome.CANCELLED, "CancelledError")
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert "culprit" in holders(finding)[0]


def test_a_long_wait_is_reported_by_the_watchdog(scene: Scene) -> None:
    """While it still waits; every unit of work that waits so long carries the id, one that waits for less does not."""
    scene.checkout()
    scene.checkout()
    with scene.unit("GET /long") as long:
        waiter = scene.begin_checkout()
        scene.clock.advance(0.9)
        with scene.unit("GET /short") as short:
            scene.begin_checkout()
            assert scene.found() == []
            scene.pass_time(1)
            (finding,) = scene.found()
    assert "2 waiting): http GET /long still waits after 1.9 s" in finding.summary
    assert str(finding.unit) == str(waiter.unit)
    assert (long.findings, short.findings) == ({POOL_EXHAUSTED}, {POOL_EXHAUSTED})
    with scene.unit("GET /shorter") as shorter:
        scene.begin_checkout()
        scene.pass_time(0.5)
        assert shorter.findings == set()


def test_a_long_wait_is_reported_before_the_next_look(scene: Scene) -> None:
    """It may have its connection by then: with the next run of the background thread, five times a second."""
    scene.checkout("report")
    scene.checkout("report")
    scene.tick()
    with scene.unit("GET /waits") as unit:
        scene.begin_checkout()
        for _ in range(4):
            scene.clock.advance(0.2)
            assert scene.found(POOL_EXHAUSTED) == []
        scene.clock.advance(0.2)
        (finding,) = scene.found(POOL_EXHAUSTED)
        assert "http GET /waits still waits after 1.0 s; " in finding.summary
        assert POOL_EXHAUSTED in unit.findings


def test_a_checkout_that_was_torn_out_waits_no_more(scene: Scene) -> None:
    """
    An exception from outside, as a signal's, may end a checkout without a word. When the request, task or thread that
    waited has finished, the checkout is a failed wait of an unknown kind, pending no more, and no long wait; others
    wait on.
    """
    scene.checkout()
    scene.checkout()
    with scene.unit("GET /torn"):
        scene.begin_checkout()
    thread = threading.Thread(target=scene.begin_checkout)
    thread.start()
    thread.join()

    async def torn() -> None:
        scene.begin_checkout()

    asyncio.run(torn())
    scene.pass_time(1)
    assert scene.pool.pending == set()
    assert scene.found() == []
    assert {kind: waits.read().count for kind, waits in scene.pool.failed_waits.items()} == {"_OTHER": 3}
    with scene.unit("GET /patient"):
        patient = scene.begin_checkout()
        scene.pass_time(1)
        assert scene.pool.pending == {patient}
        (finding,) = scene.found()
        assert "GET /patient still waits" in finding.summary


def test_a_bound_of_0_leaves_it_to_timeouts() -> None:
    """The setting turns reports of long waits off, and only these."""
    scene = Scene(1, exhaustion_threshold=0, leak_threshold=0)
    scene.checkout()
    scene.begin_checkout()
    scene.pass_time(100)
    assert scene.found() == []
    scene.timeout()
    assert scene.ids() == [POOL_EXHAUSTED]


def test_one_pool_is_reported_once_in_an_interval_and_says_what_it_left_out(scene: Scene) -> None:
    """Thirty seconds by default; another pool has its own."""
    for _ in range(2):
        scene.checkout()
    with scene.unit() as unit:
        for _ in range(5):
            scene.timeout(waited=0.1, name=None)
    scene.found()
    other = scene.pool_registry.register(scene.pool.identity, scene.source)
    asked = other.checkout()
    asked.failed(Outcome.TIMEOUT, "TimeoutError")
    assert [finding.pool for finding in scene.found()] == [scene.pool.identity, other.identity]
    assert scene.found()[0].evidence["repeated"] == 0
    assert POOL_EXHAUSTED in unit.findings
    scene.clock.advance(31)
    scene.timeout()
    assert scene.found(POOL_EXHAUSTED)[-1].evidence["repeated"] == 4


def test_of_many_that_time_out_at_once_one_reports() -> None:
    """And no holder waits for another."""
    scene = Scene(1)
    scene.checkout()
    checkouts = [scene.begin_checkout() for _ in range(20)]
    scene.clock.advance(1)
    together = threading.Barrier(20)

    def give_up(lease: Lease) -> None:
        together.wait(60)
        lease.failed(Outcome.TIMEOUT, "TimeoutError")

    threads = [threading.Thread(target=give_up, args=(lease,)) for lease in checkouts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert scene.ids() == [POOL_EXHAUSTED]
    scene.clock.advance(60)
    scene.timeout()
    assert sum(finding.evidence["repeated"] for finding in scene.found()) == 19  # type: ignore[misc]


def test_who_finds_another_looking_around_does_not_wait_for_him(scene: Scene) -> None:
    """He is counted."""
    (detector,) = (one for one in scene.watchdog.detectors if isinstance(one, PoolExhaustedDetector))
    detector._pace._deciding.acquire()
    scene.timeout()
    assert scene.found() == []
    detector._pace._deciding.release()
    scene.timeout()
    assert scene.found()[0].evidence["repeated"] == 1


def test_a_wait_outside_of_any_unit_is_reported_too(scene: Scene) -> None:
    """A script's, by its thread."""
    scene.begin_checkout()
    scene.pass_time(2)
    (finding,) = scene.found()
    assert finding.unit is None
    assert "thread MainThread still waits after" in finding.summary


def test_what_is_not_to_be_watched_does_not_report(scene: Scene) -> None:
    """Where the application suppressed instrumentation."""
    lease = scene.begin_checkout()
    lease.silent = True
    scene.pass_time(5)
    lease.failed(Outcome.TIMEOUT, "TimeoutError")
    assert scene.found() == []


def test_it_takes_no_longer_than_the_wait_is_worth() -> None:
    """With 200 connections held, the checkout that timed out pays milliseconds, once in the interval."""
    scene = Scene(200)
    for _ in range(200):
        scene.checkout()
    lease = scene.begin_checkout()

    def taken() -> float:
        began = time.thread_time()
        Picture.take(scene.pool, lease)
        return time.thread_time() - began

    # Of several one has no garbage collection of the whole process within it.
    assert min(taken() for _ in range(5)) < 0.1


# On demand ------------------------------------------------------------------------------------------------------------


def test_a_dump_has_every_holder_of_a_pool(scene: Scene) -> None:
    """The same lines, whether a checkout waits or not; bounded in the same way."""
    with scene.unit("GET /orders"):
        scene.checkout("orders")
        text = holders_report(scene.pool)
    assert text.startswith(
        "pool shop: 1 in use, limit 2, 0 waiting\n  held 0 ms by http GET /orders, idle; checked out"
    )
    assert "      currently executing: " in text
    many = Scene(None)
    for _ in range(50):
        many.checkout()
    assert "limit unlimited" in holders_report(many.pool)
    assert holders_report(many.pool).endswith("and 20 more")


def test_a_deadlock_of_nested_checkouts_is_recognised(scene: Scene) -> None:
    """Every holder waits for a second connection: no longer wait and no larger pool of the same kind helps."""

    def nests() -> None:
        with scene.unit("GET /profile"):
            scene.checkout("outer")
            scene.begin_checkout("inner")
            together.wait(60)
            scene.pool.now()

    together = threading.Barrier(3)
    threads = [threading.Thread(target=nests) for _ in range(2)]
    for thread in threads:
        thread.start()
    together.wait(60)
    for thread in threads:
        thread.join(60)
    scene.clock.advance(0.5)
    scene.timeout()
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == NESTED_CHECKOUT
    assert "a deadlock: 2 of 2 connections" in finding.summary


def test_lines_have_names() -> None:
    """The support of these tests: the same name is the same line, another is another."""
    assert line("a") is line("a")
    assert line("a").__code__ is not line("b").__code__
