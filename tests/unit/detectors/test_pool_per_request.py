"""Pools that are made again and again at one line, and makings that are bounded."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from poolscope.adapters.identity import login_of
from poolscope.core.catalogue.pools import POOL_PER_REQUEST
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
