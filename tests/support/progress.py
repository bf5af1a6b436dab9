"""
What a run that takes minutes is doing, twice a minute: how many tests are done, which ones take long, and what has
failed, which pytest says at the end alone.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

#: Seconds between two lines.
EVERY: Final = 30.0
SHOWN: Final = 4  # tests in a line
SAID: Final = 400  # characters of the reason of a failure


class Progress:
    """
    A plugin of the process that reports; with pytest-xdist that is not the one that runs the tests.

    Args:
        reporter: Where the lines go.
        every: Seconds between two lines.
    """

    def __init__(self, reporter: TerminalReporter, every: float = EVERY) -> None:
        self._reporter = reporter
        self._every = every
        self._began = time.monotonic()
        self._running: dict[str, float] = {}
        self._done = 0
        self._failed: list[str] = []
        self._total = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    def pytest_sessionstart(self) -> None:
        """Begin."""
        self._thread.start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know how many there are, where this process collects."""
        self._total = len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Know how many there are, where others collect."""
        self._total = len(ids)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test starts."""
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test is done."""
        self._running.pop(nodeid, None)
        self._done += 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has failed, or its set-up or end."""
        if report.failed:
            reason = " ".join(report.longreprtext.split())
            self._failed.append(f"{_name(report.nodeid)}: {reason[-SAID:]}")

    def pytest_sessionfinish(self) -> None:
        """Say no more."""
        self._over.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._over.wait(self._every):
            # On a line of its own: the reporter does not know that it stands behind dots.
            self._reporter.write(f"\n{self.line()}\n")

    def line(self) -> str:
        """How far it is, and what has failed since the last line."""
        now = time.monotonic()
        failed = "".join(f"\nfailed: {one}" for one in self._failed)
        self._failed.clear()
        oldest = sorted(self._running.copy().items(), key=lambda item: item[1])[:SHOWN]
        names = ", ".join(f"{_name(nodeid)} ({now - since:.0f} s)" for nodeid, since in oldest)
        of = f" of {self._total}" if self._total else ""
        return f"{now - self._began:.0f} s: {self._done}{of} tests are done; now: {names or 'none'}{failed}"


def _name(nodeid: str) -> str:
    # The group that pytest-xdist puts behind a name says nothing to a person.
    return nodeid.partition("@")[0]


@pytest.hookimpl(trylast=True)  # once the reporter is there
def pytest_configure(config: pytest.Config) -> None:
    """Tell how far it is, where several processes run the tests."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and getattr(config.option, "numprocesses", None):
        config.pluginmanager.register(Progress(reporter), "poolscope-progress")
