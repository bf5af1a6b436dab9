"""Which locks a statement takes: of which tables, waiting or not; and which of them wait for one another."""

from __future__ import annotations

import tracemalloc

import pytest

from poolscope.core.sql import locking
from poolscope.core.sql.fingerprint import LONGEST
from poolscope.core.sql.locking import locks_of
from poolscope.core.sql.locks import Lock, Mode
from poolscope.core.sql.remembered import Remembered

READ, ROWS, NEW, TABLE, SHARED = Mode.READ, Mode.ROWS, Mode.NEW_ROWS, Mode.TABLE, Mode.SHARED_TABLE


def in_words(statement: str, system: str = "postgresql") -> list[str]:
    """The locks of a statement: what each is of, and a ``!`` for one that is not waited for."""
    return [f"{lock.mode.value}: {lock.name}{'' if lock.waits else '!'}" for lock in locks_of(statement, system)]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("select name from annotator where id = %(j)s for update", ["row lock: annotator"]),
        ("SELECT * FROM Annotator FOR NO KEY UPDATE", ["row lock: annotator"]),
        ("select * from a for share", ["shared row lock: a"]),
        ("select * from a for key share", ["shared row lock: a"]),
        ("select * from a for update skip locked", ["row lock: a!"]),
        ("select * from a for update nowait", ["row lock: a!"]),
        ('select * from app."Acc" as x join b on b.id = x.id for update of x', ["row lock: app.Acc", "reads: b"]),
        ("select * from a, b y where a.i = y.i for update", ["row lock: a", "row lock: b"]),
        ("select * from (select * from a for update) z", ["row lock: a"]),
        ("select * from (select * from a for update) y, (select * from b) z", ["row lock: a", "reads: b"]),
        ("select * from a for update; select * from b", ["row lock: a", "reads: b"]),
        ("select * from a for share; update b set x = 1", ["shared row lock: a", "row lock: b"]),
        ("select * from a where x = 1 order by y, z for update", ["row lock: a"]),
        ("select * from a, b as y for update of a, y", ["row lock: a", "row lock: b"]),
        ("select * from a, b as y for update of y nowait", ["reads: a", "row lock: b!"]),
        ("select * from a x, b y for update of x.salary", ["row lock: a", "reads: b"]),
        ("select * from s.a, b for update of a", ["row lock: s.a", "reads: b"]),
        ("select * from (select * from a, z for update of a) z", ["row lock: a", "reads: z"]),
        ("select distinct x from a for update", ["row lock: a"]),
        ("select skip, x from a for update", ["row lock: a"]),
        ("select skip value from a for update", ["row lock: a"]),
        ("select * from a where lock = 1", ["reads: a"]),
        ("select * from a where lock is null", ["reads: a"]),
        ("select state locked from a for update", ["row lock: a"]),
        ("select * from a for json auto", ["reads: a"]),
        ("select * from _a join __b on true", ["reads: _a", "reads: __b"]),
        ("select * from {a}", []),
        ("select * from [a", []),
        ('select * from a "b" for update', ["row lock: a"]),
        (
            "select * from a, (select * from b, (select * from (select * from d) w, c) x for update) y",
            ["reads: d", "reads: c", "row lock: b", "reads: a"],
        ),
        ("select * from a where x in (select y from b", ["reads: b", "reads: a"]),
        ("); with x as (select 1 from b) update a set z = 1", ["reads: b", "row lock: a"]),
        ("select a from t for update union select b from u", ["row lock: t", "reads: u"]),
        ("select a from t for update union distinct select b from u", ["row lock: t", "reads: u"]),
        ("select a from t for update except select b from u", ["row lock: t", "reads: u"]),
        ("select a from t for update intersect select b from u", ["row lock: t", "reads: u"]),
        ("select a from t union all select b from u", ["reads: t", "reads: u"]),
        ("select * from generate_series(1, 3) g, t", ["reads: t"]),
        ("update only public.items set x = 1 from o where o.i = items.i", ["row lock: public.items", "reads: o"]),
        ('update "shop_order" set "state" = %s', ["row lock: shop_order"]),
        ("delete from a where i = $1", ["row lock: a", "reads: a"]),
        ("insert into a (x, y) values (%s, %s)", ["unique key: a"]),
        ("insert into a (x) values (1) on conflict (x) do nothing", ["unique key: a"]),
        ("insert into a (x) values (1) on conflict (x) do update set y = 2", ["row lock: a"]),
        ("insert into a select * from b", ["unique key: a", "reads: b"]),
        ("merge into a using b on a.i = b.i when matched then delete", ["row lock: a", "reads: b"]),
        (
            "with x as (update a set z = 1 returning i), y as (select * from q for update) insert into c select 1",
            ["row lock: a", "row lock: q", "unique key: c"],
        ),
        ("with x as (select 1 from b) update a set z = 1", ["reads: b", "row lock: a"]),
        ("lock table a, s.b", ["table lock: a", "table lock: s.b"]),
        ("lock a in access exclusive mode nowait", ["table lock: a!"]),
        ("lock table a in share mode", ["shared table lock: a"]),
        ("lock table a in share mode; select * from b for update nowait", ["shared table lock: a", "row lock: b!"]),
        ("lock table a, b nowait", ["table lock: a!", "table lock: b!"]),
        ("lock table a in share row exclusive mode", ["lock against changes: a"]),
        ("lock table a in row exclusive mode", []),
        (
            "lock table a, b in share mode; select * from c",
            ["shared table lock: a", "shared table lock: b", "reads: c"],
        ),
        ("truncate table a, b cascade", ["table lock: a", "table lock: b"]),
        ("truncate a restart identity", ["table lock: a"]),
        ("alter table if exists only s.t add column x int", ["table lock: s.t"]),
        ("drop table if exists t", ["table lock: t"]),
        ("create unique index i on t (a)", ["shared table lock: t"]),
        ("create index concurrently i on t (a)", []),
        ("create or replace unique index i on s.t (a)", ["shared table lock: s.t"]),
        ("create view v as select index from t join u on t.i = u.i", ["reads: t", "reads: u"]),
        ("create table t (index (a), b timestamp on update now())", []),
        ("create index", []),
        ("drop index i", []),
        ("drop view if exists v", ["table lock: v"]),
        ("reindex table t", ["table lock: t"]),
        ("reindex table concurrently t", []),
        ("reindex (verbose) table concurrently t", []),
        ("cluster t", ["table lock: t"]),
        ("drop type x; create table t (a int)", []),
        ("drop index i; select 1 from t", ["reads: t"]),
        ("select * from a join b on a.i = b.i; create index i", ["reads: a", "reads: b"]),
        ("refresh materialized view m", ["table lock: m"]),
        ("refresh materialized view concurrently m", []),
        ("vacuum full t", ["table lock: t"]),
        ("vacuum t", []),
        ("begin; update t set a = 1; commit", ["row lock: t"]),
        ("select 'for update' from t -- for update", ["reads: t"]),
        ("/* update x */ select $$ from u for update $$ from t", ["reads: t"]),
        ("select pg_advisory_xact_lock(42)", ["advisory lock: "]),
        ("select pg_advisory_lock($1)", ["session-level advisory lock: "]),
        ("select pg_try_advisory_lock($1)", ["session-level advisory lock: !"]),
        ("select pg_advisory_xact_lock(hashtext('job'))", ["advisory lock: "]),
        ("select pg_advisory_lock(hashtext(lower($1)))", ["session-level advisory lock: "]),
        ("select 'pg_advisory_lock(1)'", []),
        ("select pg_sleep(3)", []),
        ("call f(1)", []),
        ("", []),
        ("update", []),
        ("select * from", []),
    ],
)
def test_the_locks_of_a_statement(statement: str, expected: list[str]) -> None:
    """Of each table, once; what stands in a comment or a string locks nothing."""
    assert in_words(statement) == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("delete from `Order` where id = %s", ["row lock: order", "reads: order"]),
        ("insert ignore into `t` (a) values (1)", ["unique key: t"]),
        ("insert into t (a) values (1) on duplicate key update a = 2", ["row lock: t"]),
        ("replace into t values (1)", ["row lock: t"]),
        ("select * from t lock in share mode", ["shared row lock: t"]),
        ("alter table `t` truncate partition p", ["table lock: t"]),
        ("select * from t where a = 'x' for update # note", ["row lock: t"]),
        ("lock tables a write, b read", ["table lock: a", "shared table lock: b"]),
        ("lock tables a write, b low_priority write; select 1", ["table lock: a", "table lock: b"]),
        ("lock tables a as x read local, s.b as y write", ["shared table lock: a", "table lock: s.b"]),
        ("select get_lock('job', 10)", ["session-level advisory lock: "]),
    ],
)
def test_the_locks_of_a_statement_of_mysql(statement: str, expected: list[str]) -> None:
    """Its quotes and its own words."""
    assert in_words(statement, "mysql") == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("select * from t", []),
        ("update t set a = 1", ["lock against changes: "]),
        ("insert into t select * from u", ["lock against changes: "]),
        ("drop table t", ["lock against changes: "]),
    ],
)
def test_the_locks_of_a_statement_of_sqlite(statement: str, expected: list[str]) -> None:
    """What writes locks all of the database against others that write."""
    assert in_words(statement, "sqlite") == expected


