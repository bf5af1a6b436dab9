"""Waits for locks to the point: for how long one was seen held, which statement is fast, who holds it in the end."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from poolscope.core.catalogue.holds import NESTED_CHECKOUT, THREAD_STARVATION
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.lock_wait import LockWait, seconds_locked
from poolscope.core.sql.locking import locks_of
from poolscope.core.sql.locks import Lock, Mode
from poolscope.detectors.diagnosis import lock_words, locks
from poolscope.detectors.diagnosis.lock_holders import SHORTEST, _taken, holding_of
from poolscope.detectors.diagnosis.lock_words import elsewhere, in_words, lock_in_words
from poolscope.detectors.diagnosis.locks import LockWatch, root_of
from poolscope.detectors.diagnosis.rules import locks as rules
from poolscope.detectors.server_probe import Answer, Blocker
from tests.support.likeness import Like
from tests.support.pools import Source
from tests.support.scene import Scene
from tests.unit.detectors.test_lock_wait import LOCKS, UNINDEXED, UPDATES, begins, holds

SHAPE = "update member set name = ? where id = ?"


#: When a statement that is looked at begins, by the clock.
START = 0.125


class Watched:
    """
    A holder and a waiter.

    Args:
        holding: What the holder ran; nothing where that is None.
        waiting: What the waiter runs.
        server: Who answers for the server.
    """

    def __init__(self, holding: str | None = LOCKS, waiting: str = UPDATES, server: Any = None) -> None:
        self.scene = Scene(4)
        self.scene.clock.now = START
        self.holder = holds(self.scene, holding, seconds=0.0) if holding is not None else None
        self.waiter = begins(self.scene, waiting)
        self.watch = LockWatch(server)

    def waits(self, moment: float) -> bool:
        """Look so many seconds after the beginning: whether the waiter's statement waits."""
        self.scene.clock.now = START + moment
        found = list(self.watch.glance([self.scene.pool]))
        assert found in ([], [self.waiter])
        return bool(found)

    def holds(self, holds: bool) -> None:
        """Whether the holder's transaction is open from now on."""
        assert self.holder is not None
        self.holder.in_transaction = holds


@pytest.mark.parametrize(("moment", "waits"), [(0.125, False), (0.25, True), (9.0, True)])
def test_a_wait_is_one_from_a_quarter_of_a_second_on(moment: float, waits: bool) -> None:
    """Of all of which a lock was held that was there before."""
    watched = Watched()
    assert watched.waits(moment) is waits
    wait = watched.waiter.lock_wait
    assert (wait is not None) is waits
    if wait is not None:
        assert (wait.began, wait.seen, wait.is_proven) == (START, START + moment, False)
        assert wait.holder is not None
        assert wait.holder() is watched.holder
        assert seconds_locked(watched.waiter) == moment


@pytest.mark.parametrize(
    ("again", "until", "waits"),
    [
        (None, 2.0, False),  # not held any more
        (1.25, 1.25, False),  # seen held for 1 of 1.25 seconds, and for none of what came between
        (1.5, 3.0, False),
        (1.5, 3.125, True),  # for all but five eighths: four fifths
    ],
)
def test_the_time_between_two_looks_counts_where_both_show_a_lock(
    again: float | None, until: float, waits: bool
) -> None:
    """Four fifths of the statement's time have to: one that runs on where no lock is held waits for something else."""
    watched = Watched()
    assert watched.waits(0.75)
    watched.holds(False)
    for eighth in range(7, int(until * 8) + 1):
        if again is not None and eighth == again * 8:
            watched.holds(True)
        assert watched.waits(eighth / 8) is (waits and eighth / 8 == until)


def test_a_lock_counts_since_it_is_held() -> None:
    """Where that was after the statement began: until then it waited for something else."""
    watched = Watched(None)
    for moment, taken, waits in ((0.09375, True, False), (0.375, False, False), (0.5, False, True)):
        watched.scene.clock.now = START + moment
        if taken:
            holds(watched.scene, seconds=0.0)
        assert watched.waits(moment) is waits


