"""The server probe: when it asks, what it makes of the answer, and that nothing of a login is said."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.lock_wait import seconds_locked
from poolscope.core.runner import helpers
from poolscope.detectors import server_probe
from poolscope.detectors.lock_wait import SAID_BY_SERVER, SEEN_HERE
from poolscope.detectors.server_probe import ServerProbe
from tests.support.pools import Source
from tests.support.scene import Scene
from tests.unit.detectors.test_lock_wait import LOCKS, UNINDEXED, UPDATES, begins, holds, pass_time

if TYPE_CHECKING:
    from poolscope.core.lease import Lease


class Server:
    """
    A server, as a driver shows it.

    Args:
        rows: What it answers to the question.
        free: How many connections it has left.
        error: What a connect raises.
    """

    def __init__(self, rows: list[tuple[Any, ...]] = [], free: int = 50, error: Exception | None = None) -> None:  # noqa: B006
        self.rows, self.free, self.error = rows, free, error
        self.connects = 0
        self.ran: list[str] = []

    def connect(self) -> Server:
        """Open a connection."""
        self.connects += 1
        if self.error is not None:
            raise self.error
        return self

    def cursor(self) -> Server:
        return self

    def execute(self, statement: str) -> None:
        self.ran.append(statement)

    def fetchone(self) -> tuple[int]:
        return (self.free,)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows

    def rollback(self) -> None:
        """End the transaction."""

    def close(self) -> None:
        """End the connection."""


def watched(server: Server, **settings: object) -> Scene:
    """A pool of that server's."""
    scene = Scene(4, server_probe=True, **settings)
    scene.source.server = server.connect
    return scene


def answered(scene: Scene, seconds: float) -> None:
    """Let time pass; each answer is there before the background thread runs again."""
    (watch,) = [one for one in scene.watchdog.detectors if LOCK_WAIT in one.kinds]
    for _ in range(round(seconds / 0.2)):
        pass_time(scene, 0.2)
        if watch._server is not None:
            watch._server.wait(60)


def in_process(lease: Lease, process: int) -> Lease:
    """A lease whose backend is known."""
    lease.backend_process_id = process
    return lease


def test_a_lock_that_another_process_holds_is_found_by_the_servers_word() -> None:
    """With the process and what it does; in its own words nothing is likely. Without the setting nothing is asked."""
    rows = [(1, 99, "idle in transaction", 12.5, "nightly", False)]
    for is_on in (True, False):
        server = Server(rows)
        scene = watched(server) if is_on else Scene(4)
        scene.source.server = server.connect
        in_process(begins(scene, UPDATES), 1)
        answered(scene, 1.0)
        assert server.connects == is_on
        if not is_on:
            assert scene.found() == []
            continue
        (finding,) = scene.found(LOCK_WAIT)
        assert (
            "waits for a row lock of table member, for 600 ms; it is held by another process (application nightly, "
            "backend 99), idle in transaction for 12.5 s;"
        ) in finding.summary
        assert "likely" not in finding.summary
        assert finding.evidence["known_by"] == SAID_BY_SERVER
        assert finding.fix == KINDS[LOCK_WAIT].further_fixes["elsewhere"]


def test_a_lease_of_this_process_is_named_with_its_line() -> None:
    """The server's word says which one; who waits behind another waiter waits for the first in the end."""
    server = Server([(1, 2, "active", 1.0, "", True), (2, 3, "idle in transaction", 1.0, "", False)])
    scene = watched(server)
    with scene.unit("POST /vote"):
        in_process(holds(scene, UNINDEXED, seconds=9.0), 3)
    waiting = [in_process(begins(scene, UNINDEXED), process) for process in (1, 2)]
    answered(scene, 1.0)
    (finding,) = scene.found(LOCK_WAIT)
    assert "is held by http POST /vote, which has been idle in its transaction" in finding.summary
    assert all(lease.lock_wait is not None and lease.lock_wait.is_proven for lease in waiting)


def test_who_waits_for_one_transaction_does_not_wait_for_another() -> None:
    """Both of another process; nor is a connection of another pool one of the pool's."""
    server = Server([(number, 99 if number < 4 else 98, "active", 1.0, "", False) for number in range(1, 6)])
    scene = watched(server)
    what = type(scene.pool.identity)("batch", "postgresql", "shop", "db", 5432)
    other = scene.pool_registry.register(what, Source(2))
    for number in range(1, 6):
        in_process(begins(scene, UPDATES, at=f"view_{number}", pool=other if number == 3 else None), number)
    answered(scene, 1.0)
    found = sorted((finding.evidence["checkout_stack"][0], finding) for finding in scene.found(LOCK_WAIT))  # type: ignore[index]
    assert [finding.evidence["waiters"] for _, finding in found] == [2, 2, 1, 2, 2]


