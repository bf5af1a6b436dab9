"""What threads run and wait for, by their frames: the library's function in the library's file, and nothing like it."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core import jobs
from poolscope.core.libraries import KNOWN
from tests.support.likeness import Like

if TYPE_CHECKING:
    from collections.abc import Iterable

FUTURES, LOOP = "/lib/concurrent/futures/_base.py", "C:\\lib\\asyncio\\base_events.py"
EXECUTOR = "/lib/concurrent/futures/thread.py"


def frame(name: str, file: str, back: Any = None, flags: Any = 0, **local: Any) -> Any:
    """What is like a frame of a function in a file, with local variables."""
    return Like(f_code=Like(co_name=name, co_filename=file, co_flags=flags), f_locals=local, f_back=back)


def under(inner: Iterable[Any], count: int) -> Any:
    """So many frames of the application, which were called by others."""
    top = None
    for one in reversed(list(inner)):
        one.f_back, top = top, one
    for _ in range(count):
        top = frame("view", "/application/view.py", top)
    return top


@pytest.mark.parametrize(
    ("name", "file", "variable"),
    [
        ("result", FUTURES, "self"),
        ("_result_or_cancel", FUTURES, "fut"),
        ("result_iterator", FUTURES, "fs"),
        ("wait", FUTURES, "fs"),
        ("as_completed", FUTURES, "fs"),
        ("run_until_complete", LOOP, "future"),
        ("join", "/lib/threading.py", "self"),
    ],
)
def test_a_thread_waits_in_functions_of_python(name: str, file: str, variable: str) -> None:
    """Each in its own file, for its own variable; as near the end of the stack as that can be."""
    what = object()
    assert list(jobs.waited_for(frame(name, file, **{variable: what}))) == [what]
    assert list(jobs.waited_for(frame(name, "/application/view.py", **{variable: what}))) == []
    assert list(jobs.waited_for(frame("view", file, **{variable: what}))) == []
    assert list(jobs.waited_for(frame(name, file, other=what))) == [None]
    assert list(jobs.waited_for(under([frame(name, file, **{variable: what})], jobs._INNERMOST - 1))) == [what]
    assert list(jobs.waited_for(under([frame(name, file, **{variable: what})], jobs._INNERMOST))) == []
    assert list(jobs.waited_for(None)) == []


@pytest.mark.parametrize("kind", [list, set, tuple, frozenset])
def test_a_thread_may_wait_for_several(kind: Any) -> None:
    """In one function, and in one that called it."""
    first, second, third = object(), object(), object()
    outer = frame("result", FUTURES, self=third)
    inner = frame("wait", FUTURES, outer, fs=kind([first, second]))
    assert set(jobs.waited_for(inner)) == {first, second, third}
    for one in (first, second, third):
        assert jobs.stands(inner, (), {id(one)})
    assert not jobs.stands(inner, (), {id(object())})
    for name in ("as_completed", "wait"):
        assert jobs.stands(frame(name, FUTURES, fs=kind([first])), (), {id(first)})


def test_a_thread_that_joins_another_waits_for_that_alone() -> None:
    """By its identifier; whatever called that is behind it."""
    future = object()
    outer = frame("result", FUTURES, self=future)
    joins = frame("join", "/lib/threading.py", outer, self=Like(ident=5))
    assert jobs.stands(joins, {5}, ())
    assert not jobs.stands(joins, {6}, {id(future)})
    assert not jobs.stands(frame("join", "/lib/threading.py", self=object()), {5}, ())
    assert not jobs.stands(None, {5}, {id(future)})


def test_what_called_a_loop_waits_for_the_future_that_it_runs() -> None:
    """However far out in the thread; for that one alone."""
    future = object()
    calls = frame("run_until_complete", LOOP, future=future)
    for inner in (0, 100):
        assert jobs.called_loop(7, {7: under([calls], inner)}, {id(future)})
    assert not jobs.called_loop(7, {7: calls}, {1})
    assert not jobs.called_loop(8, {7: calls}, {id(future)})
    assert not jobs.called_loop(7, {7: frame("run", LOOP, future=future)}, {id(future)})
    assert not jobs.called_loop(7, {7: frame("run_until_complete", FUTURES, future=future)}, {id(future)})
    deepest = under([calls], jobs._DEEPEST - 1)
    assert jobs.called_loop(7, {7: deepest}, {id(future)})
    assert not jobs.called_loop(7, {7: frame("view", "/application/view.py", deepest)}, {id(future)})


def test_frames_go_on_where_the_running_thread_switched(monkeypatch: pytest.MonkeyPatch) -> None:
    """In that thread alone; no other thread's switches are known."""
    far = frame("far", "/application/far.py")
    here = frame("here", "/application/here.py")

    def outwards(stack: Any) -> tuple[Any, Any]:
        return (1, far) if stack is None else (None, None)

    monkeypatch.setattr(KNOWN, "switches", Like(outwards=outwards))
    assert list(jobs.outwards(here)) == list(jobs.outwards(here, is_own=True)) == [here, far]
    assert list(jobs.outwards(here, is_own=False)) == [here]
    seen: list[bool] = []

    def noted(frame: Any, *, is_own: bool) -> Iterable[Any]:
        seen.append(is_own)
        return ()

    monkeypatch.setattr(jobs, "outwards", noted)
    for thread in (get_ident(), get_ident() + 1, get_ident() - 1):
        jobs.called_loop(thread, {}, ())
        list(jobs.jobs_of(thread, {}))
    assert seen == [True, True, False, False, False, False]


