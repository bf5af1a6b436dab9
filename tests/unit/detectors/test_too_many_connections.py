"""A server that refuses: who went without, who in the process has how many connections, and which fix fits."""

from __future__ import annotations

import queue
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED, SLOW_CONNECT
from poolscope.core.finding_kind import Severity
from poolscope.core.lease import Outcome
from poolscope.detectors import too_many_connections
from poolscope.detectors.too_many_connections import TooManyConnectionsDetector
from tests.support.likeness import Like
from tests.support.pools import Source
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool


def refuse(scene: Scene, limit: str = "role", name: str = "GET /items", pool: Pool | None = None) -> set[str]:
    """
    A request whose connect the server refuses.

    Returns:
        What is known about the request at its end.
    """
    with scene.unit(name) as unit:
        lease = scene.begin_checkout() if pool is None else pool.checkout()
        lease.pool.refused("53300", limit, lease)
        lease.failed(Outcome.SERVER_REFUSED, "psycopg.OperationalError")
    return unit.findings


def refusals(scene: Scene) -> list[Finding]:
    """What was found, once the connections were counted a second time."""
    scene.tick()
    scene.pass_time(1)
    return scene.found(TOO_MANY_CONNECTIONS)


def lines(finding: Finding, name: str) -> list[str]:
    """A list of the evidence."""
    found = finding.evidence[name]
    assert isinstance(found, list)
    return found


def in_thread(scene: Scene, count: int) -> tuple[list[Lease], Callable[[], None]]:
    """As many jobs' connections, each in a thread of an executor that goes on; and what ends the threads."""
    had: queue.Queue[Lease] = queue.Queue()
    over = threading.Event()

    def work() -> None:
        had.put(scene.checkout("lookup"))
        over.wait(60)

    threads = [threading.Thread(target=work, name=f"ThreadPoolExecutor-0_{number}") for number in range(count)]
    for thread in threads:
        thread.start()

    def end() -> None:
        over.set()
        for thread in threads:
            thread.join(60)

    return [had.get(timeout=60) for _ in threads], end


def test_who_is_refused_is_found_with_who_has_connections() -> None:
    """
    Whose limit, which request at which line, and the connections of all pools of that server, also of those that are
    idle; other servers' do not count. A connect that succeeds finds nothing.
    """
    scene = Scene(5)
    scene.request()
    assert refusals(scene) == []
    scene.source.idle = lambda: 2  # type: ignore[method-assign]
    elsewhere = scene.pool_registry.register(replace(scene.pool.identity, name="other", address="elsewhere"), Source(5))
    elsewhere.checkout().acquired()
    second = scene.pool_registry.register(
        replace(scene.pool.identity, name="second", namespace="two"), Source(5, idle=0)
    )
    second.checkout().acquired()
    with scene.unit("GET /report"):
        lease = scene.checkout("report")
        assert refuse(scene) == {TOO_MANY_CONNECTIONS}
        (finding,) = refusals(scene)
        lease.released()
    assert finding.severity is Severity.CRITICAL
    assert finding.summary.startswith(
        "the server has too many connections: it refused pool shop one, for http GET /items at /application/view.py:2 "
        "in view, by the limit of its role (SQLSTATE 53300); this process has 4 of them in 2 pools: "
    )
    assert str(finding.unit) == "http GET /items"
    assert {name: finding.evidence[name] for name in ("code", "limit_reached", "open_connections")} == {
        "code": "53300",
        "limit_reached": "role",
        "open_connections": 4,
    }
    assert lines(finding, "pools") == [
        "shop: 3 open, 1 checked out, 2 idle",
        "second: 1 open, 1 checked out, 0 idle",
    ]
    places = lines(finding, "places")
    assert "1 of shop checked out at /application/report.py:2 in report by http GET /report: 1 idle" in places[0]
    assert places[-1] == "2 of shop idle in the pool"
    assert finding.fix == KINDS[TOO_MANY_CONNECTIONS].fix_for("role")
    assert finding.fix in finding.report


def test_connections_that_threads_keep_after_their_jobs() -> None:
    """
    Where each thread has a connection of its own, those of an executor's threads outlive their jobs. The connections of
    requests that run are none, whatever their threads are: there the limit has to give.
    """
    scene = Scene(None)
    scene.pool.closed_by = "connection.close()"
    leases, end = in_thread(scene, 6)
    refuse(scene)
    (finding,) = refusals(scene)
    end()
    assert finding.fix == f"{KINDS[TOO_MANY_CONNECTIONS].fix_for('threads')}: connection.close()"
    assert (
        "this process has 6 of them: 6 of shop checked out at /application/lookup.py:2 in lookup by threads "
        "ThreadPoolExecutor-0_*: 6 idle, unused for up to 1.0 s"
    ) in finding.summary
    for lease in leases:
        lease.released()

    scene = Scene(None)
    scene.pool.closed_by = "connection.close()"
    with scene.unit("GET /report"):
        scene.checkout("report")
        refuse(scene)
        (finding,) = refusals(scene)
    assert finding.fix == KINDS[TOO_MANY_CONNECTIONS].fix_for("role")