def test_the_locks_of_a_statement_of_sql_server() -> None:
    """Its brackets are quotes."""
    assert in_words("update dbo.[Order Line] set a = 1", "microsoft.sql_server") == ["row lock: dbo.Order Line"]


def test_the_locks_of_a_statement_of_another_database() -> None:
    """They are taken to be those of most."""
    assert in_words("update t set a = 1", "teradata") == ["row lock: t"]


@pytest.mark.parametrize(
    "before", ["; ", "; ; ", "commit; ", "select 1; ", "select 1, 2; ", "select " + "1, " * 9 + "1; "]
)
@pytest.mark.parametrize(
    ("statement", "system"),
    [
        ("select * from a for no key update skip locked", "postgresql"),
        ("select * from s.a as x, s.b y for share of x, y nowait", "postgresql"),
        ("select * from t lock in share mode", "mysql"),
        ("lock tables a write, low_priority b read", "mysql"),
        ("lock table only a, s.b in share row exclusive mode", "postgresql"),
        ("truncate table a, s.b, c cascade", "postgresql"),
        ("create unique index i on s.t (a)", "postgresql"),
        ("alter table if exists only s.t add column x int", "postgresql"),
        ("refresh materialized view m", "postgresql"),
        ("vacuum full t", "postgresql"),
        ("insert into a (x) select y from b on conflict (x) do update set y = 2", "postgresql"),
        ("delete from a using b where a.i = b.i", "postgresql"),
    ],
)
def test_a_statement_takes_the_same_locks_behind_others(statement: str, system: str, before: str) -> None:
    """However many words those have."""
    assert in_words(before + statement, system) == in_words(statement, system) != []


