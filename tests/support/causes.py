"""What an application does wrong, for each kind of finding that a process can make."""
# ruff: noqa: D103 - what the application does is named for it

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from examples.lab.processes import wait_until
from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.catalogue.exhaustion import BURST, MIXED, POOL_EXHAUSTED, POOL_TOO_SMALL, SLOW_CONNECT, UNKNOWN
from poolscope.core.catalogue.holds import FAN_OUT, IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT, THREAD_STARVATION
from poolscope.core.catalogue.kept import LISTENER_HOLD, SESSION_LOCK_LEAK
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP
from poolscope.core.catalogue.pools import FOREIGN_EVENT_LOOP, FORKED_POOL, POOL_PER_REQUEST, STRANDED_CONNECTIONS
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.lease import Outcome
from poolscope.core.pool_identity import Foreign, Stranded
from tests.support.actors import executes
from tests.support.loops import event_loop
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future


def leaks() -> Scene:
    scene = Scene(1)
    with scene.unit():
        scene.checkout().backend_process_id = 7
        scene.pass_time(70)
    return scene


def gives_up() -> Scene:
    scene = Scene(1)
    scene.checkout()
    scene.timeout()
    return scene


def runs_a_long_query() -> Scene:
    scene = Scene(1)
    scene.request(query=1)
    return scene


def calls_a_service_in_a_transaction() -> Scene:
    scene = Scene(1)
    scene.request(idle=1)
    return scene


def repeats() -> Scene:
    scene = Scene(1)
    with scene.unit():
        lease = scene.checkout()
        for _ in range(9):
            scene.query(lease)
        lease.released()
    return scene


def nests() -> Scene:
    scene = Scene(1)
    with scene.unit():
        scene.checkout()
        scene.checkout()
    return scene


def computes_in_the_event_loop() -> Scene:
    scene = Scene(1)
    with event_loop(scene.pool) as loop:
        loop.checkout()
        for _ in range(2):
            scene.tick()
            loop.turn()
        scene.tick()
        loop.block()
        scene.clock.advance(1)
        scene.tick()
        loop.unblock()
        loop.turn()
        scene.tick()
    return scene


def has_too_few_connections() -> Scene:
    scene = Scene(1)
    for _ in range(100):
        scene.request(query=0.3)
        scene.pass_time(0.01)
    busy = scene.checkout()
    scene.query(busy)
    busy.statement_begins("select 1 from t")
    scene.timeout(waited=0.3)
    return scene


def has_a_burst() -> Scene:
    scene = Scene(4)
    for _ in range(30):
        scene.request(query=0.02)
        scene.pass_time(0.5)
    for _ in range(20):
        scene.request(query=0.02)
    _busy = [scene.checkout() for _ in range(4)]
    scene.timeout(waited=0.1)
    return scene


def gathers() -> Scene:
    scene = Scene(4)
    with scene.unit("POST /graphql"):
        scene.at_once(4)
        scene.timeout(name=None)
    return scene


@contextlib.contextmanager
def workers(scene: Scene) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor, Callable[[], None]]]:
    """
    Two executors with one thread each, both busy, and what has the thread of the first go without a connection: it
    asks for one. The other one's thread has nothing to do with the pool.
    """
    asks, ends = threading.Event(), threading.Event()

    def run() -> None:
        asks.wait(60)
        scene.timeout("current_user")

    with ThreadPoolExecutor(1, "worker") as executor, ThreadPoolExecutor(1, "other") as other:
        job = executor.submit(run)
        other.submit(ends.wait, 60)

        def ask() -> None:
            asks.set()
            job.result(60)

        try:
            yield executor, other, ask
        finally:
            asks.set()
            ends.set()


def waits_for_a_thread(way: str = "queued", others: int = 0) -> Scene:
    scene = Scene(2 + others)
    for _ in range(others):
        scene.checkout().statement_begins("select 1 from t")
    holds = threading.Barrier(3)
    ends = threading.Event()

    def hold(job: Future[Any]) -> None:
        with scene.unit("GET /me"):
            lease = scene.checkout("session")
            holds.wait(60)
            job.result(60)
            lease.released()

    with workers(scene) as (executor, other, ask), ThreadPoolExecutor(1) as third:
        jobs: dict[str, Callable[[], Future[Any]]] = {
            "queued": lambda: executor.submit(int),
            "runs": lambda: third.submit(ends.wait, 60),
            "queued elsewhere": lambda: other.submit(int),
        }
        job = jobs[way]()
        holders = [threading.Thread(target=hold, args=(job,), name=f"request {number}") for number in range(2)]
        for holder in holders:
            holder.start()
        holds.wait(60)
        wait_until(lambda: all(executes(holder, "result") for holder in holders), 60, "the holders to wait")
        scene.clock.advance(1)
        ask()
        ends.set()
    for holder in holders:
        holder.join(60)
    return scene