def test_the_next_statement_of_a_lease_is_another_wait() -> None:
    """What was seen of the one before says nothing of it; and the wait before it counts with it."""
    watched = Watched()
    assert watched.waits(1.0)
    watched.waiter.call_ends(in_transaction=True)
    watched.waiter.statement_begins(UPDATES)
    assert not watched.waits(1.125)
    assert watched.waits(1.5)
    wait = watched.waiter.lock_wait
    assert wait is not None
    assert (wait.began, wait.queried, watched.waiter.locked_before) == (START + 1.0, 1.0, 1.0)
    assert seconds_locked(watched.waiter) == 1.5


def test_what_an_earlier_statement_waited_for_is_no_excuse_for_a_slow_one() -> None:
    """The next one runs for long before a lock is in its way: it is slow by itself."""
    watched = Watched()
    assert watched.waits(1.0)
    watched.waiter.call_ends(in_transaction=True)
    watched.holds(False)
    watched.waiter.statement_begins(UPDATES)
    assert not watched.waits(1.5)
    watched.holds(True)
    assert not watched.waits(1.75)


@pytest.mark.parametrize("fact", ["silent", "running", "acquired_at"])
def test_what_runs_no_statement_of_a_caller_waits_for_none(fact: str) -> None:
    """A lease that is not watched, on which nothing runs, or whose caller has none yet."""
    watched = Watched()
    setattr(watched.waiter, fact, {"silent": True, "running": False, "acquired_at": None}[fact])
    assert not watched.waits(1.0)
    assert watched.waiter.lock_wait is None


