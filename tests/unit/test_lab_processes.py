"""Child processes of the lab: they end with us, whatever happens, and waiting has an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.lab.processes import Child, ChildFailedError, free_port, listens, wait_until

FOREVER = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}"
FAMILY = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {FOREVER!r}], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""


def is_running(pid: int) -> bool:
    """Whether a process has that id and is not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def up(child: Child) -> bool:
    """Whether the child has printed its first line."""
    return "\n" in child.log.read_text()


@pytest.mark.parametrize("program", [FOREVER, STUBBORN])
def test_stop_ends_the_child_polite_or_not(program: str) -> None:
    """
    A stopped child is gone, by the signal that it obeyed: SIGTERM, or SIGKILL when it ignored that
    for the grace time.
    """
    with Child([sys.executable, "-c", program]) as child:
        child.wait_ready(lambda: up(child), 60)
        code = child.stop(grace=0.2 if program is STUBBORN else 10)
    assert code == -(signal.SIGKILL if program is STUBBORN else signal.SIGTERM)
    assert not is_running(child.pid)
    assert not child.log.exists()


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_a_child_obeys_what_we_ignore(word: signal.Signals) -> None:
    """
    A run in the background of a shell (``nohup make test &``) has SIGINT ignored; its children end
    by it all the same.
    """
    before = signal.signal(word, signal.SIG_IGN)
    try:
        with Child([sys.executable, "-c", FOREVER]) as child:
            child.wait_ready(lambda: up(child), 30)
            child.signal(word)
            assert child.wait(30) == -word
    finally:
        signal.signal(word, before)


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_a_child_starts_leaves_none(word: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes effect when the child has its guard, which ends it when we let go of it."""
    start = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(*given: Any, **named: Any) -> subprocess.Popen[bytes]:
        started.append(start(*given, **named))
        if len(started) == 1:
            signal.raise_signal(word)
        return started[-1]

    before = signal.signal(word, signal.default_int_handler)
    monkeypatch.setattr(subprocess, "Popen", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            Child([sys.executable, "-c", FOREVER])
    finally:
        signal.signal(word, before)
    child, guard = started
    guard.communicate(timeout=30)
    assert child.wait(30) == -signal.SIGTERM


def test_grandchildren_end_too() -> None:
    """What the child started and did not end is ended with it."""
    with Child([sys.executable, "-c", FAMILY]) as child:
        child.wait_ready(lambda: up(child), 60)
        grandchild = int(child.log.read_text())
        assert is_running(grandchild)
    wait_until(lambda: not is_running(grandchild), 60)


def test_the_child_ends_when_we_are_killed() -> None:
    """A parent that dies by SIGKILL, and so cannot clean up, leaves neither child nor files behind."""
    parent = (
        "import sys; from examples.lab.processes import Child\n"
        f"child = Child([sys.executable, '-c', {FOREVER!r}])\n"
        "print(child.pid, child.log, flush=True); import signal; signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        pid, log = process.stdout.readline().split()
        child = int(pid)
        assert is_running(child)
        assert Path(log).exists()
        process.kill()
        process.wait()
        wait_until(lambda: not is_running(child), 60, "the child to end")
        wait_until(lambda: not Path(log).exists(), 60, "its log to be removed")


def test_a_child_that_ends_early_is_reported_with_its_log() -> None:
    """Waiting for a child that ended fails at once and shows what it printed."""
    with (
        Child([sys.executable, "-c", "print('no such table'); raise SystemExit(3)"]) as child,
        pytest.raises(ChildFailedError, match=r"ended with 3(.|\n)*no such table"),
    ):
        child.wait_ready(lambda: False, 60)


def test_a_child_that_is_never_ready_is_reported() -> None:
    """Waiting for a child that runs but does not get ready fails at the deadline and shows what it printed."""
    with Child([sys.executable, "-c", FOREVER]) as child:
        child.wait_ready(lambda: up(child), 60)
        with pytest.raises(ChildFailedError, match=r"did not happen(.|\n)*up"):
            child.wait_ready(lambda: False, 0.1)


def test_waiting_returns_the_first_true_value() -> None:
    """`wait_until` polls until something true comes, returns it, and asks no more."""
    values = iter([None, 0, "here", "later"])
    assert wait_until(lambda: next(values), 10) == "here"
    assert next(values) == "later"


def test_a_wait_for_nothing_ends() -> None:
    """`wait_until` raises at the deadline and names what it waited for."""
    with pytest.raises(TimeoutError, match="for the moon, which did not happen"):
        wait_until(lambda: False, 0.05, "the moon")


def test_a_free_port_is_free() -> None:
    """No process listens on a port from `free_port`."""
    assert not listens(free_port())


def test_the_environment_of_a_child_is_what_was_given() -> None:
    """A child with an environment of its own sees that and nothing of ours."""
    program = "import os; print(os.environ.get('HERE'), os.environ.get('HOME'))"
    with Child([sys.executable, "-c", program], env={"HERE": "yes", "PATH": os.environ["PATH"]}) as child:
        assert child.wait(10) == 0
        assert child.log_tail() == "yes None"