def test_a_name_is_found_behind_any_number_of_other_names() -> None:
    """A query of hundreds of columns, and what follows it in the same text."""
    columns = ", ".join(f"c.column_{number}" for number in range(300))
    assert in_words(f"select {columns} from c for update") == ["row lock: c"]
    assert in_words(f"lock table a in share mode; select {columns} from c") == ["shared table lock: a", "reads: c"]


def waits(waiting: str, holding: str) -> bool:
    """Whether the one statement may wait for what the other holds."""
    return any(
        one.waits_for(other) for one in locks_of(waiting, "postgresql") for other in locks_of(holding, "postgresql")
    )


UPDATE, SELECT = "update t set a = 1 where id = 1", "select * from t"


@pytest.mark.parametrize(
    ("waiting", "holding", "expected"),
    [
        (UPDATE, UPDATE, True),
        (UPDATE, "select * from s.t for update", True),
        ("update r.t set a = 1", "select * from s.t for update", False),
        (UPDATE, "select * from t for share", True),
        (UPDATE, SELECT, False),
        (UPDATE, "update u set a = 1", False),
        ("update u set a = 1", UPDATE, False),
        ("select * from t for update skip locked", UPDATE, False),
        (SELECT, UPDATE, False),
        (SELECT, "truncate t", True),
        ("alter table t add x int", SELECT, True),
        ("create index on t (a)", UPDATE, True),
        ("create index on t (a)", "create index on t (b)", False),
        ("lock table t in exclusive mode", "lock table t in exclusive mode", True),
        ("insert into t values (1)", "insert into t values (1)", True),
        ("insert into t values (1)", UPDATE, False),
        ("select * from t for share", "select * from t for share", False),
        ("select pg_advisory_lock(1)", "select pg_advisory_xact_lock(1)", True),
        ("select pg_advisory_lock(1)", "select pg_advisory_lock(2)", False),
        ("select pg_advisory_lock(2)", "select pg_advisory_lock(1)", False),
        ("select pg_advisory_lock(1)", "select pg_advisory_lock($1)", True),
        ("select pg_advisory_lock(1)", UPDATE, False),
        ("truncate t", "select pg_advisory_lock(1)", False),
        ("select pg_advisory_lock(1, 2)", "select pg_advisory_lock(1, 3)", False),
        ("select pg_advisory_lock(1, 2)", "select pg_advisory_lock(1, $1)", True),
        ("select pg_advisory_lock(hashtext('a'))", "select pg_advisory_lock(hashtext('a'))", True),
        ("select pg_advisory_lock(hashtext('a'))", "select pg_advisory_lock(hashtext('b'))", False),
        ("select pg_advisory_lock(hashtext('a'))", "select pg_advisory_lock(hashtext($1))", True),
        ("select get_lock('a', 5)", "select get_lock('a', 10)", True),
        ("select get_lock('a', 5)", "select get_lock('b', 5)", False),
    ],
)
def test_what_may_wait_for_what(waiting: str, holding: str, expected: bool) -> None:
    """Locks that cannot be held at once, of one table, as far as both name its schema."""
    assert waits(waiting, holding) is expected


