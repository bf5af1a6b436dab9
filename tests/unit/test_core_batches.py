"""Chunks: what is looked at, what is kept, and values of any kind. What must be found and what not is in the corpus."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.sql import batches
from poolscope.core.sql.batches import Progress, chunked_of, plain_values
from poolscope.core.sql.fingerprint import shape_of
from poolscope.core.sql.repetition import Repetitions

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from poolscope.core.sql.batches import Chunked

PAGE = "select * from orders where tenant = %s and id > %s order by id limit %s"


def chunked(statement: str = PAGE, system: str = "postgresql") -> Chunked:
    """What such a statement does with its values."""
    found = chunked_of(statement, shape_of(statement, system), system)
    assert found is not None
    return found


def somewhere(_: FrameType | None) -> tuple[CodeType, int]:
    """One line for all."""
    return (chunked.__code__, 0)


@pytest.mark.parametrize(
    ("statement", "roles"),
    [
        ("select a from t where b = $1 and c > $2 order by c limit $3", ["key", "above", "limit"]),
        ("select a from t where b <> ? and c <= ? order by c limit 10", ["key", "below", "limit"]),
        ("select a from t where (b, c) > ($1::date, $2::int) order by b limit 9", ["above", "above", "limit"]),
        ("select a from t where d ->> 'k' = %s and c > %s order by c limit 9", ["key", "key", "above", "limit"]),
        ("select a from t where c /* > 5 */ > :last ORDER BY c\nFETCH FIRST 7 ROWS ONLY", ["above", "limit"]),
        ("select a from t where c between ? and ? and d = any(cast(? as int[]))", ["key", "key", "array"]),
        ("select a from t where d in (select unnest ($2::int[])) and e = $1", ["array", "key"]),
    ],
)
def test_what_a_value_is_for(statement: str, roles: list[str]) -> None:
    """By what stands before it, comments and casts aside."""
    assert [slot.role for slot in chunked(statement).slots] == roles


def test_a_page_may_have_as_many_values_as_are_looked_at() -> None:
    """Sixty-four; each has its role."""
    roles = [
        slot.role for slot in chunked("select a from t where c > ? " + "and b = ? " * 62 + "order by c limit ?").slots
    ]
    assert roles == ["above", *["key"] * 62, "limit"]


@pytest.mark.parametrize(
    "statement",
    [
        "select a from t where b = ?",
        "select a from t where b > ?",
        "select a from t where b > ? order by b",
        "select a from t order by b limit 5",
        "select a from t where d ->> ? order by b limit 5",
        "select a from t where d <> ? order by b limit 5",
        "select company(?) from t",
        "delete from t where b = ?",
        "with x as (select a from t limit 5) select a from x",
        "select a from t where b > ? " + "and c = ? " * 70 + "order by b limit 5",
    ],
)
def test_most_statements_are_no_chunks(statement: str) -> None:
    """Whatever their values are; nothing more is asked about them."""
    assert chunked_of(statement, shape_of(statement), "postgresql") is None


@pytest.mark.parametrize(
    ("statement", "system", "parameters"),
    [
        ("select a from t where b = ? and c > ? order by c limit ?", "sqlite", [0, 1, 2]),
        ("select a from t where b = $2 and c > $1 order by c limit $3", "postgresql", [1, 0, 2]),
        ("select a from t where b = $12 and c > $9 order by c limit 5", "postgresql", [11, 8, None]),
        ("select a from t where b = %(b)s and c > %(last)s order by c limit 5", "postgresql", ["b", "last", None]),
        ("select a from t where b = %s and c > :last order by c limit @size", "mysql", [0, "last", "size"]),
        ("select a from t where b = 'x' and c > %s and d = 1 order by c limit %s", "mysql", [None, 0, None, 1]),
    ],
)
def test_which_parameter_holds_a_value(statement: str, system: str, parameters: list[object]) -> None:
    """By its place or its name; none holds a literal."""
    assert [slot.parameter for slot in chunked(statement, system).slots] == parameters


def test_a_literal_is_a_value() -> None:
    """A number as such, which can be compared; any other as it stands in the text."""
    statement = "select a from t where b = 'x' and c > 10.5 and d = 0x1F order by c limit 7"
    assert [slot.literal for slot in chunked(statement, "mysql").slots] == ["'x'", Decimal("10.5"), "0x1F", Decimal(7)]


def test_a_literal_that_is_open_in_another_way_to_read_it_ends() -> None:
    """The statement is whole: a way to read it in which a string has no end is none."""
    statement = "select a from t where b = 'x\\' and c > $1 order by c limit 5"
    assert [slot.role for slot in chunked(statement).slots] == ["key", "above", "limit"]


@pytest.mark.parametrize(
    ("statement", "paged", "worked_off"),
    [
        (PAGE, True, False),
        ("select a from t where b = any(%s)", False, False),
        ("delete from t where a < %s limit 100", False, True),
        ("update t set a = 1 where a = any(%s) limit 100", False, True),
        ("update t set a = 1 where a = any(%s)", False, False),
        ("with x as (select a from t limit 100) delete from t using x where t.a = x.a", False, True),
        ("with x as (select a from t limit 100) update t set b = 1 from x where t.a = x.a", False, True),
        ("with x as (update t set b = 1 returning a) select a from x where a > %s order by a limit 100", True, False),
        ("select a from (select b from t limit 9) x where a = any(%s)", False, False),
    ],
)
def test_what_a_statement_could_be(statement: str, paged: bool, worked_off: bool) -> None:
    """A page has a comparison, an order and a limit; what is worked off is changed behind its limit."""
    found = chunked(statement)
    assert (found.paged, found.worked_off) == (paged, worked_off)


@pytest.mark.parametrize(
    ("statement", "runs", "goes_on"),
    [
        # The next page of one tenant; also where a tenant is called as a row is.
        (PAGE, [(3, 0, 9), (3, 2, 9), (3, 3, 9), (3, 4, 9)], [False, True, True, True]),
        (PAGE, [(3, 5, 9), (3, 5, 9), (3, 4, 9), (3, 5, 9)], [False, False, False, True]),
        (PAGE, [(3, 0, 9), (4, 1, 9), (3, 2, 9), (4, 2, 9)], [False, False, True, True]),
        # A page of one row or none is the next row after each of many values.
        (PAGE, [(3, 0, 1), (3, 2, 1)], [False, False]),
        (PAGE, [(3, 0, Decimal(1)), (3, 2, Decimal(1))], [False, False]),
        (PAGE, [(3, 0, 2), (3, 2, 2)], [False, True]),
        (PAGE, [None, None], [False, False]),
        # Backwards.
        ("select a from t where b < %s order by b desc limit 9", [(9,), (5,), (7,), (1,)], [False, True, False, True]),
        # What nothing but the comparison chooses is a page, whatever it begins with.
        ("select a from t where b < %s order by b desc limit 9", [None, None], [True, True]),
        ("select a from t where b > 5 order by b limit 9", [None, None], [False, False]),
        # By two columns; the first one is said twice.
        (
            "select a from t where d > %s or (d = %s and b > %s) order by d, b limit 9",
            [(1, 1, 1), (1, 1, 5), (2, 2, 0), (2, 2, 0), (1, 1, 9)],
            [False, True, True, False, False],
        ),
        (
            "select a from t where (d, b) > ($1, $2) and c = $3 order by d, b limit 9",
            [(1, 1, 7), (1, 2, 7), (2, 1, 7), (2, 2, 8), (2, 2, 7)],
            [False, True, True, False, True],
        ),
        (
            "select a from t where ($1 is null or b > $1) and c = $2 order by b limit 9",
            [(None, 7), (4, 7), (5, 7), (6, 8)],
            [False, True, True, False],
        ),
        (
            "select a from t where (d, b) > ($1, $2) order by d, b limit 9",
            [(Decimal(1), 1), (Decimal(1), 2), (Decimal(1), 2)],
            [False, True, False],
        ),
        (
            "select a from t where b = %(b)s and c > %(last)s order by c limit 9",
            [{"b": 1, "last": 1}, {"b": 1, "last": 2}, {"b": 2, "last": 3}, {"b": 1}, (1, 9)],
            [False, True, False, False, False],
        ),
        # An array is a batch from a hundred on.
        ("select a from t where b = any(%s)", [([1] * 99,), ([1] * 100,), ((1,) * 101,)], [False, True, True]),
        ("select a from t where b = any(%s)", [("x" * 100,), (set(range(100)),)], [False, True]),
        ("select a from t where b = any(%s) and c = %s", [([1], [1] * 100)], [False]),
        # Rows that are changed, a hundred or more at a time: the same again finds the next ones.
        ("delete from t where a < %s limit %s", [(5, 100), (5, 100), (6, 100), (5, 101)], [False, True, False, False]),
        ("delete from t where a < %s limit %s", [(5, 99), (5, 99)], [False, False]),
        ("delete from t where a < %s limit 100", [None, None], [False, False]),
        ("delete from t where a < 5 limit 100", [None, None], [False, True]),
        ("delete from t where a < %s limit %s", [(5, "x"), (5, "x")], [False, False]),
    ],
)
def test_what_goes_on_where_an_earlier_run_stopped(statement: str, runs: list[Any], goes_on: list[bool]) -> None:
    """Run by run, by the parameters."""
    progress, kind = Progress(), chunked(statement)
    assert [progress.goes_on(kind, parameters) for parameters in runs] == goes_on


def test_a_long_value_is_not_compared() -> None:
    """Up to two hundred signs it is."""
    for length, goes_on in ((200, True), (201, False)):
        progress = Progress()
        progress.goes_on(chunked(), (7, "a" * length, 9))
        assert progress.goes_on(chunked(), (7, "b" * length, 9)) is goes_on


@pytest.mark.parametrize(
    ("parameters", "values"),
    [
        ([1, "a"], (1, "a")),
        ((1, None), (1, None)),
        ({"a": 1, "b": True}, (1, True)),
        ((), None),
        ([0] * 64, (0,) * 64),
        ([0] * 65, None),
        (None, None),
        ("ab", None),
        ((1, [2]), None),
        ((object(), 1), None),
    ],
)
def test_plain_values_are_taken_as_they_are_now(parameters: Any, values: tuple[object, ...] | None) -> None:
    """All of them, or none: of a type that is not known, or more than anybody would compare."""
    assert plain_values(parameters) == values


class Contrary:
    """A value that does not stand comparison."""

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "parameters",
    [None, (), (7,), {"tenant": 7}, 5, "text", iter((7, 1, 100)), (Contrary(), 1, 9), (7, Contrary(), 9), (7, [1], 9)],
    ids=[
        "none",
        "empty",
        "short",
        "other name",
        "number",
        "text",
        "iterator",
        "contrary tenant",
        "contrary key",
        "list",
    ],
)
def test_values_that_say_nothing_are_a_repetition(parameters: Any) -> None:
    """
    Parameters that are not there, too few, of another form, or that cannot be compared: each run counts, and nothing
    is raised.
    """
    progress = Progress()
    assert [progress.goes_on(chunked(), parameters) for _ in range(3)] == [False, False, False]


def test_a_page_moves_from_values_of_another_kind() -> None:
    """None before the first page; text that is compared with a number is no progress."""
    progress = Progress()
    assert [progress.goes_on(chunked(), (7, last, 100)) for last in (None, 5, 9, "x", None, 3)] == [
        False, True, True, False, False, True,
    ]  # fmt: skip


def test_what_is_kept_is_bounded() -> None:
    """Of a thousand tenants where the pages of a few ended; no value longer than a line; nothing of arrays."""
    progress = Progress()
    for tenant in range(1000):
        progress.goes_on(chunked(), (tenant, tenant, 100))
    assert len(progress._series) == batches._MOST_SERIES
    long, arrays = Progress(), Progress()
    assert not any(long.goes_on(chunked(), (7, "x" * 1000 + str(number), 100)) for number in range(5))
    arrays.goes_on(chunked("select a from t where b = any(%s)"), ([1] * 1000,))
    assert (long._series, arrays._series) == ({}, {})
    worked_off, delete = Progress(), chunked("delete from t where a = %s limit 100")
    for key in range(1000):
        worked_off.goes_on(delete, (key,))
    assert len(worked_off._series) == batches._MOST_SERIES
    assert [worked_off.goes_on(delete, (key,)) for key in (0, 15, 16)] == [True, True, False]


def test_a_default_is_not_made_by_looking() -> None:
    """A mapping of the application's own is not changed, however it answers to a missing name."""

    class Making(dict[str, int]):
        def __missing__(self, name: str) -> int:
            raise AssertionError(name)

    Progress().goes_on(chunked("select a from t where b > :last order by b limit :size"), Making(last=3))


def test_parameters_are_looked_at_only_for_repeats_that_may_be_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a line's first statement, and never for a statement without a comparison or an array."""
    seen: list[Any] = []
    monkeypatch.setattr(Progress, "goes_on", lambda _, __, parameters: seen.append(parameters))
    counted = Repetitions("postgresql", somewhere)
    for number in range(10):
        counted.saw("select a from t where b = %s", None, (number,))
    assert seen == []
    counted = Repetitions("postgresql", somewhere)
    for number in range(4):
        counted.saw(PAGE, None, (7, number, 100))
    assert seen == [None, (7, 1, 100), (7, 2, 100), (7, 3, 100)]


def test_beyond_the_budget_pages_are_not_guessed_to_be_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages whose values stand in the text, more of them than are looked at."""
    monkeypatch.setattr(Repetitions, "BUDGET", 1000)
    counted = Repetitions("postgresql", somewhere)
    for number in range(1000):
        counted.saw(f"select a from t where b = 'x{number // 1000}' and c > {number}000 order by c limit 100", None)
    assert list(counted.beyond_threshold(5)) == []
    assert counted.beyond > 900
