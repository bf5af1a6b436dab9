"""
Waits for locks that can be seen from here: each bad case beside one that looks like it and waits for nothing.

The holder of a lock is idle in its transaction; the waiter's statement runs. The clock stands still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.lease import Outcome
from poolscope.core.lock_wait import LockWait, seconds_locked
from poolscope.detectors.lock_wait import SEEN_HERE, LockWaitDetector
from poolscope.detectors.lock_wait import found as found_of
from tests.support.likeness import Like
from tests.support.pools import Source
from tests.support.scene import Scene, line

if TYPE_CHECKING:
    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease

LOCKS = "select name from member where id = %s for update"
UPDATES = "update member set name = %s where id = %s"
UNINDEXED = "update member set name = %s where lower(mail) = %s"


def pass_time(scene: Scene, seconds: float) -> None:
    """Let time pass; the background thread runs five times a second."""
    for _ in range(round(seconds / 0.2)):
        scene.clock.advance(0.2)
        scene.tick()


def begins(scene: Scene, statement: str, at: str = "view", pool: Any = None) -> Lease:
    """A connection is checked out, and a statement begins on it that does not end yet."""

    def hook() -> Lease:
        lease = (pool or scene.pool).checkout()
        lease.acquired()
        lease.statement_begins(statement)
        return lease  # type: ignore[no-any-return]

    return line(at)(hook)  # type: ignore[no-any-return]


def holds(scene: Scene, statement: str = LOCKS, at: str = "render", seconds: float = 0.01) -> Lease:
    """A connection is checked out, runs a statement and is idle in its transaction."""
    lease = scene.checkout(at)
    scene.query(lease, statement, at=at, seconds=seconds)
    return lease


def waits(holding: str, waiting: str, *, system: str = "postgresql", took: float = 0.01, idle: float = 0.0) -> bool:
    """
    Whether a statement that runs for a second is found to wait for a transaction.

    Args:
        holding: What the transaction ran.
        waiting: The statement.
        system: The database.
        took: How long the transaction's statement took, in seconds.
        idle: For how long the transaction was idle before the statement began, in seconds.
    """
    scene = Scene(4, system)
    holds(scene, holding, seconds=took)
    pass_time(scene, idle)
    begins(scene, waiting)
    pass_time(scene, 1.0)
    return bool(scene.found(LOCK_WAIT))


def test_a_statement_that_waits_for_the_row_of_an_idle_transaction_is_found() -> None:
    """With the holder, the line that it executes and how it is known. When the transaction ends, nothing is found."""
    scene = Scene(4)
    with scene.unit("POST /vote"):
        holder = holds(scene)
    with scene.unit("GET /vote") as unit:
        waiter = begins(scene, LOCKS)
        pass_time(scene, 1.0)
    (finding,) = scene.found(LOCK_WAIT)
    assert unit.findings == {LOCK_WAIT}
    assert finding.summary.startswith(
        "a statement of http GET /vote likely waits for a row lock of table member, for 600 ms; it is held by http "
        "POST /vote, which has been idle in its transaction for 600 ms"
    )
    assert finding.evidence["known_by"] == SEEN_HERE
    assert finding.evidence["statement"] == "select name from member where id = ? for update"
    assert finding.evidence["waited"] == pytest.approx(0.6)
    assert finding.fix == finding.kind.fix
    holder.released()
    waiter.call_ends(in_transaction=True)
    waiter.released()
    pass_time(scene, 2.0)
    assert scene.ids() == [LOCK_WAIT, IDLE_IN_TRANSACTION]  # and no long hold: its statement was not slow
    assert seconds_locked(waiter) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("holding", "waiting", "expected"),
    [
        (LOCKS, UPDATES, True),  # one row by its key: that is fast, but for a lock
        (LOCKS, UNINDEXED, False),  # slow by itself, perhaps
        (LOCKS, "select name from member where id = %s", False),  # reads wait for no row lock
        (LOCKS, "select * from other where id = %s for update", False),
        ("select name from member where id = %s", LOCKS, False),
        (LOCKS, LOCKS + " skip locked", False),
        (UNINDEXED, UNINDEXED, True),  # the same took 10 ms
        ("insert into member values (%s)", "insert into member values (%s)", True),
        ("insert into member values (%s)", "insert into member select * from archive", False),
        ("truncate member", "select count(*) from member", True),  # whatever the rows
        ("select * from member", "alter table member add column x int", True),
        ("select pg_advisory_xact_lock(%s)", "select pg_advisory_xact_lock(%s)", True),
        ("select pg_advisory_xact_lock(1)", "select pg_advisory_xact_lock(2)", False),
        ("update a.member set x = 1 where id = 1", "update b.member set x = 1 where id = 1", False),
    ],
)
def test_what_is_likely_to_wait(holding: str, waiting: str, expected: bool) -> None:
    """A statement on the same table that would be fast if nothing was in its way; no other."""
    assert waits(holding, waiting) is expected


@pytest.mark.parametrize(
    ("holding", "waiting", "lock"),
    [
        ("truncate member", "select count(*) from member", "table member"),
        ("insert into member values (%s)", "insert into member values (%s)", "a unique key of table member"),
        ("select * from s.member", "alter table s.member add column x int", "a table lock of table s.member"),
        ("select pg_advisory_xact_lock(%s)", "select pg_advisory_xact_lock(%s)", "an advisory lock"),
    ],
)
def test_what_is_waited_for_is_named(holding: str, waiting: str, lock: str) -> None:
    """In words, with the table where there is one."""
    scene = Scene(4)
    holds(scene, holding)
    begins(scene, waiting)
    pass_time(scene, 1.0)
    (finding,) = scene.found(LOCK_WAIT)
    assert finding.evidence["lock"] == lock


def test_a_definition_of_a_table_holds_no_lock_where_it_commits() -> None:
    """As MySQL's do."""
    assert not waits("truncate member", "select count(*) from member", system="mysql")
    assert waits("lock tables member write", "select count(*) from member", system="mysql")


