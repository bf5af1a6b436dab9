"""Shapes of statements: no literal survives, and what is the same code has the same shape."""

from __future__ import annotations

import re
import threading
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poolscope.core.sql import fingerprint as statements
from poolscope.core.sql.fingerprint import LONGEST, LONGEST_SHAPE, analyse, is_query, shape_of, summary_of
from poolscope.core.sql.remembered import Remembered

SYSTEMS = ("postgresql", "mysql", "mariadb", "sqlite", "oracle.db", "microsoft.sql_server", "cockroachdb", "other_sql")
# A word that is in no template, whatever its letters become.
SECRET = "zqsecretqz"


def doubled(text: str, quote: str = "'") -> str:
    """A text between quotes, with those inside doubled."""
    return quote + text.replace(quote, 2 * quote) + quote


def escaped(text: str, quote: str = "'") -> str:
    """A text between quotes, with those inside and backslashes behind a backslash."""
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


# Text around the secret: all that could end a string too early or too late.
around = st.text(st.sampled_from("ab1 '\"\\$`[]{}()%:?;,.-/*#\n\tE\0"), max_size=12)
secret_text = st.builds(lambda before, after: f"{before}{SECRET}{after}".replace("\0", ""), around, around)
tags = st.sampled_from(["", "q", "msg", "é", "_1"])


def quoted_by_dollars(text: str, tag: str) -> str:
    """PostgreSQL's dollar quotes."""
    return f"${tag}${text.replace('$', '')}${tag}$"


standard = secret_text.map(doubled)
LITERALS = {
    "postgresql": st.one_of(
        standard,
        secret_text.map(lambda text: "E" + escaped(text)),
        secret_text.map(lambda text: "e'first' \n  " + escaped(text)),
        secret_text.map(lambda text: "N" + doubled(text)),
        secret_text.map(lambda text: "U&" + doubled(text)),
        st.builds(quoted_by_dollars, secret_text, tags),
    ),
    "mysql": st.one_of(
        secret_text.map(escaped),
        secret_text.map(lambda text: escaped(text, '"')),
        secret_text.map(lambda text: "_utf8mb4" + escaped(text)),
        secret_text.map(lambda text: doubled(text.replace("\\", ""), '"')),
    ),
    "sqlite": st.one_of(standard, secret_text.map(lambda text: doubled(text, '"'))),
    "oracle.db": st.one_of(
        standard,
        secret_text.map(lambda text: "q'[" + text.replace("]", "") + "]'"),
        secret_text.map(lambda text: "nq'!" + text.replace("!", "") + "!'"),
        secret_text.map(lambda text: "Q'{" + text.replace("}", "") + "}'"),
        secret_text.map(lambda text: "q'(" + text.replace(")", "") + ")'"),
        secret_text.map(lambda text: "q'<" + text.replace(">", "") + ">'"),
    ),
    "microsoft.sql_server": st.one_of(standard, secret_text.map(lambda text: "N" + doubled(text))),
    # It is not known whether a backslash escapes: both kinds of servers must be safe.
    "other_sql": st.one_of(
        standard,
        secret_text.map(escaped),
        secret_text.map(lambda text: doubled(text, '"')),
        secret_text.map(lambda text: escaped(text, '"')),
    ),
}
LITERALS["mariadb"], LITERALS["cockroachdb"] = LITERALS["mysql"], LITERALS["postgresql"]

literals_of_systems = st.sampled_from(SYSTEMS).flatmap(
    lambda system: st.tuples(st.just(system), LITERALS[system], LITERALS[system])
)
templates = st.sampled_from([
    "select * from users where name = {0} and note = {1}",
    "insert into users (name, note) values ({0}, {1})",
    "select {0}, {1}",
    "update users set name={0}, n = 1 where id in (1, {1}) -- it's",
    "/* it's */ select * from users u where u.name like {0} or u.note<>{1};",
    "call f({0},{1})",
])  # fmt: skip


@given(literals_of_systems, templates)
@example(("sqlite", "'a\\'", "'zqsecretqz'"), "select {0}, {1}")
@example(("other_sql", "'a\\'", "'zqsecretqz'"), "select {0}, {1}")
@example(("mysql", "'a'", "'zqsecretqz'"), "select 1--{0}, {1}")
@example(("other_sql", "'it\\' zqsecretqz'", "'b'"), "select {0}, {1}")
@example(("other_sql", '"it\\" zqsecretqz"', "'b'"), "select {0}, {1}")
@example(("mysql", "'it\\' zqsecretqz'", "'b'"), "select {0}, {1}")
@example(("postgresql", "E'it\\' zqsecretqz'", "'b'"), "select {0}, {1}")
@example(("postgresql", "$a$ 'b$a$", "'zqsecretqz'"), "select x$a$, {0}, {1}")
def test_no_text_survives(case: tuple[str, str, str], template: str) -> None:
    """Whatever is in the string, of whatever kind of string of that database."""
    system, first, second = case
    assert SECRET not in shape_of(template.format(first, second), system)


