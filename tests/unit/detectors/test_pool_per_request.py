"""Pools that are made again and again at one line, and makings that are bounded."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.adapters.identity import login_of
from poolscope.core.catalogue.pools import POOL_PER_REQUEST
from poolscope.core.pool_identity import Identity
from poolscope.detectors import pool_per_request
from poolscope.detectors.detector import Made
from tests.support.likeness import Like
from tests.support.pools import Source
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable


def requests(scene: Scene, count: int, make: Callable[[int], object], kind: str = "http") -> list[set[str]]:
    """
    Requests, one after the other, each of which does the same.

    Returns:
        What is known about each at its end.
    """
    known = []
    for number in range(count):
        with scene.unit("GET /athletes", kind) as unit:
            make(number)
            scene.tick()
        known.append(unit.findings)
        scene.clock.advance(0.5)
    return known


def test_a_pool_for_each_request_is_found_at_the_line_that_makes_it() -> None:
    """
    With how many were made, in how many requests, and how many connections they have open; the requests after that are
    marked. A pool that the first request makes for all of them is none.
    """
    scene = Scene()

    def make(number: int) -> None:
        scene.make_pool("get_session").lives = number != 1

    def share(number: int) -> None:
        if number == 0:
            scene.make_pool("get_shared")

    requests(scene, 8, share)
    assert scene.found() == []
    known = requests(scene, 8, make)
    (finding,) = scene.found()
    assert finding.id == POOL_PER_REQUEST
    assert finding.summary == (
        "5 pools of one server and database (shop) were made at /application/get_session.py:2 in get_session within "
        "2.0 s, in 5 units of work (http GET /athletes); 4 of them are still open, with 4 connections"
    )
    figures = {name: finding.evidence[name] for name in ("pools_made", "pools_open", "connections_open")}
    assert figures == {"pools_made": 5, "pools_open": 4, "connections_open": 4}
    assert finding.origin is not None
    assert finding.origin[0].co_name == "get_session"
    assert str(finding.unit) == "http GET /athletes"
    assert [POOL_PER_REQUEST in one for one in known[-3:]] == [False, True, True]


def test_the_first_of_each_thread_that_goes_on_is_bounded() -> None:
    """An engine for each thread of a server; but not where each request has a thread of its own, which ends."""
    scene = Scene()
    ready, done = threading.Barrier(8), threading.Event()

    def worker(*, goes_on: bool) -> None:
        with scene.unit():
            scene.make_pool("of_thread" if goes_on else "of_request")
        if goes_on:
            ready.wait(60)
            done.wait(60)

    living = [threading.Thread(target=worker, kwargs={"goes_on": True}) for _ in range(7)]
    for thread in living:
        thread.start()
    ready.wait(60)
    found = scene.found()
    done.set()
    for thread in living:
        thread.join(60)
    assert found == []
    for _ in range(7):
        thread = threading.Thread(target=worker, kwargs={"goes_on": False})
        thread.start()
        thread.join(60)
    assert scene.ids()[:1] == [POOL_PER_REQUEST]


@pytest.mark.parametrize(
    "make",
    [
        lambda scene, number: scene.make_pool(login=number),
        lambda scene, number: scene.make_pool(identity=replace(scene.pool.identity, namespace=f"tenant{number}")),
        lambda scene, number: scene.make_pool(identity=replace(scene.pool.identity, address=f"shard{number}")),
        lambda scene, number: scene.make_pool(f"module{number}"),
        lambda scene, _: scene.make_pool(identity=replace(scene.pool.identity, system="sqlite")),
    ],
    ids=["users", "databases", "servers", "lines", "files"],
)
def test_different_pools_count_apart(make: Callable[[Scene, int], object]) -> None:
    """One for each tenant or shard, several at import, and files."""
    scene = Scene()
    requests(scene, 12, lambda number: make(scene, number))
    assert scene.found() == []


def test_a_few_at_a_time_outside_of_requests_are_a_fixture() -> None:
    """Tests make a pool each, and close it; ten that are open at once are too many, whoever made them."""
    scene = Scene()
    for _ in range(20):
        scene.make_pool("fixture").lives = False
    requests(scene, 9, lambda _: scene.make_pool("fixture"), kind="test")
    assert scene.found() == []
    requests(scene, 3, lambda _: scene.make_pool("fixture"), kind="test")
    assert scene.ids()[:1] == [POOL_PER_REQUEST]


def test_what_was_made_long_ago_is_forgotten() -> None:
    """A pool that is made anew once in an hour, as after a failover; and a child process starts at nothing."""
    scene = Scene()
    for _ in range(9):
        requests(scene, 1, lambda _: scene.make_pool())
        scene.clock.advance(3600)
    assert scene.found() == []
    requests(scene, 4, lambda _: scene.make_pool())
    scene.watchdog.forget()
    requests(scene, 4, lambda _: scene.make_pool())
    assert scene.found() == []


def test_what_is_diagnosed_long_after_it_was_made_is_found() -> None:
    """As in a process that was stopped meanwhile: what counts is when each was made."""
    scene = Scene()
    for _ in range(6):
        with scene.unit():
            scene.make_pool()
        scene.clock.advance(1)
    scene.clock.advance(3600)
    assert scene.ids() == [POOL_PER_REQUEST]


def test_a_login_is_a_number_without_the_password() -> None:
    """What differs in user or options is another login; a token that is another each time is not."""
    one = login_of(["postgresql://shop:one@db/shop", {"password": "one", "user": "shop", "timeout": 3}])
    assert one == login_of(["postgresql://shop:two@db/shop", {"password": "two", "user": "shop", "timeout": 3}])
    assert one != login_of(["postgresql://other:one@db/shop", {"password": "one", "user": "shop", "timeout": 3}])
    assert login_of("host=db password='a b' user=x") == login_of("host=db password=c user=x")
    assert login_of({"user": "a"}) != login_of({"user": "b"})
    assert login_of({"check": object()}) == login_of({"check": object()})
    assert isinstance(one, int)


def runs() -> bool:
    """What is like a reference to a thread that goes on."""
    return True


def making(**changes: Any) -> Any:
    """What is like a pool that a thread which runs made at a line."""
    usual: dict[str, Any] = {
        "packed_stack": ("line", 1, "caller", 2), "login": 3, "thread": runs, "task": None, "unit": None, "moment": 1.0,
        "identity": Identity("shop", "postgresql", "shop", "db", 5432), "source": Source(5),
    }  # fmt: skip
    return Like(**{**usual, **changes})


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"packed_stack": ("line", 1, "another", 2)}, True),  # whoever calls it
        ({"packed_stack": ("line", 2, "caller", 2)}, False),
        ({"packed_stack": ("other", 1, "caller", 2)}, False),
        ({"login": 4}, False),
        ({"identity": Identity("else", "postgresql", "shop", "db", 5432)}, True),  # whatever it is called
        ({"identity": Identity("shop", "mysql", "shop", "db", 5432)}, False),
        ({"identity": Identity("shop", "postgresql", "other", "db", 5432)}, False),
        ({"identity": Identity("shop", "postgresql", "shop", "elsewhere", 5432)}, False),
        ({"identity": Identity("shop", "postgresql", "shop", "db", 5433)}, False),
    ],
)
def test_pools_count_together_by_line_and_database(change: dict[str, Any], same: bool) -> None:
    """And by who logs in."""
    places = [pool_per_request.place_and_pool(making(**given)) for given in ({}, change)]
    assert (places[0] == places[1]) is same


def test_the_first_pool_of_a_thread_is_not_made_again() -> None:
    """Where the thread goes on, and no task made it."""

    def other() -> bool:
        return True

    def ended() -> None:
        return None

    first, second, of_other, of_task = making(), making(), making(thread=other), making(task=object())
    of_ended = [making(thread=ended), making(thread=ended)]
    assert pool_per_request.made_again([first, second, of_other]) == [second]
    assert pool_per_request.made_again([of_task, first, second]) == [of_task, second]
    assert pool_per_request.made_again(of_ended) == of_ended
    assert pool_per_request.made_again([]) == []


@pytest.mark.parametrize(
    ("units", "kind", "open_ones", "closed", "unbounded"),
    [
        (5, "http", 0, 0, True),
        (6, "http", 0, 0, True),
        (4, "http", 0, 0, False),
        (5, "test", 0, 0, False),
        (0, "http", 10, 0, True),
        (0, "http", 9, 5, False),
        (0, "http", 10, 5, True),
        (4, "http", 5, 5, False),
        (4, "http", 6, 0, True),  # ten that are open, whoever made them
    ],
)
def test_pools_are_made_without_end(units: int, kind: str, open_ones: int, closed: int, unbounded: bool) -> None:
    """In five units of work that are no tests, or ten that are open at once."""
    alive, gone = Source(5), Source(5)
    gone.lives = False
    makings = [making(unit=Like(kind=kind), source=alive) for _ in range(units)]
    makings += [making(source=alive) for _ in range(open_ones)] + [making(source=gone) for _ in range(closed)]
    assert pool_per_request.is_unbounded(makings) is unbounded


def test_makings_are_put_in_words() -> None:
    """From the first to the last of them; without units of work none is named."""
    stack = (making.__code__, 0)
    many = [making(packed_stack=stack, moment=2.0 + number, connections=lambda: 2) for number in range(3)]
    many[0].source = gone = Source(5)
    gone.lives = False
    finding = pool_per_request.found(many, 4)
    assert finding.summary.endswith(" within 2.0 s; 2 of them are still open, with 6 connections")
    assert finding.evidence["seconds"] == 2.0
    assert finding.evidence["repeated"] == 4
    assert (finding.unit, finding.origin) == (None, stack)


def test_what_is_known_marks_the_units_of_work_at_once() -> None:
    """Not those of files, nor what was made by no line of the application's."""
    detector = pool_per_request.PoolPerRequestDetector(Like())  # type: ignore[arg-type]
    for changes, kept in (
        ({}, True),
        ({"packed_stack": ()}, False),
        ({"identity": Identity("f", "sqlite", "f", None, None)}, False),
        ({"unit": None}, True),
    ):
        one = making(**{"unit": Like(findings=set(), kind="http"), **changes})
        detector._known = {pool_per_request.place_and_pool(one)}
        detector.observe(Made(one))
        assert len(detector.observations) == kept
        assert one.unit is None or bool(one.unit.findings) is kept
        detector.observations.clear()
    detector._known = set()
    unknown = making(unit=Like(findings=set(), kind="http"))
    detector.observe(Made(unknown))
    assert not unknown.unit.findings