@pytest.mark.parametrize("unlocks", [False, True])
def test_the_servers_word_holds_for_as_long_as_the_lock(unlocks: bool) -> None:
    """One of the connection outlasts its transaction."""
    lock = "select pg_advisory_lock(%s)"
    scene = watched(Server([(1, 3, "idle", 1.0, "", False)]))
    holder = in_process(holds(scene, lock), 3)
    holder.in_transaction = False
    waiter = in_process(begins(scene, lock), 1)
    answered(scene, 0.6)
    if unlocks:
        scene.query(holder, "select pg_advisory_unlock(%s)")
        holder.in_transaction = False
    answered(scene, 0.4)
    assert waiter.lock_wait is not None
    assert waiter.lock_wait.is_proven is not unlocks


def test_what_the_server_knows_nothing_of_waits_for_no_lock() -> None:
    """
    It looked as if it did. Of a process that the server does not know, as behind a pooler, it says nothing, whatever it
    does not list.
    """
    knows = [(1, None, None, None, None, None)]
    for process, rows, expected in ((1, knows, 0), (None, knows, 1), (1, [], 1)):
        scene = watched(Server(rows))
        in_process(holds(scene), 3)
        begins(scene, LOCKS).backend_process_id = process
        answered(scene, 1.0)
        assert len(scene.found(LOCK_WAIT)) == expected


def test_what_waits_for_no_lock_may_have_waited_before() -> None:
    """The server's word is about the statement that runs."""
    server = Server()
    scene = watched(server, finding_interval=1)
    holder, waiter = in_process(holds(scene), 3), in_process(begins(scene, LOCKS), 1)
    answered(scene, 1.0)
    holder.released()
    waiter.call_ends(in_transaction=True)
    assert seconds_locked(waiter) == pytest.approx(1.0)
    server.rows = [(1, None, None, None, None, None)]
    in_process(holds(scene), 4)
    waiter.statement_begins(UPDATES)
    answered(scene, 3.0)
    waiter.call_ends(in_transaction=True)
    assert seconds_locked(waiter) == pytest.approx(1.0)
    waiter.released()
    assert len(scene.found(LOCK_WAIT)) == 1


@pytest.mark.parametrize(("statement", "asked"), [("select get_lock('job', 10)", 0), (LOCKS, 1)])
def test_mysql_gets_a_question_about_what_it_lists(statement: str, asked: int) -> None:
    """That it has no row of who waits for a name or a table says nothing; what both connections ran does."""
    server = Server([(1, None, None, None, None, None)])
    server.fetchone = lambda: ("8.0.36",)  # type: ignore[method-assign,assignment,return-value]
    scene = Scene(4, "mysql", server_probe=True)
    scene.source.server = server.connect
    in_process(holds(scene, statement), 3)
    in_process(begins(scene, statement), 1)
    answered(scene, 1.0)
    assert (server.connects, len(scene.found(LOCK_WAIT))) == (asked, 1 - asked)


def test_a_prepared_transaction_has_no_process() -> None:
    """PostgreSQL says 0."""
    scene = watched(Server([(1, 0, None, None, None, None)]))
    in_process(begins(scene, UPDATES), 1)
    answered(scene, 1.0)
    (finding,) = scene.found(LOCK_WAIT)
    assert "it is held by a prepared transaction;" in finding.summary


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    """A network or a pooler may keep the question for as long as it likes: what is seen from here is reported."""
    server, goes_on = Server(), threading.Event()
    scene = watched(server, finding_interval=1)
    scene.source.server = lambda: goes_on.wait(60) and server.connect()
    in_process(holds(scene), 3)
    in_process(begins(scene, LOCKS), 1)
    try:
        pass_time(scene, 4.0)
        assert scene.found(LOCK_WAIT) == []
        pass_time(scene, 4.0)
        (finding,) = scene.found(LOCK_WAIT)
        assert finding.evidence["known_by"] == SEEN_HERE
        assert [thread.name for thread in threading.enumerate()].count("poolscope-probe") == 1
    finally:
        goes_on.set()
        answered(scene, 0.2)


