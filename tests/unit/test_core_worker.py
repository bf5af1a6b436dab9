"""The one background thread: its rounds, its end, and its place in a child process."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import wait_until
from poolscope.core.guard import guard
from poolscope.core.runner import LITTLE_PATIENCE, Request, Runner, helpers, renew_locks
from poolscope.core.worker import Worker
from tests.support.clocks import FakeClock
from tests.support.likeness import Like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    made.stop(60)
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
    """The last round is the thread's own; then it ends. It can be started again."""
    worker.start()
    before = len(task.calls)
    assert worker.stop(60)
    assert len(task.calls) > before
    assert set(task.calls) == {"poolscope"}
    assert threads() == []
    before = len(task.calls)
    worker.start()
    wait_until(lambda: len(task.calls) > before, 60, "a round of the new thread")


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
            os.write(writing, f"{set(task.calls)} {len(threads())} {idle._runner}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert os.read(reading, 100) == b"{'poolscope'} 1 None"
    os.close(reading)


def test_a_thread_that_cannot_be_started_is_tried_again(
    worker: Worker, task: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and tried again after a second; until then, asking for a run costs nothing and is counted."""
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", clock)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            assert not worker.start()
            assert not worker.run_once()
            clock.advance(1.5)
    assert len([record for record in caplog.records if "tries again" in record.getMessage()]) == 1
    assert guard.counts()["worker.missing"] == 3
    assert task.calls == []
    assert worker.start()
    assert worker.run_once(60)
    assert set(task.calls) == {"poolscope"}


def starting(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object], after: Callable[[], object]) -> None:
    """Do something before and after the next start of a background thread."""
    original, todo = threading.Thread.start, [before, after]

    def start(self: threading.Thread) -> None:
        if self.name != "poolscope" or not todo:
            original(self)
            return
        todo.pop(0)()
        original(self)
        todo.pop(0)()

    monkeypatch.setattr(threading.Thread, "start", start)


def test_an_interrupted_start_leaves_no_second_thread(
    worker: Worker, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt may come when the thread runs already: that one ends, and the next start makes the one there is."""

    def strike() -> None:
        raise KeyboardInterrupt

    starting(monkeypatch, lambda: None, strike)
    with pytest.raises(KeyboardInterrupt):
        worker.start()
    wait_until(lambda: not threads(), 60, "the thread of the interrupted start to end")
    wait_until(worker.start, 60, "the next start")
    assert worker.run_once(60)
    assert len(threads()) == 1
    assert set(task.calls) == {"poolscope"}


def test_a_fork_waits_for_a_start_that_is_under_way(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that another one starts meanwhile has ended, too, when the process forks."""
    monkeypatch.setattr("poolscope.core.worker.FORK_PATIENCE", 60.0)
    across: list[list[threading.Thread]] = []

    def fork() -> None:
        worker.before_fork()
        across.append(threads())

    forking = threading.Thread(target=fork)

    def begin_to_fork() -> None:
        forking.start()
        wait_until(lambda: worker._forks, 60, "the fork")

    starting(monkeypatch, begin_to_fork, lambda: None)
    worker.start()
    forking.join(60)
    assert across == [[]]
    worker.after_fork_in_parent()


def test_a_stop_during_a_start_leaves_no_thread(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is being started when it is stopped ends: no caller would stop it later."""

    def stop() -> None:
        stopping = threading.Thread(target=worker.stop, args=(0.01,))
        stopping.start()
        stopping.join(60)

    starting(monkeypatch, stop, lambda: None)
    assert not worker.start()
    wait_until(lambda: not threads(), 60, "the thread to end")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_ends_the_thread_does_not_end_it_for_good(task: Task) -> None:
    """A task that raises what is no error, such as SystemExit, ends the thread: it starts again."""
    ends = [True]

    def end() -> None:
        if ends:
            ends.pop()
            raise SystemExit

    worker = Worker(("tests.end", end), ("tests.task", task))
    worker.start()
    wait_until(lambda: task.calls, 60, "a run of the next thread")
    assert worker.stop(60)
    assert threads() == []


def test_no_caller_waits_for_a_thread_that_is_stuck() -> None:
    """A run that is asked for comes to its deadline; the next caller, a fork and the end hardly wait for that run."""
    goes_on, is_in = threading.Event(), threading.Event()

    def get_stuck() -> None:
        is_in.set()
        goes_on.wait()

    worker = Worker(("tests.stuck", get_stuck))
    worker.start()
    assert is_in.wait(60)
    assert worker.run_once(0.01) is False
    began = time.monotonic()
    assert worker.run_once(60) is False
    worker.before_fork()
    assert worker.is_leaving()
    worker.after_fork_in_parent()
    assert not worker.is_leaving()
    assert worker.stop(60) is False
    assert time.monotonic() - began < 50  # the deadlines are of 60 s
    assert any(thing is goes_on for thing in worker.stuck())
    assert guard.counts()["worker.late"] == 3
    goes_on.set()
    wait_until(lambda: not threads(), 60, "the thread to end")
    assert worker.stuck() == ()


def test_there_is_no_thread_across_a_fork(worker: Worker, task: Task) -> None:
    """It has ended before; what asks for a run meanwhile gets it afterwards, of another thread."""
    worker.start()
    worker.before_fork()
    assert threads() == []
    assert not worker.start()
    asking = threading.Thread(target=worker.run_once, args=(60,))
    asking.start()
    wait_until(lambda: worker._requests, 60, "the request")
    before = len(task.calls)
    worker.after_fork_in_parent()
    asking.join(60)
    assert not asking.is_alive()
    assert len(task.calls) > before


def test_a_fork_waits_for_a_thread_that_the_thread_starts(capfd: pytest.CaptureFixture[str]) -> None:
    """One that is made and not started when a fork comes is waited for once it is; nothing is written of it."""
    made = threading.Event()
    helper = threading.Thread(target=lambda: None, name="poolscope-probe")

    def probe() -> None:
        if not made.is_set():
            helpers.add(helper)
            made.set()
            wait_until(worker.is_leaving, 60, "the fork")
            helper.start()

    worker = Worker(("tests.probe", probe))
    worker.start()
    assert made.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert helper.ident is not None
    os.waitpid(child, 0)
    assert worker.stop(60)
    assert (capfd.readouterr().err, guard.counts()) == ("", {})


def test_locks_of_a_thread_that_is_not_there_are_made_anew() -> None:
    """Those that are held by another thread, and no others."""

    class Exporter:
        def __init__(self) -> None:
            self.plain, self.reentrant, self.free, self.mine = (
                threading.Lock(),
                threading.RLock(),
                threading.Lock(),
                threading.RLock(),
            )

        def hold(self) -> None:
            self.plain.acquire()
            self.reentrant.acquire()

    exporter = Exporter()
    before = dict(vars(exporter))
    exporter.mine.acquire()
    holding = threading.Thread(target=exporter.hold)
    holding.start()
    holding.join()
    renew_locks(exporter)
    anew = {name for name, value in vars(exporter).items() if value is not before[name]}
    assert anew == {"plain", "reentrant"}
    for name in anew:
        assert getattr(exporter, name).acquire(blocking=False)


def test_a_thread_is_tried_again_a_second_later(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before, and from then on; what runs is not started again."""
    clock = FakeClock(100.0)
    monkeypatch.setattr(time, "monotonic", clock)
    tried: list[float] = []

    def refuse(self: threading.Thread) -> None:
        tried.append(clock.now)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        for seconds in (0.0, 0.5, 0.5, 0.5, 0.75):
            clock.advance(seconds)
            assert not worker.start()
    assert tried == [100.0, 101.0, 102.25]
    clock.advance(1.0)
    assert worker.start()
    assert worker.start()
    assert worker.stop(60)
    assert worker.start()  # a start that succeeded keeps none from the next one


def test_without_a_thread_the_caller_runs_the_tasks(task: Task) -> None:
    """One at a time: who comes meanwhile waits for as long as it is given, and gets a run or none."""
    ran: list[str] = []
    worker = Worker(("tests.task", task))
    assert worker.run_once(0, lambda: ran.append("then"))
    assert (task.calls, ran) == ([threading.current_thread().name], ["then"])
    outcomes: list[bool] = []
    with worker._inline:
        other = threading.Thread(target=lambda: outcomes.append(worker.run_once(0.01)))
        other.start()
        other.join(60)
    assert outcomes == [False]
    assert len(task.calls) == 1
    assert worker.run_once(60)
    assert len(task.calls) == 2


def test_a_run_that_is_left_is_the_next_threads(task: Task) -> None:
    """In order; a thread that is to end begins no further task."""
    worker = Worker(("tests.task", task), ("tests.more", task))
    order: list[int] = []
    for number in range(3):
        worker._requests.append(Request(lambda number=number: order.append(number)))  # type: ignore[misc]
    requests = list(worker._requests)
    leaving: Any = Like(leaving=True, runs=0)
    worker.run(leaving)
    assert (task.calls, order, list(worker._requests), leaving.runs) == ([], [], requests, 1)
    staying: Any = Like(leaving=False, runs=5)
    worker.run(staying)
    assert (len(task.calls), order, list(worker._requests), staying.runs) == (2, [0, 1, 2], [], 6)
    assert all(one.done.acquire(blocking=False) for one in requests)


@pytest.mark.parametrize(("asked", "needed", "starts"), [(0, False, 0), (1, False, 1), (0, True, 1), (1, True, 1)])
def test_after_a_fork_the_thread_starts_where_it_is_needed(
    asked: int, needed: bool, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once where a caller waits for a run, or something is to be done; else whoever it is missing to starts it."""
    missing: list[int] = []
    started: list[int] = []
    worker = Worker(on_missing=lambda: missing.append(1), is_needed=lambda: needed)
    monkeypatch.setattr(worker, "start_aside", lambda: started.append(1))
    worker._requests.extend([Request(None)] * asked)
    for wanted in (False, True):
        worker._wanted = wanted
        for _ in range(4):
            worker.before_fork()
        for _ in range(3):
            worker.after_fork_in_parent()
            assert len(missing) == 0
        worker.after_fork_in_parent()
        assert (len(missing), len(started)) == ((1, starts) if wanted else (0, 0))
    worker.after_fork_in_parent()
    assert worker._forks == 0
    worker._wanted = False


@pytest.mark.parametrize(
    ("change", "missed"),
    [({}, 1), ({"_wanted": False}, 0), ({"_forks": 1}, 0), ({"leaving": True}, 0), ({"_runner": None}, 0)],
)
def test_a_thread_that_ends_by_itself_is_missing(change: dict[str, Any], missed: int) -> None:
    """Where it is wanted, no fork is under way, it was not to end and no other has its place."""
    missing: list[int] = []
    worker = Worker(on_missing=lambda: missing.append(1))
    runner: Any = Like(leaving=change.pop("leaving", False))
    worker._wanted, worker._runner = True, runner
    for name, value in change.items():
        setattr(worker, name, value)
    worker.ended(runner)
    assert (worker._runner, len(missing)) == (None, missed)
    worker._wanted, worker._forks = False, 0


@pytest.mark.parametrize(("sees", "looks"), [(0, 1), (3, 4), (10_000, 50)])
def test_python_3_12_looks_whether_the_system_has_ended_the_thread(
    sees: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a hundredth of a second at the most; on any other it is enough that the thread is joined."""
    seen: list[str] = []
    slept: list[float] = []
    worker = Worker()
    runner = Runner(worker)
    joined: Any = Like(join=lambda timeout: None, is_alive=lambda: False, native_id=7)
    runner.thread = joined

    def exists(path: str) -> bool:
        seen.append(path)
        return len(seen) <= sees

    monkeypatch.setattr(os.path, "exists", exists)
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr("poolscope.core.runner._JOINED_EARLY", False)
    assert runner.end(1.0)
    assert seen == []
    monkeypatch.setattr("poolscope.core.runner._JOINED_EARLY", True)
    assert runner.end(1.0)
    assert seen == ["/proc/self/task/7"] * looks
    assert len(slept) == (looks - 1 if sees < looks else looks)
    assert sum(slept) <= 0.011
    joined.is_alive = lambda: True
    assert not runner.end(1.0)
    assert len(seen) == looks


def test_who_waits_for_what_another_gave_up_on_hardly_waits() -> None:
    """While it is the same run; and never longer than it would."""
    runner = Runner(Worker())
    assert runner.patience(9.0) == 9.0
    runner.gave_up_in = runner.runs
    assert (runner.patience(9.0), runner.patience(0.01)) == (LITTLE_PATIENCE, 0.01)
    assert 0.0 < LITTLE_PATIENCE <= 0.1
    runner.runs += 1
    assert runner.patience(9.0) == 9.0
