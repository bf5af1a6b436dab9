"""What a database reads as a literal, and who its users are, is not in a fingerprint; the rest of a statement is."""

from __future__ import annotations

import time

import pytest

from poolscope.core.sql.fingerprint import LONGEST, shape_of, summary_of
from poolscope.core.sql.lexer import STRING, tokens_of
from poolscope.core.sql.locking import locks_of
from poolscope.core.sql.syntax import SYSTEMS
from tests.support.scale import times

PG, MY, LITE, ORA, MS = "postgresql", "mysql", "sqlite", "oracle.db", "microsoft.sql_server"


@pytest.mark.parametrize(
    ("system", "statement", "shape"),
    [
        # Where a comment ends.
        (PG, "select 1 --it's\rwhere a = 'secret'", "select ? where a = ?"),
        (MY, "select 1 --\n, 'a\nsecret'", "select ?, ?"),
        (PG, "select /* a /* b */ ' */ x from t", "select x from t"),
        (PG, "select " + "/*" * 9 + "*/" * 8 + " secret */ x", "select x"),
        (MY, "select 1 /* /* */, 'secret' -- */", "select ?, ?"),
        (LITE, "select 1 --a\r'secret\n, 'secret'", "select ?, ?"),
        # Where a string ends.
        (PG, "select E'a' -- it's\n 'b\\'secret', x", "select ?, x"),
        (PG, "select E'a'\r'b\\'secret', x", "select ?, x"),
        (PG, "select name'\\', 'secret', x", "select name?, ?, x"),
        (PG, "select $€$it's secret$€$, x", "select ?, x"),
        (PG, "select x$a$, 'secret$a$', y", "select x$a$, ?, y"),
        (PG, "select U&'it''s \\0041' uescape '!', x", "select ? uescape ?, x"),
        ("cockroachdb", "select b'it\\'secret', x", "select ?, x"),
        (MY, "select t.x'it\\'s secret', y from t", "select t.x?, y from t"),
        (MY, "select /*!50000 'a*/ secret' */ x from t", "select x from t"),
        (MY, "select /*!40001 SQL_NO_CACHE */ x from t where a = 'secret'", "select x from t where a = ?"),
        (ORA, "select nq''it's secret'', x from dual", "select ?, x from dual"),
        (ORA, "select a#q'[', x, 'secret]' from dual", "select a#q?, x, ? from dual"),
        (LITE, "select [a]]b'secret']c", "select [a]]b?]c"),
        # What a setting of the server's decides.
        (PG, "select 'it\\'s secret', x from t", "select ?"),
        (PG, "select 'a\\' from t where b = 'secret'", "select ? from t where b = ?"),
        (MY, "select 'it\\'s', x from t where b = 'it\\'s'", "select ?, x from t where b = ?"),
        (MY, "select 'a\\', 'secret' from t", "select ?"),
        (MY, "select 'a\\', ' secret\\', ' from t", "select ?"),
        (MY, 'select x, "a\\"b" from t', "select x, ? from t"),
        # What is a name or a literal.
        (LITE, 'insert into "t" ("a", "b") values ("secret", 1)', 'insert into "t" ("a", "b") values (?)'),
        (LITE, 'update "t" set "a" = 1, "b" = max(1, "secret")', 'update "t" set "a" = ?, "b" = max(?)'),
        (LITE, 'select * from  "t" where a is distinct from "secret"', 'select * from "t" where a is distinct from ?'),
        (LITE, 'vacuum into "secret"', "vacuum into ?"),
        (LITE, 'select --into\nlower("secret")', "select lower(?)"),
        (LITE, "select $a('), 'secret'", "select ?, ?"),
        (MS, "select $12.50, 0xAB\\\ncd12, [it's], N'secret'", "select ?, ?, [it's], ?"),
        (MS, 'select x from "t" where "t"."a" = "secret"', 'select x from "t" where "t"."a" = ?'),
        (PG, "select a <@b, c->>'secret' from t", "select a <@b, c->>? from t"),
        # What cannot be read.
        (PG, "select x from t where a = 'O'Brien secret'", "select x from t where a = ?"),
        (PG, 'select x, "secret', "select x, ?"),
        (MY, "select x, `secret", "select x, ?"),
        (MY, "select /*M!100000 '*/secret' */, N'\\'' /*!999999 (x *", "select ?"),
        (PG, "select 'a\\'\\101, '), secret'", "select ?"),
        (PG, "select \xa00, 'secret'", "select \xa00, ?"),
        (PG, "select x, $q$secret", "select x, ?"),
        (PG, "\\connect shop secret", "?"),
        (PG, "select x \\gset secret", "select x ?"),
        (PG, "select x /* secret", "select x"),
        (MY, "select /*!50701 x*//*!50702 x*//*!50703 x*//*!50704 'a*/, secret'*/", "select ?"),
    ],
)  # fmt: skip
@pytest.mark.reliability(
    fault="a string or comment that ends elsewhere than it looks, or that the server's settings decide about",
    application="the same: statements are not changed",
    lost="nothing; of a statement that cannot be read for certain, the fingerprint ends with the first such literal",
)
def test_a_literal_ends_where_the_database_says(system: str, statement: str, shape: str) -> None:
    """No sooner and no later; what cannot be known is hidden."""
    assert shape_of(statement, system) == shape


