"""Which leases are held until a checkout has got its connection, to the point."""

from __future__ import annotations

from typing import Any

import pytest

from poolscope.core import nesting
from tests.support.likeness import Like

THREAD = object()


def lease(**changes: Any) -> Any:
    """What is like a lease of a thread that runs."""
    usual: dict[str, Any] = {
        "thread_reference": lambda: True, "task": None, "thread": 1, "unit": None, "running": False, "origin": (),
        "pool": Like(origins=None),
    }  # fmt: skip
    return Like(**{**usual, **changes})


def test_what_the_same_thread_or_task_holds_is_held_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others only where it holds none, or where every one is asked for; and where they wait for it."""
    asked: list[Any] = []
    waiting: list[Any] = []

    def dependents_of(task: Any, thread: int, frames: Any, origins: Any) -> Any:
        asked.append((task, thread))
        return None

    monkeypatch.setattr(nesting, "dependents_of", dependents_of)
    monkeypatch.setattr(nesting, "_waits", lambda held, _: held in waiting)

    def mine() -> bool:
        return True

    checkout = lease(thread_reference=mine, thread=7)
    own = lease(thread_reference=mine)
    task_of_thread = lease(thread_reference=mine, task=lambda: None)
    other = lease()
    waiting.append(other)
    for leases, every, found, asks in (
        ([], False, [], 0),
        ([], True, [], 0),
        ([own, other], False, [own], 0),
        ([own, other], True, [own, other], 1),
        ([other], False, [other], 1),
        ([task_of_thread], False, [], 1),
        ([own, own], True, [own, own], 1),
    ):
        asked.clear()
        assert nesting.held_meanwhile(checkout, leases, {}, every=every) == found
        assert asked == [(None, 7)] * asks
    assert nesting.held_meanwhile(checkout, [own, other], {}) == [own]
    over = lease(thread_reference=mine, task=lambda: None)
    asked.clear()
    assert nesting.held_meanwhile(over, [other], {}) == []
    assert asked == []
    task = object()
    runs = lease(thread_reference=mine, task=lambda: task)
    assert nesting.held_meanwhile(runs, [other], {}) == [other]
    assert asked == [(task, 1)]


@pytest.mark.parametrize(
    ("changes", "facts", "held"),
    [
        ({}, {"waits"}, True),
        ({}, {"parent"}, False),
        ({"thread_reference": lambda: None}, {"waits"}, False),
        ({"task": lambda: None}, {"waits", "parent"}, False),
        ({"task": lambda: THREAD}, {"waits"}, True),
        ({"task": lambda: THREAD}, {"parent"}, True),
        ({"task": lambda: THREAD}, {"parent", "on"}, False),  # the code that checked out goes on
        ({"task": lambda: THREAD, "running": True}, {"parent"}, False),
        ({"task": lambda: THREAD}, set(), False),
    ],
)
def test_a_lease_waits_where_its_thread_or_task_does(
    changes: dict[str, Any], facts: set[str], held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or where its task is at the end of its work, but for a group that it has open."""
    asked: list[Any] = []

    def is_waiting(task: Any, thread: int) -> bool:
        asked.append((task, thread))
        return "waits" in facts

    monkeypatch.setattr(nesting, "stack_of_task", lambda task, depth: None)
    monkeypatch.setattr(nesting, "is_on", lambda lease, stack: "on" in facts)
    dependents: Any = Like(waits=is_waiting, is_parent=lambda task: "parent" in facts)
    one = lease(**changes)
    assert nesting._waits(one, dependents) is held
    assert all(asks == ((THREAD if one.task is not None else None), 1) for asks in asked)


@pytest.mark.parametrize(
    ("changes", "is_on", "fetched"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"task": lambda: None}, False, False),
        ({"unit": None}, False, False),
        ({"unit": Like(task=None)}, False, False),
        ({"thread_reference": lambda: None}, False, True),
    ],
)
def test_a_thread_fetches_for_a_request_of_a_task(
    changes: dict[str, Any], is_on: bool, fetched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the code that checked out is not on its stack any more; a thread that has ended has none."""
    seen: list[Any] = []

    def on(_: Any, stack: Any) -> bool:
        seen.append(stack)
        return is_on

    monkeypatch.setattr(nesting, "is_on", on)
    monkeypatch.setattr(nesting, "stack_of_thread", lambda thread, depth, frames: ("frame", thread))
    one = lease(**{"unit": Like(task=object()), **changes})
    assert nesting._was_fetched(one, {}) is fetched
    assert seen in ([], [("frame", 1)] if one.thread_reference() else [()])


def test_code_is_on_a_stack_where_one_of_its_functions_is() -> None:
    """Of the application's; of a stack of libraries alone only the innermost counts, and of an unknown one all do."""
    first, second, other = (compile(str(number), "f", "eval") for number in range(3))
    origin = ((first, 0), (second, 0))
    origins = Like(applications=lambda stack: {second})
    assert nesting.is_on(lease(origin=origin, pool=Like(origins=origins)), ((other, 1), (second, 9)))
    assert not nesting.is_on(lease(origin=origin, pool=Like(origins=origins)), ((first, 0),))
    origins.applications = lambda stack: set()
    assert nesting.is_on(lease(origin=origin, pool=Like(origins=origins)), ((first, 5),))
    assert not nesting.is_on(lease(origin=origin, pool=Like(origins=origins)), ((second, 0),))
    assert nesting.is_on(lease(origin=origin), ((other, 0), (first, 0)))
    assert not nesting.is_on(lease(origin=origin), ())
    assert nesting.is_on(lease(), ())