def test_a_commit_is_no_wait_even_where_locks_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes after it is seen; the statement before it is still the last one."""
    watched = Watched()
    monkeypatch.setattr(locks, "_is_ending", lambda lease: lease is watched.waiter)
    assert [watched.waits(moment) for moment in (0.5, 1.0, 99.0)] == [False] * 3


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        ((), False),
        (("commit",), True),
        (("_do_rollback_",), True),
        (("wait", "do_commit"), True),
        (("execute", "commit"), False),
        (("fetch_all", "rollback"), False),
        (("view", "recover"), False),
    ],
)
def test_a_call_is_what_its_innermost_function_is(names: tuple[str, ...], ends: bool, monkeypatch: Any) -> None:
    """The end of a transaction, or a statement."""
    stack = [(Like(co_name=name), 0) for name in names]
    monkeypatch.setattr(locks, "stack_now", lambda _: stack)
    assert locks._is_ending(Like()) is ends  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "elapsed", "fast"),
    [
        (0.1, 0.25, True),
        (0.11, 0.25, False),
        (0.25, 1.0, True),
        (0.26, 1.0, False),
        (2.0, 8.0, True),
        (2.1, 8.0, False),
    ],
)
def test_a_statement_is_fast_by_what_it_took_for_the_holder(mean: float, elapsed: float, fast: bool) -> None:
    """A tenth of a second, or a quarter of the wait; or where the holder waited for a lock with it."""
    watch = LockWatch()
    holder: Any = Like(lock_wait=None, locked_before=0.0)
    holding: Any = Like(shapes={UNINDEXED}, lease=holder, mean=mean)
    assert watch._is_fast(UNINDEXED, 4.0 + elapsed, 4.0, holding) is fast
    holder.locked_before = 0.5
    assert watch._is_fast(UNINDEXED, 4.0 + elapsed, 4.0, holding)
    assert not watch._is_fast("select 1", 4.0 + elapsed, 4.0, holding)


@pytest.mark.parametrize(
    ("shape", "fast"),
    [
        ("update member set name = ? where id = ?", True),
        ('update member set name = ? where "id" = ?', True),
        ("update member set name = ? where uuid in (?)", True),
        ("update member set id = ? where name = ?", False),
        ("update member set id = ?", False),
        ("update member set name = ? where paid = ?", False),
        ("insert into member values (?)", True),
        ("replace into member values (?)", True),
        ("insert into member\nselect ?", False),
        ("truncate member", False),
    ],
)
def test_a_statement_of_one_row_is_fast_unless_it_was_slow_of_late(shape: str, fast: bool) -> None:
    """For a minute after it ran for long with no lock in its way."""
    holding: Any = Like(shapes=set())
    watch = LockWatch()
    assert watch._is_fast(shape, 100.0, 99.0, holding) is fast
    watch._remember_slow(shape, 50.0)
    for moment, known in ((109.5, False), (110.0, True), (999.0, True)):
        assert watch._is_fast(shape, moment, 99.0, holding) is (fast and known)


def test_so_many_slow_statements_are_remembered() -> None:
    """Then it begins anew."""
    watch = LockWatch()
    for number in range(locks._MOST_SLOW):
        watch._remember_slow(str(number), float(number))
    assert len(watch._slow) == locks._MOST_SLOW
    watch._remember_slow("next", 1.0)
    assert watch._slow == {"next": 1.0}


@pytest.mark.parametrize(("moment", "slow"), [(0.125, False), (0.25, True), (1.0, True)])
def test_what_runs_for_long_with_no_lock_in_its_way_is_slow(moment: float, slow: bool) -> None:
    """From a quarter of a second on; what has had one in its way is not, though that is gone."""
    watched = Watched(None)
    assert not watched.waits(moment)
    assert watched.watch._slow == ({SHAPE: START + moment} if slow else {})
    other = Watched()
    other.waits(0.125)
    other.holds(False)
    assert not other.waits(moment + 0.125)
    assert other.watch._slow == {}


def test_a_statement_that_has_only_begun_is_not_looked_at() -> None:
    """Whatever lock was in its way then: it is known to be slow where none is later."""
    watched = Watched()
    assert not watched.waits(SHORTEST / 2)
    assert not watched.watch._candidates
    watched.holds(False)
    assert not watched.waits(0.5)
    assert watched.watch._slow == {SHAPE: START + 0.5}


def waiting(holder: Any, *, runs: bool = True, began: float = 1.0) -> Any:
    """What is like a lease that waits for a lock that another one holds; for one of another process where None."""
    reference = weakref.ref(holder) if holder is not None else None
    wait = LockWait(1.0, 0.0, 1.0, None, reference, "another process")
    return Like(lock_wait=wait, running=runs, last_used=began)


def test_who_holds_the_lock_in_the_end_waits_for_none_itself() -> None:
    """As far as this process knows."""
    free: Any = Like(lock_wait=None, running=False)
    assert root_of(free) is None
    assert root_of(waiting(None)) is None
    first = waiting(free)
    assert root_of(first) is free
    second = waiting(first)
    assert root_of(second) is free
    third = waiting(second)
    assert root_of(third) is free
    over = waiting(free, runs=False)  # it has waited, and holds the lock now
    assert root_of(waiting(over)) is over
    other = waiting(free, began=2.0)  # another statement of it runs
    assert root_of(waiting(other)) is other
    outside = waiting(None)
    assert root_of(waiting(outside)) is outside
    gone = waiting(Like())
    assert root_of(gone) is None


def test_a_circle_and_a_long_chain_have_an_end() -> None:
    """The database ends the one, and nothing follows the other to where it began."""
    one, other = waiting(None), waiting(None)
    one.lock_wait.holder, other.lock_wait.holder = weakref.ref(other), weakref.ref(one)
    assert root_of(one) is other
    leases = [waiting(None)]
    while len(leases) < 30:
        leases.append(waiting(leases[-1]))
    assert root_of(leases[-1]) is leases[-1 - locks._LONGEST_CHAIN]


def probed(blocker: Any, *, sent_at: float = 0.5, known: bool = True) -> Any:
    """Who answers for the server: whom process 1 waits for."""
    blockers = {1: blocker} if blocker is not None else {}
    given: list[Answer] = [
        Answer(("postgresql", "db", 5432, "shop"), sent_at, frozenset({1} if known else ()), blockers)
    ]
    return Like(answers=lambda: [given.pop()] if given else [], send=lambda *_: None)


NEXT = Blocker(2, "active", 1.0, "", False)
OUTSIDE = Blocker(99, "active", 1.0, "nightly", False)


@pytest.mark.parametrize(
    ("blocker", "change", "said"),
    [
        (NEXT, {}, "holder"),
        (OUTSIDE, {}, "another process (application nightly, backend 99), active for 1.0 s"),
        (NEXT, {"sent_at": START}, "holder"),  # of the moment at which it began
        (NEXT, {"sent_at": START - 0.0625}, None),
        (NEXT, {"known": False}, None),
        (None, {}, None),
    ],
)
def test_the_servers_word_is_of_the_statement_that_ran_then(blocker: Any, change: Any, said: str | None) -> None:
    """It is entered into the lease, with the holder where that is of this process."""
    watched = Watched(UNINDEXED.replace("member", "other"), UNINDEXED, probed(blocker, **change))
    assert watched.holder is not None
    watched.holder.backend_process_id, watched.waiter.backend_process_id = 2, 1
    assert watched.waits(1.0) is (said is not None)
    wait = watched.waiter.lock_wait
    assert (wait is not None) is (said is not None)
    if wait is not None:
        assert (wait.is_proven, wait.began, wait.is_elsewhere) == (True, START, said != "holder")
        assert (wait.holder() if wait.holder is not None else None) is (watched.holder if said == "holder" else None)
        assert wait.blocker == (said if said != "holder" else in_words(watched.holder))
        assert wait.wanted == Lock(Mode.ROWS, ("member",))
        assert watched.waits(2.0)
        assert wait.seen == START + 2.0
        watched.waiter.call_ends(in_transaction=True)
        watched.waiter.statement_begins(UNINDEXED)
        assert not watched.waits(3.0)
        assert wait.seen == START + 2.0


def test_what_waits_for_none_by_the_servers_word_waits_for_none() -> None:
    """Though it was seen to; what an earlier statement waited for stays known."""
    watched = Watched(server=None)
    watched.waiter.backend_process_id = 1
    assert watched.waits(1.0)
    watched.watch._server = probed(None, sent_at=1.0)
    assert not watched.waits(2.0)
    assert watched.waiter.lock_wait is None
    assert not watched.waits(99.0)
    watched.waiter.lock_wait = earlier = LockWait(-1.0, 0.0, 0.0, None, None, "")
    watched.watch._server = probed(None, sent_at=99.0)
    assert not watched.waits(100.0)
    assert watched.waiter.lock_wait is earlier


def test_a_statement_that_has_ended_has_no_answer() -> None:
    """Nor one of a backend that is not known."""
    for change in ({"running": False}, {"backend_process_id": None}):
        watched = Watched(None, UNINDEXED, probed(OUTSIDE))
        watched.waiter.backend_process_id = 1
        for name, value in change.items():
            setattr(watched.waiter, name, value)
        assert not watched.waits(1.0)
        assert watched.waiter.lock_wait is None


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"in_transaction": False}, False),
        ({"in_transaction": False, "kept": Like(may_lock=True)}, True),
        ({"in_transaction": False, "kept": Like(may_lock=False)}, False),
        ({"kept": Like(may_lock=False)}, True),
        ({"ended_at": 1.0}, False),
        ({"ended_at": 1.0, "kept": Like(may_lock=True)}, False),
    ],
)
def test_a_wait_that_the_server_said_goes_on_while_its_holder_may_hold(change: dict[str, Any], holds: bool) -> None:
    """Within its transaction, or for as long as its session may have a lock; then it is likely at the most."""
    holder = Like(**{"ended_at": None, "in_transaction": True, "kept": None, **change})
    lease = waiting(holder)
    lease.pool = Like(now=lambda: 7.0)
    assert not locks._goes_on(lease)  # not by the server's word
    lease.lock_wait.is_proven = True
    assert locks._goes_on(lease) is holds
    assert (lease.lock_wait.is_proven, lease.lock_wait.seen) == (holds, 7.0 if holds else 1.0)
    lease.lock_wait.is_proven, lease.lock_wait.holder = True, None
    assert locks._goes_on(lease)
    lease.running = False
    assert not locks._goes_on(lease)
    lease.lock_wait = None
    assert not locks._goes_on(lease)


def test_a_holder_that_is_gone_holds_nothing() -> None:
    """Its lease was dropped without a trace."""
    lease = waiting(Like())
    lease.lock_wait.is_proven = True
    assert not locks._goes_on(lease)
    assert not lease.lock_wait.is_proven


@pytest.mark.parametrize(("moment", "asked"), [(0.125, False), (0.25, True), (5.0, True)])
def test_the_server_knows_of_what_runs_for_a_quarter_of_a_second(moment: float, asked: bool) -> None:
    """And may wait for a lock that it lists: with the processes that are known, for each database by itself."""
    sent: list[Any] = []
    server = Like(answers=list, send=lambda *given: sent.append(given))
    watched = Watched(None, UPDATES, server)
    watched.waiter.backend_process_id = 5
    begins(watched.scene, UPDATES)
    begins(watched.scene, "select * from member").backend_process_id = 6
    begins(watched.scene, UPDATES + " and x").backend_process_id = 7
    idle = holds(watched.scene, UPDATES, seconds=0.0)
    idle.backend_process_id = 8
    watched.scene.clock.now = START + moment
    list(watched.watch.glance([watched.scene.pool]))
    assert sent == [(watched.scene.pool, ("postgresql", "db", 5432, "shop"), {5, 7})] * asked


def test_a_server_gets_no_question_of_what_it_has_no_list_of() -> None:
    """MySQL knows who waits for rows, and not who waits for a table."""
    sent: list[Any] = []
    server: Any = Like(send=lambda *given: sent.append(given))
    scene = Scene(4, "mysql")
    for statement, asked in (("truncate member", 0), ("select get_lock('a', 10)", 0), (UPDATES, 1)):
        lease = begins(scene, statement)
        scene.clock.advance(1.0)
        locks._question(server, [lease])
        assert len(sent) == asked


def test_pools_of_one_database_share_its_locks() -> None:
    """By the server's address and the database's name; a pool whose server is not known is by itself."""
    scene = Scene()
    what = scene.pool.identity
    kind = type(what)
    same = scene.pool_registry.register(kind("batch", what.system, what.namespace, what.address, what.port), Source(2))
    assert locks._database_of(same) == locks._database_of(scene.pool)
    for system, namespace, address, port in (
        ("mysql", "shop", "db", 5432), ("postgresql", "other", "db", 5432), ("postgresql", "shop", "elsewhere", 5432),
        ("postgresql", "shop", "db", 5433), ("postgresql", "shop", None, 5432), ("postgresql", "shop", None, 5432),
    ):  # fmt: skip
        other = scene.pool_registry.register(kind("batch", system, namespace, address, port), Source(2))
        assert locks._database_of(other) != locks._database_of(scene.pool)
        assert (locks._database_of(other) == id(other)) is (address is None)


def test_what_changes_while_it_is_looked_at_wants_nothing() -> None:
    """The lease's thread goes on meanwhile."""
    scene = Scene(4)
    lease = begins(scene, UPDATES)
    assert [lock.mode for lock in locks._still_wants(lease)] == [Mode.ROWS]
    lease.call_ends(in_transaction=True)
    assert locks._still_wants(lease) == []
    lease.statement_begins(LOCKS + " nowait")
    assert locks._still_wants(lease) == []
    fresh: Any = Like(running=True, last_used=1.0, statement=None, pool=scene.pool)
    assert locks._still_wants(fresh) == []

    class Moves:
        """What is like a lease that goes on between two looks at one of its attributes."""

        def __init__(self, name: str, *values: Any) -> None:
            given: dict[str, list[Any]] = {
                "running": [True],
                "last_used": [1.0],
                "statement": [UPDATES],
                name: list(values),
            }
            self.given, self.pool = given, scene.pool

        def __getattr__(self, name: str) -> Any:
            values = self.given[name]
            return values.pop(0) if len(values) > 1 else values[0]

    another: Any = Moves("statement", UPDATES, LOCKS)
    assert locks._still_wants(another) == []
    later: Any = Moves("last_used", 1.0, 2.0)
    assert locks._still_wants(later) == []
    nothing: Any = Moves("last_used", 1.0)
    assert len(locks._still_wants(nothing)) == 1