def test_in_sqlite_each_write_waits_for_each_other() -> None:
    """Whatever the table."""
    assert waits("insert into a values (1)", UNINDEXED, system="sqlite")
    assert not waits("select * from a", UNINDEXED, system="sqlite")


def test_the_same_statement_that_is_slow_everywhere_waits_for_no_lock() -> None:
    """An index is missing: the transaction that is idle now took as long for it."""
    assert not waits(UNINDEXED, UNINDEXED, took=3.0)
    assert waits(UNINDEXED, UNINDEXED, took=0.05)


def test_what_was_slow_without_a_lock_in_its_way_is_not_known_to_be_fast() -> None:
    """Though it concerns one row by its key: perhaps a trigger is slow. A minute later it may have been mended."""
    for since, expected in ((0.0, 0), (61.0, 1)):
        scene = Scene(4)
        earlier = begins(scene, UPDATES)
        pass_time(scene, 1.0)
        earlier.call_ends(in_transaction=False)
        earlier.released()
        scene.clock.advance(since)
        holds(scene)
        begins(scene, UPDATES)
        pass_time(scene, 1.0)
        assert len(scene.found(LOCK_WAIT)) == expected


def test_a_statement_that_ran_before_the_lock_was_held_waits_for_something_else() -> None:
    """It began two seconds before the other transaction did anything."""
    scene = Scene(4)
    begins(scene, UPDATES)
    pass_time(scene, 2.0)
    holds(scene)
    pass_time(scene, 1.0)
    assert scene.found(LOCK_WAIT) == []


def test_one_transaction_after_the_other_holds_the_lock() -> None:
    """
    Each waits for the row, has it, and goes on with other work: the first holder's statement was fast, and what the
    next one waited is known. None of them is reported for slow queries; the one that waits last is for its lock.
    """
    scene = Scene(4)
    first = holds(scene)
    others = [begins(scene, LOCKS) for _ in range(3)]
    for holder, then in zip((first, *others), (*others, None), strict=True):
        pass_time(scene, 0.8)
        holder.released()
        if then is not None:
            then.call_ends(in_transaction=True)
    found = scene.ids()
    assert LONG_HOLD not in found
    assert found.count(LOCK_WAIT) == 1
    assert IDLE_IN_TRANSACTION in found
    assert [round(seconds_locked(lease), 1) for lease in others] == [0.8, 1.6, 2.4]


