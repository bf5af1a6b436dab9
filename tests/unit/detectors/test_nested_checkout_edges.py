"""Nested checkouts and repeated statements to the point: how large a pool has to be, and what explains a hold."""

from __future__ import annotations

from typing import Any

import pytest

from poolscope.core.catalogue.holds import NESTED_CHECKOUT
from poolscope.detectors import n_plus_one, nested_checkout
from poolscope.detectors.detector import Nested
from poolscope.detectors.nested_checkout import NestedCheckoutDetector
from tests.support.likeness import Like
from tests.support.scene import Scene


@pytest.mark.parametrize(
    ("workers", "most", "limit", "size", "may"),
    [
        (1, 2, 2, 2, False),
        (1, 2, 1, 2, True),
        (0, 2, 2, 2, False),
        (4, 2, 4, 5, True),
        (4, 2, 5, 5, False),
        (4, 3, 8, 9, True),
        (4, 3, 9, 9, False),
        (4, 1, 4, 5, True),  # two at least
        (4, None, 4, 5, True),
        (4, 2, None, 5, False),
    ],
)
def test_a_pool_is_large_enough_where_one_worker_can_go_on(
    workers: int, most: int | None, limit: int | None, size: int, may: bool
) -> None:
    """One connection more than all workers hold short of their last."""
    usage = Like(most_held=lambda: most) if most is not None else None
    lease: Any = Like(usage=usage, pool=Like(limit=limit))
    assert nested_checkout.size_for(lease, workers) == size
    assert nested_checkout.may_deadlock(lease, workers) is may


def test_the_busiest_moment_of_each_pool_counts() -> None:
    """Units of work, tasks and threads that hold or wait, each once; a pool without a limit has none."""
    scene = Scene(9)
    detector = NestedCheckoutDetector(Like())  # type: ignore[arg-type]
    with scene.unit():
        held, lease = scene.checkout(), scene.begin_checkout()
        detector.observe(Nested(lease, held))
        alone = scene.checkout()
        alone.unit = None
        waiting = scene.begin_checkout()
        waiting.unit, waiting.task = None, Like()  # type: ignore[assignment]
        detector.observe(Nested(lease, held))
        alone.released()
        waiting.acquired()
        waiting.released()
        detector.observe(Nested(lease, held))
        assert lease.unit is not None
        assert lease.unit.findings == {NESTED_CHECKOUT}
    assert [workers for _, workers in detector.observations] == [1, 3, 3]
    other = Scene(9)
    other.pool.limit = None
    detector.observe(Nested(other.checkout(), other.checkout()))
    assert len(detector.observations) == 3
    detector.forget()
    assert (detector._workers, len(detector.observations)) == ({}, 0)


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        (0, "one request at a time needs"),
        (1, "one request at a time needs"),
        (2, "2 concurrent requests need"),
        (9, "9 concurrent requests need"),
    ],
)
def test_the_size_is_said_with_what_needs_it(workers: int, words: str) -> None:
    """And the pool's limit."""
    scene = Scene(3)
    with scene.unit():
        held, lease = scene.checkout(), scene.checkout("inner")
    finding = nested_checkout.found(lease, held, workers, 4)
    size = max(workers, 1) + 1
    assert f"; {words} a pool of at least {size} to rule out deadlock; its limit is 3" in finding.summary
    assert {name: finding.evidence[name] for name in ("connections", "workers", "safe_size", "repeated")} == {
        "connections": 2, "workers": workers, "safe_size": size, "repeated": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "explains"),
    [
        ({}, True),
        ({"usage": None}, False),
        ({"nested": 0}, False),
        ({"limit": None}, False),
        ({"waited": 3.5}, True),
        ({"waited": 3.0}, False),  # what is left is as long as a long hold
    ],
)
def test_a_wait_for_another_connection_explains_a_hold(changes: dict[str, Any], explains: bool) -> None:
    """Where the hold is no long one without it."""
    usage = Like(nested=changes.get("nested", 2), wait_time=Like(read=lambda: changes.get("waited", 4.0)))
    lease: Any = Like(usage=changes.get("usage", usage), pool=Like(limit=changes.get("limit", 5)), held=lambda: 4.0)
    assert nested_checkout.explains(lease, 1.0) is explains


@pytest.mark.parametrize(
    ("usage", "queries", "seconds", "explains"),
    [
        (True, 6, (2.0, 1.5), True),
        (False, 6, (2.0, 1.5), False),
        (True, 5, (2.0, 1.5), False),  # as often as is no repetition
        (True, 6, (2.0, 1.0), False),
        (True, 6, (), False),
        (True, 6, (0.0,), False),
    ],
)
def test_repetitions_explain_a_hold_that_is_short_without_them(
    usage: bool, queries: int, seconds: tuple[float, ...], explains: bool
) -> None:
    """All of them together."""
    repeated = [Like(seconds=each) for each in seconds]
    repetitions = Like(beyond_threshold=lambda threshold: repeated if threshold == 5 else [])
    lease: Any = Like(usage=Like(repetitions=repetitions) if usage else None, queries=queries, held=lambda: 4.0)
    assert n_plus_one.explains(lease, 5, 1.0) is explains


def test_no_time_of_repetitions_explains_no_hold() -> None:
    """However short that was."""
    repetitions = Like(beyond_threshold=lambda _: [])
    lease: Any = Like(usage=Like(repetitions=repetitions), queries=9, held=lambda: 0.5)
    assert not n_plus_one.explains(lease, 5, 1.0)


@pytest.mark.parametrize(
    ("shape", "loader", "fix"),
    [
        ("select a from t", None, "one query for all: a join, or WHERE ... IN"),
        ("insert into t values (?)", None, "send all rows at once: executemany, a bulk insert, COPY"),
        ("update t set a = ?", None, "send all rows at once: executemany, or one UPDATE with a join or CASE"),
        ("delete from t", None, "delete all at once: WHERE ... IN"),
        ("select a from t", {"SELECT": "join it"}, "join it"),
        ("update t set a = ?", {"SELECT": "join it"}, "load it at once"),
    ],
)
def test_the_fix_is_by_the_loader_or_the_verb(shape: str, loader: dict[str, str] | None, fix: str) -> None:
    """The loader's own is the better one."""
    known = Like(fixes=loader, fix="load it at once") if loader is not None else None
    repetition: Any = Like(shape=shape, loader=known)
    assert n_plus_one._fix(repetition) == fix
