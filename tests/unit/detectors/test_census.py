"""Who has how many connections to one server, to the point: which pools are of it, how they are named and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.pool_identity import Identity
from poolscope.detectors.diagnosis import census
from poolscope.detectors.diagnosis.census import Share, Use
from tests.support.likeness import Like
from tests.support.pools import Source
from tests.support.scene import Scene

KIND = KINDS[TOO_MANY_CONNECTIONS]


@pytest.mark.parametrize(
    ("system", "address", "port", "same"),
    [
        ("postgresql", "db", 5432, True),
        ("postgresql", None, 5432, True),  # not known: it may be
        ("postgresql", None, None, True),
        ("postgresql", "db", 5433, False),
        ("postgresql", "db", None, False),
        ("postgresql", "elsewhere", 5432, False),
        ("mysql", "db", 5432, False),
        ("mysql", None, 5432, False),
    ],
)
def test_pools_are_of_one_server_as_far_as_they_say(system: str, address: str | None, port: Any, same: bool) -> None:
    """By its kind, address and port; whichever of the two is asked about."""
    one: Any = Like(identity=Identity("shop", "postgresql", "shop", "db", 5432))
    other: Any = Like(identity=Identity("batch", system, "other", address, port))
    assert census._is_same_server(one, other) is same
    assert census._is_same_server(other, one) is same


def test_the_pool_with_most_connections_comes_first() -> None:
    """Each once, without those that have none; with what is checked out and what is idle."""
    scene = Scene(9)
    pools = [
        scene.pool_registry.register(Identity(name, "postgresql", name, "db", 5432), Source(9, idle=idle))
        for name, idle in (("few", 1), ("none", 0), ("many", 3))
    ]
    leases = [pools[0].checkout() for _ in range(2)]
    for lease in leases:
        lease.acquired()
    own = scene.checkout()
    scene.clock.advance(2.0)
    own.statement_begins("select 1")
    leases[0].in_transaction = True
    found = census.census_of(scene.pool, [scene.pool, *pools])
    assert [(share.pool.identity.name, share.open, share.idle) for share in found] == [
        ("few", 3, 1), ("many", 3, 3), ("shop", 1, 0),
    ]  # fmt: skip
    assert census.opened(found) == 7
    assert {(use.lease, use.phase, use.unused) for use in found[0].uses} == {
        (leases[0], "idle_in_transaction", 2.0), (leases[1], "idle", 2.0),
    }  # fmt: skip
    assert [(use.phase, use.unused) for use in found[2].uses] == [("query", 0.0)]
    leases[0]._mark = scene.clock.now + 9.0
    assert min(use.unused for use in census._uses(pools[0])) == 0.0


def use(unit: Any = None, *, phase: str = "idle", unused: float = 0.0, origin: Any = (), thread: int = 1) -> Use:
    """A lease of a thread at the moment."""
    lease: Any = Like(unit=unit, thread=thread, task=None, thread_reference=lambda: True, origin=origin, adopted=False)
    return Use(lease, phase, unused)


def share(name: str, *uses: Use, idle: int = 0, **identity: Any) -> Share:
    """The connections of one pool."""
    given = {"name": name, "namespace": "shop", "address": "db", **identity}
    return Share(Like(identity=Like(**given), closed_by=""), idle, uses)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unit", "threads", "holder"),
    [
        (None, {1: "worker"}, "thread worker"),
        (None, {1: "worker-12"}, "threads worker-*"),
        ("apart", {1: "worker-12"}, "http GET / in threads worker-*"),
        ("apart", {}, "http GET /"),
        ("same", {1: "worker-12"}, "http GET /"),
    ],
)
def test_threads_of_one_pool_of_threads_are_one_holder(unit: str | None, threads: dict[int, str], holder: str) -> None:
    """Beside the unit of work where that does not end with them."""
    known: Any = None
    if unit is not None:
        known = type("Unit", (Like,), {"__str__": lambda _: "http GET /"})(
            ended=False, kind="http", thread=2 if unit == "apart" else 1
        )
    assert census._holder(use(known).lease, threads) == holder


def test_a_task_or_a_thread_that_is_gone_has_no_name_of_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called what it is."""
    monkeypatch.setattr(census, "owner_of", lambda lease, threads: f"owner of {len(threads)}")
    for changes in ({"task": object()}, {"thread_reference": lambda: None}):
        lease: Any = use().lease
        for name, value in changes.items():
            setattr(lease, name, value)
        assert census._holder(lease, {1: "worker"}) == "owner of 0"
    assert census._holder(use().lease, {}) == "owner of 0"