def test_of_what_a_statement_wants_the_first_lock_that_waits_counts() -> None:
    """Not what it reads, nor what it takes only where it gets it at once."""
    scene = Scene(4)
    for statement, wanted in (
        (UPDATES, Lock(Mode.ROWS, ("member",))),
        ("select * from member", None),
        (LOCKS + " skip locked", None),
        ("insert into member select * from archive", Lock(Mode.NEW_ROWS, ("member",))),
    ):
        assert locks._wanted_by(begins(scene, statement)) == wanted
    assert locks._wanted_by(scene.checkout()) is None


def test_holders_are_in_the_order_of_their_locks() -> None:
    """Who has had one for longest is first; who has none is not among them."""
    scene = Scene(4)
    late = scene.checkout()
    early = holds(scene, LOCKS)
    scene.clock.advance(1.0)
    scene.query(late, LOCKS)
    scene.checkout()
    assert [one.lease for one in locks._holdings([late, early, *scene.pool.leases - {late, early}])] == [early, late]


@pytest.mark.parametrize(
    ("statements", "running", "since"),
    [
        ((LOCKS,), False, 3.0),  # the last statement took it
        ((LOCKS, "select 1"), False, 1.0),  # one before did, of which the moment is not known
        ((LOCKS,), True, 1.0),
        (("select 1", LOCKS), False, 3.0),
        (("abort_all()", "with a as (select 1) " + UPDATES, "delete from news"), False, 3.0),
        ((UPDATES, "abort_all()"), False, 1.0),
    ],
)
def test_a_lock_is_held_since_the_last_statement_or_since_the_checkout(
    statements: tuple[str, ...], running: bool, since: float
) -> None:
    """At the latest, or at the earliest where that is not known."""
    scene = Scene(4)
    with scene.unit():
        scene.clock.now = 1.0
        lease = scene.checkout()
        scene.clock.now = 2.0
        for statement in statements:
            scene.query(lease, statement)
        scene.clock.now = 3.0
        lease.call_begins()
        lease.call_ends(in_transaction=True)
        if running:
            lease.statement_begins("select * from reports")
        holding = holding_of(lease, 3.0)
        assert holding is not None
        assert (holding.lease, holding.since) == (lease, since)


