"""
Which tests of which library are run, in which version and on which database.

The tests come from a library's source distribution, pinned by version and SHA-256. What they need beside is pinned to
versions with which they are green without poolscope.
"""

from __future__ import annotations

import random
from typing import NamedTuple

SQLITE = "sqlite"
POSTGRESQL = "postgresql"


class Source(NamedTuple):
    """
    A source distribution.

    Args:
        project: The distribution's name.
        version: Its version.
        sha256: Of the archive.
    """

    project: str
    version: str
    sha256: str


class Suite(NamedTuple):
    """
    Tests of one library in one version on one database.

    Args:
        source: Where the tests come from.
        database: `SQLITE` or `POSTGRESQL`.
        pins: What is installed beside poolscope.
        tests: Files and folders of the source distribution.
        folders: Top-level folders of it that the tests need.
        pythons: Minor versions of Python that it runs on; the first that the machine has is taken.
        arguments: Further arguments for pytest; ``{database}`` stands for the database's URLs.
        drivers: SQLAlchemy's names of the drivers, for the URLs.
        install_source: Whether the source distribution itself is installed (else a wheel, by its pin).
        adapter: Which of poolscope's adapters has to be active.
        least: How many tests have to pass at least, so that an empty run is no success.
        quick: Whether it is part of the short run.
        short: What a part of the suite runs in any case; all of `tests` when empty.
        long: The other tests, in groups that take about as long as one another: a part runs one group. Node ids, each
            of exactly one test, which passes.
    """

    source: Source
    database: str
    pins: tuple[str, ...]
    tests: tuple[str, ...]
    folders: tuple[str, ...]
    adapter: str
    least: int
    pythons: tuple[str, ...] = ("3.11", "3.12", "3.13")
    arguments: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    install_source: bool = False
    quick: bool = False
    short: tuple[str, ...] = ()
    long: tuple[tuple[str, ...], ...] = ()

    @property
    def title(self) -> str:
        """What it is called in the table and on the command line."""
        return f"{self.source.project} {self.source.version} {self.database}"

    def part(self, group: int) -> Suite:
        """
        The suite with one group of its long tests.

        Args:
            group: Which one, from 0; of no meaning for a suite without long tests.

        Returns:
            A suite of which as many fewer tests have to pass as it leaves out.
        """
        if not self.long:
            return self
        chosen = self.long[group]
        left_out = sum(map(len, self.long)) - len(chosen)
        return self._replace(tests=(*self.short, *chosen), least=self.least - left_out, long=(chosen,))


SQLALCHEMY_1_4_OLDEST = Source(
    "sqlalchemy", "1.4.24", "5368ff1d334ee0956f6459f3ac7ac08da87ab00bc7ccda096d498bf68b49d1c1"
)
SQLALCHEMY_1_4 = Source("sqlalchemy", "1.4.54", "4470fbed088c35dc20b78a39aaf4ae54fe81790c783b3264872a0224f437c31a")
SQLALCHEMY_2_0 = Source("sqlalchemy", "2.0.58", "2acdcec9836b7c1514a9ad426e7731669a1186d96481a2e82c50bf2aebb49061")
SQLALCHEMY_2_1 = Source("sqlalchemy", "2.1.9", "d700a8b2edfb26282a470333d6bc4a454c4acda4d201a3bea7b72fa76c217d28")
ASYNCPG = Source("asyncpg", "0.32.0", "45e64e56714d888330b884aad1dfb363d0bf43fb343e3d1a8968525f3bade478")

REPORTS = "pytest-reportlog==1.0.0"
PYTEST = "pytest==8.4.2"
ASYNCPG_PIN = "asyncpg==0.32.0"
GREENLET = "greenlet==3.5.6"

# aiosqlite 0.22 keeps the interpreter of SQLAlchemy 1.4 from ending; 1.4.24 knows pytest up to 6, 1.4.54 up to 7.
OLD = (GREENLET, "aiosqlite==0.17.0", "psycopg2-binary==2.9.13", ASYNCPG_PIN, REPORTS)
NEW = (GREENLET, "aiosqlite==0.22.1", "psycopg[binary]==3.3.9", ASYNCPG_PIN, REPORTS, PYTEST)