@given(literals_of_systems, templates, st.integers(0, 200))
def test_no_text_survives_where_the_statement_is_cut(case: tuple[str, str, str], template: str, length: int) -> None:
    """Wherever other tools, or we, cut a statement: an open string goes to the end."""
    system, first, second = case
    cut = template.format(first, second)[:length]
    prefix = SECRET[:5]
    assert prefix not in shape_of(cut, system)


NUMBERS = st.one_of(
    st.integers(10_000, 10**12).map(str),
    st.integers(-(10**12), -10_000).map(str),
    st.integers(10_000, 10**9).map(hex),
    st.floats(10_000, 1e300, allow_nan=False).map(repr),
    st.floats(1e-30, 1e-5).map(repr),
    st.integers(10**6, 10**9).map(lambda number: f"{number:_}"),
    st.integers(10**6, 10**9).map(lambda number: f".{number}"),
    st.integers(10**6, 10**9).map(oct),
    st.integers(10**6, 10**9).map(bin),
    st.integers(10**6, 10**9).map(lambda number: f"{number}."),
    st.integers(10**6, 10**9).map(lambda number: f"{number}junk"),
)


@given(st.sampled_from(SYSTEMS), NUMBERS, templates)
def test_no_number_survives(system: str, number: str, template: str) -> None:
    """Of whatever notation, and whatever stands before and behind it."""
    shape = shape_of(template.format(number, f"x -{number}"), system)
    assert not re.search(r"\d", shape), shape


@given(st.binary(min_size=1, max_size=20), st.sampled_from(["postgresql", "sqlite", "mysql"]))
def test_no_bytes_survive(value: bytes, system: str) -> None:
    """As hexadecimal strings, of both notations."""
    for literal in (f"X'{value.hex()}'", f"x'{value.hex()}'", f"0x{value.hex()}", f"'\\x{value.hex()}'"):
        assert shape_of(f"select * from t where a = {literal} and b", system) == "select * from t where a = ? and b"


@given(st.text(max_size=300), st.sampled_from(SYSTEMS))
@example("\0" + "5\0", "postgresql")
@example('select "a,b", "A 1" from t', "postgresql")
@example("select " + ", ".join(f'"Column {n}"' for n in range(400)), "postgresql")
@example("select " + "(" * 3000, "postgresql")
@example("/*" * 3000 + "x", "postgresql")
@example("values " + "(" * 100 + "1" + ")" * 100, "postgresql")
def test_a_shape_is_its_own_shape(statement: str, system: str) -> None:
    """For any text at all: it never raises, and once is enough."""
    shape = shape_of(statement, system)
    assert shape_of(shape, system) == shape
    assert len(shape) <= LONGEST_SHAPE
    summary_of(shape)
    is_query(statement)


@given(st.lists(st.sampled_from(
    ["select", "(", ")", "'", '"', "''", "\\", "$$", "$a$", "/*", "*/", "--", "\n", "1", "%s", ",", ";", "`", "[", "]",
     "q'", "values", "in", "?::int", "#", "@x", ":y", "0x", "E'", "...", "limit", "order by", "offset", "A", "…"]
), max_size=40), st.sampled_from(SYSTEMS))  # fmt: skip
def test_a_shape_of_whatever_could_be_sql_is_its_own_shape(parts: list[str], system: str) -> None:
    """The same for text made of SQL's own parts."""
    for between in (" ", ""):
        shape = shape_of(between.join(parts), system)
        assert shape_of(shape, system) == shape


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT * FROM t WHERE a=1", "select *\n from  T where A=22"),
        ("select * from t where id in (1)", "select * from t where id in (1, 2, 3)"),
        ("select * from t where id in (%s)", "select * from t where id in (%(a)s,%(b)s)"),
        ("select * from t where (a, b) in ((1,2))", "select * from t where (a, b) in ((1,2),(3,4))"),
        ("select * from t where a = any(array[1])", "select * from t where a = any(ARRAY[1, 2])"),
        ("select * from t where a = $1::int", "select * from t where a = $2::int"),
        ("insert into t values (1, now())", "insert into t values (1, now()), (2, now())"),
        ("select 1 -- a", "select 2 /* b */"),
        ("select 1;", "select 2"),
        ("select -1", "select 1"),
        ("select E'a\\'b'", "select 'c'"),
        ("select 'a'\n'b' from t", "select 'c' from t"),
    ],
)
def test_what_is_the_same_code_has_the_same_shape(one: str, other: str) -> None:
    """Literals, lengths of lists, comments, white space and case make no difference."""
    assert shape_of(one) == shape_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("select a from t", "select b from t"),
        ("select a from t1", "select a from t2"),
        ('select "A" from t', 'select "a" from t'),
        ("select * from t where a = 1", "select * from t where b = 1"),
        ("select * from t where a = 1", "select * from t where a > 1"),
        ("select * from t", "select * from t limit 1"),
        ("select 'a' 1", "select 'a'"),
        ("select 1 2", "select 3"),
    ],
)
def test_what_is_other_code_has_another_shape(one: str, other: str) -> None:
    """Names, operators and clauses do; the case of quoted names too."""
    assert shape_of(one) != shape_of(other)