@pytest.mark.parametrize(
    ("system", "statement", "shape"),
    [
        (PG, "ALTER ROLE bob PASSWORD 'secret'", "alter role ?"),
        (PG, "create user bob, alice", "create user ?"),
        (PG, "drop role if exists bob", "drop role ?"),
        (PG, 'GRANT SELECT ON t, u TO "Bob", alice', "grant select on t, u to ?"),
        (PG, "grant select (a, b) on t to bob; select 1", "grant select (a, b) on t to ?; select ?"),
        (PG, "grant admin to bob", "grant ?"),
        (PG, 'grant select on"t"to"bob"', 'grant select on"t"to?'),
        (PG, "revoke grant option for select on t from bob cascade", "revoke grant option for select on t from ?"),
        (PG, "set role bob", "set role ?"),
        (PG, "SET SESSION AUTHORIZATION bob", "set session authorization ?"),
        (PG, "set local search_path to bob", "set local search_path to ?"),
        (PG, "reassign owned by bob to alice", "reassign owned by ?"),
        (PG, "alter table t owner to bob", "alter table t owner to ?"),
        (PG, "create schema s authorization bob", "create schema s authorization ?"),
        (PG, "create database d owner bob encoding 'utf8'", "create database d owner ? encoding ?"),
        (PG, "create user mapping for bob server s options (password 'secret')", "create user mapping ?"),
        (PG, "alter index all in tablespace a owned by bob nowait", "alter index all in tablespace a owned by ?"),
        (PG, "alter function f() set a.b to secret", "alter function f() set ?"),
        (PG, "copy t from stdin with (format csv);\nbob,secret;x\n\\.\n", "copy t from stdin with (format csv); ?"),
        (PG, "copy t from stdin with (format binary)", "copy t from stdin with (format binary)"),
        (PG, "execute p(1)", "execute p(?)"),
        (PG, "grant execute on function f() to bob", "grant execute on function f() to ?"),
        ("cockroachdb", "show default privileges for role bob", "show default privileges ?"),
        (PG, "update t set role = 1 where owner = z", "update t set role = ? where owner = z"),
        (MY, "create user bob@localhost identified by 'secret'", "create user ?"),
        (MY, "create definer=`bob`@`localhost` view v as select a", "create definer=? view v as select a"),
        (MY, "set password for bob@localhost = 'secret'", "set password ?"),
        (MY, "grant proxy on bob@localhost to alice", "grant ?"),
        (MY, "kill user bob", "kill user ?"),
        (MY, "clone instance from bob@db:3306 identified by 'secret'", "clone instance from ?"),
        (ORA, 'ALTER USER bob IDENTIFIED BY "secret" REPLACE "old"', "alter user ?"),
        (ORA, "grant connect to bob identified by secret", "grant ?"),
        (ORA, "alter session set current_schema = bob", "alter session set ?"),
        (ORA, "create database link l connect to bob identified by secret", "create database link ?"),
        (ORA, "administer key management set keystore open identified by secret", "administer key management ?"),
        (ORA, "create pluggable database p admin user bob roles=(a)", "create pluggable database p admin user ?"),
        (ORA, "purge tablespace a user bob", "purge tablespace a user ?"),
        (ORA, "connect bob/secret@db", "connect ?"),
        (MS, "create login [corp\\bob] with password = 0x01 hashed", "create login ?"),
        (MS, "deny select on t to bob", "deny ?"),
        (MS, "exec sp_addlogin bob, secret", "exec sp_addlogin ?"),
        (MS, "sp_addlogin bob, secret", "sp_addlogin ?"),
        (MS, "declare @r int exec @r = [master].[dbo].[p] secret", "declare ? int exec ? = [master].[dbo].[p] ?"),
        (MS, "create asymmetric key k authorization bob", "create asymmetric key k authorization ?"),
        (MS, "create remote service binding b to service 'x' with user = bob",
         "create remote service binding b to service ? with user = ?"),
        (LITE, "pragma key = secret", "pragma key ?"),
        (LITE, "attach secret as x key 'secret'", "attach ?"),
        (LITE, "explain pragma key = secret", "explain pragma key ?"),
        (LITE, "create virtual table t using csv(filename=secret)", "create virtual table t using csv ?"),
    ],
)  # fmt: skip
@pytest.mark.reliability(
    fault="statements that name users and roles, or hold a password without quotes",
    application="the same: statements are not changed",
    lost="nothing; the names are not part of the fingerprint",
)
def test_users_and_passwords_are_no_part_of_a_fingerprint(system: str, statement: str, shape: str) -> None:
    """Where a database takes them without quotes, too; tables and columns stay."""
    assert shape_of(statement, system) == shape
    assert not {"bob", "alice"} & {part for lock in locks_of(statement, system) for part in lock.table}