SQLALCHEMY_TESTS = (
    "test/engine/test_pool.py",
    "test/engine/test_reconnect.py",
    "test/engine/test_transaction.py",
    "test/engine/test_execute.py",
    "test/ext/asyncio",
)
# In 2.0.58 and 2.1.9 seven tests, which cancel a task at each of its steps, take more than half of a suite's time.
_CANCELLATION = "test/ext/asyncio/test_cancellation.py"
_CANCELLED = f"{_CANCELLATION}::AsyncCancellationTest::test_cancel_anywhere"
SHORT = (
    *SQLALCHEMY_TESTS[:-1],
    *(f"test/ext/asyncio/test_{name}.py" for name in ("engine", "scoping", "session")),
    f"{_CANCELLATION}::RunToCompletionTest",
    f"{_CANCELLATION}::AsyncCancellationTest::test_dialect_supports_terminate",
    f"{_CANCELLATION}::AsyncCancellationTest::test_gc_of_checked_out_connection",
    f"{_CANCELLED}_recycle",  # skipped on SQLite, as is the next
    f"{_CANCELLED}_twice",
)
LONG = (
    (_CANCELLED, f"{_CANCELLED}_direct_close[False]"),
    (f"{_CANCELLED}_connect_event_fails", f"{_CANCELLED}_warm_pool"),
    (f"{_CANCELLED}_connection[False]", f"{_CANCELLED}_connection[True]", f"{_CANCELLED}_direct_close[True]"),
)


def _sqlalchemy(
    source: Source,
    pins: tuple[str, ...],
    drivers: tuple[str, ...],
    least: tuple[int, int],
    *,
    quick: bool,
    cancelled: bool = False,
) -> tuple[Suite, Suite]:
    on_sqlite = Suite(
        source=source,
        database=SQLITE,
        pins=pins,
        tests=SQLALCHEMY_TESTS,
        folders=("lib", "test"),
        adapter="sqlalchemy",
        least=least[0],
        # 1.4.24's own pattern of file names has a folder in it, which its own pytest did not mind.
        arguments=("-o", "python_files=test_*.py", "--db", "sqlite", "--db", "aiosqlite"),
        install_source=True,
        quick=quick,
        short=SHORT if cancelled else (),
        long=LONG if cancelled else (),
    )
    on_postgresql = on_sqlite._replace(
        database=POSTGRESQL,
        least=least[1],
        arguments=("-o", "python_files=test_*.py", "{database}"),
        drivers=drivers,
        quick=False,
        short=(),
        long=(),
    )
    return on_sqlite, on_postgresql


SUITES: tuple[Suite, ...] = (
    # First: what it has to repeat runs beside the others.
    Suite(
        source=ASYNCPG,
        database=POSTGRESQL,
        pins=(ASYNCPG_PIN, PYTEST, REPORTS),
        tests=("tests/test_pool.py",),
        folders=("tests",),
        adapter="asyncpg",
        least=55,
        quick=True,
    ),
    *_sqlalchemy(SQLALCHEMY_2_1, NEW, ("psycopg", "asyncpg"), (750, 800), quick=True, cancelled=True),
    *_sqlalchemy(SQLALCHEMY_2_0, NEW, ("psycopg", "asyncpg"), (650, 700), quick=True, cancelled=True),
    *_sqlalchemy(SQLALCHEMY_1_4, (*OLD, "pytest==7.4.4"), ("psycopg2", "asyncpg"), (800, 950), quick=True),
    *_sqlalchemy(SQLALCHEMY_1_4_OLDEST, (*OLD, "pytest==6.2.5"), ("psycopg2", "asyncpg"), (750, 900), quick=False),
)


def draw(seed: str) -> list[Suite]:
    """
    A part of the short run: of each library one suite, and of its long tests one group; the same for the same seed.

    Args:
        seed: Any text.

    Returns:
        The suites. A test of the short run is among them once in three draws, a long one once in nine, and asyncpg's
        each time.
    """
    chance = random.Random(seed)
    of_each: dict[str, list[Suite]] = {}
    for suite in SUITES:
        if suite.quick:
            of_each.setdefault(suite.source.project, []).append(suite)
    chosen = [chance.choice(suites) for suites in of_each.values()]
    return [suite.part(chance.randrange(len(suite.long) or 1)) for suite in chosen]