def does_two_things() -> Scene:
    scene = Scene(2)
    with scene.unit("GET /pays"):
        scene.query(scene.checkout())
    with scene.unit("GET /exports"):
        lease = scene.checkout()
        lease.statement_begins("select 1 from t")
        scene.pass_time(10)
        scene.timeout(waited=0.3)
    return scene


def began_before_poolscope() -> Scene:
    scene = Scene(2)
    _adopted = [scene.pool.adopt(scene.clock()) for _ in range(2)]
    scene.timeout()
    return scene


def waits_for_the_database() -> Scene:
    scene = Scene(10)
    scene.timeout()
    return scene


def makes_a_pool_for_each_request() -> Scene:
    scene = Scene()
    for _ in range(7):
        with scene.unit():
            scene.make_pool()
    return scene


def waits_for_a_lock() -> Scene:
    scene = Scene(2)
    locks = "select * from t where id = 1 for update"
    with scene.unit():
        scene.query(scene.checkout("render"), locks, at="render")
    with scene.unit():
        scene.checkout().statement_begins(locks)
        scene.pass_time(1.0)
    return scene


def keeps_connections_for_threads_that_end() -> Scene:
    scene = Scene(None)
    for number in range(7):
        scene.request()
        scene.pool.created(0.01)
        scene.source.left.append(Stranded(number, "CONN_MAX_AGE=60"))
    scene.pass_time(2)
    return scene


def listens_on_a_connection_of_the_pool() -> Scene:
    scene = Scene(1)
    with scene.unit("GET /notifications"):
        lease = scene.checkout("stream")
        scene.query(lease, "LISTEN news")
        scene.pass_time(70)
    return scene


def returns_a_lock() -> Scene:
    scene = Scene(1)
    with scene.unit("POST /rebuild"):
        lease = scene.checkout("rebuild")
        lease.backend_process_id = 7
        scene.query(lease, "select pg_advisory_lock(42)")
        lease.released()
    scene.pass_time(2)
    return scene


def is_refused_by_the_server() -> Scene:
    scene = Scene(5)
    scene.checkout()
    with scene.unit():
        lease = scene.begin_checkout()
        scene.pool.refused("53300", "role", lease)
        lease.failed(Outcome.SERVER_REFUSED, "OperationalError")
    scene.pass_time(2)
    return scene


def uses_a_pool_of_its_parent() -> Scene:
    scene = Scene(2)
    scene.source.elsewhere = lambda leases: Foreign("process", True, leases)
    scene.checkout().backend_process_id = 7
    scene.timeout()
    return scene


def uses_connections_of_another_event_loop() -> Scene:
    scene = Scene(2)
    scene.source.elsewhere = lambda leases: Foreign("loop", False, leases, is_closed=True)
    scene.pass_time(1)
    scene.request()
    return scene


#: What makes a finding of each kind; or, of a kind that is a cause alone, an exhausted pool with that cause.
CAUSES: Final[dict[str, Callable[[], Scene]]] = {
    LEAK: leaks,
    POOL_EXHAUSTED: gives_up,
    LONG_HOLD: runs_a_long_query,
    IDLE_IN_TRANSACTION: calls_a_service_in_a_transaction,
    N_PLUS_ONE: repeats,
    NESTED_CHECKOUT: nests,
    BLOCKED_EVENT_LOOP: computes_in_the_event_loop,
    POOL_TOO_SMALL: has_too_few_connections,
    BURST: has_a_burst,
    SLOW_CONNECT: waits_for_the_database,
    TOO_MANY_CONNECTIONS: is_refused_by_the_server,
    POOL_PER_REQUEST: makes_a_pool_for_each_request,
    FAN_OUT: gathers,
    THREAD_STARVATION: waits_for_a_thread,
    MIXED: does_two_things,
    UNKNOWN: began_before_poolscope,
    LOCK_WAIT: waits_for_a_lock,
    FORKED_POOL: uses_a_pool_of_its_parent,
    FOREIGN_EVENT_LOOP: uses_connections_of_another_event_loop,
    STRANDED_CONNECTIONS: keeps_connections_for_threads_that_end,
    LISTENER_HOLD: listens_on_a_connection_of_the_pool,
    SESSION_LOCK_LEAK: returns_a_lock,
}