def test_locks_of_whole_tables_exclude_one_another_whatever_the_rows() -> None:
    """Those of rows may be of others."""
    read, rows, table = Lock(READ, ("t",)), Lock(ROWS, ("t",)), Lock(TABLE, ("t",))
    assert read.excludes(table)
    assert table.excludes(read)
    assert Lock(SHARED, ("t",)).excludes(rows)
    assert not rows.excludes(rows)
    assert not Lock(NEW, ("t",)).excludes(Lock(NEW, ("t",)))


def test_a_lock_of_the_application_is_of_no_table() -> None:
    """It has a number or a name of the application's own, which is no table's name."""
    (lock,) = locks_of("select pg_advisory_xact_lock(42)", "postgresql")
    assert (lock.is_of_application, lock.name, lock.table) == (True, "", ("42",))
    (lock,) = locks_of("update s.t set a = 42", "postgresql")
    assert (lock.is_of_application, lock.name, lock.table) == (False, "s.t", ("t", "s"))


def test_a_long_statement_is_cut() -> None:
    """What is looked at has a bound; up to there everything is, also where a string is open then."""
    assert in_words("select 1 " + "," * 2 * LONGEST + " from t for update") == []
    locks = "delete from t where a = 'x' and exists (select 1 from u)"
    assert in_words(" " * (LONGEST - len(locks)) + locks) == ["row lock: t", "reads: t", "reads: u"]
    assert in_words(f"{locks} and b = '" + "x" * LONGEST) == ["row lock: t", "reads: t", "reads: u"]


def test_no_more_of_statements_is_kept_than_is_looked_at() -> None:
    """Bulk statements of a megabyte each that differ in their data, or in their text."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(100):
            in_words("insert into t values (1)" + " " * LONGEST + f"{number}" + "x" * 1_000_000)
        for number in range(500):
            in_words(f"insert into t{number} values ('" + "x" * LONGEST)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4_000_000


def test_locks_are_found_once_for_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as many statements as a service has, at each look at its leases."""
    looked: list[str] = []

    def looks(statement: str, _: str) -> tuple[Lock, ...]:
        looked.append(statement)
        return ()

    monkeypatch.setattr(locking, "_remembered", Remembered())
    monkeypatch.setattr(locking, "_found", looks)
    for _ in range(3):
        for number in range(2_000):
            locks_of(f"update table_{number} set a = %s where id = %s", "postgresql")
    assert len(looked) == 2_000