def test_a_holding_says_how_long_its_statements_took() -> None:
    """On average; of one that ran none, all there is."""
    scene = Scene(4)
    lease = scene.checkout()
    for seconds, mean in ((1.0, 1.0), (2.0, 1.5), (6.0, 3.0)):
        scene.query(lease, LOCKS, seconds=seconds)
        holding = holding_of(lease, scene.clock.now)
        assert holding is not None
        assert holding.mean == mean
    assert holding is not None
    assert holding.shapes == {"select name from member where id = ? for update"}


@pytest.mark.parametrize(("times", "holds_it"), [(0.5, True), (1.0, False), (9.0, False)])
def test_who_wants_a_lock_itself_is_no_holder_of_it(times: float, holds_it: bool) -> None:
    """From the shortest wait on; until then its statement may be done at once."""
    scene = Scene(4)
    with scene.unit():
        scene.clock.now = 0.0
        lease = holds(scene, LOCKS, seconds=0.0)
        lease.statement_begins(UPDATES)
        assert (holding_of(lease, times * SHORTEST) is not None) is holds_it
        lease.call_ends(in_transaction=True)
        lease.statement_begins("select * from reports")
        assert holding_of(lease, times * SHORTEST) is not None
        lease.call_ends(in_transaction=True)
        lease.statement_begins("".join(list(LOCKS)))
        assert holding_of(lease, 9.0) is None  # all that it ran it runs now


