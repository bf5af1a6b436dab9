"""Connections of threads that have finished."""

from __future__ import annotations

from poolscope.core.catalogue.pools import STRANDED_CONNECTIONS
from poolscope.core.pool_identity import Stranded
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
