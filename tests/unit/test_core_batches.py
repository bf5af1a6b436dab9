"""Chunks: what is looked at, what is kept, and values of any kind. What must be found and what not is in the corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.sql import batches
from poolscope.core.sql.batches import Progress, chunked_of
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
