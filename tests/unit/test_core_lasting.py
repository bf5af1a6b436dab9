"""What statements leave on their connection: locks and subscriptions, told from the statements that leave nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from poolscope.core.sql.fingerprint import LONGEST
from poolscope.core.sql.lasting import KIND_OF_STATEMENT, Kept, Lasting, kind_of
from tests.support.scene import Scene

if TYPE_CHECKING:
    from poolscope.core.lease import Lease


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("select * from t", True),
        ("begin", False),
        ("select pg_advisory_lock(1)", Lasting(query=True, locks=1)),
        ("SELECT PG_ADVISORY_LOCK_SHARED($1, $2) AS x", Lasting(query=True, locks=1)),
        ("/* job */ select pg_advisory_lock(hashtext('a')), pg_advisory_lock (2)", Lasting(query=True, locks=2)),
        ("SELECT pg_advisory_lock(%(pg_advisory_lock_2)s) AS pg_advisory_lock_1", Lasting(query=True, locks=1)),
        ("select pg_advisory_lock(id) from jobs where ready", Lasting(query=True, tries=1)),
        ("select pg_try_advisory_lock(%s)", Lasting(query=True, tries=1)),
        ("SELECT GET_LOCK('nightly', 10)", Lasting(query=True, tries=1)),
        ("select pg_advisory_unlock(1)", Lasting(query=True, unlocks=1)),
        ("do release_lock('nightly')", Lasting(query=True, unlocks=1)),
        ("select pg_advisory_unlock(id) from jobs where done", Lasting(query=True, unlocks_all=True)),
        ("select case when %s then pg_advisory_unlock(1) end", Lasting(query=True, unlocks_all=True)),
        ("select pg_advisory_unlock_all()", Lasting(query=True, unlocks_all=True)),
        ("select pg_advisory_lock(id) from jobs; select pg_advisory_unlock_all()", Lasting(True, 0, 1, 0, True)),
        ("with a as (select 1) select pg_advisory_lock(1), pg_try_advisory_lock(2)", Lasting(query=True, tries=2)),
        ("select release_all_locks()", Lasting(query=True, unlocks_all=True)),
        ("discard all", Lasting(query=False, unlocks_all=True, unlistens_all=True)),
        ('LISTEN "news"', Lasting(query=False, listens=1)),
        ("listen a; listen b", Lasting(query=False, listens=2)),
        ("unlisten a", Lasting(query=False, unlistens=1)),
        ("UNLISTEN *", Lasting(query=False, unlistens_all=True)),
        ("START_REPLICATION SLOT s LOGICAL 0/0", Lasting(query=False, listens=1)),
        # These end with their transaction, are part of a text, or something else.
        ("select pg_advisory_xact_lock(1)", True),
        ("select pg_try_advisory_xact_lock(1)", True),
        ("select 1 -- pg_advisory_lock(1)", True),
        ("insert into log values ('select pg_advisory_lock(1)')", True),
        ("select * from pg_locks where locktype = 'advisory_'", True),
        ("select app.get_lock(1)", True),
        ("select release_date from films", True),
        ("select * from listen", True),
        ("set application_name = 'listen'", False),
        ("notify news, 'listen'", True),
    ],
)
def test_what_a_statement_leaves(statement: str, kind: object) -> None:
    """By its text, found once and remembered."""
    assert kind_of(statement) == kind
    assert KIND_OF_STATEMENT[statement] == kind


def test_what_is_remembered_has_an_end() -> None:
    """Texts that are different each time, and texts without end, do not fill the memory."""
    filler = "x" * (LONGEST - 100)
    for number in range(300):
        kind_of(f"select {number} from {filler}")
    assert sum(map(len, KIND_OF_STATEMENT)) < 3_000_000
    endless = "select " + "1, " * LONGEST
    assert kind_of(endless) is True
    assert endless not in KIND_OF_STATEMENT


@pytest.mark.parametrize(
    "statement",
    ["select pg_advisory_lock" + "(" * 9_000, "listen " * 9_000, "advisory_" * 90_000],
    ids=["brackets", "listen", "advisory"],
)
def test_no_text_takes_long(statement: str) -> None:
    """Nothing makes the patterns try everything in every way."""
    began = time.thread_time()
    kind_of(statement)
    assert time.thread_time() - began < 2.0


def kept(*statements: str) -> tuple[int, int, int, int]:
    """What a lease has after these: locks, tried ones, unlocks that it cannot have had, channels."""
    scene = Scene()
    lease = scene.checkout()
    for statement in statements:
        scene.query(lease, statement)
    found = lease.kept
    return (found.locks, found.tries, found.strange_unlocks, found.channels) if found is not None else (0, 0, 0, 0)


LOCK, TRY, UNLOCK = "select pg_advisory_lock(1)", "select pg_try_advisory_lock(1)", "select pg_advisory_unlock(1)"
UNLOCK_EACH = "select pg_advisory_unlock(key) from unnest(array[1, 2]) as key"


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["select 1"], (0, 0, 0, 0)),
        ([LOCK], (1, 0, 0, 0)),
        ([LOCK, LOCK, UNLOCK], (1, 0, 0, 0)),
        ([LOCK, TRY], (1, 1, 0, 0)),
        ([LOCK, TRY, UNLOCK], (1, 0, 0, 0)),
        ([LOCK, TRY, UNLOCK, UNLOCK, UNLOCK], (0, 0, 1, 0)),
        ([LOCK, "select 1", UNLOCK], (0, 0, 0, 0)),
        ([LOCK, "select pg_advisory_unlock_all()"], (0, 0, 0, 0)),
        ([TRY], (0, 1, 0, 0)),
        ([TRY, UNLOCK], (0, 0, 0, 0)),
        ([UNLOCK], (0, 0, 1, 0)),
        ([LOCK, LOCK, UNLOCK_EACH], (0, 0, 0, 0)),
        ([UNLOCK_EACH], (0, 0, 0, 0)),
        (["listen a", "listen b", "unlisten a"], (0, 0, 0, 1)),
        (["listen a", "listen b", "listen c", "unlisten a"], (0, 0, 0, 2)),
        (["listen a", "listen b", "unlisten *"], (0, 0, 0, 0)),
        (["unlisten *", "unlisten a"], (0, 0, 0, 0)),
        (["listen a", "discard all"], (0, 0, 0, 0)),
        (["listen a", "listen b", "unlisten *; listen c"], (0, 0, 0, 1)),
    ],
)
def test_what_a_lease_keeps(statements: list[str], expected: tuple[int, ...]) -> None:
    """The sum of what its statements leave."""
    assert kept(*statements) == expected


@pytest.mark.parametrize(
    ("statements", "may_lock"),
    [([LOCK], True), ([TRY], True), ([LOCK, TRY], True), ([LOCK, UNLOCK], False), (["listen a"], False)],
)
def test_a_lease_may_hold_a_lock_from_the_first_one_on(statements: list[str], may_lock: bool) -> None:
    """That it has for certain, or that it tried for; until it releases as many."""
    scene = Scene()
    lease = scene.checkout()
    for statement in statements:
        scene.query(lease, statement)
    assert lease.kept is not None
    assert lease.kept.may_lock is may_lock


def test_what_took_a_lock_is_remembered() -> None:
    """The last statement that did, or may have; not one that released it, nor one that subscribed."""
    scene = Scene()
    lease = scene.checkout()
    for statement, last in ((LOCK, LOCK), (UNLOCK, LOCK), ("listen a", LOCK), (TRY, TRY), (UNLOCK, TRY), (LOCK, LOCK)):
        scene.query(lease, statement)
        assert lease.kept is not None
        assert lease.kept.statement == last


def test_the_time_of_subscriptions_adds_up() -> None:
    """While there is any channel; not between two of them, and never less than before, whatever the clock says."""
    kept, listens, unlistens = Kept(), Lasting(query=False, listens=1), Lasting(query=False, unlistens=1)
    assert kept.listening(5.0) == 0.0
    kept.ran("listen a", listens, 10.0)
    assert [kept.listening(now) for now in (9.0, 10.0, 13.0)] == [0.0, 0.0, 3.0]
    kept.ran("listen b", listens, 14.0)
    kept.ran("unlisten a", unlistens, 15.0)
    assert kept.listening(17.0) == 7.0
    kept.ran("unlisten b", unlistens, 18.0)
    assert kept.listening(30.0) == 8.0
    kept.ran("listen a", listens, 40.0)
    assert kept.listening(41.0) == 9.0


def fail(scene: Scene, lease: Lease, statement: str) -> None:
    """A statement raises: the hook ends the call on the way of the exception."""
    lease.statement_begins(statement)
    try:
        raise TimeoutError
    finally:
        lease.call_ends(in_transaction=True)


def test_a_statement_that_failed_leaves_nothing() -> None:
    """
    Neither lock nor subscription: the lock was not had in time. The calls that follow are as ever, also while the
    application handles an error.
    """
    scene = Scene()
    lease = scene.checkout()
    with pytest.raises(TimeoutError):
        fail(scene, lease, LOCK)
    assert (lease.kept, lease.running, lease.queries, lease.noted) == (None, False, 1, False)
    try:
        int("none")
    except ValueError:
        scene.query(lease, LOCK)
    assert lease.kept is not None
    assert (lease.kept.locks, lease.queries, lease.noted) == (1, 2, True)
    assert "call_ends" not in vars(lease)


def test_two_threads_that_share_a_connection_may_end_a_call_at_once() -> None:
    """Both have found how this one call ends; neither fails by what the other does, and the lock counts once."""
    lease = Scene().checkout()
    lease.statement_begins(LOCK)
    ends, ends_too = lease.call_ends, lease.call_ends
    ends(in_transaction=False)
    ends_too(in_transaction=False)
    assert lease.kept is not None
    assert (lease.running, lease.kept.locks) == (False, 1)


def test_a_listen_is_no_query() -> None:
    """It is not counted, and is not the last statement; a lock's is."""
    scene = Scene()
    lease = scene.checkout()
    scene.query(lease, "listen a")
    assert (lease.queries, lease.statement, lease.listens, lease.noted) == (0, None, True, False)
    lease.statement_begins_below(LOCK)
    lease.call_ends(in_transaction=True)
    assert (lease.queries, lease.statement) == (1, LOCK)