@pytest.mark.parametrize(
    ("uses", "words"),
    [
        ([("idle", 0.0)], "1 idle"),
        ([("idle", 0.25), ("idle", 2.0)], "2 idle, unused for up to 2.0 s"),
        ([("idle", 0.5), ("query", 0.0), ("query", 0.0)], "2 running a query, 1 idle, unused for up to 500 ms"),
    ],
)
def test_what_connections_do_is_said_the_most_frequent_first(uses: list[tuple[str, float]], words: str) -> None:
    """And for how long the longest unused one is."""
    assert census._doing([use(phase=phase, unused=unused) for phase, unused in uses]) == words


def test_places_are_the_most_frequent_first_and_then_what_is_idle() -> None:
    """By pool, line and holder; of several pools the idle ones are counted together."""
    at: Any = ((compile("", "/application/view.py", "exec"), 0),)
    one = share("one", use(origin=at), *[use(origin=at, thread=2)] * 2, idle=2)
    two = share("two", use(origin=at))
    threads = {1: "a", 2: "b"}
    place = "/application/view.py"
    lines = census._places([one, two], threads)
    assert [line.partition(" in ")[0].partition(":")[0] for line in lines[:3]] == [
        f"2 of one checked out at {place}", f"1 of one checked out at {place}", f"1 of two checked out at {place}",
    ]  # fmt: skip
    assert lines[3:] == ["2 of one idle in the pool"]
    assert lines[0].endswith(" by thread b: 2 idle")
    assert census._places([one, share("two", idle=3)], threads)[-1] == "5 idle in 2 pools"
    assert census._places([share("two", use(origin=at))], threads) == [lines[2]]


@pytest.mark.parametrize(
    ("pools", "fix"),
    [
        ([("a", "db"), ("a", "db"), ("a", "db")], "pools"),
        ([("a", "db"), ("a", "db"), ("b", "db")], "role"),
        ([("a", "db")] * 3 + [("b", "db")] * 3, "pools"),
        ([("a", "db")] * 3 + [("b", "db")] * 2 + [("c", "db")] * 2, "role"),
        ([("a", "db"), ("a", "db"), ("a", "elsewhere")], "role"),
        ([], "role"),
    ],
)
def test_many_pools_of_one_database_are_too_many(pools: list[tuple[str, str]], fix: str) -> None:
    """Three, and half of all; else the fix is by the limit that was reached."""
    shares = [share(f"pool {place}", idle=1, namespace=pool, address=host) for place, (pool, host) in enumerate(pools)]
    assert census._fix(Like(limit="role"), shares, len(shares)) == KIND.fix_for(fix)  # type: ignore[arg-type]


def test_so_many_lines_are_shown() -> None:
    """And how many there are more."""
    lines = [str(number) for number in range(census._MOST_NAMED + 2)]
    assert census._cut(lines[: census._MOST_NAMED]) == lines[: census._MOST_NAMED]
    assert census._cut(lines) == [*lines[: census._MOST_NAMED], "and 2 more"]
    assert census._cut([]) == []


def test_a_refusal_is_put_in_words_with_all_that_is_known() -> None:
    """Who was refused; how many of the connections this process has, in how many pools, and the first place."""
    scene = Scene(2)
    refusal: Any = Like(limit="role", code="53300")
    none = census.found(scene.pool, refusal, None, (), 3)
    assert "it refused pool shop one, for a worker of the pool, by " in none.summary
    assert none.summary.endswith(" (SQLSTATE 53300); this process has none of them")
    assert none.evidence == {"code": "53300", "limit_reached": "role", "open_connections": 0, "repeated": 3}
    with scene.unit():
        waiter = scene.begin_checkout()
    one = share("one", idle=2)
    some = census.found(scene.pool, refusal, waiter, (one,), 0)
    assert "for http GET /orders at /application/view.py:2 in view, by " in some.summary
    assert some.summary.endswith("; this process has 2 of them: 2 of one idle in the pool")
    assert some.evidence["pools"] == ["one: 2 open, 0 checked out, 2 idle"]
    assert some.evidence["places"] == ["2 of one idle in the pool"]
    assert some.report.splitlines()[1:] == [
        "  pool one: 2 open, 0 checked out, 2 idle", "  2 of one idle in the pool", f"fix: {some.fix}",
    ]  # fmt: skip
    both = census.found(scene.pool, refusal, waiter, (one, share("two", idle=1)), 0)
    assert "this process has 3 of them in 2 pools: 3 idle in 2 pools" in both.summary
