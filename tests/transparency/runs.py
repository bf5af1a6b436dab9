"""One run of a suite's tests in a process of their own, with the hooks or without."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from examples.lab.processes import Child
from tests.transparency import sources
from tests.transparency.outcomes import read
from tests.transparency.suites import POSTGRESQL
from tools.venvs import cache, environment, interpreters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.lab.postgres import Postgres
    from tests.transparency.suites import Suite

PLUGINS = Path(__file__).resolve().parent
# A test that stands still for so long prints the stacks of all threads; the run is ended some time later.
STUCK_SECONDS = 90
RUN_SECONDS = 480.0
# The longest test takes a tenth of this on a quiet machine; pytest reports the beginning and the end of each.
STOPPED_SECONDS = 150.0
# pytest's exit codes of a session that came to its end: all passed, some failed; and the plugin's own.
CAME_TO_ITS_END = (0, 1)
UNFIT = 9
LOG_LINES = 30
LOG_SECONDS = 7 * 24 * 3600.0  # how long what a run printed is kept


class Run(NamedTuple):
    """
    What came of one run.

    Args:
        outcomes: By test.
        problem: Why it is not to be trusted; empty when it is.
        seconds: How long it took.
        evidence: What the hooks saw (the plugin's report); empty without them.
        log: What it printed.
        is_stopped: Whether a test did not end, and the run was ended.
    """

    outcomes: dict[str, str]
    problem: str
    seconds: float
    evidence: dict[str, Any]
    log: str = ""
    is_stopped: bool = False


class NoPythonError(Exception):
    """None of the Pythons that a suite runs on is on this machine."""


class Runner:
    """
    Runs suites, several at a time if called from several threads.

    Args:
        server: A PostgreSQL server on which databases can be made; None when no suite needs it.
    """

    def __init__(self, server: Postgres | None) -> None:
        self._server = server
        self._preparing = threading.Lock()
        self._numbers = itertools.count(1)

    def run(self, suite: Suite, *, hooks: bool, tests: Sequence[str] = (), first: bool = True) -> Run:
        """
        Run a suite once, on a fresh copy of its source and in an empty database.

        Args:
            suite: The suite.
            hooks: Whether poolscope is in.
            tests: Node ids, to run these alone.
            first: Whether it is no repetition, whose output is kept apart.

        Returns:
            What came of it.

        Raises:
            NoPythonError: There is no Python for it.
        """
        python, archive = self._prepare(suite)
        with tempfile.TemporaryDirectory(prefix="poolscope-transparency-") as temporary:
            folder = Path(temporary)
            (folder / "source").mkdir()
            work = sources.unpack(archive, suite.folders, folder / "source")
            with self._database(suite) as (arguments, variables):
                command = [python, "-X", "faulthandler", "-m", "pytest", *_arguments(folder, hooks=hooks), *arguments]
                command += dict.fromkeys(map(_selectable, tests)) or suite.tests
                log = _log(suite, hooks=hooks, first=first)
                return _run(command, _environment(hooks=hooks) | variables, work, log)

    def _prepare(self, suite: Suite) -> tuple[Path, Path]:
        # One at a time: the two runs of a suite share an environment.
        with self._preparing:
            here = {python.minor: python.path for python in interpreters()}
            python = next((here[minor] for minor in suite.pythons if minor in here), None)
            if python is None:
                raise NoPythonError(f"no Python {' or '.join(suite.pythons)} on this machine")
            archive = sources.fetch(suite.source)
            os.environ.update(sources.PURE_PYTHON)
            own = (f"{suite.source.project} @ {archive.as_uri()}",) if suite.install_source else ()
            return environment(python, ["-e.[sdk]", *own, *suite.pins]), archive

    @contextlib.contextmanager
    def _database(self, suite: Suite) -> Iterator[tuple[list[str], dict[str, str]]]:
        """An empty database: the arguments and environment variables that lead to it."""
        if suite.database != POSTGRESQL or self._server is None:
            yield list(suite.arguments), {}
            return
        made = self._server.create_database(f"transparency_{next(self._numbers)}")
        with made.connect() as connection:
            for schema in ("test_schema", "test_schema_2"):  # SQLAlchemy's tests take them for granted
                connection.execute(f"CREATE SCHEMA {schema}")
        urls = [word for driver in suite.drivers for word in ("--dburi", made.url(driver))]
        arguments = [word for one in suite.arguments for word in (urls if one == "{database}" else [one])]
        login = {"PGUSER": made.user, "PGPASSWORD": made.password, "PGDATABASE": made.database}
        # Else asyncpg asks for TLS first; at times it then leaves an error that is not fetched, and one of its tests,
        # which looks for such, fails: 24 of 74 times, with the hooks or without.
        login["PGSSLMODE"] = "disable"
        yield arguments, {"PGHOST": made.host, "PGPORT": str(made.port), **login}
        self._server.drop_database(made.database)


def _arguments(folder: Path, *, hooks: bool) -> list[str]:
    # The projects' own settings end a session after some failures.
    arguments = ["-q", "-p", "no:cacheprovider", "--maxfail=1000000", "-o", f"faulthandler_timeout={STUCK_SECONDS}"]
    arguments += [f"--report-log={folder / 'report.jsonl'}"]
    return [*arguments, "-p", "plugin", f"--poolscope-report={folder / 'seen.json'}"] if hooks else arguments


def _environment(*, hooks: bool) -> dict[str, str]:
    strange = ("OTEL_", "POOLSCOPE_", "PYTEST_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    kept["PYTHONHASHSEED"] = "0"  # sets in one order, in both runs
    return {**kept, "PYTHONPATH": str(PLUGINS)} if hooks else kept


def _run(command: Sequence[str | Path], variables: dict[str, str], work: Path, log: Path) -> Run:
    folder = work.parent.parent
    began = time.monotonic()
    problem = ""
    with Child(command, log=log, env=variables, cwd=work) as child:
        code = _code_of(child, folder / "report.jsonl")
        if code is None:
            problem = f"it did not end within {RUN_SECONDS:g} s, or a test not within {STOPPED_SECONDS:g} s"
        elif code not in (*CAME_TO_ITS_END, UNFIT):
            problem = f"pytest ended with {code}"
        if problem:
            problem += f"; {log} ends:\n{child.log_tail(LOG_LINES)}"
    seen = folder / "seen.json"
    evidence = json.loads(seen.read_text()) if seen.exists() else {}
    seconds = time.monotonic() - began
    return Run(read(folder / "report.jsonl"), problem, seconds, evidence, str(log), code is None)


def _code_of(child: Child, report: Path) -> int | None:
    # Its exit code; None where no test ends any more, or all of it takes too long.
    began = last = time.monotonic()
    size = 0
    while True:
        with contextlib.suppress(TimeoutError):
            return child.wait(1.0)
        now, before = time.monotonic(), size
        size = report.stat().st_size if report.exists() else 0
        last = now if size != before else last
        if now - last > STOPPED_SECONDS or now - began > RUN_SECONDS:
            return None


def _selectable(test: str) -> str:
    # SQLAlchemy's tests are multiplied by databases after they are collected; only their names before that select them.
    return re.sub(r"_(sqlite|postgresql)\+\w+(?=::)", "", test)


def _log(suite: Suite, *, hooks: bool, first: bool) -> Path:
    folder = cache() / "transparency" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.log"):
        # Another process may be doing the same.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > LOG_SECONDS:
                old.unlink()
    # Another checkout, or another run of this one, may be at the same suite.
    which = f"{'with' if hooks else 'without'}{'' if first else '-again'}-{os.getpid()}"
    log = folder / f"{suite.title.replace(' ', '-')}-{which}.log"
    log.unlink(missing_ok=True)
    return log
