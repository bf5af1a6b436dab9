"""Rules over a picture: which leases each explains, the share of the pool, and what is said where causes are mixed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import wait_until
from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import BURST, MIXED, POOL_EXHAUSTED, POOL_TOO_SMALL, SLOW_CONNECT, UNKNOWN
from poolscope.core.catalogue.holds import FAN_OUT, IDLE_IN_TRANSACTION, LONG_HOLD, THREAD_STARVATION
from poolscope.core.catalogue.kept import LISTENER_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.lazy_jobs import LazyJob, LazyJobScope
from poolscope.core.lease import Outcome
from tests.support.actors import executes
from tests.support.causes import waits_for_a_thread, workers
from tests.support.libraries import known
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease


def exhausted(scene: Scene) -> Finding:
    """The one report that the pool is exhausted."""
    (finding,) = scene.found(POOL_EXHAUSTED)
    return finding


def leak(scene: Scene, count: int) -> None:
    """Requests that end without a return."""
    for _ in range(count):
        with scene.unit("GET /cart"):
            scene.checkout("cart")


def pay(scene: Scene, count: int, seconds: float = 2.0) -> list[Lease]:
    """Transactions that stay open for so long."""
    leases = []
    for _ in range(count):
        unit = scene.pool_registry.units.begin("http", "POST /pay")
        lease = scene.begin_checkout("pay")
        lease.unit, lease.usage = unit, unit.usage_of(scene.pool)
        lease.acquired()
        scene.query(lease, at="pay")
        leases.append(lease)
    scene.pass_time(seconds)
    return leases


# Shares ---------------------------------------------------------------------------------------------------------------


def test_the_largest_share_is_the_cause_and_is_said() -> None:
    """Six of ten connections are idle in transactions, three are leaked: the report has both, the larger first."""
    scene = Scene(10)
    for _ in range(50):
        scene.request(query=0.1)
        scene.pass_time(0.1)
    leak(scene, 3)
    scene.pass_time(8)
    pay(scene, 6)
    scene.checkout("short")
    scene.timeout(waited=0.2)
    finding = exhausted(scene)
    assert finding.evidence["cause"] == IDLE_IN_TRANSACTION
    assert finding.evidence["share"] == pytest.approx(0.6)
    assert finding.evidence["shares"] == ["idle_in_transaction 60%", "connection_leak 30%"]
    assert finding.evidence["chain"] == (
        "http GET /users waits for shop -> which http POST /pay holds, idle in a transaction -> and which execute "
        + str(finding.evidence["current_location"][0])  # type: ignore[index]
    )


def test_two_causes_of_the_same_share_are_mixed() -> None:
    """Neither is named as the cause: the report has both, and both fixes. With one connection more, one is."""
    scene = Scene(8)
    leak(scene, 4)
    scene.pass_time(8)
    pay(scene, 4)
    scene.timeout(waited=0.2)
    finding = exhausted(scene)
    assert (finding.evidence["cause"], finding.evidence["share"]) == (MIXED, 0.5)
    assert finding.summary.count("4 of 8 connections") == 2
    assert finding.fix == f"{KINDS[LEAK].fix}; {KINDS[IDLE_IN_TRANSACTION].fix}"

    scene = Scene(9)
    leak(scene, 4)
    scene.pass_time(8)
    pay(scene, 5)
    scene.timeout(waited=0.2)
    assert exhausted(scene).evidence["cause"] == IDLE_IN_TRANSACTION


def test_three_causes_without_a_majority_are_mixed() -> None:
    """A leak, payments and reports have a third each."""
    scene = Scene(6)
    leak(scene, 2)
    scene.pass_time(8)
    pay(scene, 2)
    for _ in range(2):
        with scene.unit("GET /report"):
            scene.checkout("report").statement_begins("select 1 from t")
            scene.clock.advance(1)
    scene.timeout(waited=0.2)
    finding = exhausted(scene)
    assert finding.evidence["cause"] == MIXED
    assert finding.evidence["shares"] == ["connection_leak 33%", "idle_in_transaction 33%", "long_hold 33%"]


def test_the_usual_load_is_not_the_cause_where_the_whole_pool_would_carry_it() -> None:
    """Four of ten connections are leaked, and short requests have the rest; without the leak they are a burst."""
    causes = []
    for leaked in (4, 0):
        scene = Scene(10)
        leak(scene, leaked)
        for _ in range(40):
            scene.request(query=0.05)
            scene.pass_time(0.2)
        for _ in range(40 if not leaked else 0):
            scene.request(query=0.001)
        for _ in range(10 - leaked):
            with scene.unit():
                scene.query(scene.checkout())
        scene.timeout(waited=0.2)
        causes.append(exhausted(scene).evidence["cause"])
    assert causes == [LEAK, BURST]


def test_a_load_that_the_whole_pool_does_not_carry_counts_beside_a_leak() -> None:
    """One of five connections is leaked, and the load needs all five: the pool is too small, leak or not."""
    scene = Scene(5)
    leak(scene, 1)
    for _ in range(60):
        scene.pass_time(0.0)
        leases = [scene.checkout() for _ in range(4)]
        scene.clock.advance(0.4)
        for lease in leases:
            lease.statement_begins("select 1 from t")
        scene.clock.advance(0.05)
        for lease in leases:
            lease.call_ends(in_transaction=False)
            lease.released()
        scene.tick()
    for _ in range(4):
        scene.checkout().statement_begins("select 1 from t")
    scene.timeout(waited=0.2)
    assert exhausted(scene).evidence["cause"] == POOL_TOO_SMALL


def test_a_long_hold_that_is_young_counts_with_the_others() -> None:
    """Payments of three seconds begin one after the other: those that are young are payments too."""
    scene = Scene(4)
    for _ in range(10):
        with scene.unit("POST /pay"):
            lease = scene.checkout("pay")
            scene.query(lease)
            scene.pass_time(3)
            lease.released()
    pay(scene, 2, seconds=1.0)
    pay(scene, 2, seconds=0.1)
    scene.timeout(waited=0.2)
    finding = exhausted(scene)
    assert (finding.evidence["cause"], finding.evidence["share"]) == (IDLE_IN_TRANSACTION, 1.0)
    assert "4 of 4 connections" in finding.summary


@pytest.mark.parametrize(
    ("last", "chain"), [(0.1, "and which ran select ? from slow"), (9.0, "and which run select ? from t")]
)
def test_the_statement_of_long_queries_is_the_slowest(last: float, chain: str) -> None:
    """Of one that has ended or that runs, and not the last one: that may be short."""
    scene = Scene(1)
    with scene.unit("GET /report"):
        lease = scene.checkout("report")
    scene.query(lease, "select 1 from slow", seconds=4.0)
    lease.statement_begins("select 1 from t")
    scene.clock.advance(last)
    scene.timeout(waited=0.1)
    finding = exhausted(scene)
    assert finding.evidence["cause"] == LONG_HOLD
    assert str(finding.evidence["chain"]).endswith(chain)


def test_what_was_checked_out_before_poolscope_is_unknown() -> None:
    """Nothing is known of those who hold: no cause is made up."""
    scene = Scene(3)
    for _ in range(3):
        scene.pool.adopt(scene.clock())
    scene.pass_time(5)
    scene.timeout(waited=0.2, name=None)  # in the thread that came across them
    finding = exhausted(scene)
    assert finding.evidence["cause"] == UNKNOWN
    assert "by code that checked it out before poolscope started" in str(finding.evidence["holders"])


@pytest.mark.parametrize(
    ("adopted", "cause", "shares"),
    [
        (1, IDLE_IN_TRANSACTION, ["idle_in_transaction 67%", "unknown 33%"]),
        (2, MIXED, ["idle_in_transaction 50%", "unknown 50%"]),
        (3, UNKNOWN, ["unknown 60%", "idle_in_transaction 40%"]),
    ],
)
def test_what_is_unknown_has_its_share(adopted: int, cause: str, shares: list[str]) -> None:
    """Beside payments: what is known of the smaller part of the connections is not the cause."""
    scene = Scene(adopted + 2)
    for _ in range(adopted):
        scene.pool.adopt(scene.clock())
    pay(scene, 2, 5)
    scene.timeout(waited=0.2)
    finding = exhausted(scene)
    assert (finding.evidence["cause"], finding.evidence["shares"]) == (cause, shares)


def test_connections_that_are_validated_are_no_full_pool() -> None:
    """They are handed over, and the server does not answer: the pool is well. Where it has, they are used."""
    for acquired, cause in ((False, SLOW_CONNECT), (True, LONG_HOLD)):
        scene = Scene(2)
        for _ in range(2):
            lease = scene.begin_checkout()
            lease.handed_over()
            if acquired:
                lease.acquired()
                lease.statement_begins("select 1 from t")
        scene.pass_time(3)
        scene.timeout(waited=0.2)
        assert exhausted(scene).evidence["cause"] == cause
        opens = "slow to connect: 2 of 2 connections are being opened or validated, for up to 3.2 s"
        assert (opens in exhausted(scene).summary) != acquired


@pytest.mark.parametrize(("seconds", "leaked"), [(0.4, False), (0.6, True)])
def test_what_an_ended_request_has_not_returned_is_leaked_before_that_is_reported(
    seconds: float, *, leaked: bool
) -> None:
    """Half a second after its last use no framework is about to return it; the wait may be reported just then."""
    scene = Scene(2, exhaustion_threshold=0)
    for _ in range(20):
        scene.request(query=0.001)
        scene.pass_time(0.4)
    for _ in range(8):
        scene.request(query=0.001)
    leak(scene, 2)
    scene.timeout(waited=seconds)
    assert (exhausted(scene).evidence["cause"] == LEAK) == leaked


@pytest.mark.parametrize("seconds", [2, 8])
@pytest.mark.parametrize(
    ("result", "cause"), [(object(), IDLE_IN_TRANSACTION), (1, LEAK)], ids=["connection", "number"]
)
def test_what_a_job_has_handed_on_is_no_leak(seconds: float, result: object, cause: str) -> None:
    """It returned the connection, perhaps: others have it. A job that returned a number has left it over."""
    scene = Scene(1)
    work = LazyJobScope(LazyJob(scene.pool_registry.units, lambda: "connect"), None)
    work.enter()
    lease = scene.checkout("connect")
    scene.query(lease)
    work.returns(result)
    work.leave()
    assert lease.unit is not None
    assert lease.unit.ended
    scene.clock.advance(seconds)
    scene.timeout(waited=0.2)
    assert exhausted(scene).evidence["cause"] == cause


def test_slots_that_the_library_has_lost_are_leaks() -> None:
    """No lease is left of them, and the limit is without them: they count as part of the pool all the same."""
    for lost in (3, 0):
        scene = Scene(4 - lost)
        scene.source.lost = lambda lost=lost: lost  # type: ignore[misc]
        for _ in range(4 - lost):
            scene.checkout().statement_begins("select 1 from t")
        scene.pass_time(0.2)
        scene.timeout(waited=0.2)
        finding = exhausted(scene)
        assert (finding.evidence["cause"] == LEAK) == bool(lost)
        assert finding.evidence["leaked"] == lost


@pytest.mark.parametrize(("others", "words"), [(0, "a deadlock: 2 of 2"), (1, "nested checkouts: 2 of 3")])
def test_a_deadlock_is_one_where_no_connection_comes_back(others: int, words: str) -> None:
    """Two holders wait for another one. Where a third connection is only used, one of them gets that in the end."""
    scene = Scene(2 + others)
    for _ in range(2):
        with scene.unit("GET /profile"):
            scene.checkout()
            scene.begin_checkout()
    for _ in range(others):
        scene.checkout().statement_begins("select 1 from t")
    scene.timeout(waited=0.2)
    assert words in exhausted(scene).summary


# Cycles and crowds ----------------------------------------------------------------------------------------------------


def test_one_unit_of_work_that_takes_most_of_the_pool_fans_out() -> None:
    """Four of its connections are four of the pool's five; four requests with one each are four requests."""
    causes = []
    for requests in (1, 4):
        scene = Scene(5)
        scene.checkout("beside").statement_begins("select 1 from t")
        with contextlib.ExitStack() as units:
            for number in range(requests):
                units.enter_context(scene.unit(f"GET /{number}"))
                scene.at_once(4 // requests)
            scene.timeout(waited=0.2)
        causes.append(exhausted(scene).evidence["cause"])
    assert causes[0] == FAN_OUT
    assert causes[1] != FAN_OUT


def test_a_fan_out_that_is_over_explains_the_wait_behind_it() -> None:
    """When the waiter began, one unit of work had all connections; by now others have them that waited before it."""
    causes = []
    for name in ("POST /graphql", None):
        scene = Scene(4)
        with scene.unit(name) if name else contextlib.nullcontext():
            before = scene.at_once(4) if name else [scene.checkout() for _ in range(4)]
        with scene.unit("GET /users"):
            asked = scene.begin_checkout("other")
        scene.clock.advance(1.0)
        for lease in before:
            lease.call_ends(in_transaction=False)
            lease.released()
        now = [scene.checkout() for _ in range(4)]
        for lease in now:
            lease.statement_begins("select 1 from t")
        scene.clock.advance(0.1)
        asked.failed(Outcome.TIMEOUT, "TimeoutError")
        causes.append(exhausted(scene).evidence["cause"])
    assert causes[0] == FAN_OUT
    assert causes[1] != FAN_OUT


def test_what_one_unit_of_work_has_lost_or_listens_on_is_no_fan_out_besides() -> None:
    """It had the pool when the waiter began, and has it for a reason that is known: each connection counts once."""
    for cause in (LEAK, LISTENER_HOLD):
        scene = Scene(4)
        with scene.unit("job") as unit:
            for _ in range(4):
                lease = scene.checkout("job")
                if cause == LISTENER_HOLD:
                    scene.query(lease, "listen orders")
        unit.ended = cause == LEAK
        scene.pass_time(8)
        scene.timeout(waited=0.2)
        finding = exhausted(scene)
        assert (finding.evidence["cause"], finding.evidence["shares"]) == (cause, [f"{cause} 100%"])


@pytest.mark.parametrize("way", ["queued", "runs", "queued elsewhere"])
def test_threads_that_wait_for_a_job_starve_where_no_worker_can_run_it(way: str) -> None:
    """The workers wait for the pool that the holders keep. A job that runs, or that other workers will, is no cycle."""
    finding = exhausted(waits_for_a_thread(way))
    assert (finding.evidence["cause"] == THREAD_STARVATION) == (way == "queued")
    if way == "queued":
        assert "1 of 1 worker threads run current_user, which waits for shop" in str(finding.evidence["chain"])


@pytest.mark.parametrize(("others", "words"), [(0, "a deadlock with the worker threads: 2 of 2"), (1, ": 2 of 3")])
def test_starved_threads_are_in_a_deadlock_where_no_connection_comes_back(others: int, words: str) -> None:
    """Where a third connection is only used, a worker gets that in the end, and goes on."""
    finding = exhausted(waits_for_a_thread(others=others))
    assert finding.evidence["cause"] == THREAD_STARVATION
    assert words in finding.summary
    assert ("a deadlock" in finding.summary) == (not others)


def test_what_a_thread_waits_for_that_has_gone_on_says_nothing_of_its_lease() -> None:
    """It has forgotten the connection, and waits for a worker thread on behalf of something else."""
    scene = Scene(1)
    with workers(scene) as (executor, _, ask), ThreadPoolExecutor(1) as third:
        thread = third.submit(threading.current_thread).result(60)
        third.submit(scene.checkout, "forgets").result(60)
        third.submit(executor.submit(int).result, 60)
        wait_until(lambda: executes(thread, "result"), 60, "it to wait")
        ask()
    assert exhausted(scene).evidence["cause"] != THREAD_STARVATION


async def _limited(event: asyncio.Event) -> None:
    await event.wait()  # as a limiter of threads does


@pytest.mark.parametrize("way", ["limiter", "executor", "another executor", "sleeps"])
def test_tasks_that_wait_for_a_worker_thread_starve(way: str) -> None:
    """
    In a limiter that is declared, or for a job that the executor has not begun; not one that another executor will
    run, nor one that only sleeps.
    """

    async def main() -> Finding:
        scene = Scene(2)
        event = asyncio.Event()
        loop = asyncio.get_running_loop()
        with workers(scene) as (executor, other, ask):

            async def holds() -> None:
                with scene.unit("GET /me"):
                    scene.checkout("session")
                    waits: dict[str, Callable[[], Any]] = {
                        "limiter": lambda: _limited(event),
                        "executor": lambda: loop.run_in_executor(executor, int),
                        "another executor": lambda: loop.run_in_executor(other, int),
                        "sleeps": event.wait,
                    }
                    await waits[way]()

            tasks = [asyncio.create_task(holds()) for _ in range(2)]
            for _ in range(3):
                await asyncio.sleep(0)
            scene.clock.advance(1)
            ask()
            event.set()
        await asyncio.gather(*tasks)
        return exhausted(scene)

    with known(worker_queues=[(__file__.rpartition("/")[2], "_limited")]):
        finding = asyncio.run(main())
    assert (finding.evidence["cause"] == THREAD_STARVATION) == (way in {"limiter", "executor"})
