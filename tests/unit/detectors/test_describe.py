"""Leases in words, to the point: who has one, where that is by now, and what is said of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.holds import LONG_HOLD
from poolscope.core.finding_kind import Severity
from poolscope.detectors.diagnosis import describe
from tests.support.likeness import Like
from tests.support.scene import Scene


def lease_of(**changes: Any) -> Any:
    """What is like a lease of a thread that runs."""
    usual: dict[str, Any] = {
        "unit": None, "adopted": False, "task": None, "thread": 7, "thread_reference": lambda: True, "packed_stack": (),
        "requested_at": 1.0, "pool": Like(pending=set(), leases=set()),
    }  # fmt: skip
    return Like(**{**usual, **changes})


@pytest.mark.parametrize(
    ("changes", "owner"),
    [
        ({"unit": "http GET /"}, "http GET /"),
        ({"unit": "http GET /", "adopted": True}, "http GET /"),
        ({"adopted": True}, "code that checked it out before poolscope started"),
        ({"task": lambda: Like(get_name=lambda: "loader")}, "task loader"),
        ({"task": lambda: None}, "a finished task"),
        ({"thread_reference": lambda: None}, "a finished thread"),
        ({}, "thread worker"),
        ({"thread": 8}, "thread 8"),
    ],
)
def test_an_owner_has_the_name_of_its_unit_of_work_task_or_thread(changes: dict[str, Any], owner: str) -> None:
    """The first that is known."""
    assert describe.owner_of(lease_of(**changes), {7: "worker"}) == owner


def test_names_of_threads_are_looked_up_where_none_are_given() -> None:
    """Of those that run."""
    here = threading.current_thread()
    assert here.ident is not None
    assert describe.owner_of(lease_of(thread=here.ident)) == f"thread {here.name}"
    assert describe.thread_names()[here.ident] == here.name
    assert describe.owner_of(lease_of(thread=here.ident), {}) == f"thread {here.ident}"


@pytest.mark.parametrize(
    ("duration", "text"),
    [(0.0, "0 ms"), (0.0004, "0 ms"), (0.25, "250 ms"), (0.999, "999 ms"), (1.0, "1.0 s"), (12.34, "12.3 s")],
)
def test_durations_are_for_people(duration: float, text: str) -> None:
    """Seconds from one on."""
    assert describe.seconds(duration) == text


def test_the_slowest_statement_is_the_last_one_where_none_was_slow() -> None:
    """As a shape; none where none ran."""
    scene = Scene()
    lease = scene.checkout()
    assert describe.statement_of(lease) == ""
    assert describe.slowest_of(lease) == ("", 0.0)
    scene.query(lease, "select 1 from a where x = 'y'")
    assert describe.slowest_of(lease) == ("select ? from a where x = ?", 0.0)
    scene.query(lease, "select 2 from b", seconds=2.0)
    scene.query(lease, "select 3 from c", seconds=0.5)
    assert describe.slowest_of(lease) == ("select ? from b", 2.0)
    assert describe.statement_of(lease) == "select ? from c"


def test_a_span_is_the_checkouts_else_the_unit_of_works() -> None:
    """Its trace has an id in hexadecimal."""
    span = Like(get_span_context=lambda: Like(trace_id=255))
    assert describe.trace_of(lease_of(trace=None)) is None
    assert describe.trace_id_of(lease_of(trace=None)) == ""
    assert describe.trace_of(lease_of(trace=span, unit=Like(span=None))) is span
    assert describe.trace_of(lease_of(trace=None, unit=Like(span=span))) is span
    assert describe.trace_id_of(lease_of(trace=span)) == "0" * 30 + "ff"


def test_a_finding_is_about_a_lease() -> None:
    """With what its kind says where nothing else is said; empty texts and lists are left out, zeros are not."""
    scene = Scene()
    with scene.unit("GET /a"):
        lease = scene.checkout()
    kind = KINDS[LONG_HOLD]
    evidence: Any = {"a": "", "b": [], "c": 0, "d": "x", "e": ["y"], "f": 0.0}
    usual = describe.finding_about(lease, LONG_HOLD, "summary", evidence)
    assert (usual.kind, usual.severity, usual.fix, usual.summary) == (kind, kind.severity, kind.fix, "summary")
    assert usual.evidence == {"c": 0, "d": "x", "e": ["y"], "f": 0.0}
    assert (str(usual.unit), usual.pool, usual.resolved) == ("http GET /a", scene.pool.identity, False)
    assert usual.origin == lease.origin[0]
    lease.unit, lease.packed_stack = None, ()
    other = describe.finding_about(
        lease, LONG_HOLD, "summary", {}, severity=Severity.CRITICAL, fix="fix", resolved=True, report="report"
    )
    assert (other.severity, other.fix, other.resolved, other.report) == (Severity.CRITICAL, "fix", True, "report")
    assert (other.unit, other.origin) == (None, None)


@pytest.mark.parametrize(
    ("changes", "over"),
    [
        ({}, False),
        ({"thread_reference": lambda: None}, True),
        ({"task": lambda: None}, True),
        ({"task": lambda: Like(done=lambda: True)}, True),
        ({"task": lambda: Like(done=lambda: False)}, False),
        ({"unit": Like(ended=True, thread=7, task=None)}, True),
        ({"unit": Like(ended=False, thread=7, task=None)}, False),
        ({"unit": Like(ended=True, thread=8, task=None)}, False),  # a thread beside it waits
        ({"unit": Like(ended=True, thread=6, task=None)}, False),
        ({"unit": Like(ended=True, thread=7, task=object())}, False),
    ],
)
def test_a_checkout_is_over_where_who_waited_has_finished(changes: dict[str, Any], over: bool) -> None:
    """Its request, where that itself waited; else its task or thread."""
    assert describe.is_over(lease_of(**changes)) is over


@pytest.mark.parametrize(
    ("unit", "gone_on", "left"),
    [
        (None, True, True),
        (None, False, False),
        ({"ended": True, "own": True}, False, True),
        ({"ended": False, "own": True}, True, False),
        ({"ended": False, "own": False}, True, False),
        ({"ended": True, "own": False}, True, True),
        ({"ended": True, "own": False}, False, False),
    ],
)
def test_a_lease_is_left_where_no_code_goes_on_with_it(
    unit: dict[str, bool] | None, gone_on: bool, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread beside a request checked out may outlive that; what a job has handed on is not left."""
    monkeypatch.setattr(describe, "_has_gone_on", lambda *_: gone_on)
    monkeypatch.setattr(describe, "stack_now", lambda *_: ())
    known = Like(ended=unit["ended"], thread=7 if unit["own"] else 8, task=None, hands_on=False) if unit else None
    lease = lease_of(unit=known)
    assert describe.is_left(lease) is left
    if known is not None:
        known.hands_on = True
        assert not describe.is_left(lease)