def test_there_is_one_question_in_the_interval() -> None:
    """However many statements are slow, and none that only reads."""
    server = Server()
    scene = watched(server, finding_interval=10)
    in_process(begins(scene, "select * from member"), 1)
    answered(scene, 1.0)
    assert server.connects == 0
    for process in (2, 3):
        in_process(begins(scene, UPDATES), process)
        answered(scene, 1.0)
    assert server.connects == 1
    answered(scene, 10.0)
    assert server.connects == 2


@pytest.mark.parametrize("server", [Server(free=2), Server(error=RuntimeError("password of lab_user refused"))])
def test_a_server_without_connections_is_left_in_peace(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """For ten intervals; of the error its kind alone is said, once."""
    scene = watched(server, finding_interval=1)
    in_process(begins(scene, UPDATES), 1)
    answered(scene, 8.0)
    assert server.connects == 1
    answered(scene, 4.0)
    assert server.connects == 2
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == (["the server probe got no answer of postgresql: RuntimeError"] if server.error else [])


def test_a_server_that_has_refused_the_pool_is_left_in_peace() -> None:
    """For ten intervals after the refusal: the probe does not take the last slot that comes free."""
    server = Server()
    scene = watched(server, finding_interval=1)
    in_process(begins(scene, UPDATES), 1)
    scene.pool.refused("53300", "server")
    answered(scene, 8.0)
    assert server.connects == 0
    answered(scene, 4.0)
    assert server.connects > 0


def test_its_statements_end_in_a_second_and_leave_nothing_on_a_pooler() -> None:
    """The timeout is the transaction's alone."""
    server = Server()
    scene = watched(server)
    in_process(begins(scene, UPDATES), 7)
    answered(scene, 0.6)
    assert server.ran[0] == "set local statement_timeout = 1000"
    assert "w.pid = any(array[7]::int[])" in server.ran[-1]


def test_a_pool_that_says_no_way_to_connect_has_no_probe() -> None:
    """And costs no thread."""
    scene = Scene(4, server_probe=True)
    in_process(begins(scene, UPDATES), 1)
    answered(scene, 1.0)
    assert scene.found() == []


def test_what_it_does_is_not_observed() -> None:
    """By other instrumentation of the application's."""
    entered = []

    class Unobserved:
        def __enter__(self) -> None:
            entered.append(True)

        def __exit__(self, *_: object) -> None:
            entered.append(False)

    scene = Scene(4)
    scene.source.server = Server([(1, None, None, None, None, None)]).connect
    probe = ServerProbe(1.0, scene.clock, Unobserved)
    probe.send(scene.pool, "shop", {1})
    probe.wait(60)
    assert entered == [True, False]
    assert probe.is_pending  # until the answer is taken
    (answer,) = probe.answers()
    assert not probe.is_pending
    assert (answer.processes, answer.blockers) == ({1}, {})


class Probed:
    """A probe of a pool on a clock that stands still; its questions end at once, and answer nothing."""

    def __init__(self, interval: float = 10.0, system: str = "postgresql") -> None:
        self.scene = Scene(4, system)
        self.scene.clock.now = 100.0
        self.server = Server([])
        self.scene.source.server = self.server.connect
        self.probe = ServerProbe(interval, self.scene.clock)

    def asks(self, moment: float, *, database: str = "shop", processes: Any = (7,)) -> bool:
        """Whether there is a question at that moment."""
        self.scene.clock.now = moment
        before = self.server.connects
        self.probe.send(self.scene.pool, database, processes)
        self.probe.wait(60)
        return self.server.connects > before


def test_a_question_comes_once_in_the_interval_for_each_database() -> None:
    """At least a second apart, whatever the settings say; and none without a process."""
    probed = Probed()
    assert not probed.asks(100.0, processes=())
    assert [probed.asks(moment) for moment in (100.0, 109.5, 110.0, 119.5, 121.0)] == [True, False, True, False, True]
    assert probed.asks(121.0, database="other")
    often = Probed(0.0)
    assert [often.asks(moment) for moment in (100.0, 100.5, 101.0)] == [True, False, True]


def test_a_server_that_had_none_left_is_left_alone_for_ten_intervals() -> None:
    """From below three connections on; after an error, and after a refusal of the pool's."""
    for free, moments in ((3, (110.0,)), (2, (199.5, 200.0)), (0, (199.5, 200.0))):
        probed = Probed()
        probed.server.free = free
        assert probed.asks(100.0)
        assert [probed.asks(moment) for moment in moments] == [False] * (len(moments) - 1) + [True]
    failing = Probed()
    failing.server.error = RuntimeError("no")
    assert failing.asks(100.0)
    failing.server.error = None
    assert [failing.asks(moment) for moment in (199.5, 200.0)] == [False, True]
    refused = Probed()
    refused.scene.pool.refused("53300", "server")
    assert [refused.asks(moment) for moment in (100.0, 199.5, 200.0)] == [False, False, True]


def test_a_source_that_is_retired_or_gone_has_no_connections_to_open() -> None:
    """The next one has; without one there is no question, and the interval counts all the same."""
    probed = Probed()
    first = probed.scene.source
    second = Source(4)
    probed.scene.pool.sources.append(second)
    first.retired = True
    assert not probed.asks(100.0)
    second.server = probed.server.connect
    assert not probed.asks(105.0)
    assert probed.asks(110.0)
    second.lives = False
    assert not probed.asks(120.0)
    first.retired = False
    assert probed.asks(130.0)


def test_an_answer_is_soon_to_come_for_some_seconds() -> None:
    """While the question is under way; one that is there is to be taken."""
    probed = Probed()
    goes_on = threading.Event()
    probed.scene.source.server = lambda: goes_on.wait(60) and probed.server.connect()
    assert not probed.probe.is_pending
    probed.probe.send(probed.scene.pool, "shop", [7])
    (thread,) = [one for one in threading.enumerate() if one.name == "poolscope-probe"]
    assert thread.daemon
    assert thread in helpers
    for moment, pending in ((100.0, True), (104.5, True), (105.0, False), (204.0, False)):
        probed.scene.clock.now = moment
        assert probed.probe.is_pending is pending
    probed.probe.send(probed.scene.pool, "other", [7])  # one at a time
    goes_on.set()
    probed.probe.wait(60)
    assert probed.server.connects == 1
    assert probed.probe.is_pending
    (answer,) = probed.probe.answers()
    assert (answer.database, answer.sent_at, answer.processes, answer.blockers) == ("shop", 100.0, set(), {})
    assert probed.probe.answers() == []
    assert not probed.probe.is_pending


def test_a_question_is_about_so_many_processes() -> None:
    """Those with the lowest numbers; as one list, in order."""
    probed = Probed()
    assert probed.asks(100.0, processes=set(range(1_000)))
    listed = ", ".join(map(str, range(server_probe._MOST_PROCESSES)))
    assert f"array[{listed}]::int[]" in probed.server.ran[-1]


@pytest.mark.parametrize(
    ("version", "begins_with", "table"),
    [
        ("8.0.36", "select /*+ MAX_EXECUTION_TIME(1000) */", "performance_schema.data_lock_waits"),
        ("10.11.6-MariaDB-1", "set statement max_statement_time=1 for select w.id", "information_schema.innodb_trx"),
    ],
)
def test_mysql_and_mariadb_have_tables_of_their_own(version: str, begins_with: str, table: str) -> None:
    """By the version; each query ends in a second."""
    probed = Probed(system="mysql")
    probed.server.fetchone = lambda: (version,)  # type: ignore[method-assign,assignment,return-value]
    assert probed.asks(100.0, processes=(9, 7))
    assert probed.server.ran[0] == "select version()"
    assert probed.server.ran[-1].startswith(begins_with)
    assert table in probed.server.ran[-1]
    assert "in (7, 9)" in probed.server.ran[-1]


def test_whom_a_process_waits_for_is_the_first_that_does_not_wait() -> None:
    """Of several one that goes on; behind others who they wait for; in a circle another one of it."""

    def row(process: int, blocker: int | None, *, waits: bool = False) -> tuple[Any, ...]:
        return (process, blocker, "active", 1.5, "batch", waits, "more")

    rows = [
        row(1, 2, waits=True), row(1, 3), row(4, 5, waits=True), row(5, 6, waits=True), row(6, 7),
        row(8, 9, waits=True), row(9, 8, waits=True), row(14, 14, waits=True), row(10, 11, waits=True), row(12, None),
        (13, 0, None, None, None, None),
    ]  # fmt: skip
    answer = server_probe._answer_of(rows, "shop", 2.0)
    assert {process: blocker.process for process, blocker in answer.blockers.items()} == {
        1: 3, 4: 7, 5: 7, 6: 7, 8: 9, 9: 8, 10: 11, 13: 0, 14: 14,
    }  # fmt: skip
    assert answer.processes == {1, 4, 5, 6, 8, 9, 10, 12, 13, 14}
    known = answer.blockers[1]
    assert (known.state, known.seconds, known.application, known.waits) == ("active", 1.5, "batch", False)
    assert answer.blockers[13] == (0, "", 0.0, "", False)
    assert answer.blockers[10].waits
