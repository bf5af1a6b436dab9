"""
What is fuzzed: functions that take any bytes, and fail where a law does not hold for them.

They need no fuzzer: a test gives them the seeds, and whatever was found before (`found`). Where `pglast` is there,
PostgreSQL's own lexer as a library, it says what a literal is; SQLite says so itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg.conninfo  # noqa: F401 - the adapter parses with the driver that is there

from poolscope.adapters import libpq
from poolscope.adapters.address import file_of, is_address, is_number, is_plain, is_torn, place, server_of, text_of
from poolscope.adapters.identity import login_of
from poolscope.core.sql.fingerprint import LONGEST_SHAPE, is_query, shape_of, summary_of
from poolscope.core.sql.lasting import kind_of
from poolscope.core.sql.lexer import tokens_of
from poolscope.core.sql.locking import locks_of
from poolscope.core.sql.syntax import SYSTEMS
from poolscope.report.reader import ReportError, read
from tests.support.statements import MAKERS, leaks, made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
FOUND = Path(__file__).parent / "found"
#: What a seed has in the place of a literal or password.
MARKER = "qxzjvkqzxj"
ALL_SYSTEMS = (*sorted(SYSTEMS), "other_sql")
# What the lexer of PostgreSQL calls literals, and comments.
_HIDDEN = {"SCONST", "USCONST", "XCONST", "BCONST", "FCONST", "ICONST", "SQL_COMMENT", "C_COMMENT"}
_PASSWORD = re.compile(r"\w+(?:\+\w+)?://[^:@/?#]*:(.*)@", re.DOTALL)
_SCAN: Callable[[str], Any] | None = None
if importlib.util.find_spec("pglast"):
    from pglast.parser import ParseError, scan

    _SCAN = scan


class Target(NamedTuple):
    """
    What is fuzzed.

    Args:
        run: Takes any bytes; raises where a law does not hold.
        seeds: What the fuzzer begins with.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def fingerprint(data: bytes) -> None:
    """
    A statement of any database: nothing raises, a shape is its own shape, and what the database's lexer calls a literal
    is hidden.
    """
    if not data:
        return
    system = ALL_SYSTEMS[data[0] % len(ALL_SYSTEMS)]
    text = data[1:].decode("utf-8", "ignore")
    tokens = tokens_of(text, system)
    at = 0
    for token in tokens:
        assert at <= token.start < token.end <= len(text), tokens
        at = token.end
    shape = shape_of(text, system)
    assert len(shape) <= LONGEST_SHAPE
    assert shape_of(shape, system) == shape, shape
    summary_of(shape)
    is_query(text)
    kind_of(text)
    exported = "\n".join([shape, *(lock.name for lock in locks_of(text, system))])
    if system == "postgresql":
        _as_postgresql(text, [(token.start, token.end) for token in tokens])
    elif system == "sqlite" and text.count(MARKER) == 1 and MARKER in _answer_of_sqlite(text):
        assert not leaks(exported, (MARKER,)), exported


def _as_postgresql(text: str, hidden: list[tuple[int, int]]) -> None:
    if _SCAN is None or "\0" in text:
        return
    try:
        found = _SCAN(text)
    except ParseError:
        return
    visible = list(text)
    for start, end in hidden:
        visible[start:end] = " " * (end - start)
    for token in found:
        if token.name in _HIDDEN:
            # A string that goes on is one, with the space between.
            left = "".join(visible[token.start : token.end + 1])
            assert not left.strip(" \t\n\r\f\v"), (token, left, hidden)


def _answer_of_sqlite(text: str) -> str:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table t (a, b)")
        connection.execute("insert into t values (1, 2)")
        connection.set_progress_handler(lambda: 1, 10_000)
        try:
            row = connection.execute("select " + text.partition("select ")[2]).fetchone() or ()
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError, OverflowError):
            return ""
        return "" if not text.startswith("select ") else " ".join(map(str, row))


def login(data: bytes) -> None:
    """A DSN, a URL, or a part of either: nothing raises, and what names a pool holds nothing of a password."""
    text = data.decode("utf-8", "ignore")
    for read_text in (is_torn, server_of, is_address, is_number, is_plain, file_of, text_of):
        read_text(text)
    login_of([text, {"user": text, "port": 1}])
    place(text[:20], text[20:25], text[25:])
    known = libpq.identify([libpq.parse(text)])
    said = (known.name, known.address, known.namespace, server_of(text))
    # As who wrote it means it: all from the first colon to the last "@" of a URL.
    password = _PASSWORD.search(text)
    if password is not None and text.count(MARKER) == 1 and MARKER in password[1]:
        assert not leaks(" ".join(map(str, said)), (MARKER,)), said


def report(data: bytes) -> None:
    """A file that may be telemetry: it is read, or an error says what is wrong with it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "telemetry.jsonl"
        path.write_bytes(data)
        with contextlib.suppress(ReportError):
            read([path])


def _statements() -> Iterator[bytes]:
    for system in MAKERS:
        number = ALL_SYSTEMS.index(system)
        for form in range(60):
            statement = made(system, form, form, escapes=system == "mariadb", doubles=system == "mariadb")
            text = statement.text
            for number_of, marker in enumerate(statement.markers):
                text = text.replace(marker, f"b{number_of}" if number_of else MARKER)
            yield bytes([number]) + text.encode()


def _logins() -> Iterator[bytes]:
    for scheme in ("postgresql", "postgres", "mysql+pymysql", "sqlite"):
        for password in (
            "",
            ":" + MARKER,
            f":{MARKER}@x",
            f":a/{MARKER}",
            f":{MARKER}#",
            f":%40{MARKER}%2F",
            f":[{MARKER}",
        ):
            yield f"{scheme}://bob{password}@host:5432/shop?sslmode=require&password={MARKER}".encode()
            yield f"{scheme}://bob{password}@one:1,two:2/shop".encode()
    yield f"host=a port=1 user=bob password='{MARKER} \\' x' dbname=shop".encode()
    yield f"host = a password = {MARKER}\\ b options='-c x=y'".encode()
    yield b"file:shop.db?mode=ro&key=" + MARKER.encode()


def _files() -> Iterator[bytes]:
    for path in sorted((ROOT / "tests" / "data" / "otlp").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            yield line[:4_000]
            for small in _smaller(json.loads(line)):
                yield json.dumps(small).encode()


def _smaller(export: Any) -> Iterator[Any]:
    # One metric, span or record each.
    for resources in export.values():
        for resource in resources:
            for key, scopes in resource.items():
                if not key.startswith("scope"):
                    continue
                for scope in scopes:
                    for name, items in scope.items():
                        if isinstance(items, list):
                            outer = {k: v for k, v in export.items() if v is not resources}
                            one = {**resource, key: [{**scope, name: items[:1]}]}
                            yield {**outer, next(k for k, v in export.items() if v is resources): [one]}


TARGETS = {
    "fingerprint": Target(fingerprint, _statements),
    "login": Target(login, _logins),
    "report": Target(report, _files),
}