def test_an_earlier_statement_of_the_transaction_may_have_locked() -> None:
    """As far as the statements of a unit of work are known."""
    scene = Scene(4)
    with scene.unit("POST /vote"):
        holder = holds(scene)
        scene.query(holder, "select * from news", at="news", seconds=0.01)
        begins(scene, UPDATES)
        pass_time(scene, 1.0)
        assert len(scene.found(LOCK_WAIT)) == 0  # its own unit of work holds both: whose statement it was is not known
    scene = Scene(4)
    with scene.unit("POST /vote"):
        holder = holds(scene)
        scene.query(holder, "select * from news", at="news", seconds=0.01)
    begins(scene, UPDATES)
    pass_time(scene, 1.0)
    assert len(scene.found(LOCK_WAIT)) == 1


def test_of_a_long_unit_of_work_the_newest_statements_count() -> None:
    """What a job ran first is of transactions that have ended long ago."""
    scene = Scene(4)
    with scene.unit("nightly", "job"):
        holder = scene.checkout()
        for number in range(100):
            scene.query(holder, f"select * from table_{number}", at=f"step_{number}")
        scene.query(holder, LOCKS, at="locks")
        scene.query(holder, "select * from news", at="news")
    begins(scene, UPDATES)
    pass_time(scene, 1.0)
    assert len(scene.found(LOCK_WAIT)) == 1


def test_a_holder_may_run_another_statement() -> None:
    """The report on which it works keeps the lock; what waits itself for the same table holds nothing yet."""
    scene = Scene(4)
    with scene.unit("POST /vote"):
        holder = holds(scene)
        holder.statement_begins("select * from reports")
    begins(scene, UPDATES)
    pass_time(scene, 1.0)
    (finding,) = scene.found(LOCK_WAIT)
    assert "http POST /vote, which is running another statement" in finding.summary
    scene = Scene(4)
    begins(scene, UPDATES)
    begins(scene, UPDATES)
    pass_time(scene, 1.0)
    assert scene.found(LOCK_WAIT) == []


@pytest.mark.parametrize(
    ("waits", "idle", "expected"),
    [
        ((0.55,), 0.0, LOCK_WAIT),  # seen after 0.42 s for the last time
        ((0.3, 0.3), 0.0, LOCK_WAIT),
        ((0.3,), 0.3, IDLE_IN_TRANSACTION),  # long by both
        ((0.3,), 0.1, None),
    ],
)
def test_a_hold_that_short_waits_made_long_has_a_finding(
    waits: tuple[float, ...], idle: float, expected: str | None
) -> None:
    """A wait may be over before it is seen to be long, or be one of several: the hold is examined at its end."""
    scene = Scene(4)
    holder = holds(scene)
    with scene.unit("GET /vote") as unit:
        waiter = scene.checkout()
        for seconds in waits:
            waiter.statement_begins(LOCKS)
            for _ in range(int(seconds / 0.14)):
                scene.clock.advance(0.14)
                scene.tick()
            scene.clock.advance(seconds % 0.14)
            waiter.call_ends(in_transaction=True)
        scene.clock.advance(idle)
        waiter.released()
    assert unit.findings == ({expected} if expected else set())
    assert scene.ids() == ([expected] if expected else [])
    if expected == LOCK_WAIT:
        (finding,) = scene.found()
        assert " likely waited for a row lock of table member, for " in finding.summary
        assert "; it was held by " in finding.summary
        assert finding.evidence["waited"] == pytest.approx(sum(waits), abs=0.01)
        assert finding.evidence["waiters"] == 1
        assert "statement" not in finding.evidence, "which of them waited is not known any more"
    holder.released()


def test_several_that_wait_are_one_finding_of_a_place() -> None:
    """With how many wait for the same transaction."""
    scene = Scene(4)
    holds(scene)
    for _ in range(3):
        begins(scene, LOCKS)
    pass_time(scene, 1.0)
    (finding,) = scene.found(LOCK_WAIT)
    assert finding.evidence["waiters"] == 3


def test_a_pool_of_the_same_database_counts_and_one_of_another_does_not() -> None:
    """By the server's address and the database's name; pools whose server is not known are strangers."""
    for address, expected in (("db", 1), ("elsewhere", 0), (None, 0)):
        scene = Scene(4)
        what = type(scene.pool.identity)("batch", "postgresql", "shop", address, 5432)
        other = scene.pool_registry.register(what, Source(2))
        holds(scene)
        begins(scene, UPDATES, pool=other)
        pass_time(scene, 1.0)
        assert len(scene.found(LOCK_WAIT)) == expected


