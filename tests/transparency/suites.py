"""
Which tests of which library are run, in which version and on which database.

The tests come from a library's source distribution, pinned by version and SHA-256. What they need beside is pinned to
versions with which they are green without poolscope.
"""

from __future__ import annotations

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

    @property
    def title(self) -> str:
        """
        What it is called in the table and on the command line.
        """
        return f"{self.source.project} {self.source.version} {self.database}"


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


def _sqlalchemy(
    source: Source, pins: tuple[str, ...], drivers: tuple[str, ...], least: tuple[int, int], *, quick: bool
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
    )
    on_postgresql = on_sqlite._replace(
        database=POSTGRESQL,
        least=least[1],
        arguments=("-o", "python_files=test_*.py", "{database}"),
        drivers=drivers,
        quick=False,
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
    *_sqlalchemy(SQLALCHEMY_2_1, NEW, ("psycopg", "asyncpg"), (750, 800), quick=True),
    *_sqlalchemy(SQLALCHEMY_2_0, NEW, ("psycopg", "asyncpg"), (650, 700), quick=True),
    *_sqlalchemy(SQLALCHEMY_1_4, (*OLD, "pytest==7.4.4"), ("psycopg2", "asyncpg"), (800, 950), quick=True),
    *_sqlalchemy(SQLALCHEMY_1_4_OLDEST, (*OLD, "pytest==6.2.5"), ("psycopg2", "asyncpg"), (750, 900), quick=False),
)
