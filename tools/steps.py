"""
A graph of commands: each starts once those that it waits for have ended; what it prints is printed whole when it ends.

A step that fails does not keep those behind it from running: a run says everything that is wrong. Each step runs in a
process group of its own, which an interrupt ends.

Usage:
    python tools/steps.py [--logs FOLDER] [--note NAME] NAME AFTER COMMAND [NAME AFTER COMMAND ...]

AFTER names the steps to wait for, separated by spaces; an empty text waits for none. COMMAND is a line for /bin/sh. For
example, `docs` beside `build`, then `tests`:

    python tools/steps.py docs '' 'make docs' build '' 'make build' tests 'build' 'make test'
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.lab.processes import interrupts_later, reset_signals
from tools.venvs import ROOT, cache

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = 3  # name, what it waits for, command
#: Seconds between two lines that say what is still running.
HEARTBEAT = 60.0
#: Seconds that an interrupted step has to end by itself.
GRACE = 20.0
#: Columns of the end of a step's output that such a line quotes.
QUOTED = 90
INTERRUPTED = 130


class Step(NamedTuple):
    """
    One command.

    Args:
        name: What it is called.
        after: The names of the steps that it waits for.
        command: A line for /bin/sh.
    """

    name: str
    after: tuple[str, ...]
    command: str


class Outcome(NamedTuple):
    """
    What came of a step.

    Args:
        code: Its exit code; negative for a signal.
        began: Seconds from the start of the run to its own.
        seconds: How long it ran.
        cpu: Seconds of CPU that it and the processes that it waited for used.
    """

    code: int
    began: float
    seconds: float
    cpu: float


class PlanError(Exception):
    """The steps make no graph; the message names the step and what is wrong."""


class Run:
    """
    One run of a graph.

    Args:
        steps: What to run.
        logs: The folder for what each step prints, in ``<name>.log``.

    Raises:
        PlanError: A name is no word, or two are the same; a step waits for one that is not there, or for itself.
    """

    def __init__(self, steps: Sequence[Step], logs: Path) -> None:
        self._steps = {step.name: step for step in steps}
        if len(self._steps) < len(steps):
            names = [step.name for step in steps]
            raise PlanError(f"two steps are called {next(name for name in names if names.count(name) > 1)!r}")
        for step in steps:
            if not step.name or step.name.split() != [step.name]:
                raise PlanError(f"{step.name!r} is no name: one word, without spaces")
            for name in step.after:
                if name not in self._steps:
                    raise PlanError(f"{step.name!r} waits for {name!r}, and no step is called so")
        self._order: TopologicalSorter[str] = TopologicalSorter({step.name: step.after for step in steps})
        try:
            self._order.prepare()
        except CycleError as error:
            raise PlanError(f"these steps wait for one another: {' -> '.join(error.args[1])}") from error
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        self._began = time.monotonic()
        self.outcomes: dict[str, Outcome] = {}

    def log(self, name: str) -> Path:
        """The file with what a step printed."""
        return self._logs / f"{name.replace('/', '-')}.log"

    def wait(self) -> None:
        """
        Run all steps, and print what each printed when it ends; at an interrupt end those that run,
        and pass it on.
        """
        try:
            while self._order.is_active():
                for name in self._order.get_ready():
                    self._start(self._steps[name])
                self._take_next()
        finally:
            self._end_all()

    def _start(self, step: Step) -> None:
        _say(f"... {self._age():4.0f} s  {step.name}: starts")
        with self.log(step.name).open("wb") as output, interrupts_later():
            process = subprocess.Popen(
                ["/bin/sh", "-c", step.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=reset_signals(signal.SIGINT, signal.SIGTERM),  # noqa: PLW1509 - it says why it may
            )
            self._running[step.name] = process
            threading.Thread(target=self._reap, args=(step.name, process, self._age()), daemon=True).start()

    def _reap(self, name: str, process: subprocess.Popen[bytes], began: float) -> None:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        self._ended.put((name, Outcome(process.returncode, began, self._age() - began, cpu)))

    def _take_next(self) -> None:
        while True:
            try:
                name, outcome = self._ended.get(timeout=HEARTBEAT)
            except queue.Empty:
                for running in self._running:
                    _say(f"... {self._age():4.0f} s  {running}: {_last_line(self.log(running))}")
                continue
            del self._running[name]
            self.outcomes[name] = outcome
            self._show(name, outcome)
            self._order.done(name)
            return

    def _show(self, name: str, outcome: Outcome) -> None:
        word = "ok" if outcome.code == 0 else f"FAILED with {outcome.code}"
        _say(f"\n=== {name}")
        text = self.log(name).read_text(errors="replace")
        sys.stdout.write(text if text.endswith("\n") or not text else f"{text}\n")
        _say(f"--- {name}: {word} ({outcome.seconds:.0f} s, {outcome.cpu:.0f} s of CPU)\n")

    def _age(self) -> float:
        return time.monotonic() - self._began

    def _end_all(self) -> None:
        left = dict(self._running)
        for process in left.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while left:
            with contextlib.suppress(queue.Empty):
                name, _ = self._ended.get(timeout=max(0.0, deadline - time.monotonic()))
                left.pop(name, None)
                continue
            break
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` when left out.

    Returns:
        0 when every step did, 1 when one failed, 2 when the steps make no graph, 130 after an interrupt.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep what each step prints here")
    parser.add_argument("--note", metavar="NAME", help="say when the run of this name last passed")
    parser.add_argument("steps", nargs="+", metavar="NAME AFTER COMMAND", help="the steps, three words each")
    options = parser.parse_args(argv)
    if len(options.steps) % PARTS:
        parser.error(f"each step is {PARTS} words: name, what it waits for, command")
    parts = [options.steps[at : at + PARTS] for at in range(0, len(options.steps), PARTS)]
    steps = [Step(name, tuple(after.split()), command) for name, after, command in parts]
    # A polite kill takes the same way out as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        logs = options.logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="poolscope-steps-")))
        logs.mkdir(parents=True, exist_ok=True)
        try:
            run = Run(steps, logs)
        except PlanError as error:
            parser.error(str(error))
        if options.note:
            _say(f"{options.note} last passed: {last_passed(options.note)}")
        try:
            run.wait()
        except KeyboardInterrupt:
            _say("\nstopped; no step is left running")
            return INTERRUPTED
        _print_table(run.outcomes)
    failed = [name for name, outcome in run.outcomes.items() if outcome.code]
    if failed:
        _say(f"failed: {', '.join(failed)}")
        return 1
    if options.note:
        note_passed(options.note)
    return 0


def last_passed(name: str) -> str:
    """
    When a run last passed on this machine, and on which commit.

    Args:
        name: Under which `note_passed` noted it.

    Returns:
        A few words.
    """
    file = _note(name)
    return file.read_text().strip() if file.exists() else "never on this machine"


def note_passed(name: str) -> None:
    """
    Note that a run passed now, on this commit.

    Args:
        name: Of the run.
    """
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    moment = datetime.now(timezone.utc).isoformat(" ", "seconds")
    file = _note(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{moment}, commit {described.stdout.strip() or 'unknown'}\n")


def _note(name: str) -> Path:
    return cache() / "passed" / f"{name}.txt"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][-QUOTED:] if lines else "has printed nothing yet"


def _print_table(outcomes: dict[str, Outcome]) -> None:
    table = Table(box=box.SIMPLE_HEAD, title="steps, the longest first", title_justify="left")
    for column in ("step", "result", "starts at", "seconds", "of CPU"):
        table.add_column(column, justify="left" if column in {"step", "result"} else "right", no_wrap=True)
    for name, outcome in sorted(outcomes.items(), key=lambda item: -item[1].seconds):
        result = "ok" if outcome.code == 0 else f"FAILED with {outcome.code}"
        table.add_row(name, result, *(f"{value:.0f}" for value in outcome[1:]))
    Console(highlight=False, width=None if sys.stdout.isatty() else 100).print(table)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
