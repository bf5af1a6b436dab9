"""Starts and stops that several threads ask for at once, and libraries that are half imported."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import wait_until
from poolscope.core.guard import guard
from poolscope.core.serially import _OWNER, Serially
from poolscope.hooks.patching import active_patches, when_imported
from poolscope.instrumentor import PoolscopeInstrumentor
from tests.support.instructions import interrupt
from tests.support.likeness import Like
from tests.support.scale import times

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Seconds.
DEADLINE = 60.0


def test_it_does_one_thing_after_the_other() -> None:
    """What is asked within, or by another thread meanwhile, is done after that, in the order of asking."""
    done: list[str] = []
    one = Serially()

    def first() -> None:
        one.do(lambda: done.append("within"))
        other = threading.Thread(target=one.do, args=(lambda: done.append("by another thread"),))
        other.start()
        other.join(DEADLINE)  # it does not wait
        done.append("first")

    one.do(first)
    assert done == ["first", "within", "by another thread"]


def test_what_fails_does_not_keep_the_rest() -> None:
    """An exception goes to whoever does it; what comes after is done."""
    one, done = Serially(), list[str]()

    def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        one.do(fails)
    one.do(lambda: done.append("next"))
    assert done == ["next"]


def test_an_interrupt_at_any_instruction_does_not_keep_the_rest() -> None:
    """Wherever an interrupt comes, no thread is at it afterwards, and what is asked next is done."""
    for nth in count(1):
        one, done = Serially(), list[str]()
        if not interrupt(nth, lambda one=one: one.do(lambda: None), Serially.do):  # type: ignore[misc]
            break
        one.do(lambda done=done: done.append("next"))  # type: ignore[misc]
        assert done == ["next"], nth
    assert nth > 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_of_a_fork_meanwhile_goes_on() -> None:
    """A child that is forked while another thread is at it can start and stop."""
    one, begun, over = Serially(), threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        over.wait(DEADLINE)

    thread = threading.Thread(target=one.do, args=(long,))
    thread.start()
    begun.wait(DEADLINE)
    child = os.fork()
    if child == 0:
        done: list[int] = []
        one.do(lambda: done.append(1))
        os._exit(0 if done else 1)
    over.set()
    thread.join(DEADLINE)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.reliability(
    fault="several threads call instrument() and uninstrument() at once",
    application="the same",
    lost="nothing: what was asked last holds",
)
def test_several_threads_start_and_stop_it_at_once() -> None:
    """Whatever they ask at once, in the end it is as was asked last: all of its patches, or none; once each."""
    instrumentor = PoolscopeInstrumentor()
    instrumentor.instrument()
    patches = sorted(active_patches())
    instrumentor.uninstrument()
    logging.getLogger("opentelemetry.instrumentation.instrumentor").disabled = True

    def toggles() -> None:
        for _ in range(times(3, whole=200)):
            instrumentor.instrument()
            instrumentor.uninstrument()

    threads = [threading.Thread(target=toggles) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE * 5)
    logging.getLogger("opentelemetry.instrumentation.instrumentor").disabled = False
    assert not instrumentor.is_instrumented_by_opentelemetry
    assert active_patches() == ()
    instrumentor.instrument()
    assert sorted(active_patches()) == patches
    instrumentor.uninstrument()
    assert active_patches() == ()
    assert guard.counts() == {}


def test_a_stop_between_the_wish_of_a_start_and_the_start_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked last holds, also where what was asked before is come to after it."""
    instrumentor = PoolscopeInstrumentor()
    original, stops = Serially.do, [threading.Thread(target=instrumentor.uninstrument)]

    def do(self: Serially, what: Callable[[], object]) -> None:
        if stops:
            stop = stops.pop()
            stop.start()
            stop.join(DEADLINE)
        original(self, what)

    monkeypatch.setattr(Serially, "do", do)
    instrumentor.instrument()
    assert not instrumentor.is_instrumented_by_opentelemetry
    assert active_patches() == ()
    instrumentor.instrument()
    assert active_patches()
    instrumentor.uninstrument()
    assert active_patches() == ()


HALF = """
import sys, threading
begun, go_on = sys.modules["__main__"].__dict__["{name}_events"]
begun.set()
go_on.wait(60)
class Pool:
    pass
"""


@pytest.mark.reliability(
    fault="instrument() while another thread is in the midst of importing a pool library",
    application="the same; the import goes on",
    lost="checkouts of the first hundredths of a second",
)
def test_a_library_that_is_half_imported_is_hooked_when_it_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hook looks at it before, `instrument()` does not wait, and it is hooked once; never if that is forgotten."""
    name = "half_imported_library"
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules["__main__"].__dict__, f"{name}_events", (begun, go_on))
    (tmp_path / f"{name}.py").write_text(HALF.format(name=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    importing = threading.Thread(target=importlib.import_module, args=(name,))
    importing.start()
    assert begun.wait(DEADLINE)
    seen: list[bool] = []
    forgotten: list[object] = []
    when_imported(name, lambda module: seen.append(hasattr(module, "Pool")))
    when_imported(name, forgotten.append)()
    assert seen == []
    go_on.set()
    importing.join(DEADLINE)
    wait_until(lambda: seen == [True], DEADLINE, "the module to be hooked")
    waiting = [thread for thread in threading.enumerate() if thread.name == "poolscope-import"]
    for thread in waiting:
        thread.join(DEADLINE)
    assert seen == [True]
    assert forgotten == []
    monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(("away", "goes_on"), [(0, False), (1, True), (-1, True)])
def test_a_child_lets_go_of_what_another_thread_was_at(away: int, goes_on: bool) -> None:
    """One that forks amid its own is still at it in the child."""
    one, done = Serially(), list[int]()
    claim: Any = Like(thread=threading.get_ident() + away)
    one._at_it[_OWNER] = claim
    one._queue.append(lambda: done.append(0))
    one.after_fork()
    one.do(lambda: done.append(1))
    assert done == [1] * goes_on
    assert list(one._at_it.values()) == ([] if goes_on else [claim])
    assert len(one._queue) == (0 if goes_on else 2)
    one.after_fork()