def test_a_session_keeps_its_lock_and_a_transaction_its_own() -> None:
    """Each as long as it lasts; what was run only once for many units of work counts by itself."""
    scene = Scene(4)
    lease = holds(scene, "select pg_advisory_lock(7)")
    scene.query(lease, LOCKS)

    def modes() -> set[Mode]:
        holding = holding_of(lease, scene.clock.now)
        return {lock.mode for lock in holding.locks} if holding is not None else set()

    assert modes() >= {Mode.SESSION, Mode.ROWS}
    lease.in_transaction = False
    assert modes() == {Mode.SESSION}
    lease.in_transaction = True
    scene.query(lease, "select pg_advisory_unlock(7)")
    assert Mode.SESSION not in modes()


def test_a_definition_commits_but_for_one_that_locks() -> None:
    """Where definitions commit at all."""
    for statement, systems in (
        ("truncate member", {"postgresql", "sqlite"}),
        ("  lock tables member write", {"mysql", "mariadb"}),
        ("update member set a = 1", {"mysql", "mariadb", "postgresql", "sqlite", "oracle.db"}),
    ):
        for system in systems:
            assert tuple(_taken(statement, system)) == tuple(locks_of(statement, system))
            assert locks_of(statement, system)
    for system in ("mysql", "mariadb", "oracle.db"):
        assert [lock for lock in _taken("truncate member", system) if lock.mode is Mode.TABLE] == []


