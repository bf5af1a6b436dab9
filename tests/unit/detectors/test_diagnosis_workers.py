"""Crews of worker threads, to the point: which wait for a connection, and who waits for one of their threads."""

from __future__ import annotations

from typing import Any

import pytest

from poolscope.core.libraries import KNOWN
from poolscope.detectors.diagnosis import workers
from poolscope.detectors.diagnosis.workers import Crew
from tests.support.likeness import Like


@pytest.mark.parametrize(
    ("threads", "waiting", "found"),
    [
        (4, 2, True),  # half of them
        (4, 1, False),
        (4, 4, True),
        (5, 2, False),
        (1, 1, True),
        (4, 0, False),
    ],
)
def test_a_crew_waits_where_half_of_its_threads_do(
    threads: int, waiting: int, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads are of one crew by the name without its number; tasks are of none."""
    names = {number: f"pool_{number}" for number in range(threads)} | {99: "main", 98: "other-1"}
    monkeypatch.setattr(workers, "thread_names", lambda: names)
    pending: Any = [Like(thread=number, task=None) for number in range(waiting)]
    pending += [Like(thread=3, task=object()), Like(thread=1_000, task=None)]
    crews = workers.crews_of(pending)
    assert [(crew.name, crew.threads) for crew in crews] == [("pool", frozenset(range(threads)))] * found
    for crew in crews:
        assert set(crew.waiting) == set(pending[:waiting])
    assert workers.crews_of(pending[waiting : waiting + 1]) == ()


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("worker-12", "worker"), ("worker_1", "worker"), ("worker 3", "worker"), ("worker7", "worker"),
        ("pool-1-thread-2", "pool-1-thread"), ("MainThread", "MainThread"), ("7", ""), ("a1b", "a1b"),
    ],
)  # fmt: skip
def test_the_number_of_a_thread_is_the_last_one(name: str, stem: str) -> None:
    """With what separates it."""
    assert workers._NUMBER.sub("", name) == stem


def frame(name: str, file: str) -> Any:
    """A frame of a raw stack."""
    return Like(co_name=name, co_filename=file), 0


def test_who_waits_in_a_limiter_waits_for_any_crew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the end of its stack; who executes nothing waits for none."""
    monkeypatch.setattr(KNOWN, "worker_queues", (("/anyio/limiter.py", "acquire"),))
    monkeypatch.setattr(workers, "waited_for", lambda frame: ())
    crews: Any = (Crew("a", frozenset({1}), ()), Crew("b", frozenset({2}), ()))
    view, limiter = frame("view", "/application/view.py"), frame("acquire", "C:\\anyio\\limiter.py")

    def awaited(*stack: Any) -> Any:
        return workers.crews_awaited(Like(stack=stack, task=None, thread=5), {}, crews, {})  # type: ignore[arg-type]

    assert awaited(view, limiter) == crews
    assert awaited(*[view] * (workers._INNERMOST - 1), limiter) == crews
    assert awaited(*[view] * workers._INNERMOST, limiter) == ()
    assert awaited(frame("acquire", "/application/view.py")) == awaited(frame("view", "/anyio/limiter.py")) == ()
    assert awaited() == ()


def test_who_waits_for_a_job_waits_for_the_threads_that_may_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread by its frames, a task by what its future knows."""
    monkeypatch.setattr(KNOWN, "worker_queues", ())
    job, other = object(), object()
    monkeypatch.setattr(workers, "waited_for", lambda frame: [job] if frame == "frame" else [])
    monkeypatch.setattr(workers, "_jobs_behind", lambda waiter: [other] if waiter == "waiter" else [])
    crews: Any = (Crew("a", frozenset({1, 2}), ()), Crew("b", frozenset({3}), ()))
    queued = {id(job): frozenset({2, 9}), id(other): frozenset({3, 1})}
    stack = (frame("view", "/application/view.py"),)

    def awaited(task: Any, thread: int = 5) -> Any:
        return workers.crews_awaited(Like(stack=stack, task=task, thread=thread), {5: "frame"}, crews, queued)  # type: ignore[arg-type, dict-item]

    assert awaited(None) == crews[:1]
    assert awaited(None, 6) == ()
    assert awaited(lambda: Like(_fut_waiter="waiter")) == crews
    assert awaited(lambda: Like(_fut_waiter=None)) == awaited(lambda: None) == awaited(Like) == ()


def test_so_many_jobs_of_a_queue_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is none is left out."""
    items: Any = [Like(future=object()) for _ in range(3)]
    monkeypatch.setattr(workers, "_MOST_JOBS", 2)
    assert list(workers._jobs_in([items])) == [id(one.future) for one in items[:2]]
    assert set(workers._jobs_in([items[2], Like(), [None, items[0]]])) == {id(items[2].future), id(items[0].future)}