@pytest.mark.parametrize(
    ("then", "expected"), [((), 1), (("select 1 from t",), 1), (("select pg_advisory_unlock(%s)",), 0)]
)
def test_a_session_level_lock_is_held_until_it_is_released(then: tuple[str, ...], expected: int) -> None:
    """Also outside of a transaction, and whatever the connection runs afterwards."""
    lock = "select pg_advisory_lock(%s)"
    scene = Scene(4)
    holder = holds(scene, lock)
    for statement in then:
        scene.query(holder, statement)
    holder.in_transaction = False
    begins(scene, lock)
    pass_time(scene, 1.0)
    assert len(scene.found(LOCK_WAIT)) == expected


def test_a_lock_of_rows_is_gone_with_its_transaction() -> None:
    """Though the connection is still held."""
    scene = Scene(4)
    holds(scene).in_transaction = False
    begins(scene, LOCKS)
    pass_time(scene, 1.0)
    assert scene.found(LOCK_WAIT) == []


def test_a_commit_that_takes_long_waits_for_no_lock() -> None:
    """The statement before it is still the last one of the connection."""
    scene = Scene(4)
    holds(scene)
    waiter = holds(scene, UPDATES, at="other")

    def commit() -> None:
        waiter.call_begins()
        pass_time(scene, 1.0)
        waiter.call_ends(in_transaction=False)

    commit()
    assert scene.found(LOCK_WAIT) == []


@pytest.mark.parametrize("fact", ["silent", "excuse"])
def test_what_is_not_to_be_watched_does_not_report(fact: str) -> None:
    """Where the application suppressed instrumentation, or declared a long hold."""
    scene = Scene(4)
    holds(scene)
    setattr(begins(scene, UPDATES), fact, "queue")
    pass_time(scene, 1.0)
    assert scene.found(LOCK_WAIT) == []


def test_a_child_process_starts_anew() -> None:
    """What the parent has reported is new to it."""
    scene = Scene(4)
    holds(scene)
    begins(scene, UPDATES)
    pass_time(scene, 1.0)
    scene.watchdog.forget()
    pass_time(scene, 0.4)
    assert len(scene.found(LOCK_WAIT)) == 2


def exhausted(scene: Scene, *released: Lease) -> Finding:
    """A request waits for a second and gives up: what is found, though leases are released just then."""
    with scene.unit("GET /about"):
        lease = scene.begin_checkout("about")
        pass_time(scene, 1.0)
        lease.failed(Outcome.TIMEOUT, "TimeoutError")
    for one in released:
        one.call_ends(in_transaction=True)
        one.released()
    (finding,) = scene.found(POOL_EXHAUSTED)
    return finding


def test_a_pool_whose_connections_wait_for_a_lock_is_exhausted_by_that() -> None:
    """The holder of the lock is part of it, and so is one that has only just begun to wait."""
    scene = Scene(4, exhaustion_threshold=0)
    with scene.unit("POST /vote"):
        holds(scene)
    with scene.unit("GET /vote"):
        waiting = [begins(scene, LOCKS), begins(scene, UPDATES)]
    pass_time(scene, 0.8)
    scene.checkout().statement_begins(UPDATES)
    finding = exhausted(scene, *waiting)
    assert (finding.evidence["cause"], finding.evidence["share"]) == (LOCK_WAIT, 1.0)
    assert (
        "; 3 of 4 connections likely wait for a row lock of table member, which is held by http POST /vote, which "
        in (finding.summary)
    )
    assert str(finding.evidence["chain"]).startswith(
        "http GET /about waits for shop -> which http GET /vote holds, whose statements likely wait for a row lock of "
        "table member -> which http POST /vote holds"
    )
    assert finding.fix == KINDS[LOCK_WAIT].fix


