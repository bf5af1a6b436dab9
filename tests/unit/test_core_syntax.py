"""Where databases differ in what a comment and a string is, and what is done where a setting or a version decides."""

from __future__ import annotations

import pytest

from poolscope.core.sql.fingerprint import shape_of
from poolscope.core.sql.syntax import SYSTEMS, syntaxes_of, versions_of

PG, MY, LITE, ORA, MS = "postgresql", "mysql", "sqlite", "oracle.db", "microsoft.sql_server"


@pytest.mark.parametrize(
    ("version", "shape"),
    [
        ("", "select w"),
        ("50000", "select w"),
        ("50699", "select w"),
        ("50700", "select ? w"),
        ("199999", "select ? w"),
        ("200000", "select ? */ z */ w"),
        ("999999", "select ? */ z */ w"),
    ],
)
@pytest.mark.parametrize("system", [MY, "mariadb"])
def test_what_executes_a_comment_depends_on_its_version(system: str, version: str, shape: str) -> None:
    """
    Where all servers do, a quote in it hides the end; where none does, it ends at the first one. What some do is hidden
    in either way.
    """
    assert shape_of(f"select /*!{version} 'a*/ x', y /* ' */ z */ w", system) == shape


def test_a_comment_for_mariadb_may_be_executed() -> None:
    """MySQL does not, whatever the version."""
    assert shape_of("select /*M!50000 'a*/ x', y /* ' */ z */ w", MY) == "select ? w"


def test_of_some_comments_each_may_be_executed() -> None:
    """In any combination, of as many kinds as are read."""
    comments = [f"/*!5070{number} 'a*/ x{number}', y /* ' */ z */" for number in range(3)]
    assert shape_of(f"select {comments[0]} v {comments[1]} w", MY) == "select ? v ? w"
    assert shape_of(f"select {comments[0]} v {comments[1]} w {comments[2]} u", MY) == "select ? v ? w ? u"


def test_a_comment_may_lie_in_one_that_is_not_executed() -> None:
    """In MariaDB, one deep; MySQL ends both at the first end."""
    assert shape_of("select /*!50800 a /* b */ c */ x", MY) == "select x"
    assert shape_of("select /*!50800 a /* b */ 'c', */ x", MY) == "select ? x"
    assert shape_of("select /*!50800 a /* b /* c /* d */ e */ x, 'y' */ z */ w", MY) == "select ? z */ w"
    assert shape_of("select 'x', /* a /* b */ c", MY) == "select ?, c"


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("select 1", set()),
        ("/* a ! */", set()),
        ("/*! a */ /*!50000 b */ /*M!100100 c */", {"/*!", "/*!50000", "/*M!100100"}),
        ("/*!199999 a */ /*!200000 b */", {"/*!199999"}),
    ],
)
def test_which_comments_a_server_may_execute(text: str, versions: set[str]) -> None:
    """Of any version that there is."""
    assert versions_of(text) == versions


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_what_is_not_in_doubt_is_read_in_one_way(system: str) -> None:
    """Most statements: no backslash, no carriage return, no comment that a server executes."""
    assert len(syntaxes_of(system, "select 'a', \"b\" from t -- c\n")) == 1


@pytest.mark.parametrize(
    ("system", "text", "ways"),
    [
        (PG, "'\\'", 2),
        ("cockroachdb", "'\\'", 2),
        (MY, "'\\'", 3),
        (LITE, "'\\' \r", 1),
        (ORA, "\r", 2),
        (MS, "\r", 2),
        (PG, "\r", 1),
        (MY, "/*!50000 a */", 2),
        (MY, "/*!50000 a */ '\\'", 6),
        (MY, "/*!50700 a */", 4),
        (MY, "/*!50700 a */ /*!50701 b */ /*!50702 c */", 16),
        ("other_sql", "select 1", 5),
    ],
)
def test_a_text_is_read_in_each_way_that_there_is(system: str, text: str, ways: int) -> None:
    """By settings, by what is executed, by whether a comment may lie in another one."""
    assert len(syntaxes_of(system, text)) == ways


@pytest.mark.parametrize(
    ("system", "statement", "shape"),
    [
        (ORA, "select 1 --a\r, 'b'\n, x", "select ? ?, x"),
        (MS, "select 1 --a\r, x\n, y", "select ?, y"),
        (LITE, "select 1 --a\r, x\n, y", "select ?, y"),
        (PG, "select 1 --a\r, x\n, y", "select ?, x, y"),
        (PG, "select e'a\\'b', b'1', x", "select ?, ?, x"),
        ("cockroachdb", "select e'a\\'b', b'a\\'b', x", "select ?, ?, x"),
    ],
)
def test_each_database_has_its_own_line_ends_and_escapes(system: str, statement: str, shape: str) -> None:
    """A carriage return ends a comment in PostgreSQL; where it may, what follows is hidden only if it is a literal."""
    assert shape_of(statement, system) == shape
