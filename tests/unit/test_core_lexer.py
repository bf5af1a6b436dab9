"""Where comments, strings, names, parameters and numbers begin and end; what is made of readings that differ."""

from __future__ import annotations

import pytest

from poolscope.core.sql.lexer import COMMENT, NAME, NUMBER, PARAMETER, STRING, tokens_of

PG, MY, LITE, ORA, MS, ANY = "postgresql", "mysql", "sqlite", "oracle.db", "microsoft.sql_server", "other_sql"


def found(statement: str, system: str, *, cut: bool = False) -> list[tuple[str, str]]:
    """The kind and the text of each token; what is between two of them is no part of any."""
    tokens = tokens_of(statement, system, cut=cut)
    ends = [0, *(token.end for token in tokens)]
    assert all(end <= token.start < token.end <= len(statement) for end, token in zip(ends, tokens, strict=False))
    return [(kind, statement[start:end]) for kind, start, end in tokens]


@pytest.mark.parametrize(
    ("system", "statement", "expected"),
    [
        (PG, "", []),
        (PG, "'a'", [(STRING, "'a'")]),
        (PG, "x", []),
        (PG, "1", [(NUMBER, "1")]),
        (PG, "$$a$$", [(STRING, "$$a$$")]),
        (PG, "$t$a$$b$t$, $1", [(STRING, "$t$a$$b$t$"), (PARAMETER, "$1")]),
        (PG, "$$a", [(STRING, "$$a")]),
        (PG, "/* a /* b */ */ x -- c", [(COMMENT, "/* a /* b */ */"), (COMMENT, "-- c")]),
        (PG, 'select "A", %s, :b', [(NAME, '"A"'), (PARAMETER, "%s"), (PARAMETER, ":b")]),
        (MY, "/* a /* b */ x", [(COMMENT, "/* a /* b */")]),
        (MY, "/*!50000 a 'b' */ c 'd'", [(COMMENT, "/*!50000 a 'b' */"), (STRING, "'d'")]),
        (MY, "/*!50000 a /*!50000 b */ c", [(COMMENT, "/*!50000 a /*!50000 b */")]),
        (ORA, "q'[a]]', 1", [(STRING, "q'[a]]'"), (NUMBER, "1")]),
        (ORA, "q'$it's$', 1", [(STRING, "q'$it's$'"), (NUMBER, "1")]),
        (ORA, "nq'{a}', 1", [(STRING, "nq'{a}'"), (NUMBER, "1")]),
        (ORA, "q'<a>', 1", [(STRING, "q'<a>'"), (NUMBER, "1")]),
        (ORA, "q'(a)', 1", [(STRING, "q'(a)'"), (NUMBER, "1")]),
        (ORA, "q'[a", [(STRING, "q'[a")]),
        (MY, "select 'b', /*!50000 a", [(STRING, "'b', /*!50000 a")]),
        (MS, "[a b], N'c'", [(NAME, "[a b]"), (STRING, "N'c'")]),
    ],
)
def test_each_token_is_found_where_it_is(system: str, statement: str, expected: list[tuple[str, str]]) -> None:
    """From its first sign to its last one, also at the very beginning and at the end."""
    assert found(statement, system) == expected


@pytest.mark.parametrize(
    ("system", "statement", "expected"),
    [
        # One reading ends the string early, the other one late; what both agree about stays.
        (PG, "select \"N\", 'a\\'' from t", [(NAME, '"N"'), (STRING, "'a\\'' from t")]),
        (PG, "'a\\', \"'\", \"x\", '\\' -- \"", [(STRING, "'a\\', \"'"), (STRING, "'\\'"), (COMMENT, '-- "')]),
        (ANY, "select 'a\\', 'b' -- c", [(STRING, "'a\\'"), (STRING, "'b'"), (COMMENT, "-- c")]),
        (ANY, "/* a */ select $1, 2, %s, 'b'", [
            (COMMENT, "/* a */"), (PARAMETER, "$1"), (NUMBER, "2"), (PARAMETER, "%s"), (STRING, "'b'"),
        ]),
        # A comment in one, and plain text or a number in another one.
        (ANY, "/* a *//* b */", [(COMMENT, "/* a */"), (COMMENT, "/* b */")]),
        (ANY, "select a -- b\n# c", [(COMMENT, "-- b"), (COMMENT, "# c")]),
        (ANY, 'select [a], `b`, "c"', [(STRING, '"c"')]),
        (ANY, "select $a$b$a$", [(STRING, "$a$b$a$")]),
    ],
)  # fmt: skip
def test_what_is_a_literal_in_one_way_is_one(system: str, statement: str, expected: list[tuple[str, str]]) -> None:
    """A literal in one reading is one; a name is one where all say so."""
    assert found(statement, system) == expected