def test_a_pool_whose_statements_are_slow_beside_an_idle_transaction_is_held_long() -> None:
    """The same with a statement that took as long for the transaction that is idle now."""
    scene = Scene(4, exhaustion_threshold=0)
    slow = [begins(scene, UNINDEXED) for _ in range(4)]
    pass_time(scene, 1.0)
    slow[0].call_ends(in_transaction=True)
    pass_time(scene, 0.4)
    finding = exhausted(scene)
    assert (finding.evidence["cause"], finding.evidence["share"]) == (LONG_HOLD, 0.75)


def test_two_locks_are_two_parts_of_one_cause() -> None:
    """Each lease counts once."""
    scene = Scene(4, exhaustion_threshold=0)
    for number, table in enumerate(("member", "ballot")):
        with scene.unit(f"POST /{number}"):
            holds(scene, LOCKS.replace("member", table))
        begins(scene, UPDATES.replace("member", table))
    finding = exhausted(scene)
    assert (finding.evidence["cause"], finding.evidence["shares"]) == (LOCK_WAIT, [f"{LOCK_WAIT} 100%"])


def test_where_the_holder_of_the_lock_waits_for_the_pool_it_is_a_deadlock() -> None:
    """It wants a second connection, and all others wait for its lock."""
    scene = Scene(2, exhaustion_threshold=0)
    with scene.unit("POST /vote"):
        holds(scene)
        scene.begin_checkout("second")
        with scene.unit("GET /vote"):
            begins(scene, LOCKS)
        finding = exhausted(scene)
    assert (finding.evidence["cause"], finding.evidence["share"]) == (NESTED_CHECKOUT, 1.0)


def test_each_wait_is_reported_once_when_it_has_taken_as_long_as_a_long_hold() -> None:
    """Also behind one that is excused or a leak, whichever comes first; the next statement's is another wait."""
    scene = Scene(9, long_hold_threshold=0.5)
    (detector,) = [one for one in scene.watchdog.detectors if LOCK_WAIT in one.kinds]
    assert isinstance(detector, LockWaitDetector)
    scene.clock.now = 1.0
    leases = [begins(scene, UPDATES) for _ in range(4)]
    for lease in leases:
        lease.lock_wait = LockWait(1.0, 0.0, 1.0, None, None, "another process (backend 7), active")
    leases[0].excuse, leases[1].leak, leases[2].lock_wait = "queue", "overdue", None
    detector._watch.glance = lambda pools: iter(leases)  # type: ignore[method-assign]
    for moment, found in ((1.25, 0), (1.5, 1), (9.0, 0)):
        scene.clock.now = moment
        assert len(list(detector.glance([scene.pool]))) == found
    assert leases[3].lock_wait is not None
    leases[3].lock_wait.began = 8.5
    assert len(list(detector.glance([scene.pool]))) == 1
    detector.forget()
    assert detector._reported.get(leases[3]) is None


@pytest.mark.parametrize(("pending", "proven", "found"), [(True, False, 0), (True, True, 1), (False, False, 1)])
def test_what_the_server_will_say_soon_is_waited_for(pending: bool, proven: bool, found: int) -> None:
    """What it has said is not."""
    scene = Scene(9)
    (detector,) = [one for one in scene.watchdog.detectors if LOCK_WAIT in one.kinds]
    assert isinstance(detector, LockWaitDetector)
    lease = begins(scene, UPDATES)
    lease.lock_wait = LockWait(scene.clock.now, 0.0, 1.0, None, None, "another", is_proven=proven)
    scene.clock.advance(9.0)
    detector._server = Like(is_pending=pending)  # type: ignore[assignment]
    detector._watch.glance = lambda pools: iter([lease])  # type: ignore[method-assign]
    assert len(list(detector.glance([scene.pool]))) == found


@pytest.mark.parametrize(("waiters", "words"), [(1, " ms; it "), (2, " ms (2 of pool shop wait for it); it ")])
def test_how_many_wait_is_said(waiters: int, words: str) -> None:
    """Where there are several."""
    scene = Scene(9)
    lease = begins(scene, UPDATES)
    wait = LockWait(scene.clock.now, 0.0, 1.0, None, None, "another")
    lease.lock_wait = wait
    scene.clock.advance(0.25)
    finding = found_of(lease, wait, waiters, 3)
    assert f"for 250{words}" in finding.summary
    assert (finding.evidence["waiters"], finding.evidence["repeated"], finding.evidence["waited"]) == (waiters, 3, 0.25)