def test_where_we_cut_a_statement_its_string_is_open() -> None:
    """What stands before it stays, and nothing of it is there."""
    for system in SYSTEMS:
        statement = "select x, 'a', " + " " * (LONGEST - 30) + "'secret" * 9
        assert shape_of(statement, system) == "select x, ?"


def test_the_end_of_what_cannot_be_read_is_one_string() -> None:
    """From its first string on."""
    assert tokens_of("select 'a', 'b' c'", PG) == [(STRING, 7, 18)]
    assert tokens_of("select 'a', 'b' c'", PG, cut=True)[-1] == (STRING, 17, 18)


def test_the_summary_of_a_comment_that_is_nested_is_the_statements() -> None:
    """It is made of the fingerprint, never of the statement."""
    assert summary_of(shape_of("/* a /* b */ secret */ select 1")) == "SELECT"


SOME = (PG, MY, LITE, ORA, MS, "cockroachdb", "other_sql")[: times(3, whole=7)]
REPEATED = (
    "E'a\\n' \n",
    "E'a'\n",
    "E'a' --\n",
    "%(",
    "%('",
    "$a$ ",
    "$a",
    "/*!1 ",
    "/*!50800 ",
    "\\'",
    "'\\",
    "'a\\' ",
    '"\\"',
    "grant a on ",
    "set role ",
    "create database a ",
    "; set a ",
    "definer=a@",
    "schema a authorization ",
    "create user ",
    'into "a" (',
    '"a".',
    'set "a" = 1, ',
    '"a", (',
    "q'[",
    "q'' ",
    "[",
    "]]",
    "0x1\\\n",
    "1e",
    "$a::",
    "$a(",
    "*/",
    "-",
    "+.",
    "; create schema ",
    " owner ",
    "security label for a on ",
    "kill hard ",
    "exec sp_a ",
    "exec a ",
    "exec ? = ",
    "create function a ",
    "; create function a ",
    "; create virtual table ",
    "; copy a ",
    "copy a from stdin (",
    "all in tablespace ",
    "alter database a ",
    ": ",
    "::",
    "@",
    "#",
)


@pytest.mark.parametrize("repeated", REPEATED)
def test_time_grows_with_the_length_alone(repeated: str) -> None:
    """A statement that is four times as long takes no more than that, and some."""
    for system in SOME:
        assert any(_grows(repeated, system) < 12 for _ in range(5)), system


def _grows(repeated: str, system: str) -> float:
    short, long = (_seconds(repeated * (length // len(repeated)), system) for length in (2_400, 9_600))
    return long / (short + 0.001)


def _seconds(statement: str, system: str) -> float:
    # It is not remembered: its beginning is another one each time.
    began = time.thread_time()
    shape_of(f"{time.monotonic_ns()} {statement}", system)
    return time.thread_time() - began