def test_several_pools_of_one_database() -> None:
    """A process with a pool for each request needs one pool; one with two databases does not."""
    scene = Scene(5)
    scene.source.idle = lambda: 1  # type: ignore[method-assign]
    for number in range(3):
        scene.pool_registry.register(scene.pool.identity, Source(5, idle=number + 1))
    refuse(scene)
    (finding,) = refusals(scene)
    assert finding.fix == KINDS[TOO_MANY_CONNECTIONS].fix_for("pools")
    assert lines(finding, "places") == ["7 idle in 4 pools"]

    scene = Scene(5)
    scene.source.idle = lambda: 1  # type: ignore[method-assign]
    scene.pool_registry.register(replace(scene.pool.identity, name="other", namespace="other"), Source(5, idle=1))
    refuse(scene, "pooler")
    (finding,) = refusals(scene)
    assert finding.fix == KINDS[TOO_MANY_CONNECTIONS].fix_for("pooler")


def test_connections_of_other_processes() -> None:
    """This process has none: the fix is that of all together."""
    scene = Scene(5)
    refuse(scene, "server")
    (finding,) = refusals(scene)
    assert finding.summary.endswith("this process has none of them")
    assert finding.fix == KINDS[TOO_MANY_CONNECTIONS].fix


@pytest.mark.parametrize("stays", [True, False])
def test_what_stays_is_what_counts(stays: bool) -> None:
    """
    A second later the connections are counted again. What is still there then is what has to go; what has gone by then
    was there at the refusal.
    """
    scene = Scene(5)
    with scene.unit("GET /report"):
        lease = scene.checkout("report")
        scene.query(lease)
        lease.statement_begins("select 2")
        refuse(scene)
        scene.tick()
        assert scene.found(TOO_MANY_CONNECTIONS) == []
        lease.call_ends(in_transaction=True)
        if not stays:
            lease.released()
        (finding,) = refusals(scene)
    assert finding.evidence["open_connections"] == 1
    assert ("1 idle in a transaction, unused" if stays else "1 running a query") in lines(finding, "places")[0]


def test_of_many_refusals_one_is_described_and_all_are_counted() -> None:
    """Also those of other pools of the same database: a pool for each request would report each."""
    scene = Scene(1, finding_interval=30)
    other = scene.pool_registry.register(scene.pool.identity, scene.source)
    for _ in range(3):
        refuse(scene)
        refuse(scene, pool=other)
    assert len(refusals(scene)) == 1
    scene.clock.advance(31)
    refuse(scene)
    assert [finding.evidence["repeated"] for finding in refusals(scene)] == [5, 0]
    assert scene.pool_registry.findings.read() == {(TOO_MANY_CONNECTIONS, "shop"): 7}


def test_a_pool_that_connects_in_the_background() -> None:
    """
    Its workers are refused and try again: found with the longest of those that wait. They time out, and the cause is
    that. Once a connect has succeeded it is that no more.
    """
    scene = Scene(5)
    scene.checkout()
    with scene.unit("GET /items"):
        waiting = scene.begin_checkout()
        scene.pool.refused("53300", "server")
        scene.pool.refused("53300", "server")
        scene.pass_time(1)
        (finding,) = scene.found(TOO_MANY_CONNECTIONS)
        assert (
            "for http GET /items at /application/view.py:2 in view, by the limit of the whole server" in finding.summary
        )
        waiting.failed(Outcome.TIMEOUT, "PoolTimeout")
    assert scene.pool_registry.findings.read()[TOO_MANY_CONNECTIONS, "shop"] == 2
    (exhausted,) = scene.found(POOL_EXHAUSTED)
    assert exhausted.evidence["cause"] == TOO_MANY_CONNECTIONS
    assert "the pool has room, but the server refuses further ones" in exhausted.summary
    assert exhausted.fix == KINDS[TOO_MANY_CONNECTIONS].fix_for("server")

    scene = Scene(5)
    scene.checkout()
    scene.pool.refused("53300", "server")
    scene.clock.advance(0.1)
    scene.pool.created(0.01)
    scene.timeout()
    (exhausted,) = scene.found(POOL_EXHAUSTED)
    assert exhausted.evidence["cause"] == SLOW_CONNECT


