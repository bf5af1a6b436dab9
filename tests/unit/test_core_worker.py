"""The one background thread: its rounds, its end, and its place in a child process."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from examples.lab.processes import wait_until
from poolscope.core.guard import guard
from poolscope.core.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator


class Task:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self) -> None:
        self.calls.append(threading.current_thread().name)


def threads() -> list[threading.Thread]:
    """The background threads that live."""
    return [thread for thread in threading.enumerate() if thread.name == "poolscope"]


@pytest.fixture
def task() -> Task:
    """A task."""
    return Task()


@pytest.fixture
def worker(task: Task) -> Iterator[Worker]:
    """A worker that is stopped afterwards."""
    made = Worker(("tests.task", task))
    yield made
    made.stop()
    assert threads() == []


def test_it_calls_its_task_from_one_daemon_thread(worker: Worker, task: Task) -> None:
    """However often it is started, one thread of our name does the rounds."""
    worker.start()
    worker.start()
    (thread,) = threads()
    assert thread.daemon
    wait_until(lambda: len(task.calls) >= 2, 60, "two rounds")
    assert set(task.calls) == {"poolscope"}


def test_stopping_does_a_last_round_and_can_be_undone(worker: Worker, task: Task) -> None:
    """The last round comes after the thread's end, in the caller's thread; it can be started again."""
    worker.start()
    worker.stop()
    assert task.calls[-1] == threading.current_thread().name
    assert threads() == []
    worker.start()
    wait_until(lambda: task.calls[-1] == "poolscope", 60, "a round of the new thread")


def test_it_may_be_stopped_from_its_own_thread() -> None:
    """
    A task that stops its worker does not wait for itself; it is called once more, in the last
    round, and no deeper.
    """
    begun: list[str] = []
    ended: list[str] = []

    def stop() -> None:
        begun.append(threading.current_thread().name)
        worker.stop()
        ended.append(threading.current_thread().name)

    worker = Worker(("tests.stop", stop))
    worker.start()
    wait_until(lambda: not threads(), 60, "the thread to end")
    assert begun == ended == ["poolscope"] * 2


def test_a_task_that_fails_does_not_keep_the_others_from_theirs(task: Task) -> None:
    """Each task is guarded alone."""

    def fail() -> None:
        raise ValueError("ours")

    worker = Worker(("tests.fail", fail), ("tests.task", task))
    worker.run_once()
    assert (len(task.calls), guard.counts()["tests.fail"]) == (1, 1)
    guard.reset()


def test_it_ends_with_its_worker() -> None:
    """The thread holds its worker weakly: once nothing else refers to it, the thread ends."""
    worker = Worker()
    worker.start()
    gone = weakref.ref(worker)
    del worker
    # Its thread may have it just then, for the length of a round.
    wait_until(lambda: gc.collect() >= 0 and gone() is None, 60, "the worker to go")
    wait_until(lambda: not threads(), 60, "the thread to end")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_gets_a_thread_of_its_own(worker: Worker, task: Task) -> None:
    """After a fork the thread runs in the child as well; where it did not run before, it does not."""
    idle = Worker()
    worker.start()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        task.calls.clear()
        try:
            wait_until(lambda: task.calls, 60, "a round in the child")
            os.write(writing, f"{set(task.calls)} {len(threads())} {idle._thread}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert os.read(reading, 100) == b"{'poolscope'} 1 None"
    os.close(reading)