def test_what_changes_with_each_look_is_no_sql() -> None:
    """What takes a few looks until it stays as it is has a shape; what takes more has none."""
    assert shape_of("----#", "mysql") == ""
    assert shape_of("-" * 8 + "#", "mysql") == ""
    assert shape_of("-" * 30 + "#", "mysql") == "?"


def test_names_stay_readable() -> None:
    """Of each database: they are what tells statements apart."""
    django = (
        'SELECT "users"."id", "users"."name" AS "n" FROM "users" INNER JOIN "posts" ON ("users"."id" = "posts"."uid")'
    )
    assert shape_of(django, "sqlite") == django.lower().replace("AS", "as")
    assert shape_of("SELECT `A`.b FROM `A`", "mysql") == "select `A`.b from `A`"
    assert shape_of("SELECT [A].[it's] FROM [A]", "microsoft.sql_server") == "select [A].[it's] from [A]"
    assert shape_of('SELECT "its" FROM "A,B"', "postgresql") == 'select "its" from "A,B"'


def test_long_shapes_are_cut_and_stay_apart() -> None:
    """Two that begin the same are not the same."""
    columns = ", ".join(f"a_rather_long_column_{letter}{other}" for letter in "abcdefghij" for other in "abcdefghij")
    one, other = (shape_of(f"select {columns} from t where {column} = 1") for column in ("x", "y"))
    assert one != other
    assert one[: LONGEST_SHAPE - 20] == other[: LONGEST_SHAPE - 20]
    assert len(one) <= LONGEST_SHAPE
    assert shape_of(one) == one


def test_a_shape_is_cut_at_one_length() -> None:
    """
    Nothing is cut of one that has it. What stands for the rest is the same in each process, and no name is cut within
    its quotes.
    """
    longest = "select " + "a" * (LONGEST_SHAPE - 7)
    assert shape_of(longest) == longest
    assert shape_of(longest + "a") == longest[:-10] + "…fpaadaip"
    assert shape_of(longest + "aa") == longest[:-10] + "…anllijfc"
    names = ", ".join(['"ab"', "`c d`"] * 300)
    for width in range(20):
        shape = shape_of(f"select {'a' * width}, {names}", "other_sql")
        assert shape.count('"') % 2 == shape.count("`") % 2 == 0
        assert LONGEST_SHAPE - 20 < len(shape) < LONGEST_SHAPE


@pytest.mark.parametrize(
    ("statement", "loops"),
    [
        ("select * from t where a in (" + ", ".join(["%s"] * 99) + ")", False),
        ("select * from t where a in (" + ", ".join(["%s"] * 100) + ")", True),
        ("select * from t where a in (" + ", ".join(["%s"] * 700) + ")", True),
        ("select * from t where a = any(array[" + ", ".join(["1"] * 99) + "])", False),
        ("select * from t where a = any(array[" + ", ".join(["1"] * 100) + "])", True),
        ("insert into t values (%s, now())", False),
        ("insert into t values (%s, now()), (%s, now())", True),
        ("select 1", True),
        ("select 1 from t", False),
        ("select * from t limit 5", False),
        ("select * from t limit 5, 10", True),
        ("select * from t limit 5 offset 10", True),
        ("select * from t for update skip locked limit 1", True),
        ("copy t from stdin", True),
        ("insert into t select * from unnest(%s)", True),
        ("insert into t select * from u", False),
    ],
)
def test_what_is_meant_to_be_repeated(statement: str, loops: bool) -> None:
    """A list of a hundred, several rows, a page by its number, the next job of a queue, a ping."""
    assert analyse(statement, "postgresql").loops is loops