def test_a_refusal_in_the_background_with_no_request() -> None:
    """A pool that fills itself at the start: there is no line, and it is found all the same."""
    scene = Scene(5)
    scene.pool.refused("1040", "server")
    scene.pass_time(1)
    (finding,) = scene.found(TOO_MANY_CONNECTIONS)
    assert "for a worker of the pool, by the limit of the whole server (error 1040)" in finding.summary
    assert finding.unit is None
    assert finding.pool == scene.pool.identity


def test_a_connect_that_fails_otherwise_is_the_cause_with_its_error() -> None:
    """A server that is down is no refusal: the pool provides no connection, since connects fail."""
    scene = Scene(5)
    scene.pool.failed_connect = (scene.clock(), "OSError")
    scene.begin_checkout().failed(Outcome.CONNECT_FAILED, "OSError")
    (finding,) = scene.found()
    assert (finding.id, finding.evidence["cause"]) == (POOL_EXHAUSTED, SLOW_CONNECT)
    assert finding.evidence["outcome"] == "connect_failed"
    assert "failed (OSError) at once; cannot connect: the pool has room, but its last connect failed (OSError)" in (
        finding.summary
    )


def test_a_full_pool_is_not_blamed_on_the_server() -> None:
    """An earlier refusal is not why a request waits for connections that others hold."""
    scene = Scene(1)
    scene.pool.refused("53300", "role")
    scene.request(query=0.9)
    scene.checkout()
    scene.timeout()
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] not in (TOO_MANY_CONNECTIONS, SLOW_CONNECT)


def test_what_is_not_to_be_watched_does_not_report() -> None:
    """Where the application suppressed instrumentation."""
    scene = Scene(1)
    lease = scene.begin_checkout()
    lease.silent = True
    scene.pool.refused("53300", "role", lease)
    lease.failed(Outcome.SERVER_REFUSED, "OperationalError")
    assert refusals(scene) == []


def test_a_child_process_starts_anew() -> None:
    """What was refused, and when that was described, is the parent's."""
    scene = Scene(1)
    refuse(scene)
    scene.tick()
    scene.watchdog.forget()
    assert refusals(scene) == []
    refuse(scene)
    assert len(refusals(scene)) == 1


def detector_of(scene: Scene) -> TooManyConnectionsDetector:
    """The scene's."""
    (detector,) = [one for one in scene.watchdog.detectors if TOO_MANY_CONNECTIONS in one.kinds]
    assert isinstance(detector, TooManyConnectionsDetector)
    return detector


def test_refusals_in_the_background_count_once_each() -> None:
    """Those since the last look; one is described, with the newest refusal and who has waited for longest."""
    scene = Scene(4)
    detector = detector_of(scene)
    waiters = []
    for name in ("GET /first", "GET /second"):
        with scene.unit(name) as unit:
            waiters.append(scene.begin_checkout())
        unit.ended = False
        scene.clock.advance(0.5)
    refusals = scene.pool.refusals
    refusals.clear()
    refusals.extend(
        Like(moment=moment, in_checkout=moment == 2.0, code=str(moment), limit="server")  # type: ignore[misc]
        for moment in (1.0, 2.0, 3.0)
    )
    found = list(detector.look(scene.pool))
    assert [one.describe is None for one in found] == [False, True]
    assert found[0].describe is not None
    finding = found[0].describe(0)
    assert finding.evidence["code"] == "3.0"
    assert "for http GET /first at" in finding.summary
    assert list(detector.look(scene.pool)) == []
    refusals.append(Like(moment=3.0, in_checkout=False, code="x", limit="server"))  # type: ignore[arg-type]
    assert list(detector.look(scene.pool)) == []
    refusals.append(Like(moment=4.0, in_checkout=False, code="x", limit="server"))  # type: ignore[arg-type]
    assert [one.describe for one in detector.look(scene.pool)] == [None]
    for waiter in waiters:
        waiter.failed(Outcome.CANCELLED, "CancelledError")


def test_a_census_is_taken_again_a_while_later() -> None:
    """Of the two the later one counts, unless there were more connections before; at the end none is waited for."""
    for connections, last, expected in ((3, False, 3), (1, False, 2), (2, True, 2)):
        scene = Scene(9)
        detector = detector_of(scene)
        scene.source._idle = 2
        refuse(scene)
        (seen,) = detector.observations
        assert list(detector.diagnose(seen)) == []
        scene.source._idle = connections
        assert list(detector.again(False)) == []
        if not last:
            scene.clock.advance(too_many_connections._LATER / 2)
            assert list(detector.again(False)) == []
            scene.clock.advance(too_many_connections._LATER / 2)
        (occurrence,) = detector.again(last)
        assert occurrence.at_once
        assert occurrence.describe is not None
        assert occurrence.describe(0).evidence["open_connections"] == expected
        assert list(detector.again(True)) == []
