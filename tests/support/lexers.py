"""Servers that say whether a statement is lexically what it is meant to be: its markers are values, or it parses."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any, Protocol

from tests.support.statements import COLUMN, OTHER_COLUMN, TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.lab.mariadb import MariaDB
    from examples.lab.postgres import Postgres
    from tests.support.statements import Statement

# What a parser says of text that it cannot read.
_PG_SYNTAX_ERRORS = ("42601", "22025", "22P06", "22021")
_MARIADB_SYNTAX_ERROR = 1064
_SCHEMA = f"create table {TABLE} ({COLUMN} int, {OTHER_COLUMN} text)"


class Server(Protocol):
    """A server with one row in the table, and nothing to lose."""

    def verify(self, statements: Sequence[Statement]) -> list[bool]:
        """
        Whether it reads each statement as it is meant.

        Args:
            statements: Any number.
        """


class PostgresLexer:
    """
    Many statements in each round trip: a function of the server's runs them, and undoes what they do.

    Args:
        connection: To a database of its own.
        standard: Whether standard_conforming_strings is on.
    """

    def __init__(self, connection: Any, *, standard: bool) -> None:
        self._connection = connection
        connection.execute(f"drop table if exists {TABLE}; {_SCHEMA}; insert into {TABLE} values (1, 'x')")
        connection.execute("""
            create or replace function lexes(statements text[], run bool[]) returns table (said text) as $f$
            declare one text; answer record; place int := 0;
            begin
                foreach one in array statements loop
                    place := place + 1;
                    begin
                        if run[place] then
                            execute one into answer;
                            said := answer::text;
                        else
                            execute one;
                            said := 'parsed';
                        end if;
                        raise exception using errcode = 'PS001';
                    exception
                        when sqlstate 'PS001' then null;
                        when others then said := 'error ' || sqlstate;
                    end;
                    return next;
                end loop;
            end $f$ language plpgsql
        """)
        connection.execute("set client_min_messages = error; set escape_string_warning = off")
        connection.execute(f"set standard_conforming_strings = {'on' if standard else 'off'}; set backslash_quote = on")
        connection.execute("set statement_timeout = '60s'")

    def verify(self, statements: Sequence[Statement]) -> list[bool]:
        """Whether it reads each statement as it is meant."""
        rows = self._connection.execute(
            "select said from lexes(%s::text[], %s::bool[])",
            ([one.text for one in statements], [one.runs for one in statements]),
        ).fetchall()
        return [_meant(one, said) for one, (said,) in zip(statements, rows, strict=True)]


def _meant(statement: Statement, said: str | None) -> bool:
    if said is None:
        return False
    if said.startswith("error "):
        return not statement.runs and not said.endswith(_PG_SYNTAX_ERRORS)
    return all(marker in said for marker in statement.answers)


class MariaDBLexer:
    """
    Queries are run; all else is prepared, and so parsed.

    Args:
        connection: PyMySQL's, to a database of its own.
        mode: Its sql_mode.
    """

    def __init__(self, connection: Any, mode: str) -> None:
        self._cursor = connection.cursor()
        self._cursor.execute(f"drop table if exists {TABLE}")
        self._cursor.execute(_SCHEMA)
        self._cursor.execute(f"insert into {TABLE} values (1, 'x')")
        self._cursor.execute("set sql_mode = %s", (mode,))

    def verify(self, statements: Sequence[Statement]) -> list[bool]:
        """Whether it reads each statement as it is meant."""
        return [self._runs(one) if one.runs else self._parses(one) for one in statements]

    def _runs(self, statement: Statement) -> bool:
        import pymysql

        try:
            self._cursor.execute(statement.text)
            said = " ".join(
                one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one)
                for one in self._cursor.fetchone() or ()
            )
        except pymysql.Error:
            return False
        return all(marker in said for marker in statement.answers)

    def _parses(self, statement: Statement) -> bool:
        import pymysql

        try:
            self._cursor.execute(f"prepare p from convert(0x{statement.text.encode().hex()} using utf8mb4)")
        except pymysql.Error as error:
            return error.args[0] != _MARIADB_SYNTAX_ERROR
        return True


class SQLiteLexer:
    """Queries are run; all else is compiled."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self._connection.execute(_SCHEMA)
        self._connection.execute(f"insert into {TABLE} values (1, 'x')")

    def verify(self, statements: Sequence[Statement]) -> list[bool]:
        """Whether it reads each statement as it is meant."""
        return [self._reads(one) for one in statements]

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _reads(self, statement: Statement) -> bool:
        try:
            if not statement.runs:
                with contextlib.suppress(sqlite3.ProgrammingError):  # it has parameters
                    self._connection.execute(f"explain {statement.text}").fetchone()
                return True
            row = self._connection.execute(statement.text).fetchone() or ()
        except sqlite3.Error as error:
            # It compiled as far as to look for what is not there.
            return not statement.runs and "no such" in str(error)
        said = " ".join(one.decode("latin-1") if isinstance(one, bytes) else str(one) for one in row)
        return all(marker in said for marker in statement.answers)


class NoServer:
    """Where none is to be had: all is as it is meant."""

    def verify(self, statements: Sequence[Statement]) -> list[bool]:
        """Whether it reads each statement as it is meant."""
        return [True] * len(statements)


@contextlib.contextmanager
def postgres_lexer(database: Postgres, *, standard: bool) -> Iterator[PostgresLexer]:
    """PostgreSQL, for as long as the block runs."""
    with database.connect() as connection:
        yield PostgresLexer(connection, standard=standard)


@contextlib.contextmanager
def mariadb_lexer(server: MariaDB, mode: str) -> Iterator[MariaDBLexer]:
    """MariaDB, for as long as the block runs."""
    import pymysql
    from pymysql.converters import encoders

    connection = pymysql.connect(
        host=server.host, port=server.port, user=server.user, password=server.password, database=server.database,
        charset="utf8mb4", autocommit=True, use_unicode=False, conv=dict(encoders),
    )  # fmt: skip
    with contextlib.closing(connection):
        yield MariaDBLexer(connection, mode)