def test_a_statement_cut_by_us_ends_with_what_is_whole() -> None:
    """So that the lengths of its literals make no difference."""
    shapes = {
        shape_of("insert into t values " + ", ".join(f"({number}, '{'x' * width}')" for number in range(LONGEST // 10)))
        for width in range(1, 20)
    }
    assert shapes == {"insert into t values (?)"}
    shapes = {
        shape_of("select * from t where id in (" + ", ".join(f"%({name}_{n})s::INTEGER" for n in range(LONGEST // 10)))
        for name in ("a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg")
    }
    assert shapes == {"select * from t where id in (?)"}


def test_a_statement_of_the_greatest_length_is_whole() -> None:
    """One sign more and it is cut: its last element is not whole, and it may end within a string."""
    whole = "select a," + " " * (LONGEST - 10) + "b"
    assert (len(whole), shape_of(whole), shape_of(whole + "b")) == (LONGEST, "select a, b", "select a")
    whole = "select 'a', x, '" + "b" * (LONGEST - 16)
    assert (len(whole), shape_of(whole), shape_of(whole + "b")) == (LONGEST, "select ?", "select ?, x")


def test_what_may_be_chunks_is_looked_at_in_a_whole_statement_that_is_not_meant_to_be_repeated() -> None:
    """For what is, or is cut, the values make no difference."""
    page = "select a from t where b > %s order by b limit 5"
    assert analyse(page, "postgresql").chunked is not None
    assert analyse(page + " offset %s", "postgresql").chunked is None
    assert analyse(page + " " * LONGEST, "postgresql").chunked is None


@pytest.mark.parametrize(
    ("statement", "query"),
    [
        ("SELECT 1", True),
        ("  with a as (select 1) select 1", True),
        ("\n\tselect 1", True),
        ("-- BEGIN\nselect 1", True),
        ("call p()", True),
        ("DECLARE c CURSOR FOR SELECT 1", True),
        ("BEGIN shop.pay(1); END;", True),
        ("settle_accounts", True),
        ("", True),
        ("BEGIN", False),
        ("begin;", False),
        ("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE", False),
        ("BEGIN IMMEDIATE", False),
        ("END", False),
        ("/* hint */ -- and more\n Commit", False),
        ("ROLLBACK TO SAVEPOINT a", False),
        ("SAVEPOINT a", False),
        ("RELEASE a", False),
        ("START TRANSACTION", False),
        ("SET LOCAL x = 1", False),
        ("RESET ALL", False),
        ("DISCARD ALL", False),
        ("SHOW x", False),
        ("PRAGMA table_info(t)", False),
        ("FETCH 10 FROM c", False),
        ("CLOSE c", False),
    ],
)
def test_control_is_no_query(statement: str, query: bool) -> None:
    """The begin and end of transactions, settings and resets, and fetches from cursors."""
    assert is_query(statement) is query


@pytest.mark.parametrize(
    ("statement", "summary"),
    [("select 1", "SELECT"), ("/* x */ Insert", "INSERT"), ("-- a\nwith", "WITH"), ("", "SQL"), ("1 + 1", "SQL")],
)
def test_the_summary_is_the_first_word(statement: str, summary: str) -> None:
    """In capitals, comments left out."""
    assert summary_of(shape_of(statement)) == summary


@pytest.mark.parametrize(
    "statement",
    [" " * 50_000 + "x", "/*" * 25_000, "--" * 25_000, "-- -- " * 9_000, "/* */" * 10_000 + "x", "'" * 49_999,
     "(" * 50_000, "values " + "(1," * 20_000, "(?," * 20_000, "a < ? order by " * 4_000, "$a$" * 16_000,
     "\\'" * 25_000, "1e" * 25_000, '"' * 49_999, "values (1),(" + "(" * 40_000,
     "[" * 50_000, "q'[" * 16_000, " " * 10_000_000, "/*" + "*" * 10_000_000,
     "select a < 1" + " and b < 1" * 900 + " order by limit"],
    ids=lambda statement: f"{len(statement)} signs, {statement[:6]!r}",  # whole, they would be part of the test's name
)  # fmt: skip
@pytest.mark.parametrize("system", SYSTEMS)
def test_no_statement_takes_long(statement: str, system: str) -> None:
    """Nothing makes the patterns try everything in every way."""
    began = time.thread_time()
    is_query(statement)
    summary_of(analyse(statement, system).text)
    assert time.thread_time() - began < 2.0


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By characters: it starts over when it is full. What is longer than is looked at is not remembered at all."""
    monkeypatch.setattr(statements, "_remembered", Remembered(1_000))
    for number in range(1_000):
        shape_of(f"select column_{number} from t")
    held = statements._remembered
    assert sum(len(text) for text, _ in held.known) <= 1_000
    assert 0 < held.size <= 1_100
    shape_of("select " + "x" * LONGEST)
    assert all(len(text) <= LONGEST for text, _ in held.known)


def test_threads_may_fingerprint_at_once() -> None:
    """Each gets the shape of its own statement."""
    wrong: list[str] = []

    def checkout(number: int) -> None:
        for place in range(300):
            shape = shape_of(f"select a_{number}_{place} from t where x = {place}")
            if shape != f"select a_{number}_{place} from t where x = ?":
                wrong.append(shape)

    threads = [threading.Thread(target=checkout, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