def names(statement: str, system: str = LITE) -> list[str]:
    """What stands between double quotes and is a name."""
    return [text.strip('"') for kind, text in found(statement, system) if kind == NAME]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ('update "t" set "a" = 1, "b" = "x"', ["t", "a", "b"]),
        ('update "t" set "a" = max(1, "x"), "b" = 2', ["t", "a", "b"]),
        ('update "t" set "a" = max((1), min(2, 3)), "b" = ((4)), "c" = 5', ["t", "a", "b", "c"]),
        ('update "t" set "a" = (select (1), "x"), "b" = 2', ["t", "a"]),
        ('update "t" set "a" = 1 where x in (1, "x"), "y"', ["t", "a"]),
        ('update "t" set "a" = 1; select 2, "x"', ["t", "a"]),
        ('update "t" set "a" = \'where\', "b" = /* ( */ [from], "c" = 1', ["t", "a", "b", "c"]),
        ('insert into "t" ("a", "b") values ("x", "y")', ["t", "a", "b"]),
        ('insert into s."t" ("a", "b") values ("x", "y")', ["t", "a", "b"]),
        ('insert into "t" ("a") values (1) on conflict ("x") do update set "b" = "y"', ["t", "a", "b"]),
        ('insert into t ( "a" , "b") select "x", "y" from "u"', ["a", "b", "u"]),
        ('select max("x", "y"), "a"."b" from "t"', ["a", "b", "t"]),
        ('select "x" from "t" join "u" on "t" . "a" = "u".1', ["t", "u", "t", "a"]),
        ('select a is distinct from "x", b from "t"', ["t"]),
        ('vacuum into "x"', []),
        ('vacuum "main" into "x"', []),
        ('vacuum main into "x"; insert into "t" values (1)', ["t"]),
        ("'b' from \"t\"", ["t"]),
        ('/* a */into "t" ("b")', ["b"]),
        ('delete from "t" where a in (select b from "u")', ["t", "u"]),
        ('/* a */ select * from "t"', ["t"]),
        ("/* a */ select 'b' from \"t\"", ["t"]),
        ('-- insert into\n"s"."t" ("x")', ["s", "t"]),
        ('select 1 as "a", b as "c" from "t" as "u"', ["a", "c", "t", "u"]),
        ('"x"', []),
        ('/* from */ "x"', []),
        ('/* is distinct */ from "x"', []),
        ('-- is distinct\nfrom "x"', []),
        ("'b' /* is distinct */ from \"x\"", []),
        ('/* select from */ "x", from "t"', ["t"]),
        ('/* into t ( */ ("x")', []),
        ('select * from /* a */ "t"', []),
        ('select * from\n\t"t"', ["t"]),
    ],
)
def test_what_can_only_be_a_name_is_one(statement: str, expected: list[str]) -> None:
    """
    Where SQLite takes double quotes for a string unless there is such a name: of a table, or a column of an INSERT or
    UPDATE.
    """
    assert [name for name in names(statement) if not name.startswith("[")] == expected


@pytest.mark.parametrize("before", ["", "select 1; ", "select " + "a, " * 200 + "b; "])
def test_columns_are_listed_behind_the_name_of_the_table(before: str) -> None:
    """Wherever the INSERT begins; in a list of columns all are names, and behind it none is."""
    columns = [f"column {number}" for number in range(60)]
    listed = ", ".join(f'"{column}"' for column in columns)
    assert names(f'{before}insert into "t" ({listed}) values ("x", "y")') == ["t", *columns]
