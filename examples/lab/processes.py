"""Child processes that never outlive us, and waiting with a deadline."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

LOOPBACK = "127.0.0.1"
POLL_INTERVAL = 0.02
_GIVEN_PORTS: set[int] = set()
T = TypeVar("T")

# Reads until the pipe from us closes, which it does however we end, then ends the child's process group and tidies up.
GUARD = 'read -r _; kill -s "$2" -- "-$1"; sleep 2; kill -s KILL -- "-$1"; [ -z "$3" ] || rm -rf -- "$3"'


class ChildFailedError(Exception):
    """A child ended, or was not ready, before it was of use; the message carries the end of its log."""


class Child:
    """
    A process of our own in a session of its own, its output in a file, gone at the latest when we are.

    A context manager. A terminal's Ctrl-C reaches only us, and a guard process ends the child's whole process group if
    we die without stopping it. The child obeys SIGINT and SIGTERM also where we ignore them, as under ``nohup ... &``.

    Args:
        command: Program and arguments.
        log: The file for stdout and stderr; a temporary one, removed by `stop`, when left out.
        env: The whole environment; ours when left out.
        cwd: The working directory; ours when left out.
        user: The system user to run as (needs root).
        stop_signal: The polite request to end.
        leavings: A folder of the child's, which the guard removes if we die; otherwise that is the caller's part.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        leavings: Path | None = None,
    ) -> None:
        self._owns_log = log is None
        self._stop_signal = stop_signal
        if log is None:
            handle, name = tempfile.mkstemp(prefix="poolscope-child-", suffix=".log")
            os.close(handle)
            log = Path(name)
            leavings = leavings or log
        self.log = log
        self.name = Path(command[0]).name
        word = stop_signal.name.removeprefix("SIG")
        with log.open("ab") as output, interrupts_later():
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                **identity(user),
                start_new_session=True,
                preexec_fn=reset_signals(signal.SIGINT, signal.SIGTERM, stop_signal),  # noqa: PLW1509 - it says why
            )
            self.pid = self._process.pid
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "guard", str(self.pid), word, str(leavings or "")],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, within: float) -> int:
        """
        Wait for the child to end by itself.

        Args:
            within: Seconds to wait at most.

        Returns:
            Its exit code.

        Raises:
            TimeoutError: It still runs.
        """
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {within:g} s; its log ends:\n{self.log_tail()}") from None

    def wait_ready(self, ready: Callable[[], T], within: float) -> T:
        """
        Wait until the child is of use.

        Args:
            ready: True, or any true value, once it is.
            within: Seconds to wait at most.

        Returns:
            What `ready` returned.

        Raises:
            ChildFailedError: It ended first, or the time is over.
        """

        def alive_and_ready() -> T:
            if self.exit_code() is not None:
                raise ChildFailedError(f"{self.name} ended with {self.exit_code()}; its log ends:\n{self.log_tail()}")
            return ready()

        try:
            return wait_until(alive_and_ready, within, f"{self.name} to be ready")
        except TimeoutError as error:
            raise ChildFailedError(f"{error}; its log ends:\n{self.log_tail()}") from None

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its output."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone; nothing happens when it has ended."""
        self._process.send_signal(number)

    def stop(self, grace: float = 10) -> int:
        """
        End the child and whatever it started; may be called twice.

        Args:
            grace: Seconds that it has to end by itself before it is killed.

        Returns:
            Its exit code.
        """
        if self.exit_code() is None:
            self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            code = self._process.wait()
            self._end_guard()
            if self._owns_log:
                self.log.unlink(missing_ok=True)
        return code

    def _end_guard(self) -> None:
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()


def reset_signals(*numbers: signal.Signals) -> Callable[[], None] | None:
    """
    What makes a child obey signals that this process ignores, which a child inherits: a shell starts what it puts into
    the background with SIGINT ignored, and such a child could not be interrupted.

    Args:
        numbers: The signals that will be sent to it.

    Returns:
        A ``preexec_fn`` for `subprocess.Popen`, which takes no lock and imports nothing; None where nothing is ignored,
        as code between fork and exec is a risk where threads run.
    """
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]

    def reset() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_DFL)

    return reset if ignored else None


@contextlib.contextmanager
def interrupts_later() -> Iterator[None]:
    """
    Let SIGINT and SIGTERM that come in the block take effect at its end: an interrupt between the start of a child and
    the note of who it is leaves a child that nothing ends.

    Outside of the main thread, which alone handles signals, nothing changes; nor for a signal that is ignored or ends
    the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (int(signal.SIGINT), int(signal.SIGTERM))}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def identity(user: str | None) -> dict[str, Any]:
    """
    The arguments of `subprocess` that make a program run as another user.

    Args:
        user: The system user; None for us.

    Returns:
        User, primary group and no further groups.
    """
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def survive_interrupt() -> None:
    """
    Let the exit code that is returned after a caught KeyboardInterrupt be the one that is seen.

    Where Ctrl-C struck within an exec of text, as dataclasses do while a library is imported, CPython would else end by
    SIGINT whatever is returned; the next exec makes it forget (``run_eval_code_obj`` in Python/pythonrun.c).
    """
    exec("")  # noqa: S102 - of nothing


def wait_until(predicate: Callable[[], T], within: float, what: str = "the condition") -> T:
    """
    Poll until something is true.

    Args:
        predicate: Called every 20 ms; an exception of its own ends the waiting.
        within: Seconds to wait at most.
        what: What is waited for, for the error.

    Returns:
        The first true value.

    Raises:
        TimeoutError: The time has run out.
    """
    deadline = time.monotonic() + within
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {within:g} s for {what}, which did not happen")
        time.sleep(POLL_INTERVAL)


def free_port() -> int:
    """
    A TCP port of the loopback address that no process listens on now, and that no earlier call of this process
    returned: a program that got one may not have started yet, or may be down for a while.
    """
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port not in _GIVEN_PORTS:
            _GIVEN_PORTS.add(port)
            return port


def listens(port: int) -> bool:
    """Whether a process accepts TCP connections on that port of the loopback address."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def answers(url: str) -> bool:
    """Whether a GET of that HTTP address is answered with 200 within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 - our own servers
            return bool(response.status == http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):
        return False