@pytest.mark.parametrize(
    ("changes", "gone_on", "handed_on", "who"),
    [
        (None, False, False, "own"),
        ({}, True, False, "request"),
        ({}, False, False, "own"),
        ({"ended": True}, True, False, "left"),
        ({"thread": 7, "task": None}, True, False, "own"),  # the request's own thread
        ({"ended": True}, False, True, "left"),
    ],
)
def test_who_goes_on_with_a_lease_is_who_it_was_fetched_for(
    changes: dict[str, Any] | None, gone_on: bool, handed_on: bool, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who checked it out, with an empty stack where that goes on with something else."""
    monkeypatch.setattr(describe, "_has_gone_on", lambda *_: gone_on)
    monkeypatch.setattr(describe, "stack_now", lambda *_: ("own",))
    monkeypatch.setattr(describe, "_stack", lambda task, thread, frames: ("request", thread))
    task = object()
    unit = Like(**{"ended": False, "thread": 8, "task": task, "hands_on": handed_on, **(changes or {})})
    actor: Any = describe.actor_of(lease_of(unit=unit if changes is not None else None), {})
    expected = {"own": (None, 7, ("own",)), "request": (task, 8, ("request", 8)), "left": (None, 7, ())}
    assert actor == expected[who]


def test_the_stack_of_a_thread_that_has_finished_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's is what it waits for; where it runs just now, its thread's."""
    tasks: list[Any] = [("task",), None, ()]
    monkeypatch.setattr(describe, "stack_of_task", lambda task, depth: tasks.pop(0))
    monkeypatch.setattr(describe, "stack_of_thread", lambda thread, depth, frames: ("thread", thread))
    assert describe.stack_now(lease_of()) == ("thread", 7)
    assert describe.stack_now(lease_of(thread_reference=lambda: None)) == ()
    of_task = lease_of(task=lambda: None, thread_reference=lambda: None)
    assert [describe.stack_now(of_task) for _ in range(3)] == [("task",), ("thread", 7), ()]