def test_a_holder_is_described_by_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """For how long it does nothing, and where it is."""
    scene = Scene(4)
    with scene.unit("POST /vote"):
        lease = holds(scene, LOCKS)
    stack: list[Any] = []
    monkeypatch.setattr(lock_words, "current_stack", lambda _, depth: tuple(stack)[:depth])
    scene.clock.advance(3.0)
    assert in_words(lease) == "http POST /vote, which has been idle in its transaction for 3.0 s"
    lease.in_transaction = False
    assert in_words(lease) == "http POST /vote, which has been idle for 3.0 s"
    scene.clock.advance(-9.0)
    assert in_words(lease) == "http POST /vote, which has been idle for 0 ms"
    lease.call_begins()
    assert in_words(lease) == "http POST /vote, which is running another statement"
    stack += [(compile("", "/application/view.py", "exec"), 0)] * 2
    assert ", currently executing /application/view.py:" in in_words(lease)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Blocker(0, "", 0.0, "", False), "a prepared transaction"),
        (Blocker(9, "", 0.0, "", False), "another process (backend 9)"),
        (Blocker(9, "active", 2.0, "", False), "another process (backend 9), active for 2.0 s"),
        (Blocker(9, "", 2.0, "nightly", False), "another process (application nightly, backend 9)"),
    ],
)
def test_another_process_is_described_as_far_as_the_server_says(said: Blocker, words: str) -> None:
    """With its number, at least."""
    assert elsewhere(said) == words


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        (None, "a lock"),
        (Lock(Mode.READ, ("member",)), "table member"),
        (Lock(Mode.ROWS, ("member", "a")), "a row lock of table a.member"),
        (Lock(Mode.ADVISORY, ("7",)), "an advisory lock"),
        (Lock(Mode.SESSION, ()), "a session-level advisory lock"),
    ],
)
def test_a_lock_has_its_table(lock: Lock | None, words: str) -> None:
    """Where it is of one."""
    assert lock_in_words(LockWait(1.0, 0.0, 1.0, lock, None, ""), "postgresql") == words


@pytest.mark.parametrize(
    ("change", "waited"),
    [
        ({}, True),
        ({"running_for": 2.25}, True),
        ({"running_for": 1.75}, True),
        ({"running_for": 2.375}, False),
        ({"running_for": 1.625}, False),
        ({"running_for": 0.0}, False),
        ({"phase": "idle_in_transaction"}, False),
    ],
)
def test_a_picture_shows_a_wait_where_the_statement_is_the_one_that_waited(
    change: dict[str, Any], waited: bool
) -> None:
    """By the moment at which it began, but for a quarter of a second."""
    held: Any = Like(lease=waiting(None), **{"phase": "query", "running_for": 2.0, **change})
    assert rules._waited(held, 3.0) is waited
    held.lease.lock_wait = None
    assert not rules._waited(held, 3.0)


