"""Connections of threads that have finished."""

from __future__ import annotations

import pytest

from poolscope.core.catalogue.pools import STRANDED_CONNECTIONS
from poolscope.core.pool_identity import Stranded
from poolscope.detectors.stranded_connections import found as found_of
from tests.support.scene import Scene

KEPT = Stranded(7, "CONN_MAX_AGE=60")


def serve(scene: Scene, requests: int, connects: int) -> None:
    """Requests, and connections that were made for them."""
    for _ in range(requests):
        scene.request()
    for _ in range(connects):
        scene.pool.created(0.01)


def test_connections_that_no_thread_uses_again_are_found() -> None:
    """With how many were made, how many are open and how many were collected; threads that live on keep theirs."""
    scene = Scene(None)
    serve(scene, 40, 4)
    scene.pass_time(2)
    assert scene.found() == []
    serve(scene, 36, 36)
    scene.source.left = [KEPT] * 9
    for _ in range(25):
        scene.pool.closed("abandoned")
    scene.pass_time(2)
    finding = scene.found()[0]
    assert finding.id == STRANDED_CONNECTIONS
    assert finding.summary == (
        "pool shop keeps connections for threads that have finished (CONN_MAX_AGE=60): 9 of 9 open ones, and 25 more "
        "stayed until they were garbage-collected; 40 connections were made for 76 checkouts, and they were used again "
        "36 times"
    )
    assert finding.evidence["backend_process_ids"] == ["7"] * 9


def test_a_few_threads_that_end_are_nothing() -> None:
    """As at a reload; nor is a small part of many connections, or one that was lost before."""
    scene = Scene(None)
    serve(scene, 4, 4)
    scene.source.left = [KEPT] * 4
    scene.pass_time(2)
    serve(scene, 100, 20)
    scene.source.left = [KEPT] * 8
    scene.pass_time(2)
    scene.source.left = []
    for _ in range(30):
        scene.pool.closed("abandoned")
    scene.pass_time(2)
    assert scene.found() == []


def test_connections_used_once_are_said_to_be() -> None:
    """None of them was used a second time."""
    scene = Scene(None)
    serve(scene, 6, 6)
    scene.source.left = [KEPT] * 6
    scene.pass_time(1)
    finding = scene.found()[0]
    assert finding.summary.endswith(
        "6 of 6 open ones; 6 connections were made for 6 checkouts, and none was used a second time"
    )


@pytest.mark.parametrize(
    ("stranded", "collected", "made", "found"),
    [
        (5, 0, 10, True),
        (4, 0, 4, False),  # a few are left over
        (9, 0, 18, True),
        (9, 0, 19, False),  # less than half of all that were made
        (2, 3, 10, True),
        (2, 2, 4, False),
        (0, 9, 9, False),  # none is open
        (1, 4, 10, True),
        (6, 0, 0, True),
    ],
)
def test_connections_are_left_where_that_is_their_way_to_end(
    stranded: int, collected: int, made: int, found: bool
) -> None:
    """Half of them or more, and five at least, with those that were collected."""
    scene = Scene(None)
    scene.source.left = [Stranded(None, "a thread")] * stranded
    for _ in range(collected):
        scene.pool.closed("abandoned")
    for _ in range(made):
        scene.pool.created(0.1)
    (detector,) = [one for one in scene.watchdog.detectors if STRANDED_CONNECTIONS in one.kinds]
    assert len(list(detector.look(scene.pool))) == found


@pytest.mark.parametrize(
    ("made", "checkouts", "words"),
    [
        (6, 6, "6 connections were made for 6 checkouts, and none was used a second time"),
        (6, 4, "6 connections were made for 4 checkouts, and none was used a second time"),
        (6, 9, "6 connections were made for 9 checkouts, and they were used again 3 times"),
    ],
)
def test_how_often_connections_are_used_again_is_said(made: int, checkouts: int, words: str) -> None:
    """With what is known of each: who keeps it, and the server's process; not of too many."""
    scene = Scene(None)
    for number in range(max(made, checkouts)):
        if number < made:
            scene.pool.created(0.1)
        if number < checkouts:
            scene.checkout().released()
    left = [Stranded(number or None, "a thread") for number in range(30)]
    finding = found_of(scene.pool, left, 2, 5)
    assert words in finding.summary
    assert "(a thread): 30 of 30 open ones, and 2 more stayed until they were garbage-collected;" in finding.summary
    assert finding.evidence == {
        "stranded": 30, "collected": 2, "connections_made": made, "used_again": max(0, checkouts - made),
        "kept_by": "a thread", "backend_process_ids": [str(number) for number in range(1, 21)], "repeated": 5,
    }  # fmt: skip
    few = found_of(scene.pool, left[:1], 0, 0)
    assert "1 of 1 open ones; " in few.summary
    scene.source._idle = 3
    scene.checkout()
    assert "1 of 4 open ones; " in found_of(scene.pool, left[:1], 0, 0).summary