def test_the_job_of_a_thread_is_what_is_done_when_it_has_done_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an attribute of a local variable, and of that; several where one runs another meanwhile."""
    job = Like(function="run", file="/a/worker.py", future=("item", "work", "future"))
    plain = Like(function="run", file="/a/plain.py", future=("future",))
    monkeypatch.setattr(KNOWN, "waits", (Like(jobs=(job,), submitters=()), Like(jobs=(plain,), submitters=())))
    first, second = object(), object()
    outer = frame("run", "/x/a/plain.py", future=second)
    inner = frame("run", "/x/a/worker.py", outer, item=Like(work=Like(future=first)))
    assert list(jobs.jobs_of(5, {5: inner})) == [first, second]
    for other in (
        frame("run", "/x/a/other.py", item=Like(work=Like(future=first))),
        frame("walk", "/x/a/worker.py", item=Like(work=Like(future=first))),
        frame("run", "/x/a/worker.py", item=Like(work=None)),
        frame("run", "/x/a/worker.py"),
    ):
        assert list(jobs.jobs_of(5, {5: other})) == []


@pytest.mark.parametrize(
    ("inner", "found"),
    [
        ([], False),
        ([("wrap_future", "/lib/asyncio/futures.py", "future")], True),
        ([("_chain_future", "/lib/asyncio/futures.py", "source")], True),
        ([("_chain_future", "/lib/asyncio/futures.py", "destination")], False),
        ([("wrap_future", "/application/view.py", "future")], False),
        ([("submit", EXECUTOR, "f")], True),
        ([("submit", EXECUTOR, "g")], False),
        ([("submit", "/application/view.py", "f")], False),
        ([("view", EXECUTOR, "f")], False),
    ],
)
def test_a_loop_submits_a_job_where_its_future_passes(
    inner: list[Any], found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through asyncio and the executor, or where the submitting function has it itself."""
    job = Like(function="run", file="/concurrent/futures/thread.py", future=("self", "future"))
    submitter = ("/asyncio/base_events.py", "run_in_executor", "mine")
    monkeypatch.setattr(KNOWN, "waits", (Like(jobs=(job,), submitters=(submitter,)),))
    loop, future = object(), object()
    submits = frame("run_in_executor", LOOP, loop=loop)
    stack = under([*(frame(name, file, **{local: future}) for name, file, local in inner), submits], 1)
    assert jobs.loop_that_submits(future, stack) is (loop if found else None)
    assert jobs.loop_that_submits(object(), stack) is None
    assert jobs.loop_that_submits(future, None) is None
    own: Any = Like(get_loop=lambda: "its own")
    assert jobs.loop_that_submits(own, frame("run_in_executor", LOOP, mine=own)) == "its own"
    assert jobs.loop_that_submits(own, frame("run_in_executor", LOOP, mine=own, loop=loop)) is loop
    for name, file in (("run_in_executor", FUTURES), ("run", LOOP)):
        assert jobs.loop_that_submits(own, frame(name, file, mine=own, loop=loop)) is None
    near = frame("run_in_executor", LOOP, mine=own)
    assert jobs.loop_that_submits(own, under([near], jobs._INNERMOST - 1)) == "its own"
    assert jobs.loop_that_submits(own, under([near], jobs._INNERMOST)) is None


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_the_locals_of_a_function_are_not_kept_by_its_frame(flags: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python makes a copy of them; those of a module are the module's own."""
    for version, clears in (((3, 12), bool(flags & 1)), ((3, 13), False)):
        monkeypatch.setattr("sys.version_info", version)
        one = frame("f", "f.py", flags=flags, value=5)
        assert jobs.local_of(one, "value") == 5
        assert one.f_locals == ({} if clears else {"value": 5})
        assert jobs.local_of(one, "other") is None