def test_the_next_holder_of_a_lock_is_one_that_waited_for_the_same() -> None:
    """And is idle in its transaction; or the lease that holds it."""
    before, want, same, other = (Lock(Mode.ROWS, (table,)) for table in ("a", "member", "member", "news"))

    def held(wanted: Lock | None, phase: str = "idle_in_transaction") -> Any:
        return Like(phase=phase, lease=Like(lock_wait=LockWait(1.0, 0.0, 1.0, wanted, None, "")))

    waits = [held(want, "query")]
    assert rules._holds(held(same), None, waits)
    for one in (held(other), held(before), held(want, "idle"), held(want, "query")):
        assert not rules._holds(one, None, waits)
        assert rules._holds(one, one.lease, waits)
    none = held(want)
    none.lease.lock_wait = None
    assert not rules._holds(none, None, waits)
    assert not rules._holds(held(want), None, [none])


def test_those_that_wait_for_one_lock_are_of_one_group() -> None:
    """By the lock; where only the server knows that, by who holds it."""
    want = Lock(Mode.ROWS, ("member",))
    lease: Any = Like(lock_wait=LockWait(1.0, 0.0, 1.0, want, None, "another process"))
    assert rules._lock_of(lease) == want
    lease.lock_wait.wanted = None
    assert rules._lock_of(lease) == "another process"
    lease.lock_wait = None
    assert rules._lock_of(lease) == ""


def test_the_largest_group_of_waiters_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with those that run the same statement, and the holders of its lock; a lease counts once."""

    def held(name: str, wanted: Lock | None, phase: str = "query") -> Any:
        wait = LockWait(1.0, 0.0, 1.0, wanted, None, "") if wanted is not None else None
        return Like(name=name, phase=phase, running_for=1.0, lease=Like(lock_wait=wait, name=name))

    few, many = Lock(Mode.ROWS, ("few",)), Lock(Mode.ROWS, ("many",))
    leases = [
        held("a", few), held("b", many), held("a", many), held("b", None), held("a", None), held("c", None),
        held("a", None, "idle"), held("d", many, "idle_in_transaction"), held("b", many, "idle_in_transaction"),
    ]  # fmt: skip
    monkeypatch.setattr(rules, "statement_of", lambda lease: lease.name)
    monkeypatch.setattr(
        rules, "_explained", lambda picture, waiting, held, holders: (len(waiting), list(held), list(holders))
    )
    found: Any = list(rules.lock_waits(Like(totals=Like(moment=2.0)), leases))  # type: ignore[arg-type]
    assert found == [(2, leases[1:5], leases[7:9]), (1, leases[:1], [])]


def test_a_lock_is_described_by_the_first_that_waits_for_it() -> None:
    """With what its holder executes, as the picture has it or as it was seen; the cause is what that waits for."""
    waiting = [
        Like(
            lease=Like(lock_wait=LockWait(1.0, 0.0, 1.0, Lock(Mode.ROWS, (table,)), None, "request a, idle"), unit=None)
        )
        for table in ("first", "second")
    ]
    place: Any = ((compile("", "/application/view.py", "exec"), 0),)
    picture: Any = Like(capacity=5, pool=Like(identity=Like(system="postgresql")))

    def holder(stack: Any = (), *, nested: bool = False, queues: Any = ()) -> Any:
        return Like(stack=stack, nested=nested, queues=queues)

    def explained(*holders: Any) -> Any:
        return rules._explained(picture, waiting, waiting, holders)  # type: ignore[arg-type]

    found = explained()
    assert found.summary == (
        "2 of 5 connections likely wait for a row lock of table first, which is held by request a, idle"
    )
    assert found.chain[1] == "which request a holds"
    assert (found.cause, found.root, found.held, found.case) == (LOCK_WAIT, (), tuple(waiting), "")
    idle, executes = holder(), holder(place)
    found = explained(idle, executes)
    assert (found.root, found.held) == (place, (*waiting, idle, executes))
    assert found.chain[1].startswith("which request a holds, and executes /application/view.py:")
    waiting[0].lease.lock_wait.executing = place
    assert explained(idle).root == place
    assert explained(holder(nested=True), holder(queues=("crew",))).cause == NESTED_CHECKOUT
    assert explained(holder(queues=("crew",))).cause == THREAD_STARVATION
    waiting[0].lease.lock_wait.is_proven = True
    found = explained()
    assert "connections wait for a row lock" in found.summary
    assert found.case == "elsewhere"
